"""The runs behind the measures at initialization, and the tables read off them."""

import dataclasses
import math
from collections.abc import Sequence

import pandas as pd

from normkit.records import Record
from normkit.training import TrainConfig, dataset

from ..profiles import choose

__all__ = [
    "SETTINGS",
    "Initialization",
    "datasets",
    "depth_runs",
    "group_runs",
    "measures",
    "speed_runs",
    "speeds",
]


@dataclasses.dataclass(frozen=True)
class Initialization:
    """What is measured before any training, and on which networks.

    Arguments:
        base: all that the runs share.
        seeds: repetitions: other weights and other images.
        width: of the ResNet-56 of bb.variance.
        image_size: of its images.
        stack_width: of the plain stacks of bb.rank, bb.cosine and bb.gradient.
        depths: of those stacks.
        speed: the training runs of bb.cosine, whose speed is set against similarity.
    """

    base: TrainConfig
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    width: int = 16
    image_size: int = 16
    stack_width: int = 16
    depths: tuple[int, ...] = (10, 20, 40)
    speed: TrainConfig = dataclasses.field(default_factory=lambda: SPEED)


PROBED = ("cosine_similarity",)

SPEED = TrainConfig(
    model="cfg_10",
    width=8,
    epochs=10,
    lr=0.05,
    schedule="step",
    milestones=(0.6, 0.8),
    norms=(),
    final_norms=(),
    probes=PROBED,
)

INIT = TrainConfig(epochs=0, norms=(), final_norms=(), augment="none")

CIFAR10 = dataclasses.replace(INIT, dataset="cifar10")

SETTINGS = {
    "smoke": Initialization(
        dataclasses.replace(INIT, probe_images=16),
        seeds=(0,),
        width=4,
        stack_width=4,
        depths=(4, 8),
        speed=dataclasses.replace(SPEED, width=8, epochs=1, subset=64),
    ),
    "quick": Initialization(INIT),
    "cifar10": Initialization(
        CIFAR10,
        image_size=32,
        width=32,
        stack_width=64,
        speed=dataclasses.replace(
            SPEED, dataset="cifar10", image_size=16, subset=2000, augment="flip"
        ),
    ),
    "paper": Initialization(
        dataclasses.replace(INIT, dataset="cifar100"),
        image_size=32,
        width=32,
        stack_width=64,
        speed=dataclasses.replace(
            SPEED,
            dataset="cifar100",
            standardize=True,
            width=64,
            batch_size=256,
            epochs=60,
            lr=0.1,
            nesterov=False,
            weight_decay=1e-4,
            milestones=(0.75,),
            augment="flip",
        ),
    ),
}


def datasets(profile: str) -> tuple[str, ...]:
    """The data sets that a profile reads."""
    return (choose(SETTINGS, profile).base.dataset,)


def depth_runs(
    profile: str, *, seeds: Sequence[int] | None = None, device: str = "cpu"
) -> list[TrainConfig]:
    """The ResNet-56 of bb.variance under every normalizer, without and with SkipInit."""
    setting = choose(SETTINGS, profile, seeds=seeds)
    base = dataclasses.replace(
        setting.base,
        model="resnet56",
        width=setting.width,
        image_size=setting.image_size,
        probes=("activation_variance",),
        device=device,
    )
    return [
        dataclasses.replace(base, seed=seed, skip_init=skip, **method)
        for seed in setting.seeds
        for skip in (False, True)
        for method in _methods(setting.width)
    ]


def group_runs(
    profile: str, *, seeds: Sequence[int] | None = None, device: str = "cpu"
) -> list[TrainConfig]:
    """Plain stacks with GroupNorm, from one group (LayerNorm) to as many as channels.

    Example:
        >>> sorted({run.groups for run in group_runs("quick")})
        [1, 2, 4, 8, 16]
    """
    setting = choose(SETTINGS, profile, seeds=seeds)
    base = dataclasses.replace(
        setting.base,
        model="uniform",
        width=setting.stack_width,
        normalization="group",
        probes=("stable_rank", "cosine_similarity", "gradient_norm"),
        device=device,
    )
    groups = [2**i for i in range(int(math.log2(setting.stack_width)) + 1)]
    return [
        dataclasses.replace(base, seed=seed, depth=depth, groups=count)
        for seed in setting.seeds
        for depth in setting.depths
        for count in groups
    ]


def speed_runs(
    profile: str, *, seeds: Sequence[int] | None = None, device: str = "cpu"
) -> list[TrainConfig]:
    """The 10-layer CNN trained under several normalizers, its similarity probed at the start."""
    setting = choose(SETTINGS, profile, seeds=seeds)
    groups = [{"normalization": "group", "groups": count} for count in (2, 4, 8)]
    methods = [{"normalization": key} for key in ("batch", "layer", "instance")] + groups
    return [
        dataclasses.replace(setting.speed, seed=seed, device=device, **method)
        for seed in setting.seeds
        for method in methods
    ]


def measures(records: Sequence[Record]) -> pd.DataFrame:
    """What the probes saw, one row per run, layer and measure.

    Columns: dataset, net, method, normalization, convolution, groups, depth, width, skip_init,
    seed, layer, position (depth order within a measure), measure, value.
    """
    tables = []
    fields = ["dataset", "normalization", "convolution", "groups", "depth", "width", "skip_init"]
    for record in records:
        config = record.config
        table = record.table("probes")
        table = table[_is_measured(table.layer, config["model"])].reset_index(drop=True)
        method = config["convolution"] if config["convolution"] != "conv" else None
        labels = {field: config[field] for field in fields} | {
            "net": config["model"],
            "method": method or config["normalization"],
            "seed": config["seed"],
            "position": table.groupby("measure").cumcount() + 1,
        }
        tables.append(table.assign(**labels))
    columns = ["dataset", "net", "method", *fields[1:], "seed", "layer", "position", "measure"]
    return pd.concat(tables, ignore_index=True)[[*columns, "value"]]


def speeds(records: Sequence[Record]) -> pd.DataFrame:
    """Similarity at initialization and speed of training, one row per run of `speed_runs`.

    Columns: dataset, net, method, groups, seed, cosine (last layer, before training), speed (mean
    training accuracy over the epochs; those after a divergence count as chance), status.
    """
    rows = []
    for record in records:
        config = record.config
        probes = record.table("probes")
        cosine = probes[(probes.measure == "cosine_similarity") & (probes.step == 0)]
        cosine = cosine[_is_measured(cosine.layer, config["model"])].value.iloc[-1]
        reached = record.table("history").train_accuracy
        chance = 1 / dataset(config["dataset"]).num_classes
        speed = (reached.sum() + chance * (config["epochs"] - len(reached))) / config["epochs"]
        labels = {name: config[name] for name in ("dataset", "groups", "seed")}
        labels |= {"net": config["model"], "method": config["normalization"]}
        rows.append(labels | {"cosine": cosine, "speed": speed, "status": record.status})
    return pd.DataFrame(rows)


def _methods(width: int) -> list[dict]:
    normalizations = ("none", "batch", "layer", "instance", "group")
    methods = [{"normalization": key} for key in normalizations]
    methods[-1]["groups"] = max(1, width // 4)
    return [*methods, {"normalization": "none", "convolution": "scaled_ws"}]


def _is_measured(layers: pd.Series, model: str) -> pd.Series:
    """Where a block ends in a residual net, every activation and convolution in a stack."""
    residual = model.startswith("resnet")
    pattern = r"blocks\.\d+\.activation2" if residual else r"layers\.\d+\.\w+"
    return layers.str.fullmatch(pattern)
