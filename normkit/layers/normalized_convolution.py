"""ConvNorm's operation: a convolution whose output channels are isometries on a periodic grid."""

import functools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .fourier import View, analyze, angles, frequencies, synthesize

__all__ = ["inverse_root", "normalized_convolution", "own_grid"]

_IN_DOUBLE = 16  # input channels up to which the spectrum may nearly vanish: summed in float64
_LARGEST = 2**27  # numbers in the transformed taps above which they are not worth their memory


def own_grid(
    size: Sequence[int], kernel_size: Sequence[int], dilation: Sequence[int] = (1, 1)
) -> tuple[int, int]:
    """The periodic grid on which ConvNorm is defined: just large enough for the full convolution.

    Example:
        >>> own_grid((8, 8), (3, 3)), own_grid((8, 9), (3, 1), (2, 1))
        ((10, 10), (12, 9))
    """
    height, width = (n + d * (k - 1) for n, k, d in zip(size, kernel_size, dilation, strict=True))
    return height, width


@functools.lru_cache(maxsize=256)
def _lags(
    grid: tuple[int, int], kernel_size: tuple[int, int], dilation: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """The difference of each pair of taps, as a 0-1 matrix (P P, L), and its cosines (F, L)."""
    taps = _taps(kernel_size, dilation)
    lags, index = (taps[:, None] - taps).flatten(0, 1).unique(dim=0, return_inverse=True)
    return F.one_hot(index, len(lags)).double(), angles(grid, lags).cos()


def _taps(kernel_size: tuple[int, int], dilation: tuple[int, int]) -> Tensor:
    rows, columns = (d * torch.arange(k) for k, d in zip(kernel_size, dilation, strict=True))
    return torch.cartesian_prod(rows, columns)


@torch.no_grad()
def inverse_root(
    weight: Tensor, grid: tuple[int, int], *, dilation: tuple[int, int] = (1, 1), eps: float = 0.0
) -> Tensor:
    r"""What ConvNorm multiplies each channel's Fourier transform by.

    .. math:: V_k = \Bigl(S_k + \text{eps} \, \overline{S_k}\Bigr)^{-1/2}, \quad
        S_k = \sum_j |F a_{k,j}|^2

    In plain words: one over the length of the output channel's column of taps, frequency by
    frequency. S is computed from the taps' correlations with each other, so no kernel is padded
    to the size of the image. It is a constant: no gradient goes through it. Where S vanishes, as
    everywhere for a dead filter (all taps zero), V is 0.

    Source: Liu et al. 2021, arXiv 2103.00673, section 2.2.

    Arguments:
        weight: the taps a.
        grid: height and width of the periodic grid, in pixels.
        dilation: pixels between taps.
        eps: added to S, relative to its mean over frequencies, which is the sum of squared taps.

    Shape:
        (C_out, C_in, kh, kw) -> (F, C_out), frequencies as `fourier.frequencies` orders them

    Example:
        >>> taps = torch.randn(4, 3, 3, 3, dtype=torch.float64)
        >>> spectrum = torch.fft.fft2(taps, s=(10, 12)).abs().square().sum(1)
        >>> every = frequencies((10, 12))[0].long()
        >>> found = inverse_root(taps, (10, 12))
        >>> torch.allclose(found.T, spectrum[:, every[:, 0], every[:, 1]].rsqrt())
        True
    """
    rows = weight.flatten(2)  # (C_out, C_in, P)
    rows = rows.double() if rows.shape[1] <= _IN_DOUBLE else rows
    fold, cosines = (part.to(rows) for part in _lags(grid, tuple(weight.shape[2:]), dilation))
    correlations = torch.bmm(rows.mT, rows).flatten(1) @ fold  # (C_out, L)
    spectrum = torch.mm(cosines, correlations.t()).clamp_(min=0)
    total = correlations[:, len(fold.t()) // 2]  # the lag 0 stands in the middle
    spectrum += eps * total
    return torch.where(spectrum > 0, spectrum.rsqrt(), 0.0).to(weight.dtype)


def normalized_convolution(
    x: Tensor,
    weight: Tensor,
    root: Tensor,
    *,
    stride: tuple[int, int] = (1, 1),
    before: tuple[int, int] = (0, 0),
    outputs: tuple[int, int],
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
) -> Tensor:
    r"""The convolution of ConvNorm, read off at some pixels of its periodic grid.

    .. math:: \hat z_k = F^{-1} V_k F z_k, \quad z_k = \sum_j a_{k,j} * x_j

    In plain words: the full convolution of the image, whose every frequency is divided by the
    length of the taps at that frequency. For whole layers there is no convolution in space at
    all: image and taps are transformed, multiplied, and transformed back to just the pixels that
    are wanted. Layers with groups, or whose transformed taps would take too much memory,
    convolve in space and multiply after. The first way has no second derivatives.

    Source: Liu et al. 2021, arXiv 2103.00673, section 2.2.

    Arguments:
        x: images.
        weight: the taps a, of the type of x.
        root: V, as `inverse_root` gives it for the grid of `own_grid`.
        stride: pixels between outputs.
        before: pixels by which the first output's first tap stands before the image.
        outputs: height and width of the output.
        dilation: pixels between taps.
        groups: groups of channels that do not see each other.

    Shape:
        (N, C_in, H, W) -> (N, C_out, H', W')
    """
    size = tuple(x.shape[2:])
    grid = own_grid(size, weight.shape[2:], dilation)
    image = View(grid, size)
    output = View(grid, outputs, tuple(-n for n in before), stride)
    if groups == 1 and 2 * len(root) * weight[:, :, 0, 0].numel() <= _LARGEST:
        return _InFourier.apply(x, weight, root, (image, output, dilation))
    return _in_space(x, weight, root, output, dilation, groups)


def _in_space(
    x: Tensor, weight: Tensor, root: Tensor, output: View, dilation: tuple, groups: int
) -> Tensor:
    """The full convolution, its transform multiplied by V, and the wanted pixels."""
    reach = tuple(d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True))
    z = F.conv2d(x, weight, padding=reach, dilation=dilation, groups=groups)
    whole = View(output.grid, output.grid, tuple(-n for n in reach))
    parts = _Analysis.apply(z, whole, False) * root[:, None]
    return _Synthesis.apply(parts, output, True)


class _Analysis(torch.autograd.Function):
    """`analyze`, whose transpose is `synthesize`."""

    @staticmethod
    def forward(ctx, images: Tensor, view: View, weighted: bool) -> Tensor:
        ctx.how = view, weighted
        return analyze(images, view, weighted=weighted)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple:
        return _Synthesis.apply(gradient, *ctx.how), None, None


class _Synthesis(torch.autograd.Function):
    """`synthesize`, whose transpose is `analyze`."""

    @staticmethod
    def forward(ctx, parts: Tensor, view: View, weighted: bool) -> Tensor:
        ctx.how = view, weighted
        return synthesize(parts, view, weighted=weighted)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple:
        return _Analysis.apply(gradient, *ctx.how), None, None


@functools.lru_cache(maxsize=256)
def _tap_waves(
    grid: tuple, kernel_size: tuple, dilation: tuple, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Cosines and sines of every frequency at every tap, which is read against it: (2 F, P)."""
    turned = angles(grid, _taps(kernel_size, dilation))
    return torch.cat([turned.cos(), turned.sin()]).to(device, dtype).contiguous()


class _InFourier(torch.autograd.Function):
    """The whole layer in the Fourier domain; V is a constant."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, root: Tensor, how: tuple) -> Tensor:
        image, output, dilation = how
        waves = _tap_waves(image.grid, tuple(weight.shape[2:]), dilation, x.dtype, x.device)
        taps = torch.mm(waves, weight.flatten(0, 1).flatten(1).t().contiguous())
        taps = taps.view(2, -1, *weight.shape[:2]) * root[:, :, None]
        seen = analyze(x, image)
        made = _product(seen, taps.transpose(2, 3))
        ctx.save_for_backward(seen, taps, root)
        ctx.how = image, output, dilation, tuple(weight.shape)
        return synthesize(made, output)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple:
        (seen, taps, root), (image, output, dilation, shape) = ctx.saved_tensors, ctx.how
        back = analyze(gradient, output, weighted=True)
        of_x = of_weight = None
        if ctx.needs_input_grad[0]:
            parts = _product(back, taps, conjugated=True)
            of_x = synthesize(parts, image, weighted=False)
        if ctx.needs_input_grad[1]:
            parts = _product(back.transpose(2, 3), seen, conjugated=True)
            parts *= root[:, :, None]
            waves = _tap_waves(image.grid, shape[2:], dilation, parts.dtype, parts.device)
            of_weight = torch.mm(waves.t().contiguous(), parts.view(len(waves), -1))
            of_weight = of_weight.t().reshape(shape)
        return of_x, of_weight, None, None


def _product(a: Tensor, b: Tensor, conjugated: bool = False) -> Tensor:
    """The matrix product of complex a and b, which may be conjugated, at each frequency.

    Shape:
        (2, F, n, m), (2, F, m, p) -> (2, F, n, p)
    """
    made = a.new_empty(2, a.shape[1], a.shape[2], b.shape[3])
    sign = 1 if conjugated else -1
    torch.bmm(a[0], b[0], out=made[0])
    made[0].baddbmm_(a[1], b[1], alpha=sign)
    torch.bmm(a[1], b[0], out=made[1])
    made[1].baddbmm_(a[0], b[1], alpha=-sign)
    return made
