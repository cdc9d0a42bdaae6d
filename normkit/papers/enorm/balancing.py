"""What balancing does to untrained networks: measured, in float64."""

import copy
import dataclasses

import numpy as np
import pandas as pd
import torch
from torch import nn

from normkit import layers, models
from normkit.projections import ENorm
from normkit.records import code_hashes

__all__ = ["NETS", "Balancing", "balancing", "network"]

SIZE = (8, 8)
NETS = {
    "MLP": ("mlp", 24, {"depth": 6}),
    "VGG-11": ("vgg11", 4, {}),
    "fully convolutional": ("fully_conv", 6, {}),
    "auto-encoder": ("autoencoder", 32, {}),
    "ResNet-18": ("resnet18", 4, {}),
    "ResNet-18, option A": ("resnet18", 4, {"shortcut": "pad"}),
    "ResNet-18, 1x1 skips": ("resnet18", 4, {"shortcut": "all_conv1x1"}),
}
NORMALIZED = ("MLP", "VGG-11", "fully convolutional", "ResNet-18")
TORCHVISION = ("resnet18", "squeezenet1_1", "densenet121", "mobilenet_v2")


def network(name: str, seed: int, *, normalized: bool = False) -> nn.Module:
    """An untrained network of `NETS` in float64, from He's start; BatchNorm's weights are drawn.

    Example:
        >>> next(network("MLP", 0).parameters()).dtype
        torch.float64
    """
    model, width, options = NETS[name]
    key = "batch" if normalized else "none"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = models.build(
            model,
            in_channels=1,
            input_size=SIZE,
            width=width,
            normalization=layers.NORMALIZATIONS[key],
            initialization="he_all",
            **options,
        )
        return _drawn(net)


def _drawn(net: nn.Module) -> nn.Module:
    """In float64, with weights and statistics of BatchNorm that are not all alike."""
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, 0, 0.1)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
    return net.double()


@dataclasses.dataclass(frozen=True)
class Balancing:
    """Measures what balancing does: to the function, the energy and the norms.

    Arguments:
        seeds: of the networks, each drawn anew; limits and paths are those of the first.
        starts: random rescalings of each network.
        cycles: at most, until no unit is further than 1e-8 from its limit.
        shown: cycles of which energy and imbalance are kept.
        torchvision: whether torchvision's networks are measured, too, with random weights.
    """

    seeds: tuple[int, ...] = (0, 1, 2)
    starts: int = 5
    cycles: int = 1000
    shown: int = 20
    torchvision: bool = False

    def dependencies(self) -> dict[str, str]:
        """The code that the numbers depend on."""
        return code_hashes("normkit.papers.enorm.balancing")

    def tables(self) -> dict[str, pd.DataFrame]:
        """Tables function, paths, limits and units."""
        return {
            "function": self._function(),
            "paths": self._paths(),
            "limits": self._limits(),
            "units": self._units(),
        }

    def _function(self) -> pd.DataFrame:
        """Relative change of the output: network, mode, seed, cycles, change, rise, kind."""
        rows = []
        for seed in self.seeds:
            plain = [(name, "no BatchNorm", 40, "rescale") for name in NETS]
            batch = [(name, mode, 40, mode) for name in NORMALIZED for mode in ("rescale",)]
            batch += [(name, "ignore", 1, "ignore") for name in NORMALIZED]
            for name, mode, cycles, treated in plain + batch:
                net = network(name, seed, normalized=mode != "no BatchNorm").train()
                found = _changed(net, (64, 1, *SIZE), seed, cycles, treated)
                rows.append((name, mode, seed, cycles, *found))
        for seed in self.seeds if self.torchvision else ():
            for name in TORCHVISION:
                net = _from_torchvision(name, seed).eval()
                found = _changed(net, (2, 3, 64, 64), seed, 5, "rescale")
                kind = "no BatchNorm" if name == "squeezenet1_1" else "rescale"
                rows.append((f"torchvision {name}", kind, seed, 5, *found))
        columns = ["network", "mode", "seed", "cycles", "change", "rise"]
        return pd.DataFrame(rows, columns=columns).assign(kind="float64")

    def _paths(self) -> pd.DataFrame:
        """Energy and imbalance: net, variant, start, cycle, excess, imbalance."""
        tables = []
        for name in ("MLP", "VGG-11", "ResNet-18"):
            net = network(name, self.seeds[0])
            limit = _settled(ENorm(copy.deepcopy(net), cycles=20), self.cycles)
            for variant in ("paper", "released"):
                for start in range(min(3, self.starts)):
                    enorm = _started(net, start, variant=variant)
                    rows = [_state(enorm)]
                    for _ in range(self.shown):
                        enorm.step()
                        rows.append(_state(enorm))
                    table = pd.DataFrame(rows, columns=["energy", "imbalance"])
                    table["excess"] = table.energy / limit.energy() - 1
                    keys = {"net": name, "variant": variant, "start": start}
                    tables.append(table.assign(**keys, cycle=range(len(table))))
        return pd.concat(tables, ignore_index=True)

    def _limits(self) -> pd.DataFrame:
        """The limit of each start: net, c, start, energy, ratio (worst of outgoing over c
        times incoming norm, minus 1)."""
        rows = []
        cases = [(name, 1.0, False) for name in NETS]
        cases += [(name, 1.2, False) for name in ("MLP", "VGG-11", "auto-encoder")]
        cases += [(name, 1.0, True) for name in NORMALIZED]
        for name, c, normalized in cases:
            net = network(name, self.seeds[0], normalized=normalized)
            for start in range(self.starts):
                enorm = _settled(_started(net, start, c=c, cycles=20), self.cycles)
                title = f"{name} with BatchNorm" if normalized else name
                worst = float(np.expm1(enorm.imbalance().imbalance.max()))
                rows.append((title, c, start, enorm.energy(), worst))
        return pd.DataFrame(rows, columns=["net", "c", "start", "energy", "ratio"])

    def _units(self) -> pd.DataFrame:
        """Norms of every unit of a randomly rescaled net, before and after."""
        enorm = _started(network("MLP", self.seeds[0]), 0, cycles=20)
        before = enorm.units().assign(when="before")
        _settled(enorm, self.cycles)
        return pd.concat([before, enorm.units().assign(when="after")], ignore_index=True)


