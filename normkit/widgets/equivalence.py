"""Cycles of equi-normalization on a copy of a network: norms, energy, and what it still says."""

from collections.abc import Callable
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor, nn

from normkit.networks import Network
from normkit.projections import ENorm

from .activations import outputs_of
from .finite import check_finite
from .images import test_images
from .live import twin
from .session import layers_of

__all__ = ["Cycle", "Cycles"]

IMAGES = 16  # on which the outputs are compared, at every cycle


class Cycle(NamedTuple):
    """What is seen after some cycles.

    Arguments:
        norms: of each layer's weights, by name.
        energy: as `ENorm.energy` gives it.
        difference: the largest of the outputs on a batch, against those of the network itself.
    """

    norms: dict[str, float]
    energy: float
    difference: float


class Cycles:
    """A copy of a network that is balanced as far as it is asked for, and what was seen then.

    *In plain words:* of each cycle the numbers are kept, of the weights those of the last one
    only, so that a large network is held in memory once.

    Arguments:
        network: stays as it is.
        p: of the norm that is balanced, and of the layers' norms.
        c: outgoing over incoming norm at the limit.

    Attributes:
        largest: modulus of the outputs of the network itself.
        seen: a `Cycle` each, the first after none.
        images: which images the outputs are for, in words.

    Raises:
        ValueError: weights are not finite, the network does not take images of its input size, or
            ENorm cannot balance it.

    Example:
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> cycles = Cycles(Network("mine", net, (1, 8, 8)), p=2, c=1)
        >>> cycles.reach(3)
        >>> cycles.seen[3].energy < cycles.seen[0].energy
        True
        >>> cycles.seen[3].difference < 1e-5 * cycles.largest
        True
    """

    def __init__(self, network: Network, *, p: float, c: float) -> None:
        check_finite(network)
        self.p = p
        self._twin = twin(network.model)
        self._network = network._replace(model=self._twin)
        self._layers = _weighted(self._network)
        self._enorm = _balancer(network.name, self._twin, p, c)
        self._images, _, self.images = test_images(network, IMAGES)
        self._before = self._outputs()
        self.largest = self._before.abs().max().item()
        self.seen = [self._look()]

    def reach(self, count: int, check: Callable[[str], None] = lambda words: None) -> None:
        """Balance until that many cycles are seen; `check` hears how far it is, and may raise."""
        while len(self.seen) <= count:
            check(f"cycles of ENorm: {len(self.seen) - 1} of {count}")
            self._enorm.step()
            self.seen.append(self._look())

    def table(self, count: int) -> pd.DataFrame:
        """What `count` cycles have done, with the energy of all cycles that were seen.

        Returns:
            columns cycle, layer, kind ("weight" or "scale", of a normalization), measure ("norm"
            of layers at cycle 0 and at `count`; "energy", and at `count` "difference" and
            "relative difference" of outputs), value.
        """
        rows = [
            (cycle, name, "weight" if self._layers[name].ndim > 1 else "scale", "norm", value)
            for cycle in dict.fromkeys((0, count))
            for name, value in self.seen[cycle].norms.items()
        ]
        rows += [(k, "", "", "energy", cycle.energy) for k, cycle in enumerate(self.seen)]
        difference = self.seen[count].difference
        rows.append((count, "", "", "difference", difference))
        rows.append((count, "", "", "relative difference", self.share(count)))
        return pd.DataFrame(rows, columns=["cycle", "layer", "kind", "measure", "value"])

    def share(self, count: int) -> float:
        """The difference after `count` cycles, over the largest output."""
        difference = self.seen[count].difference
        return difference / self.largest if self.largest else difference

    @torch.no_grad()
    def _look(self) -> Cycle:
        norms = {
            name: torch.linalg.vector_norm(weight, self.p, dtype=torch.float64).item()
            for name, weight in self._layers.items()
        }
        difference = (self._outputs() - self._before).abs().max().item()
        return Cycle(norms, self._enorm.energy(), difference)

    @torch.no_grad()
    def _outputs(self) -> Tensor:
        return outputs_of(self._network, self._images).double()


def _weighted(network: Network) -> dict[str, Tensor]:
    """The weights of the layers that have a norm, by the layers' names."""
    found = {name: getattr(layer, "weight", None) for name, layer in layers_of(network).items()}
    return {name: weight for name, weight in found.items() if isinstance(weight, Tensor)}


def _balancer(name: str, model: nn.Module, p: float, c: float) -> ENorm:
    """ENorm of the model, or one sentence why not."""
    try:
        return ENorm(model, p=p, c=c)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(f"ENorm does not balance {name}: {error}") from error
