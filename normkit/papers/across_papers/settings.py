"""Every method of the four papers in one network on one schedule, at each profile's size."""

import dataclasses
from typing import Any

from normkit.training import Adversary, Penalty, Projection, TrainConfig

from .. import convnorm

__all__ = ["METHODS", "SETTINGS", "Grid", "changed"]

METHODS = (
    *("none", "batch", "layer", "instance", "group", "filter_response", "evonorm_s0"),
    *("weight_norm", "scaled_ws", "spectral_norm", "oni", "ocnn", "conv_norm", "enorm"),
    *("nd_l1", "nd_linf", "svc", "wd", "pgd"),
)


@dataclasses.dataclass(frozen=True)
class Grid:
    """What all methods share; each has the learning rate that images held out chose.

    Arguments:
        clean: the network, its images and its schedule.
        noise: the same with wrong labels.
        free: the same under free adversarial training, of which the authors' code has a variant.
        epsilon: linf radius of the attack, and of the one that PGD-AT trains against, images in
            [0, 1].
        images: how many test images are attacked.
        decay: strength of both norm decays.
        bound: on singular values, met every so many steps.
        every: those steps; fewer, in proportion, where a run has fewer epochs.
        weight_decay: of the method of that name; all others have `clean`'s.
        lrs: the choice of learning rates.
        choosing_epochs: epochs of the runs that choose.
        seeds: repetitions; methods are compared within a seed.
        choosing: seed of the runs that choose.
        validation: fraction of the training images that they hold out.
    """

    clean: TrainConfig
    noise: TrainConfig
    free: TrainConfig
    epsilon: float
    images: int
    decay: float = 1e-2
    bound: float = 1.0
    every: int = 20
    weight_decay: float = 5e-3
    lrs: tuple[float, ...] = (0.03, 0.1)
    choosing_epochs: int = 5
    seeds: tuple[int, ...] = (5, 6, 7)
    choosing: int = 100
    validation: float = 0.2


def _grid(profile: str, epsilon: float, images: int, level: float = 0.4, **more: Any) -> Grid:
    """On the networks of the notebook on ConvNorm, so that runs of both are made once."""
    theirs = convnorm.SETTINGS[profile]
    noise = dataclasses.replace(theirs.noise, label_noise=level)
    shared = {"lrs": theirs.lrs, "choosing_epochs": theirs.choosing_epochs, "seeds": theirs.seeds}
    return Grid(theirs.clean, noise, theirs.free, epsilon, images, **shared | more)


_FEW = {"epochs": 8, "subset": 2000}
_CIFAR10 = _grid("cifar10", 2 / 255, 500, 0.6, every=50, choosing_epochs=4)
SETTINGS = {
    "smoke": _grid("smoke", 0.05, 32, every=1, seeds=(5,)),
    "quick": _grid("quick", 0.05, 297),
    "cifar10": dataclasses.replace(
        _CIFAR10,
        clean=dataclasses.replace(_CIFAR10.clean, **_FEW),
        noise=dataclasses.replace(_CIFAR10.noise, **_FEW),
        free=dataclasses.replace(_CIFAR10.free, **_FEW | {"epochs": 4}),
    ),
    "paper": _grid("paper", 2 / 255, 10_000, every=100),
}


def changed(grid: Grid, base: TrainConfig, method: str, **more: Any) -> TrainConfig:
    """A run of a method: the base with what the method changes, and more.

    *In plain words:* groups are half of the channels; a normalized weight, and a network without
    normalization, has biases; filter response needs a warm-up; ENorm balances the network without
    normalization.

    Example:
        >>> grid = SETTINGS["quick"]
        >>> [changed(grid, grid.clean, m).normalization for m in ("layer", "enorm", "pgd")]
        ['layer', 'none', 'batch']
    """
    if method in convnorm.METHODS:
        return convnorm.changed(base, method, **more)
    bare = {"normalization": "none", "bias": True}
    every = max(1, grid.every * base.epochs // grid.clean.epochs)
    made: dict[str, dict[str, Any]] = {
        "weight_norm": bare | {"convolution": "weight_norm"},
        "scaled_ws": bare | {"convolution": "scaled_ws"},
        "enorm": bare | {"projection": Projection("enorm", c=1.05)},
        "nd_l1": {"penalty": Penalty("norm_decay", "l1", grid.decay)},
        "nd_linf": {"penalty": Penalty("norm_decay", "linf", grid.decay)},
        "svc": {"projection": Projection("singular_values", bound=grid.bound, every=every)},
        "wd": {"weight_decay": grid.weight_decay},
        "pgd": {"adversary": Adversary("pgd", grid.epsilon, 2 * grid.epsilon / 3, steps=2)},
    }
    own = made.get(method, {"normalization": method})
    if method in ("group", "evonorm_s0"):
        own["groups"] = max(1, (base.width or 64) // 2)
    run = dataclasses.replace(base, **own | more)
    warm = run.epochs / 10 if method == "filter_response" else 0.0
    return dataclasses.replace(run, warmup_epochs=warm)
