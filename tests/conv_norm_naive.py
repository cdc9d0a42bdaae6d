"""ConvNorm written out with torch's FFT, in the type of its input; what its tests share."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def pads_of(layer: nn.Module) -> tuple[list, list]:
    """How many pixels the taps reach, and the padding (before, after), along each axis."""
    reach = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
    if layer.padding == "valid":
        return reach, [(0, 0), (0, 0)]
    if layer.padding == "same":
        return reach, [(r // 2, r - r // 2) for r in reach]
    return reach, [(p, p) for p in layer.padding]


def inverse_roots(layer: nn.Module, grid: tuple[int, int]) -> Tensor:
    """V at every frequency of the grid, of the taps written out with their gaps: (C_out, H, W)."""
    reach, _ = pads_of(layer)
    taps = layer.weight.detach()
    spread = taps.new_zeros(*taps.shape[:2], *(r + 1 for r in reach))
    spread[:, :, :: layer.dilation[0], :: layer.dilation[1]] = taps
    spectrum = torch.fft.fft2(spread, s=grid).abs().square().sum(1)
    return (spectrum + layer.eps * spectrum.mean((1, 2), keepdim=True)).rsqrt()


def naive(layer: nn.Module, x: Tensor) -> Tensor:
    """The layer's output: full convolution, division, crop, stride, filter, bias, BatchNorm."""
    reach, pads = pads_of(layer)
    if layer.padding_mode == "zeros":
        first = [(max(a - r, 0), max(b - r, 0)) for (a, b), r in zip(pads, reach, strict=True)]
        x = F.pad(x, (*first[1], *first[0]))
    else:
        first = pads
        x = F.pad(x, (*pads[1], *pads[0]), mode=layer.padding_mode)
    z = F.conv2d(x, layer.weight, None, 1, tuple(reach), layer.dilation, layer.groups)
    grid = tuple(z.shape[2:])
    root = inverse_roots(layer, grid)[..., : grid[1] // 2 + 1]
    z = torch.fft.irfft2(torch.fft.rfft2(z) * root, s=grid)
    rows, columns = (
        slice(r - a + e, n - r + b - f, s)
        for r, (a, b), (e, f), n, s in zip(reach, pads, first, grid, layer.stride, strict=True)
    )
    return after(layer, z[:, :, rows, columns])


def after(layer: nn.Module, y: Tensor) -> Tensor:
    """What follows the division: the filter r, the bias and BatchNorm."""
    if layer.filter is not None:
        (high, wide), weight = layer.kernel_size, layer.filter
        y = F.pad(y, ((wide - 1) // 2, wide // 2, (high - 1) // 2, high // 2))
        y = F.conv2d(y, weight, groups=layer.out_channels)
    if layer.bias is not None:
        y = y + layer.bias[:, None, None]
    bn = layer.batch_norm
    if bn is None:
        return y
    mean, var = bn.running_mean, bn.running_var
    if layer.training:
        mean, var = y.mean((0, 2, 3)), y.var((0, 2, 3), correction=0)
    y = (y - mean[:, None, None]) / (var + bn.eps).sqrt()[:, None, None]
    return y if bn.weight is None else y * bn.weight[:, None, None] + bn.bias[:, None, None]
