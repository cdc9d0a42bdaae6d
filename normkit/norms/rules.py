"""Which linear map each layer is: one rule per type, open to layers defined elsewhere."""

__all__ = ["linear_map", "measured_map"]

import difflib
import inspect
import math
from dataclasses import replace
from functools import singledispatch

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin

from .maps import Axis, LinearMap, convolution_map

BOUNDARIES = ("zero", "circular")


@singledispatch
def linear_map(layer: nn.Module, input_size, boundary: str = "zero") -> LinearMap:
    """The linear map that a layer is, on an input of this size.

    `layer(x) = A x + b`, and this is A.

    *In plain words:* a rule per type of layer; a layer defined elsewhere adds its own with
    `@linear_map.register`, and every norm then measures it.

    Arguments:
        layer: the layer.
        input_size: spatial input shape (1 to 3 numbers, in pixels).
        boundary: "zero" for the operator as executed, "circular" for the taps on the torus.

    Raises:
        TypeError: if no rule knows the layer, or it computes something else than its rule says.
        ValueError: if the layer does not fit the input.

    Example:
        >>> class Doubled(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.inner = nn.Linear(3, 2)
        >>> @linear_map.register
        ... def _(layer: Doubled, input_size, boundary="zero"):
        ...     return LinearMap("linear", 2 * layer.inner.weight[None], ())
        >>> linear_map(Doubled(), ()).out_shape
        (2,)
    """
    name = type(layer).__name__
    if inspect.ismethod(getattr(layer, "weight", None)):
        raise TypeError(f"weights of {name} are packed (quantized); a norm needs floating point")
    raise TypeError(
        f"layer {name} has no known linear map; Linear, Conv, ConvTranspose and "
        "BatchNorm layers have one, others register theirs with normkit.norms.linear_map.register"
    )


def spatial_sizes(layer: nn.Module, input_size, dims: int) -> tuple[int, ...]:
    """The spatial input size as a tuple of `dims` positive integers."""
    sizes = (input_size,) if isinstance(input_size, int) else input_size
    wanted = f"{type(layer).__name__} wants its spatial input shape, {dims} positive integers"
    if not isinstance(sizes, (tuple, list)) or len(sizes) != dims:
        raise ValueError(f"input_size {input_size!r} does not fit: {wanted}")
    if any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in sizes):
        raise ValueError(f"input_size {input_size!r} does not fit: {wanted}")
    return tuple(sizes)


def _unchanged(layer: nn.Module, *bases: type) -> None:
    """Refuse a subclass that computes something else: its weights would be measured wrongly."""
    if type(layer) in bases:
        return
    base = next(base for base in bases if isinstance(layer, base))
    if type(layer).forward is not base.forward:
        raise TypeError(
            f"layer {type(layer).__name__} overrides forward of {base.__name__}, so its linear "
            "map is its own to say: register it with normkit.norms.linear_map.register"
        )


@linear_map.register
def _linear(layer: nn.Linear, input_size, boundary: str = "zero") -> LinearMap:
    _unchanged(layer, nn.Linear)
    return LinearMap("linear", layer.weight[None], ())


CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


@linear_map.register(nn.Conv1d)
@linear_map.register(nn.Conv2d)
@linear_map.register(nn.Conv3d)
def _convolution(layer, input_size, boundary: str = "zero") -> LinearMap:
    _unchanged(layer, *CONVOLUTIONS)
    return convolution_map(
        layer.weight,
        spatial_sizes(layer, input_size, len(layer.kernel_size)),
        stride=layer.stride,
        padding=layer.padding,
        dilation=layer.dilation,
        groups=layer.groups,
        padding_mode=layer.padding_mode,
        boundary=boundary,
    )


