"""A network as a graph of its layers, by torch.fx, and the network as it was before."""

import contextlib
import traceback
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import fx, nn
from torch.nn.utils.parametrize import is_parametrized

from normkit.models import Convolution

from .rules import known_layer

__all__ = ["trace", "unchanged"]

TORCH = Path(torch.__file__).parent


class _Tracer(fx.Tracer):
    """Steps into modules that torch does not define, except those it is told to leave whole."""

    def __init__(self, leaves: tuple[type, ...]):
        super().__init__()
        self.leaves, self.failed = leaves, None

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        whole = isinstance(module, (Convolution, *self.leaves)) or is_parametrized(module)
        whole = whole or known_layer(module)
        return whole or super().is_leaf_module(module, name)

    def call_module(self, module, forward, args, kwargs):
        try:
            return super().call_module(module, forward, args, kwargs)
        except Exception:
            if self.failed is None and not any(module.children()):
                self.failed = type(module)
            raise


def trace(model: nn.Module, leaves: tuple[type, ...] = ()) -> fx.Graph:
    """The model's graph, in the mode it is in.

    A module without parts that cannot be traced is taken as a whole.

    Arguments:
        model: the network.
        leaves: classes of modules to take as a whole.

    Raises:
        ValueError: if torch.fx cannot trace the model; names the line where it stopped.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
        >>> [node.op for node in trace(net).nodes]
        ['placeholder', 'call_module', 'call_module', 'output']
    """
    while True:
        tracer = _Tracer(leaves)
        try:
            return tracer.trace(model)
        except Exception as error:
            if tracer.failed is None or tracer.failed in leaves:
                raise ValueError(_told(model, error)) from error
            leaves = (*leaves, tracer.failed)


def _told(model: nn.Module, error: Exception) -> str:
    """What went wrong, on which line, and what can be done."""
    frames = traceback.extract_tb(error.__traceback__)
    outside = [f for f in frames if TORCH not in Path(f.filename).parents and f.line]
    where = outside[-1] if outside else frames[-1]
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return (
        f"torch.fx cannot trace {type(model).__name__}: {reason} ({where.filename}, line "
        f"{where.lineno}: {where.line}); name the class of the module around that line in leaves, "
        "such as leaves=(MyBlock,), to take it as a whole and leave its weights as they are"
    )


@contextlib.contextmanager
def unchanged(model: nn.Module, training: bool) -> Iterator[None]:
    """All modules in one mode; then everything as it was, whatever a forward pass has set."""
    kept = [(part, dict(vars(part)), dict(part._buffers)) for part in model.modules()]
    values = [b.clone() for _, _, buffers in kept for b in buffers.values() if b is not None]
    for part, _, _ in kept:
        part.training = training
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        fresh = iter(values)
        for part, state, buffers in kept:
            vars(part).clear()
            vars(part).update(state)
            part._buffers.clear()
            part._buffers.update(buffers)
            for buffer in buffers.values():
                if buffer is not None and not torch.equal(buffer, old := next(fresh)):
                    buffer.data.copy_(old)
