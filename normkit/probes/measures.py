"""What a tensor of activations or gradients says: variance, cosines, stable rank, norm."""

import functools
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

__all__ = ["PROBES", "activation_std", "activation_variance", "cosine_similarity",
           "gradient_norm", "stable_rank"]


def _read_only(measure: Callable[[Tensor], float]) -> Callable[[Tensor], float]:
    """Checks x, and computes in at least float32 and outside of autograd and autocast."""
    @functools.wraps(measure)
    def measured(x: Tensor) -> float:
        if x.ndim == 0 or x.numel() == 0 or not x.is_floating_point():
            raise ValueError(f"x must be floating point of shape (N, ...) with N >= 1; found "
                             f"{x.dtype} of shape {tuple(x.shape)}")
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            return measure(x if x.dtype == torch.float64 else x.float())
    return measured


@_read_only
def activation_variance(x: Tensor) -> float:
    """Return the mean over channels of the variance over batch and space.

    mean_c var_{n,h,w} x[n, c, h, w]

    In plain words: how far the signal still varies; it explodes or vanishes with depth where
    nothing normalizes it.

    Source: Lubana et al., 2021, https://arxiv.org/abs/2106.05956

    Deviation: divides by n = N H W as the definition does; the released code divides by n - 1.

    Arguments:
        x: activations, channels in the second axis.

    Shape: (N, C, ...).

    Raises:
        ValueError: if x is empty, not floating point or has no channel axis.

    Example:
        Shifting a channel changes nothing, doubling the signal makes it four times as large.

        >>> x = torch.tensor([[[1.0, 3.0], [5.0, 5.0]]])
        >>> shift = torch.tensor([[[7.0], [-2.0]]])
        >>> [round(activation_variance(y), 6) for y in (x, x + shift, 2 * x)]
        [0.5, 0.5, 2.0]
    """
    return float(_channel_variances(x).mean())


@_read_only
def activation_std(x: Tensor) -> float:
    """Return the mean over channels of the standard deviation over batch and space.

    mean_c sqrt(var_{n,h,w} x[n, c, h, w])

    In plain words: as `activation_variance`, in the units of the activations.

    Source: the released code of Lubana et al., 2021, https://arxiv.org/abs/2106.05956

    Deviation: divides by n = N H W, not n - 1; there it is taken at the convolutions' outputs.

    Arguments, Shape, Raises: as for `activation_variance`.

    Example:
        It is in the units of x.

        >>> x = torch.tensor([[[1.0, 3.0], [5.0, 5.0]]])
        >>> [round(activation_std(y), 6) for y in (x, x + 7, -2 * x)]
        [0.5, 0.5, 1.0]
    """
    return float(_channel_variances(x).sqrt().mean())


@_read_only
def cosine_similarity(x: Tensor) -> float:
    """Return the mean over pairs of images of the cosine of their flattened activations.

    (||sum_n u_n||^2 - N) / (N (N - 1)),      u_n = x_n / ||x_n||

    In plain words: 1 when the layer no longer tells images apart. An image whose activations are
    all zero has cosine 0 with every other. One image has no pairs: NaN.

    Source: Lubana et al., 2021, https://arxiv.org/abs/2106.05956

    Arguments:
        x: activations, one row for each image.

    Shape: (N, ...).

    Raises:
        ValueError: if x is empty or not floating point.

    Example:
        Lengths do not count: of three pairs one is parallel, two are orthogonal.

        >>> x = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0]])
        >>> round(cosine_similarity(x), 6)
        0.333333
    """
    rows, inverse = _rows(x)
    n, alive = len(rows), int(inverse.count_nonzero())
    if n == 1:
        return math.nan
    total = rows.T.mv(inverse)
    return (float(total.dot(total)) - alive) / (n * (n - 1))


@_read_only
def stable_rank(x: Tensor) -> float:
    """Return in how many directions the images' activations point, from 1 to N.

    N / lambda_max(G),      G[i, j] = the cosine of the activations of images i and j

    In plain words: 1 when all images give the same direction, N when all are orthogonal; never
    above N / (1 + (N - 1) cosine_similarity). An image whose activations are all zero counts as
    orthogonal to every other. Exact to about 1e-5 in float32.

    Source: Lubana et al., 2021, https://arxiv.org/abs/2106.05956

    Arguments, Shape, Raises: as for `cosine_similarity`.

    Example:
        Two orthogonal directions, then one.

        >>> x = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0], [0.0, 1.0]])
        >>> round(stable_rank(x), 6), round(stable_rank(x[:2]), 6)
        (2.0, 1.0)
    """
    rows, inverse = _rows(x)
    if not inverse.isfinite().all():
        return math.nan
    largest = _krylov_eigenvalue(rows, inverse) if min(rows.shape) > 60 else None
    if largest is None:
        unit = rows * inverse[:, None]
        gram = unit @ unit.T if unit.shape[0] <= unit.shape[1] else unit.T @ unit
        largest = float(torch.linalg.eigvalsh(gram.cpu().double())[-1])
    return len(rows) / max(largest, 1.0)


