"""Linear maps of layers: the taps, where each tap lands, and the convolution they make."""

__all__ = ["Axis", "LinearMap", "convolution_map"]

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

MODES = ("zeros", "circular", "reflect", "replicate")


@dataclass(frozen=True)
class Axis:
    """One axis of a convolution: which pixel each output reads through each tap.

    Output `o` reads, through tap `t`, position `o stride - before + t dilation`.

    *In plain words:* everything about an axis but its weights, so that what follows from the
    geometry alone can be cached.

    Arguments:
        size: number of input pixels.
        outputs: number of outputs.
        taps: number of taps.
        stride, dilation: steps between outputs and between taps, in pixels.
        before, after: padding, in pixels.
        mode: what a padded position holds: "zeros", "circular", "reflect" or "replicate".

    Example:
        >>> axis = Axis(size=5, outputs=5, taps=3, before=1, after=1, mode="reflect")
        >>> [axis.pixel(position) for position in range(-1, 6)]
        [1, 0, 1, 2, 3, 4, 3]
    """

    size: int
    outputs: int
    taps: int
    stride: int = 1
    dilation: int = 1
    before: int = 0
    after: int = 0
    mode: str = "zeros"

    @property
    def reach(self) -> int:
        """The number of pixels from the first tap to the last: the effective kernel."""
        return self.dilation * (self.taps - 1) + 1

    def pixel(self, position: int) -> int | None:
        """The input pixel that a position of the padded input shows; None for a zero."""
        if 0 <= position < self.size:
            return position
        if self.mode == "circular":
            return position % self.size
        if self.mode == "replicate":
            return min(max(position, 0), self.size - 1)
        if self.mode == "reflect":
            period = 2 * (self.size - 1)
            return min(position % period, -position % period)
        return None

    def reads(self) -> list[tuple[int, int, int]]:
        """Every (output, pixel, tap) for which the output reads that pixel through that tap."""
        triples = (
            (o, self.pixel(o * self.stride - self.before + t * self.dilation), t)
            for o in range(self.outputs)
            for t in range(self.taps)
        )
        return [triple for triple in triples if triple[1] is not None]


