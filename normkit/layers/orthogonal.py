"""Convolutions whose kernels are orthogonalized in every forward pass: ONI and OWN."""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.utils import parametrize

from .groups import check_variant
from .scaled_ws import refuse_single_weight

__all__ = ["OrthogonalRows", "oni", "orthonormalized", "own", "stretched"]


def stretched(rows: Tensor, iterations: int, *, variant: str = "paper") -> Tensor:
    r"""Moves the singular values of centered matrices towards 1, by Newton's iteration.

    .. math:: W_0 = \frac{Z}{\lVert Z Z^T \rVert_F^{1/2}}, \quad
        W_{t+1} = \tfrac32 W_t - \tfrac12 W_t W_t^T W_t

    In plain words: Z is the matrix less the mean of each row. Each step takes a singular value s
    to (3 s - s^3) / 2: all stay in (0, 1], and small ones take longer to get to 1, where rows are
    orthonormal; columns are, where a matrix has more rows than columns. Centering leaves a
    singular value at 0 in a matrix that has as many rows as columns, or more.

    Source: Huang et al. 2020, arXiv 2004.00917, algorithm 1, where W_t is written B_t W_0.

    Deviation: the released code adds 1e-5 to the squared singular values of Z. With
    ``variant="released"`` matrices with more rows than columns start at Z and are divided at the
    end, as in the code of Huang et al. and of Liu et al. 2021: where all singular values of Z are
    below 3^(1/2), they go to that divisor's inverse instead of 1; elsewhere they may diverge.

    Arguments:
        rows: the matrices before centering.
        iterations: number of steps, 0 or more.
        variant: "paper" or "released".

    Shape:
        ``(*, n, d)`` to the same.

    Example:
        >>> rows = torch.randn(4, 9, generator=torch.Generator().manual_seed(0))
        >>> far, near = (torch.linalg.svdvals(stretched(rows, steps)) for steps in (3, 20))
        >>> bool(0 < far.min() < 0.9 and far.max() <= 1), bool((near - 1).abs().max() < 1e-3)
        (True, True)
    """
    rows = rows - rows.mean(-1, keepdim=True)
    small = rows @ rows.mT if rows.shape[-2] <= rows.shape[-1] else rows.mT @ rows
    norm = torch.linalg.matrix_norm(small, keepdim=True).clamp(min=1e-12).sqrt()
    late = variant == "released" and rows.shape[-2] > rows.shape[-1]
    found = rows if late else rows / norm
    for _ in range(iterations):
        found = 1.5 * found - 0.5 * found @ found.mT @ found
    return found / norm if late else found