def _started(net: nn.Module, start: int, **options: object) -> ENorm:
    """A copy of a net, randomly rescaled, its function the same."""
    enorm = ENorm(copy.deepcopy(net), **options)
    enorm.rescale_randomly(torch.Generator().manual_seed(start), 0.5)
    return enorm


def _settled(enorm: ENorm, cycles: int) -> ENorm:
    """Steps until it is at the limit, or the cycles are used up."""
    for _ in range(cycles // enorm.cycles):
        enorm.step()
        if enorm.imbalance().imbalance.max() < 1e-8:
            break
    return enorm


def _state(enorm: ENorm) -> tuple[float, float]:
    return enorm.energy(), float(enorm.imbalance().imbalance.max())


def _changed(
    net: nn.Module, shape: tuple[int, ...], seed: int, cycles: int, batch_norm: str
) -> tuple[float, float]:
    """Relative change of the output, and the largest relative rise of the energy in a cycle."""
    images = torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    before, enorm = copy.deepcopy(net)(images), ENorm(net, batch_norm=batch_norm)
    energies = [enorm.energy()]
    for _ in range(cycles):
        enorm.step()
        energies.append(enorm.energy())
    rise = max(b / a - 1 for a, b in zip(energies, energies[1:], strict=False))
    return ((net(images) - before).norm() / before.norm()).item(), rise


def _from_torchvision(name: str, seed: int) -> nn.Module:
    from torchvision import models as others  # half a second that the small profiles do not need

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _drawn(getattr(others, name)(num_classes=10))


SETTINGS = {
    "smoke": Balancing(seeds=(0,), starts=2, shown=10),
    "quick": Balancing(starts=3),
    "cifar10": Balancing(seeds=(0, 1, 2, 3, 4), torchvision=True),
    "paper": Balancing(seeds=(0, 1, 2, 3, 4), torchvision=True),
}


def balancing(profile: str) -> Balancing:
    """What a profile measures of balancing."""
    return SETTINGS[profile]
