"""What the output channels of a layer do one at a time, and the rank of its flattened kernel."""

__all__ = ["channel_condition_numbers", "channel_norms", "reshaped_stable_rank"]

import math

import torch
from torch import Tensor, nn

from .maps import LinearMap, in_float64
from .rules import CONVOLUTIONS, TRANSPOSED, measured_map

BLOCK = 2**22
ZERO = 2.0**-46


def _waves(kernels: Tensor, linear: LinearMap) -> Tensor:
    """Fourier transform of taps on the torus, the frequencies that a stride joins side by side.

    (channels, inputs, *taps) to (channels, inputs, frequencies, aliases)
    """
    axes, dims = linear.axes, range(2, kernels.dim())
    if not axes:
        return kernels[:, :, None, None]
    places = torch.zeros(1, dtype=torch.int64, device=kernels.device)
    for axis in axes:
        line = torch.arange(axis.taps, device=kernels.device) * axis.dilation % axis.size
        places = (places[:, None] * axis.size + line).flatten()
    waves = kernels.new_zeros(*kernels.shape[:2], *(axis.size for axis in axes))
    waves.flatten(2).index_add_(2, places, kernels.flatten(2))
    waves = torch.fft.fftn(waves, dim=tuple(dims))
    split = [n for axis in axes for n in (axis.stride, axis.outputs)]
    waves = waves.view(*kernels.shape[:2], *split)
    waves = waves.permute(0, 1, *(2 * dim - 1 for dim in dims), *(2 * dim - 2 for dim in dims))
    return waves.flatten(2, 1 + len(axes)).flatten(3)


