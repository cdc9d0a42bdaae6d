"""What the panels of an explorer share: one network or two, and the layer that is looked at."""

import traitlets
from torch import nn

from normkit.networks import Network
from normkit.norms.inputs import known, weighted_layers

__all__ = ["Session", "layers_of"]


def layers_of(network: Network) -> dict[str, nn.Module]:
    """The layers of a network that have a norm, by qualified name, in order.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 10))
        >>> list(layers_of(Network("mine", net, (1, 8, 8))))
        ['0', '3']
    """
    return {name: layer for name, layer in weighted_layers(network.model) if known(layer)}


class Session(traitlets.HasTraits):
    """What a person has chosen; panels observe it.

    Arguments:
        first: the network that is looked at.
        second: another one to compare, or None.
        layer: the qualified name of a layer of the first one.
    """

    first = traitlets.Instance(Network)
    second = traitlets.Instance(Network, allow_none=True)
    layer = traitlets.Unicode("")
