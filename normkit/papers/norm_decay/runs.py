"""The runs behind the norms of robust and plain networks, and the tables read off them."""

import dataclasses
import math
from collections.abc import Sequence

import pandas as pd

from normkit.records import Record
from normkit.training import Adversary, Evaluation, TrainConfig

from ..profiles import choose
from .regularization import MILESTONES, PAPER_NETS

__all__ = [
    "SETTINGS",
    "Adversaries",
    "accuracies",
    "adversarial_runs",
    "datasets",
    "layer_norms",
    "other_start",
]

NORMS = ("l1", "linf", "spectral")


@dataclasses.dataclass(frozen=True)
class Adversaries:
    """The runs behind ln.density and ln.layers: nets x methods x seeds on one schedule.

    Arguments:
        base: all that the runs share.
        nets: (model, width) pairs.
        methods: plain, pgd, trades, alp.
        seeds: repetitions; methods are compared within a seed.
        epsilon: linf radius of training and evaluation attacks, images in [0, 1].
        step_size: of the training attack.
        steps: of the training attack.
        attack_steps: of the evaluation attack; its steps are 2.5 epsilon / attack_steps long.
        attack_images: how many evaluation images are attacked, None for all.
        attack_epsilon: radius of the evaluation attack, None for `epsilon`.
    """

    base: TrainConfig
    nets: tuple[tuple[str, int], ...]
    methods: tuple[str, ...] = ("plain", "pgd", "trades", "alp")
    seeds: tuple[int, ...] = (0, 1, 2)
    epsilon: float = 0.15
    step_size: float = 0.1
    steps: int = 2
    attack_steps: int = 20
    attack_images: int | None = None
    attack_epsilon: float | None = None


SETTINGS = {
    "smoke": Adversaries(
        TrainConfig(epochs=1, subset=64, initialization="torch", norms=()),
        nets=(("resnet8", 4), ("vgg11", 4)),
        seeds=(0,),
        attack_steps=2,
        attack_images=32,
    ),
    "quick": Adversaries(
        TrainConfig(epochs=40, initialization="torch", norms=()),
        nets=(("resnet8", 8), ("vgg11", 8)),
    ),
    "cifar10": Adversaries(
        TrainConfig(
            dataset="cifar10",
            image_size=16,
            subset=1000,
            initialization="torch",
            batch_size=64,
            epochs=30,
            weight_decay=0.0,
            augment="flip",
            norms=(),
        ),
        nets=(("resnet18", 8), ("vgg11", 16), ("senet18", 8), ("regnetx_200mf", 8)),
        epsilon=8 / 255,
        step_size=6 / 255,
        attack_images=500,
    ),
    "paper": Adversaries(
        TrainConfig(
            dataset="cifar10",
            initialization="torch",
            epochs=120,
            lr=0.1,
            nesterov=False,
            weight_decay=0.0,
            schedule="step",
            milestones=MILESTONES,
            augment="crop_flip",
            norms=(),
        ),
        nets=PAPER_NETS,
        epsilon=0.031,
        step_size=0.007,
        steps=10,
        attack_images=1024,
        attack_epsilon=8 / 255,
    ),
}


def datasets(profile: str) -> tuple[str, ...]:
    """The data sets that a profile reads."""
    return (choose(SETTINGS, profile).base.dataset,)


def adversarial_runs(
    profile: str,
    *,
    seeds: Sequence[int] | None = None,
    epochs: int | None = None,
    epsilon: float | None = None,
    device: str = "cpu",
) -> list[TrainConfig]:
    """The configurations behind ln.density and ln.layers; None takes the profile's value.

    An `epsilon` is the radius of training and evaluation alike; steps are scaled with it.

    Raises:
        ValueError: an unknown profile.

    Example:
        >>> runs = adversarial_runs("quick")
        >>> len(runs), {run.adversary.kind for run in runs} == {"none", "pgd", "trades", "alp"}
        (24, True)
    """
    setting = _chosen(profile, seeds, epsilon)
    base = dataclasses.replace(
        setting.base,
        evaluation=_evaluation(setting),
        epochs=setting.base.epochs if epochs is None else epochs,
        device=device,
    )
    return [
        dataclasses.replace(
            base, model=model, width=width, seed=seed, adversary=_adversary(method, setting)
        )
        for seed in setting.seeds
        for model, width in setting.nets
        for method in setting.methods
    ]


def other_start(runs: Sequence[TrainConfig]) -> list[TrainConfig]:
    """The plain and the PGD-AT runs of the first net, from He's initialization."""
    return [
        dataclasses.replace(run, initialization="he")
        for run in runs
        if run.model == runs[0].model and run.adversary.kind in ("none", "pgd")
    ]


def layer_norms(records: Sequence[Record]) -> pd.DataFrame:
    """Every layer's norms after the last epoch, one row per run, layer and norm.

    Columns: net, method, seed, layer, position (depth order), kind, norm, value. Runs that
    diverged have no rows.
    """
    tables = []
    for record in records:
        if record.status != "ok":
            continue
        table = record.table("norms")
        table = table[(table.epoch == table.epoch.max()) & (table.status == "ok")]
        position = {name: i for i, name in enumerate(dict.fromkeys(table.layer))}
        table = table.assign(**_labels(record), position=table.layer.map(position))
        tables.append(table[table.norm.isin(NORMS)])
    columns = ["net", "method", "seed", "layer", "position", "kind", "norm", "value"]
    if not tables:
        return pd.DataFrame(columns=columns)
    return pd.concat(tables, ignore_index=True)[columns]


def accuracies(records: Sequence[Record]) -> pd.DataFrame:
    """Accuracies after the last epoch, one row per run.

    Columns: net, method, seed, train, clean, robust (in [0, 1], NaN where the run diverged),
    status.
    """
    rows = []
    for record in records:
        row = _labels(record) | {"train": math.nan, "clean": math.nan, "robust": math.nan}
        if record.status == "ok":
            last = record.table("history").iloc[-1]
            row["train"], row["clean"] = last.train_accuracy, last.accuracy
            row["robust"] = last.robust_accuracy
        rows.append(row | {"status": record.status})
    return pd.DataFrame(rows)


def _chosen(profile: str, seeds: Sequence[int] | None, epsilon: float | None) -> Adversaries:
    setting = choose(SETTINGS, profile, seeds=seeds)
    if epsilon is None:
        return setting
    step_size = setting.step_size * epsilon / setting.epsilon
    return dataclasses.replace(setting, epsilon=epsilon, step_size=step_size, attack_epsilon=None)


def _evaluation(setting: Adversaries) -> Evaluation:
    radius, steps = setting.attack_epsilon or setting.epsilon, setting.attack_steps
    size = 2.5 * radius / steps
    count = setting.attack_images
    return Evaluation(epsilon=radius, step_size=size, steps=steps, images=count, clean_every=0)


def _adversary(method: str, setting: Adversaries) -> Adversary:
    if method == "plain":
        return Adversary()
    return Adversary(method, setting.epsilon, setting.step_size, setting.steps, beta=1.0)


def _labels(record: Record) -> dict:
    kind = record.config["adversary"]["kind"]
    method = "plain" if kind == "none" else kind
    he = ", He start" if record.config["initialization"] == "he" else ""
    return {"net": record.config["model"] + he, "method": method, "seed": record.config["seed"]}