@torch.no_grad()
def _extremes(layer: nn.Module, input_size) -> tuple[Tensor, Tensor]:
    """Largest and smallest singular value of each output channel's operator on the torus.

    Without a transpose, a frequency is one row over inputs and aliases, and its norm the singular
    value. Orthogonal mixtures of the inputs change nothing, so that more inputs than taps are
    reduced to as many.
    """
    linear = in_float64(measured_map(layer, input_size, "circular"))
    kernels = linear.weight.transpose(1, 2) if linear.transposed else linear.weight
    kernels = kernels.flatten(0, 1)
    (count, inputs), taps = kernels.shape[:2], math.prod(kernels.shape[2:])
    aliases = math.prod(axis.stride for axis in linear.axes)
    tall = linear.transposed and aliases > 1
    if inputs > taps >= (aliases if tall else 1):
        mixed = torch.linalg.qr(kernels.reshape(count, inputs, taps), mode="r").R
        kernels = mixed.reshape(count, taps, *kernels.shape[2:])
    entries = kernels.shape[1] * math.prod(axis.size for axis in linear.axes)
    ends = []
    for block in kernels.split(max(1, BLOCK // entries)):
        waves = _waves(block, linear) / math.sqrt(aliases)
        if tall:
            values = torch.linalg.svdvals(waves.movedim(1, -1)).flatten(1)
        else:
            values = torch.linalg.vector_norm(waves, dim=(1, 3))
        ends.append(torch.stack(values.aminmax(dim=1)))
    smallest, largest = torch.cat(ends, 1)
    return largest, smallest


def channel_norms(layer: nn.Module, input_size) -> Tensor:
    """The spectral norm of each output channel's own operator, on the torus.

    `sigma(Q_k) = max_w sqrt(sum_j |F a_kj (w)|^2)`, Q_k the map to output k from its group.

    *In plain words:* the most that one output channel alone can amplify what it reads. The whole
    layer's norm is at least the largest of these and at most the root of the sum of their squares.

    Source: Liu et al., "Convolutional Normalization", NeurIPS 2021,
    https://arxiv.org/abs/2103.00673, where S_k is the square.

    Deviation: with a stride, the squares are averaged over the frequencies that it joins.
    Of a transposed convolution, a frequency is a matrix over those and the inputs, and the norm
    its largest singular value.

    Arguments:
        layer: a layer with a known linear map.
        input_size: its spatial input shape in pixels, 1 to 3 numbers, which the stride divides;
            ignored for Linear (the row norms) and BatchNorm.

    Shape:
        (C_out,), in float64.

    Raises:
        TypeError: if the layer has no known linear map or integer weights.
        ValueError: if the weights are not finite, or the stride does not divide the input.

    Example:
        >>> from normkit.norms import spectral_norm
        >>> layer = nn.Conv2d(3, 4, 3)
        >>> norms = channel_norms(layer, (6, 7))
        >>> lower, upper = spectral_norm(layer, (6, 7), boundary="circular")
        >>> bool(norms.max() <= upper and lower <= norms.square().sum().sqrt())
        True
    """
    return _extremes(layer, input_size)[0]


def channel_condition_numbers(layer: nn.Module, input_size) -> Tensor:
    """The condition number of each output channel's own operator, on the torus.

    `max_w sigma_k(w) / min_w sigma_k(w)`, with sigma_k as in `channel_norms`.

    *In plain words:* how unevenly a channel treats the waves that reach it: 1 if all alike, inf
    if it is blind to one, which is where the smallest value is below 2^-46 of the largest and so
    zero but for rounding, or where the channel is zero.

    Source: Liu et al., "Convolutional Normalization", NeurIPS 2021,
    https://arxiv.org/abs/2103.00673: exactly 1 after the normalization.

    Arguments:
        layer, input_size: as in `channel_norms`.

    Shape:
        (C_out,), in float64.

    Raises:
        TypeError, ValueError: as in `channel_norms`.

    Example:
        >>> layer = nn.Conv1d(1, 3, 2, bias=False)
        >>> layer.weight.data[:, 0] = torch.tensor([[2.0, 0.0], [1.0, -1.0], [3.0, 1.0]])
        >>> channel_condition_numbers(layer, (8,))     # a shift, a difference, something between
        tensor([1., inf, 2.], dtype=torch.float64)
    """
    largest, smallest = _extremes(layer, input_size)
    return torch.where(smallest > ZERO * largest, largest / smallest, math.inf)


@torch.no_grad()
def reshaped_stable_rank(layer: nn.Module) -> Tensor:
    """The stable rank of the kernel flattened to a matrix, not of the operator.

    `||W||_F^2 / ||W||_2^2 = trace(W W^T) / lambda_max(W W^T)`

    *In plain words:* in how many directions the flattened kernel is equally large; between 1 and
    its rank, 0 for a kernel of zeros. W is (C_out, C_in / groups x taps); of a transposed
    convolution (C_out / groups, C_in x taps), as `torch.nn.utils.parametrizations.spectral_norm`
    flattens.

    Source: Rudelson & Vershynin, "Sampling from large matrices", J. ACM 2007,
    https://arxiv.org/abs/math/0503442.

    Arguments:
        layer: a layer with a known linear map.

    Shape:
        0-dim, in float64.

    Raises:
        TypeError: if the layer has no known linear map or integer weights.
        ValueError: if the weights are not finite.

    Example:
        >>> layer = nn.Conv2d(3, 5, 3)
        >>> _ = nn.init.dirac_(layer.weight)           # three channels pass, two are empty
        >>> reshaped_stable_rank(layer).item()
        3.0
    """
    size = layer.stride if isinstance(layer, CONVOLUTIONS + TRANSPOSED) else None
    linear = in_float64(measured_map(layer, size, "circular"))
    matrix = linear.weight.flatten(0, 1)
    matrix = matrix.transpose(0, 1) if linear.transposed else matrix
    matrix = matrix.flatten(1)
    matrix = matrix if len(matrix) <= matrix.shape[1] else matrix.mT
    peak = matrix.abs().max()
    if not peak:
        return peak
    gram = (matrix / peak) @ (matrix / peak).mT
    return gram.trace() / torch.linalg.eigvalsh(gram)[-1]
