"""What a tensor of activations or gradients says: variance, cosines, stable rank, norm."""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from .signals import Signal, as_rows

__all__ = ["PROBES", "activation_std", "activation_variance", "cosine_similarity",
           "gradient_norm", "measured", "stable_rank"]


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
    return _measure("activation_variance", x)


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
    return _measure("activation_std", x)


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
    return _measure("cosine_similarity", x)


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
    return _measure("stable_rank", x)


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
    x = _wide(gradient)
    norm = math.hypot(*torch.linalg.vector_norm(as_rows(x), dim=1).tolist())
    if x.dtype != torch.float64 and not 1e-15 < norm < 1e15:  # squares left float32's range
        return gradient_norm(x.double())
    return norm


def _measure(name: str, x: Tensor) -> float:
    return measured(x, [name])[0]


def measured(x: Tensor, names: Iterable[str]) -> list[float]:
    """Measures activations, once for each name, and computes but once what measures share.

    Arguments:
        x: activations.
        names: out of `PROBES`, without gradient_norm.

    Example:
        >>> measured(torch.eye(2), ["cosine_similarity", "stable_rank"])
        [0.0, 2.0]
    """
    if torch.is_autocast_enabled(x.device.type):
        with torch.autocast(x.device.type, enabled=False):
            return measured(x, names)
    signal = Signal(_wide(x))
    return [float(_ARITHMETIC[name](signal)) for name in names]


def _wide(x: Tensor) -> Tensor:
    """Checks x; at least in float32, and outside of autograd."""
    if x.ndim == 0 or x.numel() == 0 or not x.is_floating_point():
        raise ValueError(f"x must be floating point of shape (N, ...) with N >= 1; found "
                         f"{x.dtype} of shape {tuple(x.shape)}")
    x = x.detach()
    return x if x.dtype == torch.float64 else x.float()


_ARITHMETIC: dict[str, Callable[[Signal], float]] = {
    "activation_variance": Signal.variance, "cosine_similarity": Signal.cosine,
    "stable_rank": Signal.rank, "activation_std": Signal.deviation}

PROBES: dict[str, Callable[[Tensor], float]] = {measure.__name__: measure for measure in (
    activation_variance, cosine_similarity, stable_rank, gradient_norm, activation_std)}