class _InverseRoot(torch.autograd.Function):
    """`(S + eps)^-1/2`, with the gradient `-U (U^T G U / (r_i r_j (r_i + r_j))) U^T`.

    U and r^2 are eigenvectors and eigenvalues; no differences divide, so equal ones do no harm.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(square: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        values, vectors = torch.linalg.eigh(square)
        roots = (values.clamp(min=0) + eps).sqrt()
        return vectors / roots.unsqueeze(-2) @ vectors.mT, roots, vectors

    @staticmethod
    def setup_context(ctx, inputs: tuple, output: tuple) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(*output[1:])

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor, *unused) -> tuple[Tensor, None]:
        roots, vectors = ctx.saved_tensors
        one, other = roots.unsqueeze(-1), roots.unsqueeze(-2)
        inner = vectors.mT @ gradient @ vectors / (one * other * (one + other))
        return -vectors @ inner @ vectors.mT, None


def orthonormalized(rows: Tensor, *, eps: float = 1e-6) -> Tensor:
    r"""Replaces centered matrices by the nearest ones with orthonormal rows.

    .. math:: W = (Z Z^T + \text{eps} I)^{-1/2} Z

    In plain words: Z is the matrix less the mean of each row. Of all matrices with orthonormal
    rows, W differs least from it. It has no second derivatives.

    Source: Huang et al. 2018, AAAI, arXiv 1709.06079, section on orthogonal weight normalization.

    Deviation: eps, which the paper has not: a singular value s becomes s / sqrt(s^2 + eps).

    Arguments:
        rows: the matrices before centering; fewer rows than columns.
        eps: added to the squared singular values.

    Shape:
        ``(*, n, d)`` to the same.

    Example:
        >>> w = orthonormalized(torch.randn(4, 9, dtype=torch.float64), eps=0.0)
        >>> torch.allclose(w @ w.mT, torch.eye(4, dtype=torch.float64))
        True
    """
    rows = rows - rows.mean(-1, keepdim=True)
    return _InverseRoot.apply(rows @ rows.mT, eps)[0] @ rows


class OrthogonalRows(nn.Module):
    r"""The parametrization of a weight by orthogonalized blocks of rows, with a learnable scale.

    .. math:: W_k = \text{scale}_k \, \big(f(\text{rows of its block})\big)_k

    Arguments:
        method: f, a function of matrices ``(blocks, rows, columns)``.
        out_channels: output channels of the weight.
        blocks: into how many blocks of consecutive output channels it is cut.
        scale: of every output channel at the start.

    Shape:
        ``(out_channels, C_in, kh, kw)`` to the same.

    Example:
        >>> w = OrthogonalRows(orthonormalized, 8, blocks=2, scale=3.0)(torch.randn(8, 2, 3, 3))
        >>> [round(s, 3) for s in torch.linalg.svdvals(w[:4].flatten(1)).tolist()]
        [3.0, 3.0, 3.0, 3.0]
    """

    def __init__(
        self, method: Callable[[Tensor], Tensor], out_channels: int, *, blocks: int, scale: float
    ) -> None:
        super().__init__()
        self.method, self.blocks = method, blocks
        self.scale = nn.Parameter(torch.full((out_channels,), float(scale)))

    def forward(self, weight: Tensor) -> Tensor:
        rows = weight.reshape(self.blocks, -1, weight[0].numel())
        return self.scale.reshape(-1, 1, 1, 1) * self.method(rows).reshape(weight.shape)

    def extra_repr(self) -> str:
        return f"blocks={self.blocks}"


def _convolution(name: str, sizes: tuple, bias: bool, groups: int) -> nn.Conv2d:
    """The convolution before its weight is parametrized."""
    convolution = nn.Conv2d(*sizes, groups=groups, bias=bias)
    refuse_single_weight(name, convolution)
    if bias:
        nn.init.zeros_(convolution.bias)
    return convolution


def oni(
    in_channels: int,
    out_channels: int,
    kernel_size: int | tuple[int, int],
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    bias: bool = False,
    *,
    groups: int = 1,
    iterations: int = 3,
    scale: float = math.sqrt(2),
    variant: str = "paper",
) -> nn.Conv2d:
    """Makes a convolution with a kernel that Newton's iteration brings nearer to orthogonal.

    In plain words: ``stretched`` of the kernel, a row for each output channel, times a learnable
    scale for each channel, sqrt(2) at the start to make up for a ReLU.

    Source: Huang et al. 2020, arXiv 2004.00917; options of Liu et al. 2021, arXiv 2103.00673.

    Deviation: as ``stretched``; and each group of a grouped convolution is a matrix of its own,
    as it is an operator of its own, where the released code takes all as one.

    Arguments, Shape: as ``conv`` and ``stretched``; a bias starts at 0.

    Raises:
        ValueError: if a row has a single weight, which centering would make zero, or an option
            is out of range.

    Example:
        >>> kernel = oni(8, 16, 3).weight.flatten(1)
        >>> bool(torch.linalg.svdvals(kernel).max() <= 2**0.5 * (1 + 1e-6))
        True
    """
    check_variant(variant)
    _check_count("iterations", iterations, 0)
    sizes = (in_channels, out_channels, kernel_size, stride, padding)
    convolution = _convolution("oni", sizes, bias, groups)
    method = partial(stretched, iterations=iterations, variant=variant)
    rows = OrthogonalRows(method, out_channels, blocks=groups, scale=scale)
    parametrize.register_parametrization(convolution, "weight", rows)
    return convolution


def own(
    in_channels: int,
    out_channels: int,
    kernel_size: int | tuple[int, int],
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    bias: bool = False,
    *,
    groups: int = 1,
    group_size: int = 64,
    scale: float = math.sqrt(2),
) -> nn.Conv2d:
    """Makes a convolution whose kernel has orthonormal rows within groups of output channels.

    In plain words: ``orthonormalized`` of each group, times a learnable scale for each channel. A
    group is as large as divides the channels, but at most ``group_size``, and smaller than the
    number of weights in a row, since no more rows can be orthonormal once they are centered.

    Source: Huang et al. 2018, arXiv 1709.06079.

    Deviation: as ``orthonormalized``. The code released by Liu et al. 2021 makes 64 groups, not
    groups of 64, so that of 64 channels each is normalized by itself, and learns no scale.

    Arguments, Shape: as ``conv`` and above; a bias starts at 0.

    Raises:
        ValueError: as ``oni``.

    Example:
        >>> rows = own(8, 16, 3, scale=1.0).weight.flatten(1)
        >>> torch.allclose(rows @ rows.mT, torch.eye(16), atol=1e-4)
        True
    """
    _check_count("group_size", group_size, 1)
    sizes = (in_channels, out_channels, kernel_size, stride, padding)
    convolution = _convolution("own", sizes, bias, groups)
    channels, most = out_channels // groups, min(group_size, convolution.weight[0].numel() - 1)
    size = max(n for n in range(1, min(channels, most) + 1) if channels % n == 0)
    rows = OrthogonalRows(orthonormalized, out_channels, blocks=out_channels // size, scale=scale)
    parametrize.register_parametrization(convolution, "weight", rows)
    return convolution


def _check_count(name: str, count: int, least: int) -> None:
    if not isinstance(count, int) or count < least:
        raise ValueError(f"{name} must be a whole number, {least} or more, not {count!r}")
