"""The norms of every layer of one network or two, one layer after the other, each kept."""

import math
from collections.abc import Callable, Hashable, Iterable, Sequence

import pandas as pd
import torch
from torch import nn

from normkit.layers import ConvNorm2d
from normkit.networks import Network
from normkit.norms.absolute import absolute_norm, operator_frobenius
from normkit.norms.inputs import input_sizes, known, weighted_layers
from normkit.norms.maps import in_float64
from normkit.norms.rules import measured_map
from normkit.norms.spectral import bracket, rank_bracket
from normkit.norms.table import KINDS

from .cache import Cache, weights_key
from .live import twin

__all__ = [
    "COLUMNS", "kind_of", "measure", "measured", "network_norms", "shape_of", "sizes_of",
]  # fmt: skip

COLUMNS = (
    "network", "role", "position", "layer", "kind", "shape", "norm", "boundary", "value", "lower",
    "upper", "status",
)  # fmt: skip
RTOL = 1e-3
NEVER = "the forward pass never called this layer, so its input shape is unknown"
_LAYERS, _SIZES, _TABLES = Cache(size=4096), Cache(size=64), Cache(size=64)

Each = Callable[[Sequence, str], Iterable]


def kind_of(layer: nn.Module) -> str:
    """What a layer is in tables: "conv", "linear", "batch_norm" or "other".

    Example:
        >>> kind_of(nn.Linear(2, 2)), kind_of(ConvNorm2d(1, 1, 3)), kind_of(nn.LayerNorm(2))
        ('linear', 'conv', 'other')
    """
    kinds = (*KINDS, (ConvNorm2d, "conv"))
    return next((kind for types, kind in kinds if isinstance(layer, types)), "other")


def shape_of(layer: nn.Module) -> str:
    """A layer's class and the shape of its weights, or else of its largest parameter, in words.

    Example:
        >>> shape_of(nn.Conv2d(3, 8, 5))
        'Conv2d 8x3x5x5'
        >>> shape_of(nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)))
        'ParametrizedLinear 2x3'
    """
    weight = layer._parameters.get("weight")
    if weight is None:  # a parametrized weight is not read: that may change it
        weight = max(layer.parameters(), key=torch.Tensor.numel, default=None)
    shape = "" if weight is None else " " + "x".join(map(str, weight.shape))
    return type(layer).__name__ + shape


@torch.no_grad()
def measure(
    layer: nn.Module, size: tuple[int, ...] | None, norm: str, boundary: str
) -> tuple[float, float, float, str]:
    """One norm of one layer as `norms.layer_table` has it: value, lower, upper, status.

    Example:
        >>> layer = nn.Linear(2, 2, bias=False)
        >>> _ = nn.init.eye_(layer.weight)
        >>> measure(layer, (), "linf", "zero")
        (1.0, 1.0, 1.0, 'ok')
    """
    if size is None and known(layer):
        return (*(math.nan,) * 3, NEVER)
    try:
        return (*_numbers(layer, size, norm, boundary), "ok")
    except (ValueError, TypeError, RuntimeError, ArithmeticError, MemoryError) as error:
        return (*(math.nan,) * 3, str(error).partition("\n")[0])


def measured(
    key: Hashable, layer: nn.Module, size: tuple[int, ...] | None, norm: str, boundary: str
) -> tuple[float, float, float, str]:
    """`measure`, kept under the `weights_key` of the layer, its size, the norm and the boundary.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> first = measured(weights_key(layer), layer, (), "l1", "zero")
        >>> measured(weights_key(layer), layer, (), "l1", "zero") is first
        True
    """
    place = (key, size, norm, boundary)
    return _LAYERS.get(place, lambda: measure(layer, size, norm, boundary))


def _numbers(layer: nn.Module, size, norm: str, boundary: str) -> tuple[float, float, float]:
    if norm in ("l1", "linf"):
        linear = in_float64(measured_map(layer, size, "zero"))
        return (absolute_norm(linear, norm).item(),) * 3
    linear = in_float64(measured_map(layer, size, boundary))
    if norm == "frobenius":
        return (operator_frobenius(linear).item(),) * 3
    sigma = bracket(linear, RTOL)
    if norm == "spectral":
        return (sigma.lower, *sigma)
    rank = rank_bracket(operator_frobenius(linear).item(), sigma)
    return (rank.upper, *rank)


