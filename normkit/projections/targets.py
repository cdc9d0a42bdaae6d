"""Which layers a projection writes, and what is refused before it writes anything."""

__all__ = [
    "batch_norms",
    "check_bound",
    "check_weights",
    "check_written",
    "known_map",
    "layer_sizes",
    "weight_map",
    "written_layers",
]

import math
from numbers import Real

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from normkit.norms.inputs import input_sizes, known, weighted_layers
from normkit.norms.maps import LinearMap
from normkit.norms.rules import (
    BATCH_NORMS,
    CONVOLUTIONS,
    TRANSPOSED,
    check_finite,
    evaluation,
    linear_map,
    unchecked_map,
)


def check_bound(bound: float) -> float:
    """The bound as a float; refused unless it is finite and above 0."""
    if not isinstance(bound, Real) or isinstance(bound, bool) or not 0 < bound < math.inf:
        raise ValueError(f"bound {bound!r} is not a finite number above 0")
    return float(bound)


def _check_model(model: nn.Module) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__}, not a torch.nn.Module")


def batch_norms(model: nn.Module) -> dict[str, nn.Module]:
    """The BatchNorm layers of a model by name."""
    _check_model(model)
    layers = {name: part for name, part in model.named_modules() if isinstance(part, BATCH_NORMS)}
    if not layers:
        raise ValueError("model has no BatchNorm layer to project")
    return layers


def written_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The layers of a model by name that are a convolution or linear, as far as is known."""
    _check_model(model)
    shapes = (*CONVOLUTIONS, *TRANSPOSED, nn.Linear)
    layers = {
        name: layer
        for name, layer in weighted_layers(model)
        if known(layer) and not isinstance(layer, BATCH_NORMS)
    }
    with evaluation(model):
        for name, layer in list(layers.items()):
            if not isinstance(layer, shapes) and _diagonal(layer):
                del layers[name]
    if not layers:
        raise ValueError("model has no convolution or linear layer to project")
    return layers


def _diagonal(layer: nn.Module) -> bool:
    """Whether a layer of another type is a normalization, by its own rule."""
    try:
        return linear_map(layer, None).kind == "batch_norm"
    except (TypeError, ValueError):
        return False


def layer_sizes(model: nn.Module, layers: dict[str, nn.Module], input_size) -> dict[str, tuple]:
    """The spatial input shape of each layer that the model calls."""
    with evaluation(model):
        return input_sizes(model, layers, input_size)


def known_map(name: str, layer: nn.Module, size, norm: str, boundary: str = "zero") -> LinearMap:
    """The layer's linear map, in the type of its weights; refused with the layer's name."""
    try:
        unchecked_map(layer, size, boundary)
        with evaluation(layer):
            return linear_map(layer, size, boundary)
    except (TypeError, ValueError) as error:
        title = f"layer {name!r} ({type(layer).__name__})"
        raise ValueError(f"{title} has no {norm} norm to bound: {error}") from error


def weight_map(name: str, layer: nn.Module, size, norm: str, boundary: str = "zero") -> LinearMap:
    """The layer's linear map, its weight a view of a parameter, so that it can be written."""
    linear = known_map(name, layer, size, norm, boundary)
    own = {parameter.untyped_storage().data_ptr() for parameter in layer.parameters()}
    check_written(name, layer, norm, linear.weight.untyped_storage().data_ptr() in own)
    return linear


def check_written(name: str, layer: nn.Module, norm: str, owned: bool) -> None:
    """Refuse a layer whose weight is computed from other tensors."""
    if not owned or is_parametrized(layer, "weight"):
        raise ValueError(
            f"layer {name!r} ({type(layer).__name__}) computes its weight from other tensors, so "
            f"its {norm} norm cannot be projected; remove the parametrization"
        )


def check_weights(name: str, layer: nn.Module, linear: LinearMap) -> None:
    """Refuse weights that are not finite, with the name of the layer."""
    try:
        check_finite(layer, linear.weight)
    except ValueError as error:
        raise ValueError(f"layer {name!r}: {error}") from None