@dataclass(frozen=True, eq=False)
class LinearMap:
    """A layer's linear map: a grouped convolution with any number of axes, or its transpose.

    *In plain words:* a fully connected layer is a convolution without axes, a BatchNorm in
    evaluation mode is one with a single channel per group, so one shape serves every layer.

    Arguments:
        kind: "linear", "conv" or "batch_norm".
        weight: the effective weight.
        axes: one `Axis` per spatial dimension.
        transposed: True if the layer is the transpose of the convolution described.

    Shape:
        weight: (groups, outputs per group, inputs per group, *taps)

    Example:
        >>> weight = torch.tensor([[1.0, -2.0]]).view(1, 1, 2)
        >>> LinearMap("linear", weight, ()).forward(torch.tensor([[3.0, 1.0]]))
        tensor([[1.]])
    """

    kind: str
    weight: Tensor
    axes: tuple[Axis, ...]
    transposed: bool = False

    @property
    def in_shape(self) -> tuple[int, ...]:
        """Shape of one input of the convolution."""
        groups, _, inputs = self.weight.shape[:3]
        return (groups * inputs, *(axis.size for axis in self.axes))

    @property
    def out_shape(self) -> tuple[int, ...]:
        """Shape of one output of the convolution."""
        groups, outputs, _ = self.weight.shape[:3]
        return (groups * outputs, *(axis.outputs for axis in self.axes))

    def forward(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        """Apply the convolution to a batch, with `weight` (same shape, other dtype) if given."""
        weight = self.weight if weight is None else weight
        groups = len(weight)
        if not self.axes:
            return torch.einsum("ngi,goi->ngo", x.unflatten(1, (groups, -1)), weight).flatten(1)
        mode = self.axes[0].mode
        pads = [n for axis in reversed(self.axes) for n in (axis.before, axis.after)]
        if any(pads):
            x = F.pad(x, pads, mode="constant" if mode == "zeros" else mode)
        convolve = (F.conv1d, F.conv2d, F.conv3d)[len(self.axes) - 1]
        strides = [axis.stride for axis in self.axes]
        dilations = [axis.dilation for axis in self.axes]
        y = convolve(x, weight.flatten(0, 1), stride=strides, dilation=dilations, groups=groups)
        for dim, axis in enumerate(self.axes, 2):
            y = y.narrow(dim, 0, axis.outputs)
        return y


def in_float64(linear: LinearMap, cpu: bool = False) -> LinearMap:
    """The map with detached float64 weights, on the CPU if asked or where its device has none."""
    weight = linear.weight.detach()
    weight = weight.cpu() if cpu or weight.device.type == "mps" else weight
    with torch.inference_mode(False):
        weight = weight.clone() if weight.is_inference() else weight
        return replace(linear, weight=weight.double())


def _per_axis(value, dims: int) -> tuple:
    """One entry per axis of what may be given once for all."""
    return (value,) * dims if isinstance(value, (int, str)) else tuple(value)


def _pads(padding, stride: int, reach: int) -> tuple[int, int]:
    """Padding (before, after) of one axis; "same" puts the odd pixel after, as torch does."""
    if padding == "valid":
        return 0, 0
    if padding == "same":
        return (reach - 1) // 2, reach - 1 - (reach - 1) // 2
    return (padding, padding) if isinstance(padding, int) else tuple(padding)


def _executed(axis: Axis) -> Axis:
    """The axis with its number of outputs, refused where the layer itself would fail."""
    size = axis.size
    padded = size + axis.before + axis.after
    if padded < axis.reach:
        raise ValueError(
            f"input_size gives {size} pixels ({padded} after padding) to an effective kernel of "
            f"{axis.reach}; the padded input must be at least as large as the kernel"
        )
    limit = {"circular": size, "reflect": size - 1}.get(axis.mode, math.inf)
    if max(axis.before, axis.after) > limit:
        raise ValueError(
            f"input_size gives {size} pixels, too few for padding {axis.before} with "
            f"padding_mode {axis.mode!r}, which can show at most {limit}"
        )
    return replace(axis, outputs=(padded - axis.reach) // axis.stride + 1)


def _circular(axis: Axis) -> Axis:
    """The axis on a torus: padding ignored, one output every `stride` pixels."""
    if axis.size % axis.stride:
        raise ValueError(
            f"boundary 'circular' needs a stride that divides the input: {axis.stride} does not "
            f"divide input_size {axis.size}"
        )
    outputs, after = axis.size // axis.stride, axis.reach - 1
    return replace(axis, outputs=outputs, before=0, after=after, mode="circular")


@lru_cache(maxsize=4096)
def _axes(sizes: tuple, taps: tuple, given: tuple, mode: str, boundary: str) -> tuple[Axis, ...]:
    """The axes of a geometry, found once; `given` holds strides, dilations and paddings."""
    axes = []
    for size, count, stride, dilation, padding in zip(sizes, taps, *given, strict=True):
        before, after = _pads(padding, stride, dilation * (count - 1) + 1)
        axis = Axis(size, 0, count, stride, dilation, before, after, mode)
        axes.append(_circular(axis) if boundary == "circular" else _executed(axis))
    return tuple(axes)


def convolution_map(
    weight: Tensor,
    input_size: tuple[int, ...],
    *,
    stride=1,
    padding=0,
    dilation=1,
    groups: int = 1,
    padding_mode: str = "zeros",
    boundary: str = "zero",
    kind: str = "conv",
) -> LinearMap:
    """The linear map of a convolution with these weights on an input of this size.

    `y[o] = sum_t weight[t] x[o stride - before + t dilation]`

    *In plain words:* what a layer of one's own returns from its `linear_map` rule.

    Arguments:
        weight: effective weight.
        input_size: spatial input shape, one number per axis, in pixels.
        stride, dilation: one number, or one per axis.
        padding: a number, "same", "valid", or one entry per axis, each a number or a pair
            (before, after).
        groups: number of channel groups.
        padding_mode: "zeros", "circular", "reflect" or "replicate".
        boundary: "zero" for the operator as executed; "circular" for the taps on the torus.
        kind: the name of the kind of layer in tables.

    Shape:
        weight: (C_out, C_in / groups, *taps)

    Raises:
        ValueError: if the input is too small, or the stride does not divide it on the torus.

    Example:
        >>> layer = torch.nn.Conv1d(2, 4, 3, stride=2, padding=1, bias=False)
        >>> x = torch.randn(5, 2, 9)
        >>> own = convolution_map(layer.weight, (9,), stride=2, padding=1)
        >>> torch.allclose(own.forward(x), layer(x), atol=1e-6)
        True
    """
    if padding_mode not in MODES:
        raise ValueError(f"padding_mode {padding_mode!r} is not one of {', '.join(MODES)}")
    dims = weight.dim() - 2
    given = tuple(_per_axis(value, dims) for value in (stride, dilation, padding))
    axes = _axes(tuple(input_size), weight.shape[2:], given, padding_mode, boundary)
    blocks = weight.unsqueeze(0) if groups == 1 else weight.unflatten(0, (groups, -1))
    return LinearMap(kind, blocks, axes)
