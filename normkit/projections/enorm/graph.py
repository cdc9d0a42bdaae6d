"""Walks a network's graph and finds which channels share a scale."""

from typing import Any

from torch import Tensor, fx, nn

from .calls import Call, Value, about_shape
from .functions import apply_function
from .rules import Options, apply_layer, known_layer
from .signals import NETWORK_INPUT, Signal, fix, signals_in
from .tracing import trace, unchanged
from .units import Units

__all__ = ["find_units", "owners", "refuse_replaced"]


def find_units(model: nn.Module, options: Options, leaves: tuple[type, ...] = ()) -> Units:
    """The scales of a model's channels, in training and in evaluation mode alike.

    Raises:
        ValueError: if torch.fx cannot trace the model.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
        >>> [use.names for use in find_units(net, Options()).uses.values()]
        [['0.weight'], ['0.bias'], ['2.weight'], ['2.bias']]
    """
    units, read = Units(), {}
    for training in (True, False):
        with unchanged(model, training):
            _walk(units, model, trace(model, leaves), options, read)
    for parameter, reason in read.values():
        units.fix_parameter(parameter, reason)
    _keep_shared(units, model)
    return units


def _walk(units: Units, model: nn.Module, graph: fx.Graph, options: Options, read: dict) -> None:
    values: dict[fx.Node, Any] = {}
    for node in graph.nodes:
        args = fx.node.map_arg(node.args, values.get)
        kwargs = fx.node.map_arg(node.kwargs, values.get)
        if node.op == "placeholder":
            values[node] = NETWORK_INPUT
        elif node.op == "get_attr":
            value = values[node] = _attribute(model, node.target)
            read[id(value)] = (value, "is read by a function, too")
        elif node.op == "call_module":
            values[node] = _module(units, model, node.target, (args, kwargs), options)
            module, reason = model.get_submodule(node.target), f"is used by {node.target!r}, too"
            if not known_layer(module):
                read |= {id(tensor): (tensor, reason) for tensor in module.parameters()}
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
        return Value.UNKNOWN
    args, kwargs = given
    if len(args) == 1 and not kwargs and isinstance(args[0], Signal):
        return apply_layer(units, name, module, args[0], options)
    return fix(units, given, f"feeds {name!r} ({type(module).__name__}), which is not followed")


def owners(model: nn.Module, parameters: list[Tensor]) -> list[tuple[nn.Module, str, Tensor]]:
    """Each of these parameters with every module that has it, and its name there."""
    wanted = {id(parameter) for parameter in parameters}
    return [
        (module, name, parameter)
        for module in model.modules()
        for name, parameter in module._parameters.items()
        if id(parameter) in wanted
    ]


def refuse_replaced(owned: list[tuple[nn.Module, str, Tensor]]) -> None:
    """Refuse a model whose weights are others than those that were found.

    Raises:
        RuntimeError: if a module has another tensor by that name.
    """
    for owner, name, tensor in owned:
        if owner._parameters.get(name) is not tensor:
            raise RuntimeError(
                f"the {name} of a {type(owner).__name__} is another tensor than when this ENorm "
                "was made; make a new one from the model"
            )


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
