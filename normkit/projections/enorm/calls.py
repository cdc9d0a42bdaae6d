"""What is called in a forward pass, with signals in the place of tensors."""

import enum
import operator
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .signals import Signal, signals_in

__all__ = ["Call", "Value", "about_shape", "whole"]

CONSTANT = ("dim", "numel", "ndimension", "stride", "get_device", "is_contiguous")
ATTRIBUTES = ("shape", "ndim", "device", "dtype", "is_cuda", "requires_grad")


class Value(enum.Enum):
    """What is no signal: the number of images, a shape, or something that nothing is known of."""

    BATCH, SHAPE, UNKNOWN = range(3)


@dataclass(frozen=True)
class Call:
    """A function or a method with its arguments, signals in the place of tensors."""

    target: Any
    args: tuple
    kwargs: dict

    def argument(self, place: int, name: str, default: Any = None) -> Any:
        """One argument, by place or by name."""
        return self.args[place] if len(self.args) > place else self.kwargs.get(name, default)


def about_shape(call: Call) -> Value | None:
    """What a call that no scale changes gives; None for others."""
    of_signal = bool(call.args) and isinstance(call.args[0], Signal)
    if not of_signal and call.target is operator.getitem and call.args[0] is Value.SHAPE:
        return Value.BATCH if call.args[1] == 0 else Value.UNKNOWN
    if of_signal and call.target is getattr and call.args[1] in ATTRIBUTES:
        return Value.SHAPE if call.args[1] == "shape" else Value.UNKNOWN
    if of_signal and call.target == "size":
        dim = call.argument(1, "dim")
        return {None: Value.SHAPE, 0: Value.BATCH}.get(dim, Value.UNKNOWN)
    free = call.target in CONSTANT or not signals_in((call.args, call.kwargs))
    return Value.UNKNOWN if free else None


def whole(values: Iterable[Any]) -> bool:
    """Whether all are whole numbers."""
    return all(isinstance(value, int) for value in values)
