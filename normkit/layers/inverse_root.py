"""What ConvNorm divides the spectrum of a convolution by, on its own periodic grid."""

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from .fourier import angles, frequencies

__all__ = ["inverse_root", "own_grid", "tap_places"]

_IN_DOUBLE = 16  # input channels up to which the spectrum may nearly vanish: summed in float64


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


@functools.lru_cache(maxsize=64)
def _lags(
    grid: tuple, kernel_size: tuple, dilation: tuple, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Which difference each pair of taps has (P P), and the differences' cosines (F, L)."""
    taps = tap_places(kernel_size, dilation)
    lags, index = (taps[:, None] - taps).flatten(0, 1).unique(dim=0, return_inverse=True)
    return index.to(device), angles(grid, lags).cos().to(device, dtype)


def tap_places(kernel_size: tuple[int, int], dilation: tuple[int, int]) -> Tensor:
    """Where the taps of a kernel stand, in pixels from the first: (P, 2).

    Example:
        >>> tap_places((1, 2), (1, 3)).tolist()
        [[0, 0], [0, 3]]
    """
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
    scale = rows.abs().amax((1, 2)).clamp_(min=torch.finfo(rows.dtype).tiny)
    rows = rows / scale[:, None, None]  # squares neither overflow nor vanish
    kernel_size = tuple(weight.shape[2:])
    index, cosines = _lags(grid, kernel_size, dilation, rows.dtype, rows.device)
    products = torch.bmm(rows.mT, rows).flatten(1)
    correlations = products.new_zeros(len(rows), cosines.shape[1])
    correlations.index_add_(1, index, products)
    spectrum = torch.mm(cosines, correlations.t()).clamp_(min=0)
    spectrum += eps * correlations[:, cosines.shape[1] // 2]  # the lag 0 stands in the middle
    return torch.where(spectrum > 0, spectrum.rsqrt() / scale, 0.0).to(weight.dtype)