@_read_only
def gradient_norm(gradient: Tensor) -> float:
    """Return the Frobenius norm of a gradient over the whole batch.

    sqrt(sum of squares)

    In plain words: how strongly the loss pulls at a layer's output.

    Source: Lubana et al., 2021, https://arxiv.org/abs/2106.05956

    Arguments:
        gradient: the derivative of the loss by the output of a layer.

    Shape: (N, ...).

    Raises:
        ValueError: if the gradient is empty or not floating point.

    Example:
        >>> gradient_norm(torch.tensor([[3.0, 0.0], [0.0, 4.0]]))
        5.0
    """
    rows = gradient.reshape(len(gradient), -1)
    norm = float(torch.linalg.vector_norm(rows, dim=1).double().norm())
    if _out_of_range(gradient, norm):
        return float(torch.linalg.vector_norm(gradient.double()))
    return norm


def _channel_variances(x: Tensor) -> Tensor:
    if x.ndim < 2:
        raise ValueError(f"x must have shape (N, C, ...); found {tuple(x.shape)}")
    rows = x.reshape(x.shape[0] * x.shape[1], -1)  # (N C, pixels)
    mean = _over_batch(rows.sum(dim=1), x)
    square = _over_batch(torch.linalg.vector_norm(rows, dim=1), x, power=2)
    if _out_of_range(x, float(square.max()) ** 0.5):
        return _channel_variances(x.double())
    variance = square - mean.square()
    if (variance < 0.01 * square).any():  # cancelled: shift by the mean, then again
        rows = (rows.view(*x.shape[:2], -1) - mean.to(x)[:, None]).view_as(rows)
        square = _over_batch(torch.linalg.vector_norm(rows, dim=1), x, power=2)
        variance = square - _over_batch(rows.sum(dim=1), x).square()
    return variance.clamp_(min=0)


def _over_batch(values: Tensor, x: Tensor, power: int = 1) -> Tensor:
    """Sums (N C,) values over the batch and divides by the entries of a channel of x."""
    values = values.cpu().double().pow(power)
    return values.view(x.shape[:2]).sum(dim=0) * (x.shape[1] / x.numel())


def _out_of_range(x: Tensor, size: float) -> bool:
    """Whether squares of entries of this size overflow or underflow in float32."""
    return x.dtype != torch.float64 and not 1e-15 < size < 1e15


def _rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return x as (N, D) and the inverse length of each row: 0 for a row of zeros."""
    rows = x.reshape(len(x), -1)
    length = torch.linalg.vector_norm(rows, dim=1)
    if any(_out_of_range(x, float(bound)) for bound in length.aminmax()):
        return _rows(x.double())
    inverse = torch.where(length == 0, length, 1 / length)
    return rows, inverse.masked_fill_(~length.isfinite(), math.nan)


def _krylov_eigenvalue(rows: Tensor, inverse: Tensor) -> float | None:
    """Return the largest eigenvalue of the Gram matrix of unit rows without forming it, or None.

    Rayleigh and Ritz on the Krylov space of the ones vector. Above half the trace an eigenvalue
    is the largest, with a known gap, and residual^2 / gap bounds the error. Below, the residual
    itself must be small and the rows non-negative, so that the ones vector meets Perron's.
    """
    tolerance = 10 * torch.finfo(rows.dtype).eps
    nonnegative = bool(rows.min() >= 0)
    trace = float(inverse.count_nonzero())
    basis = np.full((len(rows), 1), len(rows) ** -0.5)
    mapped = np.empty((len(rows), 0))
    for step in range(1, min(rows.shape) // 12):
        q = inverse * torch.from_numpy(basis[:, -1]).to(inverse)
        new = (inverse * rows.mv(rows.T.mv(q))).cpu().double().numpy()
        mapped = np.column_stack([mapped, new])
        values, vectors = np.linalg.eigh(basis.T @ mapped)
        value, vector = values[-1], vectors[:, -1]
        residual = np.linalg.norm(mapped @ vector - value * (basis @ vector))
        gap = 2 * value - trace - residual
        if residual**2 <= tolerance * value * gap:
            return float(value)
        if nonnegative and residual <= tolerance * value:
            return float(value)
        for _ in range(2):
            new = new - basis @ (basis.T @ new)
        size = np.linalg.norm(new)
        if size <= 1e-7 * trace or (step == 3 and gap < 0 and not nonnegative):
            return None
        basis = np.column_stack([basis, new / size])
    return None


PROBES: dict[str, Callable[[Tensor], float]] = {measure.__name__: measure for measure in (
    activation_variance, cosine_similarity, stable_rank, gradient_norm, activation_std)}
