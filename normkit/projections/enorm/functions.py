"""How functions and methods of tensors carry positive scales of channels."""

import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .rules import flattened, unflattened
from .signals import Signal, concatenate, fix, joined, signals_in
from .units import Units

__all__ = ["Call", "about_shape", "apply_function"]

BATCH, SHAPE, UNKNOWN = "number of images", "shape", "does not depend on the input"
CONSTANT = ("dim", "numel", "ndimension", "stride", "get_device", "is_contiguous")
ATTRIBUTES = ("shape", "ndim", "device", "dtype", "is_cuda", "requires_grad")
ELEMENTWISE = (
    *(F.relu, F.relu_, torch.relu, torch.relu_, F.leaky_relu, F.leaky_relu_, F.rrelu, F.rrelu_),
    *(F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.prelu),
    *(torch.abs, torch.neg, operator.neg, torch.clone),
)
METHODS = (
    *("relu", "relu_", "abs", "abs_", "neg", "neg_", "clone", "contiguous", "detach"),
    *("to", "float", "double", "half", "cpu", "cuda", "type_as", "requires_grad_"),
)
BY_CHANNEL = (
    *(F.max_pool1d, F.max_pool2d, F.max_pool3d, F.avg_pool1d, F.avg_pool2d, F.avg_pool3d),
    *(F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d),
    *(F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d),
    *(F.lp_pool1d, F.lp_pool2d, F.interpolate, torch.max_pool2d),
)
SUMS = (operator.add, operator.iadd, torch.add, operator.sub, operator.isub, torch.sub)
PRODUCTS = (operator.mul, operator.imul, torch.mul)
QUOTIENTS = (operator.truediv, operator.itruediv, torch.div, torch.true_divide)
SAME_SHAPE = (
    *(torch.sigmoid, torch.tanh, F.sigmoid, F.tanh, F.gelu, F.silu, F.elu, F.celu, F.selu),
    *(F.relu6, F.hardtanh, F.hardsigmoid, F.hardswish, F.softplus, F.mish, F.logsigmoid),
    *(F.softmax, F.log_softmax, torch.softmax, torch.log_softmax, torch.exp, torch.clamp),
)
NAMES = {
    **{name: operator.add for name in ("add", "add_")},
    **{name: operator.sub for name in ("sub", "sub_")},
    **{name: operator.mul for name in ("mul", "mul_")},
    **{name: operator.truediv for name in ("div", "div_")},
    **{name: torch.sigmoid for name in ("sigmoid", "sigmoid_")},
    **{name: torch.tanh for name in ("tanh", "tanh_")},
    **{name: F.softmax for name in ("softmax", "log_softmax", "clamp", "clamp_", "exp")},
    **{name: torch.mean for name in ("mean", "sum", "amax", "amin")},
    **{"flatten": torch.flatten, "unflatten": torch.unflatten},
    **{"view": torch.reshape, "reshape": torch.reshape, "unsqueeze": torch.unsqueeze},
}


@dataclass(frozen=True)
class Call:
    """A function or a method with its arguments, signals in the place of tensors."""

    target: Any
    args: tuple
    kwargs: dict

    def argument(self, place: int, name: str, default: Any = None) -> Any:
        """One argument, by place or by name."""
        return self.args[place] if len(self.args) > place else self.kwargs.get(name, default)


def about_shape(call: Call) -> str | None:
    """What a call that no scale changes is about: BATCH, SHAPE or UNKNOWN; None for others."""
    if call.target is getattr and call.args[1] in ATTRIBUTES:
        return SHAPE if call.args[1] == "shape" else UNKNOWN
    if call.target == "size":
        return SHAPE if len(call.args) == 1 else BATCH if call.args[1] == 0 else UNKNOWN
    if call.target is operator.getitem and call.args[0] == SHAPE:
        return BATCH if call.args[1] == 0 else UNKNOWN
    return UNKNOWN if call.target in CONSTANT or not signals_in((call.args, call.kwargs)) else None


def apply_function(units: Units, call: Call) -> Signal:
    """What a function makes of signals; one without a rule fixes them.

    Arguments:
        units: told of all that must share or keep its scale.
        call: has at least one signal among its arguments.
    """
    given = (call.args, call.kwargs)
    signals = signals_in(given)
    if all(signal.numbers is None for signal in signals):
        return signals[0]
    target = NAMES.get(call.target, call.target)
    title = call.target if isinstance(call.target, str) else target.__name__
    reason = f"feeds {title}(), which does not scale"
    first = call.args[0] if call.args else None
    alone = len(signals) == 1 and isinstance(first, Signal)
    if alone and (target in ELEMENTWISE or call.target in METHODS):
        return first
    if target in SUMS + PRODUCTS + QUOTIENTS:
        return _arithmetic(units, target, call, reason)
    if target is torch.cat or target in (torch.concat, torch.concatenate):
        return concatenate(units, list(call.args[0]), call.argument(1, "dim", 0), reason)
    rule = RULES.get(target) if alone else None
    if target in BY_CHANNEL and alone and not call.kwargs.get("return_indices"):
        rule = _by_channel
    if rule is not None:
        return rule(units, call, first, reason)
    told = fix(units, given, reason)
    if alone and target in SAME_SHAPE:
        return replace(first, fixed=True, reason=told.reason)
    return told


