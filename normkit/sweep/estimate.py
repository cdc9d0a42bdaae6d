"""What runs would cost: seconds and bytes, from the sizes of nets and the speed of this device."""

import dataclasses
import functools
import math
import statistics
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from normkit import models
from normkit.training import GanConfig, TrainConfig
from normkit.training.alone import one_thread

from .cost import IMAGES, Config, passes, trained_on

__all__ = ["Size", "Speed", "disk", "measure", "seconds", "size"]

TABLES = 21_000  # bytes of a run beside its weights: a mean over 1,200 runs
MOST = 20e9  # floating-point operations of a timed step on a CPU
TIMED = 0.5  # seconds
# What methods cost beside BatchNorm's step: timed in small ResNets on a CPU.
FACTORS = {"conv_norm": 2.2, "conv_norm_spectral": 2.3, "oni": 1.6, "own": 1.5, "ocnn": 1.5}
FACTORS |= {"spectral_norm": 1.1, "evonorm_b0": 1.4, "evonorm_s0": 1.4, "path_sgd": 2.0}
FACTORS |= {"norm_decay": 1.2, "enorm": 1.3}


class Size(NamedTuple):
    """Operations of an image's forward pass, layers with weights, and bytes of all of these."""

    operations: float
    layers: int
    bytes: int


@dataclasses.dataclass(frozen=True)
class Speed:
    """Of training steps on a device: operations in a second, and seconds a layer takes at least.

    *In plain words:* large layers take as long as their arithmetic, small ones as long as it
    takes to start them.
    """

    operations: float
    call: float


def size(config: TrainConfig) -> Size:
    """The size of a run's net, counted without images or memory.

    Example:
        >>> size(TrainConfig(model="mlp", width=10, depth=1, normalization="none")).operations
        1480.0
    """
    shape, classes = trained_on(config)[1], IMAGES[config.dataset].classes
    bare = config.normalization == "none" and config.convolution != "conv_norm"
    return _size(config.model, config.width, config.depth, config.shortcut, shape, classes, bare)


def seconds(config: Config, speed: Speed) -> float:
    """About how long a run takes at a speed: training steps, evaluation, and attacks of both."""
    return _gan_seconds(config, speed) if isinstance(config, GanConfig) else _seconds(config, speed)


def disk(configs: Iterable[Config]) -> int:
    """About how many bytes finished runs take: weights, and tables."""
    total = 0
    for config in configs:
        if isinstance(config, GanConfig):
            total += sum(part.bytes for part in _gan_sizes(config)) + 4 * TABLES
        else:
            total += TABLES + bool(config.epochs) * size(config).bytes
    return total


def measure(configs: Iterable[Config], device: str) -> Speed:
    """The speed of a device on the net that has most to do in these runs; takes a second or two.

    Example:
        >>> speed = measure([TrainConfig()], "cpu")
        >>> speed.operations > 1e6 and 0 < speed.call < 1
        True
    """
    share: dict[TrainConfig, float] = {}
    for config in configs:
        if isinstance(config, TrainConfig):
            kind = _kind(config)
            share[kind] = share.get(kind, 0.0) + _arithmetic(config)
    kind = max(share, key=share.__getitem__, default=TrainConfig())
    small, large = size(TrainConfig()), size(kind)
    batch = kind.batch_size
    if device == "cpu":
        batch = max(1, min(batch, int(MOST / (3 * large.operations))))
    with one_thread():
        call = _timed(_step(TrainConfig(), 2, device), device) / small.layers
        took = _timed(_step(kind, batch, device), device)
    rest = max(took - large.layers * call, 0.2 * took)
    return Speed(3 * large.operations * batch / rest, call)


def _seconds(config: TrainConfig, speed: Speed) -> float:
    net, known = size(config), IMAGES[config.dataset]
    count = round(trained_on(config)[0] * (1 - config.validation))
    judged = known.test if not config.validation else trained_on(config)[0] - count
    steps = config.epochs * math.ceil(count / config.batch_size) * passes(config)
    arithmetic = _arithmetic(config)
    chosen, every = config.evaluation, config.evaluation.clean_every
    looks = config.epochs // every if every else 1
    arithmetic += bool(config.epochs) * looks * judged * net.operations
    if chosen.epsilon and config.epochs:
        attacked = min(chosen.images or known.test, known.test if config.test_once else judged)
        rounds = 1 + config.epochs // chosen.every if chosen.every else 1
        attempts = 1 + chosen.targets / 2 if chosen.attack == "apgd" else 1
        arithmetic += 3 * rounds * attempts * chosen.steps * attacked * net.operations
    took = arithmetic / speed.operations + steps * net.layers * speed.call
    return _factor(config) * took + net.layers * speed.call


