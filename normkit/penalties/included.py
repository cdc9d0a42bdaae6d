"""The layers that a penalty acts on: their effective weights, and the way back to gradients."""

__all__ = ["IncludedLayer", "add_to_gradients_", "find_sizes", "included_layers", "watch"]

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from normkit.norms.inputs import FAULTS, input_sizes, known, weighted_layers
from normkit.norms.maps import LinearMap
from normkit.norms.rules import BATCH_NORMS, evaluation, unchecked_map
from normkit.norms.table import KINDS

UNREACHED = "no forward pass called it, so its input shape is unknown"


class IncludedLayer:
    """One layer: its linear map at every step, and where its gradient is.

    The weight of most layers is a view of a parameter: their geometry is found once, and the
    gradient of the parameter is written directly. Any other weight is computed, so autograd knows
    the way from it to the parameters.

    Arguments:
        name: qualified name in the model.
        layer: the layer.
        size: its spatial input shape in pixels, None where that is not known yet.
    """

    def __init__(self, name: str, layer: nn.Module, size: tuple[int, ...] | None = None):
        self.name, self.layer, self.size = name, layer, size
        self.parameter, self.given, self._place, self._map = None, [], None, None

    def read(self, norm: str) -> LinearMap | None:
        """The layer's linear map as evaluated; None if its input shape is needed and not known.

        Raises:
            ValueError: if the layer has no such norm.
        """
        if self._current():
            weight = self.parameter.detach().view(self._map.weight.shape)
            return replace(self._map, weight=weight)
        if "weight" in vars(self.layer):
            raise ValueError(
                f"layer {self.name!r} has no {norm} norm to decay: a hook sets its weight at each "
                "forward pass, and no gradient comes back; use torch.nn.utils.parametrizations"
            )
        try:
            with torch.enable_grad():
                # The norms of a diagonal are the same at every pixel.
                size = None if isinstance(self.layer, BATCH_NORMS) else self.size
                linear = unchecked_map(self.layer, size)
        except FAULTS as error:
            if self.size is None:
                return None
            reason = str(error).partition("\n")[0]
            raise ValueError(f"layer {self.name!r} has no {norm} norm: {reason}") from error
        self._keep(linear)
        return linear

    def missing(self, linear: LinearMap) -> str | None:
        """Why there is no gradient to add to, if there is none; notes those of a computed one."""
        if self.parameter is not None:
            trained, given = self.parameter.requires_grad, self.parameter.grad is not None
        else:
            trained = linear.weight.requires_grad
            own = self.layer.parameters()
            self.given = [p for p in own if p.requires_grad and p.grad is not None]
            given = len(self.given) > 0
        return None if trained and given else "its gradient is None" if trained else "it is frozen"

    def _keep(self, linear: LinearMap) -> None:
        """Note the parameter that the weight is a view of, entry by entry, if it is one."""
        self.parameter, base = None, linear.weight._base
        if base is None:
            return
        self._map = replace(linear, weight=linear.weight.detach().to("meta"))
        flat = linear.weight.flatten(0, 1)
        same = flat.data_ptr() == base.data_ptr() and flat.stride() == base.stride()
        for part in self.layer.modules() if same and flat.shape == base.shape else ():
            for key, parameter in part.named_parameters(recurse=False):
                if parameter is base:
                    self.parameter, self._place = parameter, (part, key)

    def _current(self) -> bool:
        """Whether the weight is still that view."""
        if self.parameter is None or getattr(*self._place, None) is not self.parameter:
            return False
        weight = self._map.weight
        return self.parameter.dtype == weight.dtype and self.parameter.numel() == weight.numel()


def included_layers(
    model: nn.Module, kinds: tuple[str, ...]
) -> tuple[list[IncludedLayer], dict[str, str]]:
    """The layers of a model that may be of these kinds, and why others with matrices are not.

    A layer with a rule of its own says its kind only with its linear map, so it is among them.
    """
    layers, unknown = [], {}
    for name, layer in weighted_layers(model):
        if known(layer):
            kind = next((kind for types, kind in KINDS if isinstance(layer, types)), None)
            if kind is None or kind in kinds:
                layers.append(IncludedLayer(name, layer))
        elif any(p.dim() > 1 for p in layer.parameters(recurse=False)):
            unknown[name] = f"{type(layer).__name__} has no known linear map"
    return layers, unknown


@torch.no_grad()
def find_sizes(model: nn.Module, layers: list[IncludedLayer], input_size) -> None:
    """Note the input shape of each layer that an image of zeros of this size reaches."""
    with evaluation(model):
        sizes = input_sizes(model, {part.name: part.layer for part in layers}, input_size)
    for part in layers:
        part.size = sizes.get(part.name)


def watch(included: IncludedLayer) -> RemovableHandle:
    """Note the input shape of the layer's next call, then leave it."""

    def see(layer: nn.Module, args: tuple, named: dict) -> None:
        handle.remove()
        tensors = [x for x in (*args, *named.values()) if isinstance(x, Tensor)]
        if tensors and included.size is None:
            included.size = tuple(tensors[0].shape[2:])

    handle = included.layer.register_forward_pre_hook(see, with_kwargs=True)
    return handle


def add_to_gradients_(
    layers: list[tuple[IncludedLayer, LinearMap]], terms: list[Iterable], scale: float
) -> None:
    """Add terms of each layer's effective weight, `(index, factor, part)`, to the gradients."""
    computed, parameters, targets = [], {}, []
    for (included, linear), each in zip(layers, terms, strict=True):
        if included.parameter is not None:
            target = included.parameter.grad.view(linear.weight.shape)
        else:
            target = torch.zeros_like(linear.weight)
            computed.append(linear.weight)
            targets.append(target)
            parameters |= dict.fromkeys(included.given)
        for index, factor, part in each:
            target[index].add_(part.to(target), alpha=scale * factor)
    if computed:
        found = torch.autograd.grad(computed, list(parameters), targets, allow_unused=True)
        for parameter, term in zip(parameters, found, strict=True):
            if term is not None:
                parameter.grad.add_(term)