def sizes_of(network: Network) -> dict[str, tuple[int, ...]]:
    """The spatial input shape of each layer that holds weights, by qualified name.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 10))
        >>> sizes_of(Network("mine", net, (1, 8, 8)))
        {'0': (8, 8), '2': ()}

    Raises:
        ValueError: the network does not take its input size.
    """
    layers = dict(weighted_layers(network.model))
    return _sizes(network, layers, _keys(layers))


def _keys(layers: dict[str, nn.Module]) -> dict[str, tuple]:
    return {name: weights_key(layer) for name, layer in layers.items()}


def _sizes(network: Network, layers: dict, keys: dict) -> dict[str, tuple[int, ...]]:
    @torch.no_grad()
    def find() -> dict[str, tuple[int, ...]]:
        model = twin(network.model)
        return input_sizes(model, dict(weighted_layers(model)), network.input_size)

    kinds = tuple(type(part) for part in network.model.modules())  # of a class defined anew too
    place = (repr(network.model), kinds, network.input_size, tuple(keys.items()))
    return _SIZES.get(place, find)


def network_norms(
    first: Network, second: Network | None, norm: str, boundary: str, each: Each
) -> pd.DataFrame:
    """One norm of all layers of a network, and of another beside it: columns `COLUMNS`.

    *In plain words:* a layer of the second stands where the first has a layer of the same name;
    one that the first lacks gets a place of its own. A layer that cannot be measured keeps its
    row, with the reason as status.

    Arguments:
        first, second: the networks; second may be None.
        norm, boundary: as in `norms.layer_table`.
        each: goes through (items, what), as `Ticket.each` does.

    Raises:
        ValueError: a network does not take its input size, or holds no weights.

    Example:
        >>> net = Network("mine", nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3)), (2,))
        >>> table = network_norms(net, None, "linf", "zero", lambda items, what: items)
        >>> table["status"].str.slice(0, 15).tolist()
        ['ok', 'layer LayerNorm']
    """
    networks = [("first", first), *([("second", second)] if second is not None else [])]
    jobs = []
    for role, network in networks:
        layers = dict(weighted_layers(network.model))
        if not layers:
            raise ValueError(f"{network.name} holds no layer with weights, so it has no norms")
        keys = _keys(layers)
        sizes = _sizes(network, layers, keys)
        jobs += [
            (role, network.name, name, layer, keys[name], sizes.get(name))
            for name, layer in layers.items()
        ]
    place = (*(job[:3] + job[4:] for job in jobs), norm, boundary)
    return _TABLES.get(place, lambda: _table(jobs, norm, boundary, each))


def _table(jobs: list[tuple], norm: str, boundary: str, each: Each) -> pd.DataFrame:
    names = [[job[2] for job in jobs if job[0] == role] for role in ("first", "second")]
    position = aligned(*names)
    rows = []
    for role, network, name, layer, key, size in each(jobs, "layers measured"):
        found = measured(key, layer, size, norm, boundary)
        about = (position[role, name], name, kind_of(layer), shape_of(layer), norm, boundary)
        rows.append((network, role, *about, *found))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def aligned(first: list[str], second: list[str]) -> dict[tuple[str, str], int]:
    """The place of each layer of two networks, from 0; layers of one name share theirs.

    *In plain words:* networks without a name in common are put beside each other by depth.

    Example:
        >>> aligned(["stem", "head"], ["stem", "norm", "head"])["first", "head"]
        2
        >>> aligned(["a", "b"], ["c", "d"])["second", "d"]
        1
    """
    if not set(first) & set(second):
        places = [("first", first), ("second", second)]
        return {(role, name): at for role, part in places for at, name in enumerate(part)}
    order, after = list(first), 0
    for name in second:
        if name not in order:
            order.insert(after, name)
        after = order.index(name) + 1
    place = {name: at for at, name in enumerate(order)}
    both = [("first", first), ("second", second)]
    return {(role, name): place[name] for role, part in both for name in part}
