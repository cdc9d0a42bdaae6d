"""How layers carry positive scales of channels from their input to their output."""

from typing import NamedTuple

import numpy as np
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from .signals import Signal, fix, resolve
from .units import Shape, Units

__all__ = ["SAME_SHAPE", "Options", "apply_layer", "known_layer"]

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
NORMALIZATIONS = (_BatchNorm, _InstanceNorm, nn.GroupNorm)
ELEMENTWISE = (
    *(nn.Identity, nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.RReLU),
    *(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d),
)
BY_CHANNEL = {  # by the number of axes that follow the channels; 0 for any
    0: (nn.Upsample,),
    1: (
        *(nn.MaxPool1d, nn.AvgPool1d, nn.AdaptiveAvgPool1d, nn.AdaptiveMaxPool1d, nn.LPPool1d),
        *(nn.ZeroPad1d, nn.ReflectionPad1d, nn.ReplicationPad1d),
    ),
    2: (
        *(nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.LPPool2d),
        *(nn.ZeroPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d),
        *(nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d),
    ),
    3: (
        *(nn.MaxPool3d, nn.AvgPool3d, nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool3d),
        *(nn.ZeroPad3d, nn.ReplicationPad3d),
    ),
}
POOLS = tuple(layer for layers in BY_CHANNEL.values() for layer in layers)
SAME_SHAPE = (
    *(nn.GELU, nn.Sigmoid, nn.Tanh, nn.SiLU, nn.ELU, nn.CELU, nn.SELU, nn.Softplus, nn.Mish),
    *(nn.ReLU6, nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish, nn.LogSigmoid, nn.Softsign),
    *(nn.Softmax, nn.Softmax2d, nn.LogSoftmax, nn.Threshold, nn.AlphaDropout),
)
KNOWN = (
    *(nn.Linear, nn.Bilinear, nn.Flatten, nn.Unflatten, nn.Embedding),
    *(*CONVOLUTIONS, *TRANSPOSED, *NORMALIZATIONS, *ELEMENTWISE, *POOLS, *SAME_SHAPE),
)


PASSES = ("forward", "_conv_forward")


class Options(NamedTuple):
    """What the caller wants: batch_norm is "rescale" or "ignore"."""

    batch_norm: str = "rescale"


def known_layer(module: nn.Module) -> bool:
    """Whether a module computes what a layer of torch with a rule does."""
    return _kind(module, KNOWN)


def _kind(module: nn.Module, kinds: tuple[type, ...]) -> bool:
    """Whether a module is of one of these kinds and has kept its forward pass."""
    found, own = type(module), vars(module)
    return any(
        isinstance(module, kind)
        and all(getattr(found, part, None) is getattr(kind, part, None) for part in PASSES)
        for kind in kinds
    ) and not any(part in own for part in PASSES)


def _own(module: nn.Module) -> bool:
    """Whether weight and bias are the module's own parameters, and not computed from others."""
    parts = module._parameters
    return isinstance(parts.get("weight"), Tensor) and (
        module.bias is None or isinstance(parts.get("bias"), Tensor)
    )


def apply_layer(
    units: Units, name: str, module: nn.Module, signal: Signal, options: Options
) -> Signal:
    """What a layer makes of a signal; a layer without a rule fixes it.

    Arguments:
        units: told of all that must share or keep its scale.
        name: of the layer in the model.
        module: the layer.
        signal: its only input.
        options: of the caller.
    """
    reason = f"feeds {name!r} ({type(module).__name__})"
    if _kind(module, ELEMENTWISE):
        return signal
    if _kind(module, (nn.Linear,)) and _own(module):
        return _linear(units, name, module, signal, reason)
    if _kind(module, CONVOLUTIONS + TRANSPOSED) and _own(module):
        return _convolution(units, name, module, signal, reason)
    if _kind(module, NORMALIZATIONS):
        return _normalization(units, name, module, signal, options)
    if _kind(module, POOLS) and not getattr(module, "return_indices", False):
        fits = any(
            signal.axis == "channel" and dims in (0, signal.spatial)
            for dims, kinds in BY_CHANNEL.items()
            if isinstance(module, kinds)
        )
        return signal if fits or signal.numbers is None else fix(units, signal, reason)
    if _kind(module, (nn.Flatten,)) and (module.start_dim, module.end_dim) == (1, -1):
        return flattened(signal)
    if _kind(module, (nn.Unflatten,)) and module.dim == 1:
        return unflattened(units, signal, tuple(module.unflattened_size), reason)
    if signal.numbers is None:
        return signal
    if _kind(module, SAME_SHAPE):
        told = fix(units, signal, f"{reason}, which does not scale").reason
        return Signal(signal.numbers, signal.axis, signal.spatial, True, told)
    return fix(units, signal, f"{reason}, which is not followed")


