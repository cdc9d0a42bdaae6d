"""What ConvNorm refuses, and where its outputs stand on an input of a given size."""

from numbers import Integral, Real

import torch
from torch import Tensor, nn

from .normalized_convolution import cast_device

__all__ = ["check_arguments", "check_input", "margins", "pair_of"]

_MODES = ("zeros", "reflect", "replicate", "circular")
_CHOICES = {
    "padding_mode": _MODES,
    "filter_init": ("delta", "torch"),
    "variant": ("paper", "released"),
}


def pair_of(value: int | tuple[int, int]) -> tuple[int, int]:
    """A number for each axis, from one for both or two.

    Example:
        >>> pair_of(3), pair_of((1, 2))
        ((3, 3), (1, 2))
    """
    return tuple(value) if isinstance(value, (tuple, list)) else (value, value)


def check_arguments(layer: nn.Module) -> None:
    """Refuse what ConvNorm cannot be made of, with the value found and what is accepted.

    Raises:
        ValueError: naming the argument.
    """
    for name in ("in_channels", "out_channels", "groups"):
        _whole(name, getattr(layer, name), 1)
    for name, least in (("kernel_size", 1), ("stride", 1), ("dilation", 1), ("padding", 0)):
        value = getattr(layer, name)
        if isinstance(value, str):
            if value not in ("same", "valid"):
                raise ValueError(f"padding is {value!r}; as a string it must be 'same' or 'valid'")
            continue
        if len(value) != 2:
            raise ValueError(f"{name} is {value!r}; it must be a whole number or two")
        for number in value:
            _whole(name, number, least)
    if layer.padding == "same" and layer.stride != (1, 1):
        raise ValueError(f"padding 'same' needs stride 1, not {layer.stride}")
    for name in ("in_channels", "out_channels"):
        if getattr(layer, name) % layer.groups:
            found = f"groups is {layer.groups} and {name} {getattr(layer, name)}"
            raise ValueError(f"{found}; groups must divide in_channels and out_channels")
    if not (isinstance(layer.eps, Real) and 0 <= layer.eps < float("inf")):
        raise ValueError(f"eps is {layer.eps!r}; it must be a finite number of at least 0")
    gain = layer.filter_gain
    if not isinstance(gain, Real) or isinstance(gain, bool) or not abs(gain) < float("inf"):
        raise ValueError(f"filter_gain is {gain!r}; it must be a finite number")
    for name, accepted in _CHOICES.items():
        if getattr(layer, name) not in accepted:
            names = ", ".join(accepted)
            raise ValueError(f"{name} is {getattr(layer, name)!r}; accepted: {names}")


def _whole(name: str, value: object, least: int) -> None:
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} is {value!r}; it must be a whole number of at least {least}")


def check_input(layer: nn.Module, x: Tensor) -> bool:
    """Refuse images that do not fit; whether autocast is on, under which any type does.

    Raises:
        ValueError: another number of axes or channels.
        TypeError: another floating-point type.
    """
    channels = x.shape[-3] if x.dim() in (3, 4) else None
    if channels != layer.in_channels:
        wanted = f"(N, {layer.in_channels}, H, W)"
        raise ValueError(f"ConvNorm2d takes images of shape {wanted}, found {tuple(x.shape)}")
    autocast = torch.is_autocast_enabled(cast_device(x))
    if x.dtype != layer.weight.dtype and not autocast:
        raise TypeError(
            f"ConvNorm2d has weights of {layer.weight.dtype} and was given an input of {x.dtype}; "
            "convert one of them, or compute under torch.autocast"
        )
    return autocast


def margins(
    layer: nn.Module, size: tuple[int, int]
) -> tuple[tuple[int, ...], tuple[int, int], tuple[int, int]]:
    """What is padded first (left, right, top, bottom), the offset left, and the output's size.

    *In plain words:* zeros of a padding up to k - 1 are never written: the first output merely
    starts so many pixels before the image.

    Raises:
        ValueError: the padded input is smaller than the kernel.
    """
    pads, before, outputs = [], [], []
    zeros = layer.padding_mode == "zeros"
    for axis, n in enumerate(size):
        reach = layer.dilation[axis] * (layer.kernel_size[axis] - 1)
        first = last = 0
        if layer.padding == "same":
            first, last = reach // 2, reach - reach // 2
        elif layer.padding != "valid":
            first = last = layer.padding[axis]
        if n + first + last <= reach:
            raise ValueError(
                f"the input is {size[0]}x{size[1]}, padded {n + first + last} pixels along axis "
                f"{axis}; the kernel reaches over {reach + 1}, and must not be larger"
            )
        written = (max(first - reach, 0), max(last - reach, 0)) if zeros else (first, last)
        pads = [*written, *pads]
        before.append(first - written[0])
        outputs.append((n + first + last - reach - 1) // layer.stride[axis] + 1)
    return tuple(pads), tuple(before), tuple(outputs)