def _arithmetic(units: Units, target: Any, call: Call, reason: str) -> Signal:
    """Sums of signals, and products with what does not depend on the input or does not scale."""
    pair = [*call.args, *(call.kwargs[k] for k in ("input", "other") if k in call.kwargs)][:2]
    both = all(isinstance(term, Signal) for term in pair)
    signal = pair[0] if isinstance(pair[0], Signal) else pair[1]
    if target in SUMS:
        nothing = any(isinstance(term, int | float) and term == 0 for term in pair)
        known = joined(units, pair, reason) if both else signal if nothing else None
        return known or fix(units, pair, reason)
    if both:
        kept = [term for term in pair if not term.fixed]
        if target in PRODUCTS and len(kept) == 1:
            return _gated(units, kept[0], *(t for t in pair if t is not kept[0]), reason)
        return fix(units, pair, reason)
    factor = pair[1] if signal is pair[0] else pair[0]
    if target in QUOTIENTS and signal is pair[1]:
        return fix(units, pair, reason)
    single = factor.numel() == 1 if isinstance(factor, Tensor) else factor is not UNKNOWN
    if single or (signal.numbers is not None and len(signal.numbers) > 1):
        return signal
    return fix(units, pair, reason)


def _gated(units: Units, signal: Signal, gate: Signal, reason: str) -> Signal:
    """A signal times one that has no scale, whose channels must not be more."""
    same = gate.numbers is not None and signal.numbers is not None
    if same and len(gate.numbers) in (1, len(signal.numbers)) and gate.axis == signal.axis:
        return signal
    return fix(units, (signal, gate), reason)


def _by_channel(units: Units, call: Call, signal: Signal, reason: str) -> Signal:
    return signal if signal.axis == "channel" else fix(units, signal, reason)


def _flatten(units: Units, call: Call, signal: Signal, reason: str) -> Signal:
    first, last = call.argument(1, "start_dim", 0), call.argument(2, "end_dim", -1)
    return flattened(signal) if (first, last) == (1, -1) else fix(units, signal, reason)


def _unflatten(units: Units, call: Call, signal: Signal, reason: str) -> Signal:
    sizes = call.argument(2, "sizes")
    if call.argument(1, "dim") != 1 or not all(isinstance(n, int) for n in sizes):
        return fix(units, signal, reason)
    return unflattened(units, signal, tuple(sizes), reason)


def _reshape(units: Units, call: Call, signal: Signal, reason: str) -> Signal:
    """Only (batch, -1), which flattens, and (batch, channels, ...), which undoes it."""
    sizes = call.args[1:]
    if len(sizes) == 1 and isinstance(sizes[0], tuple | list):
        sizes = tuple(sizes[0])
    rest = sizes[1:]
    first = sizes[0] if sizes else None
    if first == BATCH and rest == (-1,):
        return flattened(signal)
    whole = signal.axis == "last" and all(isinstance(n, int) and n > 0 for n in rest)
    if first in (BATCH, -1) and len(rest) > 1 and whole and len(signal.numbers) == np.prod(rest):
        return unflattened(units, signal, rest, reason)
    return fix(units, signal, reason)


def _reduced(units: Units, call: Call, signal: Signal, reason: str) -> Signal:
    """Means, sums and maxima over pixels."""
    dims = call.argument(1, "dim", ())
    dims = (dims,) if isinstance(dims, int) else tuple(dims or ())
    spatial = signal.spatial
    if signal.axis != "channel" or not spatial or not dims:
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
    if not plain or not fits or signals_in(ends) or index[0] != slice(None):
        return fix(units, signal, reason)
    return signal.with_numbers(signal.numbers[index[1]]) if len(index) > 1 else signal


def _pad(units: Units, call: Call, signal: Signal, reason: str) -> Signal:
    """Zeros, or repeated pixels, around the map; zero channels before and after the others."""
    widths, mode = tuple(call.args[1]), call.argument(2, "mode", "constant")
    zeros = mode != "constant" or not call.argument(3, "value", None)
    spatial = 2 * (signal.spatial or 0)
    if signal.axis != "channel" or not spatial or not zeros:
        return fix(units, signal, reason)
    if len(widths) <= spatial:
        return signal
    before, after = widths[spatial : spatial + 2]
    if len(widths) > spatial + 2 or mode != "constant" or min(before, after) < 0:
        return fix(units, signal, reason)
    parts = [units.new(before), signal.numbers, units.new(after)]
    return signal.with_numbers(np.concatenate(parts))


RULES: dict[Any, Callable[[Units, Call, Signal, str], Signal]] = {
    torch.flatten: _flatten,
    torch.unflatten: _unflatten,
    torch.reshape: _reshape,
    torch.mean: _reduced,
    torch.sum: _reduced,
    torch.amax: _reduced,
    operator.getitem: _item,
    F.pad: _pad,
}
