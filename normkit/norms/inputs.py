"""Which layers of a network hold weights, and the input shape that each one sees."""

__all__ = ["input_sizes", "weighted_layers"]

import inspect
from collections.abc import Iterator
from inspect import Parameter

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from .rules import linear_map

FAULTS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)


def known(layer: nn.Module) -> bool:
    """Whether a rule says which linear map the layer is."""
    return linear_map.dispatch(type(layer)) is not linear_map.dispatch(object)


def _weighted(layer: nn.Module) -> bool:
    """Whether the layer itself holds weights: parameters, a buffer, or packed integers."""
    own = next(layer.parameters(recurse=False), None)
    return own is not None or getattr(layer, "weight", None) is not None


def weighted_layers(module: nn.Module, name: str = "", seen: set | None = None) -> Iterator:
    """Names and layers that hold weights, each once; a layer with a rule is taken whole.

    Example:
        >>> net = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.MultiheadAttention(3, 1))
        >>> [name for name, _ in weighted_layers(net)]
        ['0', '2', '2.out_proj']
    """
    seen = set() if seen is None else seen
    if module in seen or isinstance(module, ParametrizationList):
        return
    seen.add(module)
    if known(module) or _weighted(module):
        yield name, module
    if not known(module):
        for child, part in module.named_children():
            yield from weighted_layers(part, f"{name}.{child}" if name else child, seen)


def _is_shape(value) -> bool:
    listed = isinstance(value, (tuple, list)) and len(value) > 0
    return listed and all(isinstance(n, int) and n > 0 for n in value)


def _wanted(layers: dict[str, nn.Module], reached: list[str]) -> str:
    """What the first layer to see an input (else the first defined) wants, in words."""
    ruled = (name for name in layers if known(layers[name]))
    names = [*reached, *ruled, *layers]
    if not names:
        return "no layer of it holds weights"
    name = names[0]
    title, own = f"{name!r} {type(layers[name]).__name__}", vars(layers[name])
    for attribute, what in (("in_channels", "channels"), ("in_features", "features")):
        if attribute in own:
            return f"its first layer {title} wants {own[attribute]} input {what}"
    return f"its first layer is {title}"


def _shapes(model: nn.Module, layers: dict[str, nn.Module], input_size) -> list[tuple]:
    """The shape of each input; refused if they are no shapes or fewer than forward needs."""
    shapes = [input_size] if _is_shape(input_size) else input_size
    if not (isinstance(shapes, (tuple, list)) and shapes and all(map(_is_shape, shapes))):
        raise ValueError(
            f"input_size {input_size!r} is not (C, H, W) in positive integers, nor several such "
            f"shapes, one per input; {_wanted(layers, [])}"
        )
    try:
        taken = inspect.signature(model.forward).parameters.values()
    except ValueError:
        name = type(model).__name__
        raise ValueError(
            f"model is a {name}, compiled; pass the module it was made from"
        ) from None
    places = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    needed = [p.name for p in taken if p.default is p.empty and p.kind in places]
    if len(needed) > len(shapes):
        raise ValueError(
            f"input_size gives {len(shapes)} of the {len(needed)} inputs ({', '.join(needed)}) "
            f"that forward of {type(model).__name__} needs; pass one shape for each, such as "
            "((3, 32, 32), (3, 32, 32))"
        )
    return [tuple(shape) for shape in shapes]


def input_sizes(model: nn.Module, layers: dict[str, nn.Module], input_size) -> dict[str, tuple]:
    """The spatial input shape of each layer when the model first calls it on zeros.

    Arguments:
        model: in the mode that is to be measured.
        layers: the layers to watch, by name.
        input_size: shape (C, H, W) of one image; for a model of several inputs one shape each.

    Raises:
        ValueError: if the model does not take the input.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AvgPool2d(2), nn.Conv2d(4, 2, 1))
        >>> input_sizes(net, dict(weighted_layers(net)), (3, 8, 6))
        {'0': (8, 6), '2': (3, 2)}
    """
    shapes, sizes, handles = _shapes(model, layers, input_size), {}, []
    names = {layer: name for name, layer in layers.items()}
    for name, layer in layers.items():
        if any(map(nn.parameter.is_lazy, layer.parameters(recurse=False))):
            raise ValueError(f"layer {name!r} is not initialized; run the model once first")

    def see(layer: nn.Module, args: tuple, named: dict) -> None:
        tensors = [x for x in (*args, *named.values()) if isinstance(x, Tensor)]
        if tensors:
            sizes.setdefault(names[layer], tuple(tensors[0].shape[2:]))

    like = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(()))
    try:
        for layer in layers.values():
            handles.append(layer.register_forward_pre_hook(see, with_kwargs=True))
        model(*(like.new_zeros(1, *shape) for shape in shapes))
    except FAULTS as error:
        reached = list(sizes)
        place = f"failed at layer {reached[-1]!r} or after it: " if reached else ""
        raise ValueError(
            f"input_size {tuple(input_size)} does not fit the model: {_wanted(layers, reached)} "
            f"({place}{str(error).partition(chr(10))[0]})"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    return sizes
