"""Which linear map a ConvNorm layer is, for all that measures norms."""

import itertools
import math

import torch
from torch import Tensor

from normkit import norms
from normkit.norms.maps import LinearMap, convolution_map
from normkit.norms.rules import evaluation, spatial_sizes

from .conv_norm import ConvNorm2d
from .conv_norm_checks import margins
from .fourier import View
from .inverse_root import own_grid
from .normalized_convolution import Analysis, Synthesis

__all__ = ["periodic_taps"]

_LARGEST = 2**24


def periodic_taps(layer: ConvNorm2d, size: tuple[int, int]) -> Tensor:
    r"""The taps of ConvNorm on its periodic grid: as many as the grid has pixels.

    .. math:: r_k * v_k * a_{k,j}, \quad v_k = F^{-1} V_k

    In plain words: what the layer multiplies an image by if crop, stride and zero padding are
    left away, as in evaluation: BatchNorm's scale is included, and so is a running average of V.

    Arguments:
        layer: the layer.
        size: height and width of its input, in pixels.

    Shape:
        (C_out, C_in / groups, H + k - 1, W + k - 1)

    Example:
        >>> layer = ConvNorm2d(1, 1, 3, batch_norm=False, eps=0.0).double()
        >>> taps = periodic_taps(layer, (4, 4))
        >>> taps.shape, bool((torch.fft.fft2(taps).abs() - 1).abs().max() < 1e-9)
        (torch.Size([1, 1, 6, 6]), True)
    """
    grid = own_grid(size, layer.kernel_size, layer.dilation)
    small = View(grid, layer.kernel_size, step=layer.dilation)
    with evaluation(layer):
        root = layer.root(layer.weight, grid)
    parts = Analysis.apply(layer.weight.transpose(0, 1), small, False) * root[:, None]
    taps = Synthesis.apply(parts, View(grid, grid), True).transpose(0, 1)
    if layer.filter is not None:
        top, left = ((n - 1) // 2 for n in layer.kernel_size)
        places = itertools.product(*map(range, layer.kernel_size))
        taps = sum(
            layer.filter[:, :, i, j, None, None] * taps.roll((i - top, j - left), (2, 3))
            for i, j in places
        )
    return taps * _scale(layer)


def _scale(layer: ConvNorm2d) -> Tensor:
    """What BatchNorm multiplies each channel by: (C_out, 1, 1, 1)."""
    if layer.batch_norm is None:
        return layer.weight.new_ones(layer.out_channels, 1, 1, 1)
    return norms.linear_map(layer.batch_norm, None).weight.view(-1, 1, 1, 1)


@norms.linear_map.register
def _conv_norm(layer: ConvNorm2d, input_size, boundary: str = "zero") -> LinearMap:
    """On its grid a circular convolution at stride 1; as executed a matrix, 1x1 a convolution."""
    size = spatial_sizes(layer, input_size, 2)
    if layer.kernel_size == (1, 1):
        return _pointwise(layer, size, boundary)
    if boundary == "circular":
        grid = own_grid(size, layer.kernel_size, layer.dilation)
        taps = periodic_taps(layer, size)
        return convolution_map(taps, grid, groups=layer.groups, boundary="circular")
    inputs = layer.in_channels * math.prod(size)
    outputs = layer.out_channels * math.prod(margins(layer, size)[2])
    if inputs * outputs > _LARGEST:
        raise ValueError(
            f"ConvNorm2d as executed is no convolution at its borders but a matrix, here of "
            f"{outputs} x {inputs}, and at most 2^24 numbers are made; its spectral norm with "
            "boundary 'circular' is that of its own grid, at any size"
        )
    units = torch.eye(inputs, dtype=layer.weight.dtype, device=layer.weight.device)
    images = units.view(inputs, layer.in_channels, *size)
    with evaluation(layer):
        made = layer.linear(images) * _scale(layer).view(-1, 1, 1)
    return LinearMap("conv", made.flatten(1).t()[None], ())


def _pointwise(layer: ConvNorm2d, size: tuple[int, int], boundary: str) -> LinearMap:
    with evaluation(layer):
        scale = layer.root(layer.weight, (1, 1)).view(-1, 1, 1, 1) * _scale(layer)
    scale = scale if layer.filter is None else scale * layer.filter
    return convolution_map(
        layer.weight * scale,
        size,
        stride=layer.stride if boundary == "zero" else 1,
        padding=layer.padding,
        groups=layer.groups,
        padding_mode=layer.padding_mode,
        boundary=boundary,
    )
