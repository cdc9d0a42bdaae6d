"""A network as a graph of its layers, by torch.fx, in training and in evaluation mode."""

import contextlib
import traceback
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import fx, nn
from torch.nn.utils.parametrize import is_parametrized

from .rules import known_layer

__all__ = ["graphs"]

TORCH = Path(torch.__file__).parent


class _Tracer(fx.Tracer):
    """Steps into modules that torch does not define, except those it is told to leave whole."""

    def __init__(self, leaves: tuple[type, ...]):
        super().__init__()
        self.leaves, self.failed = leaves, None

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        whole = isinstance(module, self.leaves) or is_parametrized(module) or known_layer(module)
        return whole or super().is_leaf_module(module, name)

    def call_module(self, module, forward, args, kwargs):
        try:
            return super().call_module(module, forward, args, kwargs)
        except Exception:
            if self.failed is None and not any(module.children()):
                self.failed = type(module)
            raise


def graphs(model: nn.Module, leaves: tuple[type, ...] = ()) -> Iterator[fx.Graph]:
    """The model's graph in training and in evaluation mode; the model is left as it was.

    A module without parts that cannot be traced is taken as a whole.

    Arguments:
        model: the network.
        leaves: classes of modules to take as a whole.

    Raises:
        ValueError: if torch.fx cannot trace the model; names the line where it stopped.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
        >>> [node.op for node in next(graphs(net)).nodes]
        ['placeholder', 'call_module', 'call_module', 'output']
    """
    for mode in (True, False):
        with _mode(model, mode):
            yield _trace(model, leaves)


def _trace(model: nn.Module, leaves: tuple[type, ...]) -> fx.Graph:
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
def _mode(model: nn.Module, training: bool) -> Iterator[None]:
    """All modules in one mode; then each in its own."""
    modes = {module: module.training for module in model.modules()}
    for module in modes:
        module.training = training
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
