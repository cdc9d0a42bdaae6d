"""How functions and methods of tensors carry positive scales of channels."""

import operator
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .calls import Call, Value
from .shapes import SHAPES
from .signals import Signal, concatenate, fix, joined, signals_in
from .units import Units

__all__ = ["apply_function"]


ELEMENTWISE = (
    *(F.relu, F.relu_, torch.relu, torch.relu_, F.leaky_relu, F.leaky_relu_, F.rrelu, F.rrelu_),
    *(F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.prelu),
    *(torch.abs, torch.neg, operator.neg, torch.clone),
)
METHODS = (
    *("relu", "relu_", "abs", "abs_", "neg", "neg_", "clone", "contiguous", "detach"),
    *("to", "float", "double", "half", "cpu", "cuda", "type_as", "requires_grad_"),
)
BY_CHANNEL = {
    **dict.fromkeys((F.max_pool1d, F.avg_pool1d, F.adaptive_avg_pool1d), 1),
    **dict.fromkeys((F.adaptive_max_pool1d, F.lp_pool1d), 1),
    **dict.fromkeys((F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d, torch.max_pool2d), 2),
    **dict.fromkeys((F.adaptive_max_pool2d, F.lp_pool2d), 2),
    **dict.fromkeys((F.max_pool3d, F.avg_pool3d, F.adaptive_avg_pool3d), 3),
    **{F.adaptive_max_pool3d: 3, F.interpolate: 0},
}
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
    reason = f"feeds {title}(), which is not followed"
    if "out" in call.kwargs:
        return fix(units, given, reason)
    first = call.args[0] if call.args else None
    alone = len(signals) == 1 and isinstance(first, Signal)
    if alone and (target in ELEMENTWISE or call.target in METHODS):
        return first
    if target in SUMS + PRODUCTS + QUOTIENTS:
        return _arithmetic(units, target, call, reason)
    if target is torch.cat or target in (torch.concat, torch.concatenate):
        parts, dim = call.argument(0, "tensors"), call.argument(1, "dim", 0)
        return concatenate(units, parts, dim, reason)
    rule = SHAPES.get(target) if alone else None
    if target in BY_CHANNEL and alone and not call.kwargs.get("return_indices"):
        fits = first.axis == "channel" and BY_CHANNEL[target] in (0, first.spatial)
        return first if fits else fix(units, given, reason)
    if rule is not None:
        return rule(units, call, first, reason)
    if alone and target in SAME_SHAPE:
        told = fix(units, given, f"feeds {title}(), which does not scale").reason
        return replace(first, fixed=True, reason=told)
    return fix(units, given, reason)


def _arithmetic(units: Units, target: Any, call: Call, reason: str) -> Signal:
    """Sums of signals, and products with what does not depend on the input or does not scale."""
    pair = [*call.args, *(call.kwargs[k] for k in ("input", "other") if k in call.kwargs)][:2]
    if call.kwargs.get("rounding_mode") or len(pair) < 2:
        return fix(units, (call.args, call.kwargs), reason)
    both = all(isinstance(term, Signal) for term in pair)
    signal = pair[0] if isinstance(pair[0], Signal) else pair[1]
    if target in SUMS:
        nothing = any(isinstance(term, int | float) and term == 0 for term in pair)
        known = joined(units, pair, reason) if both else signal if nothing else None
        return known or fix(units, pair, reason)
    if both:
        kept = [term for term in pair if not term.fixed]
        if target in PRODUCTS and len(kept) == 1 and (kept[0] is pair[0] or not _in_place(call)):
            return _gated(units, kept[0], *(t for t in pair if t is not kept[0]), reason)
        return fix(units, pair, reason)
    factor = pair[1] if signal is pair[0] else pair[0]
    if target in QUOTIENTS and signal is pair[1]:
        return fix(units, pair, reason)
    if _in_place(call) and signal is not pair[0]:
        return fix(units, pair, reason)
    known = not isinstance(factor, Value)
    single = factor.numel() == 1 if isinstance(factor, Tensor) else known
    if single or (signal.numbers is not None and len(signal.numbers) > 1):
        return signal
    return fix(units, pair, reason)


def _in_place(call: Call) -> bool:
    """Whether the first argument is overwritten, which later readers of it see."""
    return call.target in ("mul_", "div_", operator.imul, operator.itruediv)


def _gated(units: Units, signal: Signal, gate: Signal, reason: str) -> Signal:
    """A signal times one that has no scale, whose channels must not be more."""
    same = gate.numbers is not None and signal.numbers is not None
    if same and len(gate.numbers) in (1, len(signal.numbers)) and gate.axis == signal.axis:
        return signal
    return fix(units, (signal, gate), reason)
