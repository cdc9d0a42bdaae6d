"""The runs behind the claims on training: ten normalizers, depths, batches and learning rates."""

import dataclasses
import math
from collections.abc import Sequence

from normkit.training import TrainConfig

from ..profiles import choose

__all__ = ["METHODS", "TRAINING", "Training", "residual_runs", "rule_runs", "tradeoff_runs",
           "training_runs"]  # fmt: skip

METHODS = ("batch", "layer", "instance", "group", "filter_response", "variance", "weight_norm",
           "scaled_ws", "evonorm_b0", "evonorm_s0", "mean_centering", "none")  # fmt: skip
PROBED = ("activation_variance", "cosine_similarity", "stable_rank", "gradient_norm")


@dataclasses.dataclass(frozen=True)
class Training:
    """What is trained, and under which conditions.

    Arguments:
        base: the plain CNN in its first condition: large batch, the paper's learning rate.
        images: number of training images that are not held out, for one probe a pass.
        seeds: repetitions.
        nets: plain CNNs, of rising depth.
        small_batch: the other batch size; its learning rate is proportionally smaller.
        small_batch_epochs: passes over the images with it.
        high_rate: factor on the learning rate of the last condition.
        group_sizes: channels in a group, between InstanceNorm's 1 and LayerNorm's all.
        residual: the ResNet-56 of the claim on SkipInit.
        residual_methods: the normalizers that it is trained with.
        low_rate: factor on the learning rate of a second trial of weight normalization.
    """

    base: TrainConfig
    images: int = 1200
    seeds: tuple[int, ...] = (0, 1, 2)
    nets: tuple[str, ...] = ("cfg_10", "cfg_20")
    small_batch: int = 16
    small_batch_epochs: int = 2
    high_rate: float = 4.0
    group_sizes: tuple[int, ...] = (2, 4, 8)
    residual: TrainConfig | None = None
    residual_methods: tuple[str, ...] = ("batch", "weight_norm")
    low_rate: float = 0.25


PLAIN = TrainConfig(
    model="cfg_10",
    width=8,
    epochs=5,
    lr=0.05,
    schedule="step",
    milestones=(0.75,),
    nesterov=False,
    weight_decay=1e-4,
    standardize=True,
    validation=0.2,
    norms=(),
    final_norms=(),
    probes=PROBED,
    probe_on="training",
)
CIFAR10 = dataclasses.replace(
    PLAIN,
    dataset="cifar10",
    image_size=16,
    subset=2500,
    augment="flip",
    epochs=25,
)
PAPER = dataclasses.replace(
    PLAIN,
    dataset="cifar100",
    width=64,
    batch_size=256,
    epochs=60,
    lr=0.1,
    augment="flip",
)


def _residual(base: TrainConfig, width: int, epochs: int) -> TrainConfig:
    return dataclasses.replace(
        base,
        model="resnet56",
        width=width,
        epochs=epochs,
        shortcut="conv3x3",
        probes=(),
    )


TRAINING = {
    "smoke": Training(
        dataclasses.replace(PLAIN, epochs=1, subset=64),
        images=51,
        seeds=(0,),
        small_batch_epochs=1,
        group_sizes=(4,),
        residual=_residual(dataclasses.replace(PLAIN, subset=64), 4, 1),
    ),
    "quick": Training(PLAIN, residual=_residual(PLAIN, 8, 5)),
    "cifar10": Training(
        CIFAR10,
        images=2000,
        nets=("cfg_10", "cfg_20", "cfg_40"),
        small_batch_epochs=8,
        residual=_residual(CIFAR10, 8, 10),
    ),
    "paper": Training(
        PAPER,
        images=40000,
        nets=("cfg_10", "cfg_20", "cfg_40"),
        small_batch_epochs=60,
        group_sizes=(2, 4, 8, 16, 32),
        residual=_residual(PAPER, 32, 60),
        residual_methods=METHODS,
    ),
}


def training_runs(
    profile: str, *, seeds: Sequence[int] | None = None, device: str = "cpu"
) -> list[TrainConfig]:
    """Every normalizer in every plain CNN, with a small batch, and with a high learning rate.

    Example:
        >>> runs = training_runs("quick", seeds=[0])
        >>> sorted({(run.model, run.batch_size, round(run.lr, 5)) for run in runs})[:3]
        [('cfg_10', 16, 0.00625), ('cfg_10', 128, 0.05), ('cfg_10', 128, 0.2)]
    """
    setting = choose(TRAINING, profile, seeds=seeds)
    high = dataclasses.replace(setting.base, lr=setting.high_rate * setting.base.lr)
    conditions = [*_conditions(setting), high]
    runs = [_with(method, base) for base in conditions for method in METHODS]
    return _repeated(runs, setting, device)


