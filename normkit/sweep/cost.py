"""Rough work of a run, known before it starts."""

import math
import re
from typing import NamedTuple

from normkit.training import GanConfig, TrainConfig

__all__ = ["IMAGES", "Config", "Images", "passes", "trained_on", "work"]

DEPTHS = {"uniform": 20, "small_cnn": 4, "mlp": 3, "regnetx_200mf": 40}
DEPTHS |= {"fully_conv": 9, "fully_conv_released": 9, "autoencoder": 8}

DENSE = ("mlp", "autoencoder")  # their layers do not run over the image
PER_UPDATE, PER_UNIT = 3e-3, 2e-8  # seconds: of an update, of a channel of a layer at a pixel

Config = TrainConfig | GanConfig


class Images(NamedTuple):
    """How many images a data set has, and of what form: known without reading it."""

    train: int
    test: int
    shape: tuple[int, int, int]
    classes: int = 10


IMAGES = {
    "digits": Images(1_500, 297, (1, 8, 8)),
    "noisy_digits": Images(1_500, 297, (1, 9, 9)),
    "mnist": Images(60_000, 10_000, (1, 28, 28)),
    "fashion_mnist": Images(60_000, 10_000, (1, 28, 28)),
    "cifar10": Images(50_000, 10_000, (3, 32, 32)),
    "cifar100": Images(50_000, 10_000, (3, 32, 32), 100),
}


def work(config: Config) -> float:
    """Rough seconds of a run on one core: which one starts first, and how much of the bar it is.

    Example:
        >>> round(work(TrainConfig(epochs=10)) / work(TrainConfig(epochs=5)), 1)
        2.0
    """
    return _gan_cost(config) if isinstance(config, GanConfig) else _train_cost(config)


def passes(config: TrainConfig) -> float:
    """How many passes, forward and back, each image of an epoch takes.

    Example:
        >>> from normkit.training import Adversary
        >>> passes(TrainConfig()), passes(TrainConfig(adversary=Adversary("pgd", steps=10)))
        (1.0, 11.0)
    """
    steps = config.adversary.steps
    each = {"none": 1.0, "pgd": 1.0 + steps, "trades": 2.3 + steps, "alp": 2.0 + steps}
    return (each | {"free": float(config.adversary.repeats)})[config.adversary.kind]


def trained_on(config: Config) -> tuple[int, tuple[int, int, int]]:
    """How many images a run trains on, and their channels, height and width."""
    known = IMAGES[config.dataset]
    channels, *size = known.shape
    size = [config.image_size] * 2 if config.image_size else size
    return config.subset or known.train, (channels, *size)


def _gan_cost(config: GanConfig) -> float:
    size, updates = trained_on(config)[1][1], config.steps * (config.critic_steps + 1)
    factor = 2 if config.discriminator.startswith("conv_norm") else 1
    arithmetic = 4 * config.batch_size * config.width * size**2
    return factor * updates * (2 * PER_UPDATE + PER_UNIT * arithmetic)


def _train_cost(config: TrainConfig) -> float:
    images, (_, size, _) = trained_on(config)
    depth = config.depth or DEPTHS.get(config.model) or int(re.sub(r"\D", "", config.model))
    pixels = 1 if config.model in DENSE else size**2
    unit = PER_UNIT * depth * (config.width or 64) * pixels
    updates = config.epochs * math.ceil(images / config.batch_size) * passes(config)
    seen = config.epochs * images * passes(config) + config.probe_images
    return PER_UPDATE * updates + unit * seen
