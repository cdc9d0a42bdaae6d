"""The norms of every layer of a network, as a tidy table."""

__all__ = ["layer_table"]

import math
import time
from collections.abc import Iterator

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from .absolute import absolute_norm, operator_frobenius
from .maps import LinearMap, in_float64
from .rules import (
    BATCH_NORMS,
    BOUNDARIES,
    CONVOLUTIONS,
    TRANSPOSED,
    check_name,
    evaluation,
    linear_map,
    measured_map,
)
from .spectral import bracket, check_rtol, rank_bracket

NORMS = ("l1", "linf", "spectral", "frobenius", "stable_rank")
KINDS = (
    (CONVOLUTIONS + TRANSPOSED, "conv"),
    (BATCH_NORMS, "batch_norm"),
    (nn.Linear, "linear"),
)
COLUMNS = ("layer", "kind", "norm", "value", "lower", "upper", "status", "seconds")


def _known(layer: nn.Module) -> bool:
    return linear_map.dispatch(type(layer)) is not linear_map.dispatch(object)


def _layers(module: nn.Module, name: str = "", seen: set | None = None) -> Iterator:
    """Names and layers that hold weights, each once; a layer with a rule is taken whole."""
    seen = set() if seen is None else seen
    if module in seen or isinstance(module, ParametrizationList):
        return
    seen.add(module)
    if _known(module) or next(module.parameters(recurse=False), None) is not None:
        yield name, module
    if not _known(module):
        for child, part in module.named_children():
            yield from _layers(part, f"{name}.{child}" if name else child, seen)


def _wanted(model: nn.Module, layers: dict[str, nn.Module], reached: dict) -> str:
    """What the first layer to see an input (else the first defined) wants, in words."""
    named = {layer: name for name, layer in layers.items()}
    first = next(iter(reached), None) or next(filter(_known, layers.values()), model)
    name = f"{named.get(first, '')!r} {type(first).__name__}"
    for attribute, what in (("in_channels", "channels"), ("in_features", "features")):
        if attribute in vars(first):
            return f"its first layer {name} wants {vars(first)[attribute]} input {what}"
    return f"its first layer is {name}"


def _sizes(model: nn.Module, layers: dict[str, nn.Module], input_size) -> dict:
    """The spatial input shape of each layer when the model first calls it on a zero image."""
    sizes, handles = {}, []

    def see(layer: nn.Module, args: tuple) -> None:
        if layer not in sizes and args and isinstance(args[0], Tensor):
            sizes[layer] = tuple(args[0].shape[2:])

    positive = isinstance(input_size, (tuple, list)) and all(
        isinstance(n, int) and n > 0 for n in input_size
    )
    if not (positive and input_size):
        raise ValueError(
            f"input_size {input_size!r} is not (C, H, W) in positive integers; "
            f"{_wanted(model, layers, sizes)}"
        )
    floating = [p for p in model.parameters() if p.is_floating_point()]
    like = floating[0] if floating else torch.zeros(())
    try:
        handles = [layer.register_forward_pre_hook(see) for layer in layers.values()]
        model(torch.zeros(1, *input_size, dtype=like.dtype, device=like.device))
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        wanted, reason = _wanted(model, layers, sizes), str(error).partition("\n")[0]
        raise ValueError(
            f"input_size {tuple(input_size)} does not fit the model: {wanted} ({reason})"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    return sizes


class _Measurement:
    """One layer's maps and spectral bracket, each made when a norm first asks for it."""

    def __init__(self, layer: nn.Module, size, boundary: str, rtol: float):
        self.layer, self.size, self.boundary, self.rtol = layer, size, boundary, rtol
        self.maps, self.sigma = {}, None
        self.kind = next((k for types, k in KINDS if isinstance(layer, types)), "other")

    def linear(self, boundary: str) -> LinearMap:
        """The layer's map in float64."""
        if boundary not in self.maps:
            self.maps[boundary] = in_float64(measured_map(self.layer, self.size, boundary))
            self.kind = self.maps[boundary].kind
        return self.maps[boundary]

    def measure(self, norm: str) -> tuple[float, float, float]:
        """Value, lower and upper end of one norm."""
        if norm in ("l1", "linf"):
            return (absolute_norm(self.linear("zero"), norm).item(),) * 3
        linear = self.linear(self.boundary)
        if norm == "frobenius":
            return (operator_frobenius(linear).item(),) * 3
        self.sigma = self.sigma or bracket(linear, self.rtol)
        if norm == "spectral":
            return self.sigma.lower, *self.sigma
        rank = rank_bracket(operator_frobenius(linear).item(), self.sigma)
        return rank.upper, *rank

    def row(self, norm: str) -> tuple:
        """Kind, norm, value, lower, upper, status and seconds."""
        start, numbers, status = time.perf_counter(), (math.nan,) * 3, "ok"
        try:
            numbers = self.measure(norm)
        except (ValueError, TypeError, RuntimeError) as error:
            status = str(error)
            if self.size is None and _known(self.layer):
                status = "the forward pass never called this layer, so its input shape is unknown"
        return self.kind, norm, *numbers, status, time.perf_counter() - start


@torch.no_grad()
def layer_table(
    model: nn.Module,
    input_size: tuple[int, ...],
    *,
    norms: tuple[str, ...] = NORMS,
    boundary: str = "zero",
    rtol: float = 1e-3,
) -> pd.DataFrame:
    """The norms of every layer of a network that holds weights, one row per layer and norm.

    *In plain words:* one forward pass of a zero image finds the input shape of each layer; then
    each is measured by itself, in evaluation mode. The model is left as it was found. A layer
    used more than once is measured at its first input. A layer that cannot be measured keeps its
    rows, with the reason as their status.

    Arguments:
        model: the network.
        input_size: shape (C, H, W) of one image.
        norms: any of "l1", "linf", "spectral", "frobenius", "stable_rank".
        boundary: "zero" for operators as executed, "circular" for the taps on the torus; of
            spectral, frobenius and stable_rank (l1 and linf are always as executed).
        rtol: relative accuracy of the spectral norm.

    Shape:
        columns layer (qualified name), kind ("linear", "conv", "batch_norm", "other"), norm,
        value, lower, upper, status ("ok" or a sentence), seconds. Where there is a bracket,
        value is the end that has converged: lower, for the stable rank upper.

    Raises:
        ValueError: if a norm or the boundary is unknown, rtol is out of range, or the model does
            not take the input.

    Example:
        >>> conv, head = nn.Conv2d(3, 4, 3), nn.Linear(64, 2)
        >>> model = nn.Sequential(conv, nn.BatchNorm2d(4), nn.Flatten(), head)
        >>> table = layer_table(model, (3, 6, 6), norms=("linf", "spectral"))
        >>> table[["layer", "kind", "norm", "status"]].iloc[2:4].values.tolist()
        [['1', 'batch_norm', 'linf', 'ok'], ['1', 'batch_norm', 'spectral', 'ok']]
        >>> bool((table.lower <= table.upper).all())
        True
    """
    norms = (norms,) if isinstance(norms, str) else tuple(norms)
    for norm in norms:
        check_name("norm", norm, NORMS)
    check_name("boundary", boundary, BOUNDARIES)
    check_rtol(rtol)
    layers = dict(_layers(model))
    with evaluation(model):
        sizes = _sizes(model, layers, input_size)
        rows = []
        for name, layer in layers.items():
            measurement = _Measurement(layer, sizes.get(layer), boundary, rtol)
            rows += [(name, *measurement.row(norm)) for norm in norms]
    return pd.DataFrame(rows, columns=list(COLUMNS))