def _arithmetic(config: TrainConfig) -> float:
    """Operations of training, or of the probes where there is none."""
    count = round(trained_on(config)[0] * (1 - config.validation))
    images = config.epochs * count * passes(config) or config.probe_images
    return 3 * images * size(config).operations


def _factor(config: TrainConfig) -> float:
    parts = (config.convolution, config.normalization, config.penalty.kind, config.projection.kind)
    return math.prod(FACTORS.get(part, 1.0) for part in parts)


def _kind(config: TrainConfig) -> TrainConfig:
    """What runs have in common whose plain steps are alike."""
    names = ("dataset", "image_size", "model", "width", "depth", "shortcut", "batch_size")
    kept = {name: getattr(config, name) for name in names}
    return TrainConfig(**kept, objective=config.objective)


@functools.lru_cache(maxsize=None)
def _size(
    model: str,
    width: int | None,
    depth: int | None,
    shortcut: str,
    shape: tuple[int, int, int],
    classes: int,
    bare: bool,
) -> Size:
    with torch.device("meta"):
        net = _build(model, width, depth, shortcut, shape, classes, bare)
        return _counted(net, torch.empty(1, *shape))


def _build(
    model: str,
    width: int | None,
    depth: int | None,
    shortcut: str,
    shape: tuple[int, int, int],
    classes: int,
    bare: bool,
) -> nn.Module:
    return models.build(
        model,
        num_classes=classes,
        in_channels=shape[0],
        input_size=shape[1:],
        width=width,
        depth=depth,
        shortcut=shortcut,
        normalization=nn.Identity if bare else nn.BatchNorm2d,
    )


def _counted(net: nn.Module, batch: torch.Tensor) -> Size:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net.eval()(batch)
    layers = sum(1 for part in net.modules() if part._parameters)
    state = net.state_dict().values()
    return Size(float(counter.get_total_flops()), layers, sum(t.nbytes for t in state))


def _gan_seconds(config: GanConfig, speed: Speed) -> float:
    maker, judge = _gan_sizes(config)
    real, critics = config.batch_size, config.critic_steps
    step = critics * real * (6 * judge.operations + maker.operations)
    step += 3 * real * (judge.operations + maker.operations)
    looks = config.steps // config.evaluate_every + 1
    arithmetic = config.steps * step + looks * config.score_images * maker.operations
    calls = config.steps * ((2 * critics + 1) * judge.layers + (critics / 3 + 1) * maker.layers)
    factor = FACTORS.get(config.discriminator, 1.0)
    return factor * (arithmetic / speed.operations + calls * speed.call)


def _gan_sizes(config: GanConfig) -> tuple[Size, Size]:
    shape = trained_on(config)[1]
    return _gan_sizes_of(config.latent, config.generator_width, config.width, shape)


@functools.lru_cache(maxsize=None)
def _gan_sizes_of(
    latent: int, generator_width: int, width: int, shape: tuple[int, int, int]
) -> tuple[Size, Size]:
    channels, *pixels = shape
    with torch.device("meta"):
        maker = models.gan.generator(
            latent=latent, out_channels=channels, input_size=tuple(pixels), width=generator_width
        )
        judge = models.gan.discriminator(
            in_channels=channels, input_size=tuple(pixels), width=width
        )
        return _counted(maker, torch.empty(1, latent)), _counted(judge, torch.empty(1, *shape))


def _step(config: TrainConfig, batch: int, device: str) -> Callable[[], None]:
    """A plain training step on random images."""
    shape, classes = trained_on(config)[1], IMAGES[config.dataset].classes
    with torch.random.fork_rng(devices=[]):
        net = _build(config.model, config.width, config.depth, config.shortcut, shape, classes,
                     bare=False)  # fmt: skip
        images = torch.rand(batch, *shape).to(device, memory_format=torch.channels_last)
    net = net.to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-4, momentum=0.9, foreach=True)
    labels = torch.zeros(batch, dtype=torch.long, device=device)

    def step() -> None:
        optimizer.zero_grad()
        found = net(images)
        target = images if config.objective == "reconstruction" else labels
        loss = F.mse_loss if config.objective == "reconstruction" else F.cross_entropy
        loss(found, target).backward()
        optimizer.step()

    return step


def _timed(step: Callable[[], None], device: str) -> float:
    """The median time of steps, after one that warms up."""
    found, start = [], time.perf_counter()
    step()
    while len(found) < 2 or time.perf_counter() - start < TIMED:
        before = time.perf_counter()
        step()
        if device == "cuda":
            torch.cuda.synchronize()
        found.append(time.perf_counter() - before)
    return statistics.median(found)