def flattened(signal: Signal) -> Signal:
    """Axis 1 and all that follow in one."""
    if signal.numbers is None or signal.axis != "channel":
        return signal
    return Signal(signal.numbers, "flat", None, signal.fixed, signal.reason)


def unflattened(units: Units, signal: Signal, sizes: tuple[int, ...], reason: str) -> Signal:
    """Features as the channels and pixels of a map."""
    numbers, spatial = signal.numbers, len(sizes) - 1
    if numbers is None:
        return signal
    if signal.axis == "flat" and len(numbers) == sizes[0]:
        return Signal(numbers, "channel", spatial, signal.fixed, signal.reason)
    if signal.axis != "last" or len(numbers) != np.prod(sizes):
        return fix(units, signal, reason)
    blocks = numbers.reshape(sizes[0], -1)
    for column in blocks.T[1:]:
        units.join(blocks[:, 0], column)
    return Signal(blocks[:, 0], "channel", spatial, signal.fixed, signal.reason)


def _read(units: Units, signal: Signal, count: int, axes: tuple[str, ...], reason: str):
    """Numbers for the inputs of a layer; fixed ones where the signal's do not fit."""
    numbers = resolve(signal, count, axes)
    if numbers is None:
        told = fix(units, signal, reason)
        numbers = units.new(count)
        units.fix(numbers, signal.reason if signal.numbers is None else told.reason)
    return numbers


def _write(units: Units, name: str, module: nn.Module, shape: Shape, rows, columns=None) -> None:
    """Note a layer's weight and bias."""
    units.use(f"{name}.weight", module.weight, shape, rows, columns)
    if module.bias is not None:
        units.use(f"{name}.bias", module.bias, Shape("bias"), rows)


def _linear(units, name, module: nn.Linear, signal: Signal, reason: str) -> Signal:
    """Features are last, or the only axis behind a normalization of unknown input."""
    axes = ("last", "flat") if signal.spatial is not None else ("last", "flat", "channel")
    columns = _read(units, signal, module.in_features, axes, reason)
    rows = units.new(module.out_features)
    _write(units, name, module, Shape("matrix"), rows, columns)
    several = signal.numbers is not None and signal.axis == "channel" and signal.spatial
    several = several or (signal.axis == "last" and signal.spatial is None)
    return Signal(rows, "last", None if several else 0)


def _convolution(units, name, module, signal: Signal, reason: str) -> Signal:
    columns = _read(units, signal, module.in_channels, ("channel",), reason)
    rows = units.new(module.out_channels)
    shape = Shape("matrix", module.groups, isinstance(module, TRANSPOSED))
    _write(units, name, module, shape, rows, columns)
    return Signal(rows, "channel", len(module.kernel_size))


def _normalization(units, name, module, signal: Signal, options: Options) -> Signal:
    """The output is what its own scale and offset make of it, whatever the input's scale."""
    batch = isinstance(module, _BatchNorm)
    if batch and options.batch_norm == "ignore":
        return signal
    count = module.num_channels if isinstance(module, nn.GroupNorm) else module.num_features
    if signal.numbers is not None and signal.axis == "last" and signal.spatial != 0:
        return fix(units, signal, f"feeds {name!r}, whose channels may be another axis")
    fix(units, signal, f"feeds {name!r} ({type(module).__name__})")
    rows, axis, spatial = units.new(count), signal.axis, signal.spatial
    if signal.numbers is None:
        axis, spatial = "channel", 2 if isinstance(module, nn.BatchNorm2d) else None
    if signal.axis == "flat":
        axis = "last"
    if module.affine and _own(module):
        _write(units, name, module, Shape("diagonal"), rows)
        return Signal(rows, axis, spatial)
    told = f"is written by {name!r} ({type(module).__name__}), which has no weight"
    units.fix(rows, told)
    return Signal(rows, axis, spatial, True, told)
