"""What runs would cost: seconds and bytes, from the sizes of nets and the speed of this device."""

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F

from normkit.training import GanConfig, TrainConfig
from normkit.training.alone import one_thread

from .cost import IMAGES, Config, passes, trained_on
from .sizes import gan_sizes, net, size

__all__ = ["Estimate", "Speed", "disk", "estimate", "measure", "seconds"]

TABLES = 21_000  # bytes of a run beside its weights: a mean over 1,200 runs
MOST = 20e9  # floating-point operations of a timed step on a CPU
TIMED = 0.5  # seconds
# What methods cost beside BatchNorm's step: timed in small ResNets on a CPU.
FACTORS = {"conv_norm": 2.2, "conv_norm_spectral": 2.3, "oni": 1.6, "own": 1.5, "ocnn": 1.5}
FACTORS |= {"spectral_norm": 1.1, "evonorm_b0": 1.4, "evonorm_s0": 1.4, "path_sgd": 2.0}
FACTORS |= {"norm_decay": 1.2, "enorm": 1.3}


@dataclasses.dataclass(frozen=True)
class Speed:
    """Of training steps on a device: operations in a second, and seconds a layer takes at least.

    *In plain words:* large layers take as long as their arithmetic, small ones as long as it
    takes to start them.
    """

    operations: float
    call: float


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Of runs that are still to train: how many, hours, and bytes."""

    runs: int
    hours: float
    bytes: int


def estimate(configs: Iterable[Config], speed: Speed, processes: int = 1) -> Estimate:
    """What runs would cost side by side, right within a factor of two for most.

    Arguments:
        configs: the runs.
        speed: of the device, from `measure`.
        processes: that train at a time.

    Example:
        >>> estimate([TrainConfig(), TrainConfig(seed=1)], Speed(1e10, 1e-4), processes=2).runs
        2
    """
    configs = list(configs)
    total = sum(seconds(config, speed) for config in configs)
    hours = total / max(1, min(processes, len(configs))) / 3600
    return Estimate(len(configs), hours, disk(configs))


def seconds(config: Config, speed: Speed) -> float:
    """About how long a run takes at a speed: training steps, evaluation, and attacks of both."""
    timed = _gan_seconds if isinstance(config, GanConfig) else _seconds
    return timed(config, speed)


def disk(configs: Iterable[Config]) -> int:
    """About how many bytes finished runs take: weights, and tables."""
    total = 0
    for config in configs:
        if isinstance(config, GanConfig):
            total += sum(part.bytes for part in gan_sizes(config)) + 4 * TABLES
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
    sized, known = size(config), IMAGES[config.dataset]
    count = round(trained_on(config)[0] * (1 - config.validation))
    judged = known.test if not config.validation else trained_on(config)[0] - count
    steps = config.epochs * math.ceil(count / config.batch_size) * passes(config)
    arithmetic = _arithmetic(config)
    chosen, every = config.evaluation, config.evaluation.clean_every
    looks = config.epochs // every if every else 1
    arithmetic += bool(config.epochs) * looks * judged * sized.operations
    if chosen.epsilon and config.epochs:
        attacked = min(chosen.images or known.test, known.test if config.test_once else judged)
        rounds = 1 + config.epochs // chosen.every if chosen.every else 1
        attempts = 1 + chosen.targets / 2 if chosen.attack == "apgd" else 1
        arithmetic += 3 * rounds * attempts * chosen.steps * attacked * sized.operations
    took = arithmetic / speed.operations + steps * sized.layers * speed.call
    return _factor(config) * took + sized.layers * speed.call


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


def _gan_seconds(config: GanConfig, speed: Speed) -> float:
    maker, judge = gan_sizes(config)
    real, critics = config.batch_size, config.critic_steps
    step = critics * real * (6 * judge.operations + maker.operations)
    step += 3 * real * (judge.operations + maker.operations)
    looks = config.steps // config.evaluate_every + 1
    arithmetic = config.steps * step + looks * config.score_images * maker.operations
    calls = config.steps * ((2 * critics + 1) * judge.layers + (critics / 3 + 1) * maker.layers)
    factor = FACTORS.get(config.discriminator, 1.0)
    return factor * (arithmetic / speed.operations + calls * speed.call)


def _step(config: TrainConfig, batch: int, device: str) -> Callable[[], None]:
    """A plain training step on random images."""
    kind = net(config)
    with torch.random.fork_rng(devices=[]):
        model = kind._replace(bare=False).build()
        images = torch.rand(batch, *kind.shape).to(device, memory_format=torch.channels_last)
    model = model.to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, foreach=True)
    labels = torch.zeros(batch, dtype=torch.long, device=device)

    def step() -> None:
        optimizer.zero_grad()
        found = model(images)
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
