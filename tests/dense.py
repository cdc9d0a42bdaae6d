"""The dense float64 matrix of any layer, by pushing unit vectors through it; what tests share."""

import itertools

import torch
from torch import Tensor, nn

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
ROUNDING = 1e-12  # of float64, relative, after sums of some thousand terms


def operator_matrix(layer: nn.Module, in_shape: tuple[int, ...]) -> Tensor:
    """The matrix A of `layer(x) = A x + b` on flattened inputs of this shape (without batch)."""
    units = torch.eye(torch.Size(in_shape).numel(), dtype=torch.float64).view(-1, *in_shape)
    with torch.no_grad():
        offset = layer(torch.zeros(1, *in_shape, dtype=torch.float64))
        return (layer(units) - offset).flatten(1).T


def circular_matrix(layer: nn.Module, size: tuple[int, ...]) -> Tensor:
    """The matrix of a convolution's taps on the torus, tap by tap: padding ignored."""
    groups, weight = layer.groups, layer.weight.detach().double()
    block_out, block_in = len(weight) // groups, weight.shape[1]
    coarse = [n // s for n, s in zip(size, layer.stride, strict=True)]
    matrix = weight.new_zeros(len(weight), *coarse, groups * block_in, *size)
    taps = list(itertools.product(*map(range, weight.shape[2:])))
    for place in itertools.product(*map(range, coarse)):
        for tap, g in itertools.product(taps, range(groups)):
            steps = zip(place, layer.stride, tap, layer.dilation, size, strict=True)
            pixel = [(p * s + t * d) % n for p, s, t, d, n in steps]
            rows = slice(g * block_out, (g + 1) * block_out)
            columns = slice(g * block_in, (g + 1) * block_in)
            matrix[(rows, *place, columns, *pixel)] += weight[(rows, slice(None), *tap)]
    return matrix.flatten(len(size) + 1).flatten(0, len(size))
