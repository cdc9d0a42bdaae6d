"""Walks a network's graph and finds which channels share a scale."""

from typing import Any

from torch import Tensor, fx, nn

from .functions import UNKNOWN, Call, about_shape, apply_function
from .rules import Options, apply_layer
from .signals import NETWORK_INPUT, Signal, fix, signals_in
from .tracing import graphs
from .units import Units

__all__ = ["find_units"]


def find_units(model: nn.Module, options: Options, leaves: tuple[type, ...] = ()) -> Units:
    """The scales of a model's channels, in training and in evaluation mode alike.

    Raises:
        ValueError: if torch.fx cannot trace the model.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
        >>> [use.names for use in find_units(net, Options()).uses.values()]
        [['0.weight'], ['0.bias'], ['2.weight'], ['2.bias']]
    """
    units, read = Units(), []
    for graph in graphs(model, leaves):
        _walk(units, model, graph, options, read)
    for parameter in read:
        units.fix_parameter(parameter, "is read by a function, too")
    _keep_shared(units, model)
    return units


def _walk(units: Units, model: nn.Module, graph: fx.Graph, options: Options, read: list) -> None:
    values: dict[fx.Node, Any] = {}
    for node in graph.nodes:
        args = fx.node.map_arg(node.args, values.get)
        kwargs = fx.node.map_arg(node.kwargs, values.get)
        if node.op == "placeholder":
            values[node] = NETWORK_INPUT
        elif node.op == "get_attr":
            values[node] = _attribute(model, node.target)
            read.append(values[node])
        elif node.op == "call_module":
            values[node] = _module(units, model, node.target, (args, kwargs), options)
        elif node.op == "output":
            fix(units, args, "is the network's output")
        else:
            call = Call(node.target, args, kwargs)
            values[node] = about_shape(call) or apply_function(units, call)


def _attribute(model: nn.Module, target: str) -> Any:
    """What a name with dots stands for."""
    path, _, name = target.rpartition(".")
    return getattr(model.get_submodule(path), name)


def _module(units: Units, model: nn.Module, name: str, given: tuple, options: Options) -> Any:
    module, signals = model.get_submodule(name), signals_in(given)
    if not signals:
        return UNKNOWN
    args, kwargs = given
    if len(args) == 1 and not kwargs and isinstance(args[0], Signal):
        return apply_layer(units, name, module, args[0], options)
    return fix(units, given, f"feeds {name!r} ({type(module).__name__}), which does not scale")


def _keep_shared(units: Units, model: nn.Module) -> None:
    """Fix parameters that belong to a module, too, whose use is not known."""
    owners: dict[int, dict[int, str]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        for name, parameter in module._parameters.items():
            if isinstance(parameter, Tensor):
                place = owners.setdefault(id(parameter), {})
                place.setdefault((id(module), name), f"{path}.{name}" if path else name)
    for use in units.uses.values():
        known = set()
        for name in use.names:
            path, _, last = name.rpartition(".")
            known.add((id(model.get_submodule(path)), last))
        for place, name in owners.get(id(use.parameter), {}).items():
            if place not in known:
                units.fix_parameter(use.parameter, f"is used by {name!r}, too")
