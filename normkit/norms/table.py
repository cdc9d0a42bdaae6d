"""The norms of every layer of a network, as a tidy table."""

__all__ = ["layer_table"]

import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import chain

import pandas as pd
import torch
from threadpoolctl import threadpool_limits
from torch import nn
from tqdm import tqdm

from .absolute import absolute_norm, operator_frobenius
from .inputs import input_sizes, known, weighted_layers
from .maps import LinearMap, in_float64
from .rules import (
    BATCH_NORMS,
    BOUNDARIES,
    CONVOLUTIONS,
    TRANSPOSED,
    check_name,
    evaluation,
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

    def reason(self, error: Exception) -> str:
        """Why the layer has no such norm, in one sentence."""
        if self.size is None and known(self.layer):
            return "the forward pass never called this layer, so its input shape is unknown"
        return str(error).partition("\n")[0]

    def row(self, norm: str) -> tuple:
        """Kind, norm, value, lower, upper, status and seconds."""
        start, numbers, status = time.perf_counter(), (math.nan,) * 3, "ok"
        try:
            numbers = self.measure(norm)
        except (ValueError, TypeError, RuntimeError, ArithmeticError, MemoryError) as error:
            status = self.reason(error)
        return self.kind, norm, *numbers, status, time.perf_counter() - start

    @torch.no_grad()
    def rows(self, norms: tuple[str, ...]) -> list[tuple]:
        """One row a norm; what they share counts for the first that needs it."""
        return [self.row(norm) for norm in norms]

    def work(self) -> float:
        """About how long the spectral norm takes, in no unit."""
        weights = sum(p.numel() for p in self.layer.parameters())
        return weights**1.5 * math.prod(self.size or ())


def _each(measure: Callable, names: list[str], workers: int, progress: bool) -> dict:
    """`measure` of every name, each worker on one torch thread: no sum depends on their number."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    pool, limit = ThreadPoolExecutor(workers), threadpool_limits(1, user_api="blas")
    try:
        names_of = {pool.submit(measure, name): name for name in names}
        hidden = None if progress else True
        shown = {"total": len(names), "unit": "layer", "leave": False, "disable": hidden}
        return {names_of[done]: done.result() for done in tqdm(as_completed(names_of), **shown)}
    finally:
        pool.shutdown(cancel_futures=True)
        limit.restore_original_limits()
        torch.set_num_threads(threads)


def _workers(model: nn.Module, workers: int | None) -> int:
    """How many layers at a time: one on an accelerator, which is busy with one."""
    if workers is not None and not (isinstance(workers, int) and workers > 0):
        raise ValueError(f"workers {workers!r} is not a whole number above 0, or None")
    if any(t.device.type != "cpu" for t in chain(model.parameters(), model.buffers())):
        return 1
    return workers or torch.get_num_threads()


@torch.no_grad()
def layer_table(
    model: nn.Module,
    input_size: tuple[int, ...] | tuple[tuple[int, ...], ...],
    *,
    norms: tuple[str, ...] = NORMS,
    boundary: str = "zero",
    rtol: float = 1e-3,
    workers: int | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """The norms of every layer of a network that holds weights, one row per layer and norm.

    *In plain words:* one forward pass of a zero image finds the input shape of each layer; then
    each is measured by itself, in evaluation mode. The model is left as it was found. A layer
    used more than once is measured at its first input. A Linear used on tokens or on
    channels-last maps is one matrix at every position, and its norms, Frobenius too, are those
    of that matrix. A layer that cannot be measured keeps its rows, with the reason as status.

    Arguments:
        model: the network, on any device.
        input_size: shape (C, H, W) of one image; where forward needs several inputs, one shape
            for each, such as ((3, 32, 32), (10,)).
        norms: any of "l1", "linf", "spectral", "frobenius", "stable_rank".
        boundary: "zero" for operators as executed, "circular" for the taps on the torus; of
            spectral, frobenius and stable_rank (l1 and linf are always as executed).
        rtol: relative accuracy of the spectral norm.
        workers: layers measured at a time, each on one torch thread; None for as many as torch
            has threads. The values do not depend on it. An accelerator takes one at a time.
        progress: show a progress bar where standard error is a terminal.

    Shape:
        columns layer (qualified name), kind ("linear", "conv", "batch_norm", "other"), norm,
        value, lower, upper, status ("ok" or a sentence), seconds. Where there is a bracket,
        value is the end that has converged: lower, for the stable rank upper.

    Raises:
        ValueError: if a norm or the boundary is unknown, rtol or workers is out of range, or the
            model does not take the input.

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
    workers, layers = _workers(model, workers), dict(weighted_layers(model))
    with evaluation(model):
        sizes = input_sizes(model, layers, input_size)
        made = {
            name: _Measurement(layer, sizes.get(name), boundary, rtol)
            for name, layer in layers.items()
        }
        largest_first = sorted(made, key=lambda name: -made[name].work())
        found = _each(lambda name: made.pop(name).rows(norms), largest_first, workers, progress)
    rows = [(name, *row) for name in layers for row in found[name]]
    return pd.DataFrame(rows, columns=list(COLUMNS))
