"""What flows between layers: a signal, and the numbers of its channels' scales."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .units import Units

__all__ = ["NETWORK_INPUT", "Signal", "concatenate", "fix", "joined", "resolve", "signals_in"]


@dataclass(frozen=True)
class Signal:
    """The channels of a tensor that depends on the network's input.

    Arguments:
        numbers: of the scales of its channels, in order; None where their count is unknown and
            no scale can be carried.
        axis: "channel" (axis 1 of images), "last" (the features of a linear layer) or "flat"
            (axis 1, every channel several times in a row).
        spatial: how many axes follow the channels of an image; None if unknown.
        fixed: whether the scale is 1 by its making, as behind a sigmoid.
        reason: why it is, in words that follow the name of a weight.
    """

    numbers: np.ndarray | None
    axis: str = "channel"
    spatial: int | None = None
    fixed: bool = False
    reason: str = ""

    def with_numbers(self, numbers: np.ndarray | None) -> "Signal":
        """The same layout with other channels."""
        return replace(self, numbers=numbers)


NETWORK_INPUT = Signal(None, fixed=True, reason="is the network's input")


def signals_in(value: Any) -> list[Signal]:
    """The signals in nested arguments."""
    if isinstance(value, Signal):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, tuple | list):
        return [signal for item in value for signal in signals_in(item)]
    return []


def fix(units: Units, value: Any, reason: str) -> Signal:
    """Fix every signal in the arguments; what comes out of them has no scale."""
    for signal in signals_in(value):
        if signal.numbers is not None:
            units.fix(signal.numbers, reason)
    return Signal(None, fixed=True, reason=reason)


def resolve(signal: Signal, count: int, axes: tuple[str, ...]) -> np.ndarray | None:
    """The numbers of `count` features that a layer reads, or None if they do not fit."""
    numbers = signal.numbers
    if numbers is None or signal.axis not in axes or count % max(len(numbers), 1):
        return None
    times = count // len(numbers)
    if times == 1:
        return numbers
    return np.repeat(numbers, times) if signal.axis == "flat" else None


def joined(units: Units, terms: list[Signal], reason: str) -> Signal:
    """The sum of signals: all terms share their scales."""
    first, layouts = terms[0], {(term.axis, term.spatial) for term in terms}
    sizes = {None if term.numbers is None else len(term.numbers) for term in terms}
    if len(layouts) > 1 or len(sizes) > 1 or None in sizes:
        return fix(units, terms, reason)
    for other in terms[1:]:
        units.join(first.numbers, other.numbers)
    return replace(first, fixed=all(term.fixed for term in terms))


def concatenate(units: Units, parts: Any, dim: Any, reason: str) -> Signal:
    """Signals side by side along their channels."""
    known = isinstance(parts, tuple | list) and all(isinstance(part, Signal) for part in parts)
    if not known or any(part.numbers is None for part in parts):
        return fix(units, parts, reason)
    axes = {(part.axis, part.spatial) for part in parts}
    single = axes == {("last", 0)} and dim in (1, -1)
    images = len(axes) == 1 and parts[0].axis == "channel" and dim == 1
    if not (single or images):
        return fix(units, parts, reason)
    numbers = np.concatenate([part.numbers for part in parts])
    return replace(parts[0], numbers=numbers, fixed=all(part.fixed for part in parts))

