"""How functions that change shapes carry positive scales of channels."""

import operator
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from .calls import Call, Value, whole
from .rules import flattened, unflattened
from .signals import Signal, fix
from .units import Units

__all__ = ["SHAPES"]


def _flatten(units: Units, call: Call, signal: Signal, reason: str) -> Signal:
    first, last = call.argument(1, "start_dim", 0), call.argument(2, "end_dim", -1)
    return flattened(signal) if (first, last) == (1, -1) else fix(units, signal, reason)


def _unflatten(units: Units, call: Call, signal: Signal, reason: str) -> Signal:
    sizes = call.argument(2, "sizes")
    if call.argument(1, "dim") != 1 or not whole(sizes):
        return fix(units, signal, reason)
    return unflattened(units, signal, tuple(sizes), reason)


def _reshape(units: Units, call: Call, signal: Signal, reason: str) -> Signal:
    """Only (batch, -1), which flattens, and (batch, channels, ...), which undoes it."""
    sizes = call.args[1:]
    if len(sizes) == 1 and isinstance(sizes[0], tuple | list):
        sizes = tuple(sizes[0])
    rest = sizes[1:]
    first = sizes[0] if sizes else None
    if first is Value.BATCH and rest == (-1,):
        return flattened(signal)
    fits = signal.axis == "last" and signal.spatial == 0 and whole(rest) and len(rest) > 1
    if fits and first in (Value.BATCH, -1) and len(signal.numbers) == np.prod(rest):
        return unflattened(units, signal, rest, reason)
    return fix(units, signal, reason)


def _reduced(units: Units, call: Call, signal: Signal, reason: str) -> Signal:
    """Means, sums and maxima over pixels."""
    dims = call.argument(1, "dim", ())
    dims = (dims,) if isinstance(dims, int) else tuple(dims or ())
    spatial = signal.spatial
    if not whole(dims) or signal.axis != "channel" or not spatial or not dims:
        return fix(units, signal, reason)
    places = {d if d >= 0 else d + spatial + 2 for d in dims}
    if not places <= set(range(2, spatial + 2)):
        return fix(units, signal, reason)
    if call.argument(2, "keepdim", False):
        return signal
    left = spatial - len(places)
    return replace(signal, axis="channel" if left else "last", spatial=left)


def _item(units: Units, call: Call, signal: Signal, reason: str) -> Signal:
    """A part of the channels, or of the pixels."""
    index = call.args[1] if isinstance(call.args[1], tuple) else (call.args[1],)
    plain = all(isinstance(part, slice) for part in index)
    fits = signal.axis == "channel" and signal.spatial and len(index) <= 2 + signal.spatial
    ends = [e for p in index if isinstance(p, slice) for e in (p.start, p.stop, p.step)]
    if not plain or not fits or not whole(e for e in ends if e is not None):
        return fix(units, signal, reason)
    if index[0] != slice(None):
        return fix(units, signal, reason)
    return signal.with_numbers(signal.numbers[index[1]]) if len(index) > 1 else signal


def _pad(units: Units, call: Call, signal: Signal, reason: str) -> Signal:
    """Zeros, or repeated pixels, around the map; zero channels before and after the others."""
    widths, mode = call.argument(1, "pad"), call.argument(2, "mode", "constant")
    if not isinstance(widths, tuple | list):
        return fix(units, signal, reason)
    widths = tuple(widths)
    zeros = mode != "constant" or not call.argument(3, "value", None)
    spatial = 2 * (signal.spatial or 0)
    if signal.axis != "channel" or not spatial or not zeros:
        return fix(units, signal, reason)
    if len(widths) <= spatial:
        return signal
    if not whole(widths[spatial : spatial + 2]):
        return fix(units, signal, reason)
    before, after = widths[spatial : spatial + 2]
    if len(widths) > spatial + 2 or mode != "constant" or min(before, after) < 0:
        return fix(units, signal, reason)
    parts = [units.new(before), signal.numbers, units.new(after)]
    return signal.with_numbers(np.concatenate(parts))


SHAPES: dict[Any, Callable[[Units, Call, Signal, str], Signal]] = {
    torch.flatten: _flatten,
    torch.unflatten: _unflatten,
    torch.reshape: _reshape,
    torch.mean: _reduced,
    torch.sum: _reduced,
    torch.amax: _reduced,
    operator.getitem: _item,
    F.pad: _pad,
}