def residual_runs(
    profile: str, *, seeds: Sequence[int] | None = None, device: str = "cpu"
) -> list[TrainConfig]:
    """The ResNet-56 without and with SkipInit.

    *In plain words:* as in the paper, blocks under weight normalization activate the branch and
    not the sum. They have two trials, with two learning rates, so that a rate that is too high is
    not taken for a failure of the method.

    Example:
        >>> {run.activation_before_sum for run in residual_runs("quick") if run.bias}
        {True}
    """
    setting = choose(TRAINING, profile, seeds=seeds)
    base = setting.residual
    runs = [_with(method, base) for method in setting.residual_methods]
    weights = _with("weight_norm", dataclasses.replace(base, lr=setting.low_rate * base.lr))
    runs = [
        dataclasses.replace(
            run, skip_init=skip, activation_before_sum=run.convolution == "weight_norm"
        )
        for run in [*runs, weights]
        for skip in (False, True)
    ]
    return _repeated(runs, setting, device)


def tradeoff_runs(
    profile: str, *, seeds: Sequence[int] | None = None, device: str = "cpu"
) -> list[TrainConfig]:
    """GroupNorm of every group size, from InstanceNorm to LayerNorm, in three conditions.

    The two ends are runs of `training_runs`, found in the store.
    """
    setting = choose(TRAINING, profile, seeds=seeds)
    sizes = [{"normalization": "group", "group_size": size} for size in setting.group_sizes]
    ends = [{"normalization": "instance"}, {"normalization": "layer"}]
    runs = [
        dataclasses.replace(base, **method)
        for base in _conditions(setting)
        for method in (*ends, *sizes)
    ]
    return _repeated(runs, setting, device)


def rule_runs(
    profile: str, *, seeds: Sequence[int] | None = None, device: str = "cpu"
) -> list[TrainConfig]:
    """Small batches with the learning rate of the authors' code: it grows as batches shrink.

    There the rate is .1 at batch 256, times 256 / batch size, and is never lowered below 32
    images; the paper, and all other runs here, scale it in proportion.

    Example:
        >>> {(run.lr, run.schedule) for run in rule_runs("quick")}
        {(0.4, 'constant')}
    """
    setting = choose(TRAINING, profile, seeds=seeds)
    base, small = setting.base, _conditions(setting)[-1]
    inverse = base.lr * base.batch_size / setting.small_batch
    changed = dataclasses.replace(small, lr=inverse, schedule="constant")
    return _repeated([_with(m, changed) for m in ("batch", "layer", "group")], setting, device)


def _conditions(setting: Training) -> list[TrainConfig]:
    """Every depth with large batches, then the least depth with small ones."""
    base = setting.base
    small = dataclasses.replace(
        base,
        batch_size=setting.small_batch,
        epochs=setting.small_batch_epochs,
        lr=base.lr * setting.small_batch / base.batch_size,
    )
    return [dataclasses.replace(base, model=net) for net in setting.nets] + [small]


def _with(method: str, base: TrainConfig) -> TrainConfig:
    """Put a normalizer in place, as the paper sets it up.

    Groups are a half of the first layer's channels, as 32 are of 64. Filter response needs a
    warm-up; convolutions that normalize their weights have biases.
    """
    if method in ("weight_norm", "scaled_ws"):
        return dataclasses.replace(base, normalization="none", convolution=method, bias=True)
    changed = {"normalization": method}
    if method in ("group", "evonorm_s0"):
        changed["groups"] = max(1, base.width // 2)
    if method == "filter_response":
        changed["warmup_epochs"] = base.epochs / 10
    return dataclasses.replace(base, **changed)


def _repeated(runs: Sequence[TrainConfig], setting: Training, device: str) -> list[TrainConfig]:
    """Every run with every seed, its plain probes taken once an epoch."""
    return [
        dataclasses.replace(
            run,
            seed=seed,
            device=device,
            probe_every=math.ceil(setting.images / run.batch_size) if run.probes else 0,
        )
        for seed in setting.seeds
        for run in runs
    ]