@linear_map.register(nn.ConvTranspose1d)
@linear_map.register(nn.ConvTranspose2d)
@linear_map.register(nn.ConvTranspose3d)
def _transposed(layer, input_size, boundary: str = "zero") -> LinearMap:
    """The transpose of the convolution that reads this layer's output."""
    _unchanged(layer, *TRANSPOSED)
    sizes = spatial_sizes(layer, input_size, len(layer.kernel_size))
    geometry = (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
    axes = []
    for size, extra, taps, stride, padding, dilation in zip(
        sizes, layer.output_padding, *geometry, strict=True
    ):
        axis = Axis(size * stride, size, taps, stride, dilation, 0, 0, "circular")
        axis = replace(axis, after=axis.reach - 1)
        if boundary == "zero":
            out = (size - 1) * stride - 2 * padding + axis.reach + extra
            axis = Axis(out, size, taps, stride, dilation, padding, padding)
        if axis.size < 1:
            raise ValueError(f"input_size {input_size!r} leaves no output of {layer}")
        axes.append(axis)
    return LinearMap("conv", layer.weight.unflatten(0, (layer.groups, -1)), tuple(axes), True)


@linear_map.register(nn.BatchNorm1d)
@linear_map.register(nn.BatchNorm2d)
@linear_map.register(nn.BatchNorm3d)
@linear_map.register(nn.SyncBatchNorm)
def _batch_norm(layer, input_size, boundary: str = "zero") -> LinearMap:
    """The diagonal gamma / sqrt(var + eps), once per pixel of the input size, if one is given."""
    _unchanged(layer, *BATCH_NORMS)
    if layer.running_var is None:
        raise TypeError(
            f"layer {type(layer).__name__} with track_running_stats=False has no fixed linear "
            "map; it normalizes by each batch also in evaluation"
        )
    scale = (layer.running_var + layer.eps).rsqrt()
    scale = scale if layer.weight is None else layer.weight * scale
    sizes = ()
    if input_size is not None and input_size != ():
        given = len(input_size) if isinstance(input_size, (tuple, list)) else 1
        dims = {nn.BatchNorm1d: 1, nn.BatchNorm2d: 2, nn.BatchNorm3d: 3}
        sizes = spatial_sizes(layer, input_size, dims.get(type(layer), given))
    return diagonal(scale, sizes)


def diagonal(scale: Tensor, sizes: tuple[int, ...]) -> LinearMap:
    """The map that multiplies each channel by its number, once per pixel of the sizes."""
    weight = scale.view(-1, 1, 1, *(1 for _ in sizes))
    return LinearMap("batch_norm", weight, tuple(Axis(n, n, 1) for n in sizes))


class evaluation:
    """Evaluation mode inside, every submodule's own mode again after."""

    def __init__(self, module: nn.Module):
        self.training = [part for part in module.modules() if part.training]

    def __enter__(self) -> None:
        for part in self.training:
            part.training = False

    def __exit__(self, *error) -> None:
        for part in self.training:
            part.training = True


def check_name(argument: str, name, known: tuple[str, ...]) -> None:
    """Refuse a name that is not known, and say which one is nearest."""
    if name not in known:
        close = difflib.get_close_matches(str(name), known, n=1, cutoff=0)[0]
        raise ValueError(
            f"{argument} {name!r} is not one of {', '.join(known)}; the nearest is {close!r}"
        )


def check_finite(layer: nn.Module, weight: Tensor) -> None:
    """Refuse weights that are not all finite; their sum tells, and costs one look at each."""
    if not math.isfinite(weight.sum().item()):
        bad, name = weight.numel() - int(torch.isfinite(weight).sum()), type(layer).__name__
        if bad:
            raise ValueError(f"weights of {name} hold {bad} non-finite values of {weight.numel()}")


def unchecked_map(layer: nn.Module, input_size, boundary: str = "zero") -> LinearMap:
    """`measured_map` without the look at each weight, for a norm that shows what is not finite."""
    check_name("boundary", boundary, BOUNDARIES)
    name = type(layer).__name__
    if isinstance(layer, LazyModuleMixin) and layer.has_uninitialized_params():
        raise ValueError(f"weights of {name} are not initialized; run it once first")
    with evaluation(layer):
        linear = linear_map(layer, input_size, boundary)
    weight = linear.weight
    if not weight.is_floating_point():
        raise TypeError(f"weights of {name} are {weight.dtype}; a norm needs floating point")
    if weight.numel() == 0:
        raise ValueError(f"weights of {name} are empty, shape {tuple(weight.shape)}")
    if weight.dtype in (torch.float32, torch.float64):
        return linear
    return replace(linear, weight=weight.float())


def measured_map(layer: nn.Module, input_size, boundary: str = "zero") -> LinearMap:
    """The layer's linear map as evaluated, its weights checked, in float32 at least.

    *In plain words:* what every norm starts from; measuring does not advance a
    parametrization, since the weight is read in evaluation mode.

    Arguments:
        layer, input_size, boundary: as in `linear_map`.

    Raises:
        TypeError: if the layer has no known linear map or integer weights.
        ValueError: if the boundary is unknown, the weights are empty or not finite, or the
            input does not fit.

    Example:
        >>> measured_map(nn.Conv2d(3, 8, 3, stride=2).half(), (9, 7)).out_shape
        (8, 4, 3)
    """
    linear = unchecked_map(layer, input_size, boundary)
    check_finite(layer, linear.weight.detach())
    return linear
