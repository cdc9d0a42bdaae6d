"""The runs that choose learning rates, and those that are judged."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from normkit.records import Record
from normkit.training import GanConfig, TrainConfig

from ..profiles import choose
from .methods import changed, method_of
from .settings import SETTINGS, Experiments

__all__ = [
    "choosing_runs",
    "datasets",
    "gans",
    "gathered",
    "judged_runs",
    "outcomes",
    "planned",
    "rates",
]

PAIR = ("batch", "conv_norm")


def datasets(profile: str) -> tuple[str, ...]:
    """The data sets that a profile reads."""
    setting = choose(SETTINGS, profile)
    used = [setting.clean, setting.others] if setting.others else [setting.clean]
    return tuple(dict.fromkeys(base.dataset for base in used))


def choosing_runs(
    profile: str, *, seeds: Sequence[int] | None = None, device: str = "cpu"
) -> list[TrainConfig]:
    """The runs that choose the learning rate of each method, on images held out.

    Raises:
        ValueError: an unknown profile.

    Example:
        >>> runs = choosing_runs("quick")
        >>> len(runs), {run.validation for run in runs}, {run.seed for run in runs}
        (20, {0.2}, {100})
    """
    setting = choose(SETTINGS, profile, seeds=seeds)
    tried = dict.fromkeys((*setting.methods, *setting.robust))
    held = {"seed": setting.choosing, "validation": setting.validation, "device": device}
    held |= {"epochs": setting.choosing_epochs}
    base = dataclasses.replace(setting.clean, **held)
    return [changed(base, method, lr=lr) for method in tried for lr in setting.lrs]


def judged_runs(
    profile: str,
    tried: Sequence[Record],
    *,
    seeds: Sequence[int] | None = None,
    epochs: int | None = None,
    device: str = "cpu",
) -> dict[str, list[TrainConfig]]:
    """The runs that are judged, by comparison: clean, robust, noise, asymmetric, scarce.

    Arguments:
        profile: smoke, quick, cifar10 or paper; None takes its values, as below.
        tried: the records of `choosing_runs`; a method without one takes the first rate.
        seeds: repetitions, of every comparison.
        epochs: passes over the images; few images still get their number of updates.
        device: cpu or cuda.
    """
    setting = choose(SETTINGS, profile, seeds=seeds, many=seeds)
    how: dict[str, object] = {"device": device} | ({"epochs": epochs} if epochs else {})
    chosen = rates(outcomes(tried))
    lrs = chosen[chosen.chosen].set_index("method").lr.to_dict()
    return {
        name: [
            dataclasses.replace(run, lr=float(lrs.get(_method(run), setting.lrs[0])))
            for run in runs
        ]
        for name, runs in _plans(setting, how).items()
    }


def planned(
    profile: str,
    finished: Callable[[TrainConfig], Record | None],
    *,
    seeds: Sequence[int] | None = None,
    epochs: int | None = None,
    device: str = "cpu",
) -> list[GanConfig | TrainConfig]:
    """Every run of a profile; a rate that is yet to be chosen is the first of the choice."""
    tries = choosing_runs(profile, seeds=seeds, device=device)
    tried = [record for record in map(finished, tries) if record]
    plans = judged_runs(profile, tried, seeds=seeds, epochs=epochs, device=device)
    return [*tries, *gathered(plans), *gans(profile, seeds=seeds, device=device)]


def _plans(setting: Experiments, how: dict[str, object]) -> dict[str, list[TrainConfig]]:
    """The runs of every comparison, but for their learning rates."""
    clean, free, noise, scarce = (
        dataclasses.replace(base, **how)
        for base in (setting.clean, setting.free, setting.noise, setting.scarce)
    )
    plans = {
        "clean": _each(clean, setting.methods, setting.seeds),
        "robust": _each(free, setting.robust, setting.seeds),
    }
    if setting.others:
        others = dataclasses.replace(setting.others, **how)
        plans["others"] = _each(others, PAIR, setting.seeds)
    for kind, levels in (("symmetric", setting.levels), ("asymmetric", setting.asymmetric)):
        noisy = [
            dataclasses.replace(noise, label_noise=level, label_noise_kind=kind)
            for level in levels
        ]
        plans[kind] = [run for base in noisy for run in _each(base, PAIR, setting.many)]
    few = [dataclasses.replace(scarce, **_few(setting, part)) for part in setting.fractions]
    plans["scarce"] = [run for base in few for run in _each(base, PAIR, setting.many)]
    return plans


def _each(base: TrainConfig, methods: Sequence[str], seeds: Sequence[int]) -> list[TrainConfig]:
    return [changed(base, method, seed=seed) for seed in seeds for method in methods]


def _method(run: TrainConfig) -> str:
    return method_of(dataclasses.asdict(run))


def _few(setting: Experiments, fraction: float) -> dict[str, int]:
    """The images of a fraction, and the epochs that make up the wanted number of updates."""
    count = round(fraction * setting.images)
    if setting.scarce_steps is None:
        return {"subset": count}
    updates = -(-count // setting.scarce.batch_size)
    return {"subset": count, "epochs": max(1, round(setting.scarce_steps / updates))}


def gans(
    profile: str, *, seeds: Sequence[int] | None = None, device: str = "cpu"
) -> list[GanConfig]:
    """The generative runs of a profile, which may be none."""
    setting = choose(SETTINGS, profile, seeds=seeds)
    if setting.gan is None:
        return []
    return [
        dataclasses.replace(setting.gan, discriminator=kind, seed=seed, device=device)
        for seed in setting.seeds
        for kind in setting.gans
    ]


def outcomes(records: Sequence[Record]) -> pd.DataFrame:
    """Results after the last epoch, one row per run.

    Columns: dataset, method, seed, lr, kind and level (of label noise), subset, train, accuracy
    (in [0, 1]; NaN where the run diverged), status.
    """
    rows = []
    for record in records:
        config, found = record.config, {"train": float("nan"), "accuracy": float("nan")}
        if record.status == "ok":
            last = record.table("history").iloc[-1]
            found = {"train": float(last.train_accuracy), "accuracy": float(last.accuracy)}
        named = {name: config[name] for name in ("dataset", "seed", "lr", "subset")}
        named |= {"kind": config["label_noise_kind"], "level": config["label_noise"]}
        rows.append({"method": method_of(config)} | named | found | {"status": record.status})
    columns = ["method", "dataset", "seed", "lr", "subset", "kind", "level", "train", "accuracy"]
    return pd.DataFrame(rows, columns=[*columns, "status"])


def rates(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of `outcomes`, and whether their learning rate is the method's chosen one.

    *In plain words:* the rate of the highest accuracy on the images held out, of equals the
    smallest. A run that diverged is the worst.

    Example:
        >>> row = {"method": "batch"}
        >>> rates(pd.DataFrame([{**row, "lr": 0.1, "accuracy": 0.8},
        ...     {**row, "lr": 0.3, "accuracy": 0.9}])).chosen.tolist()
        [False, True]
    """
    score = table.accuracy.fillna(-1.0)
    order = table.assign(score=score).sort_values(["score", "lr"], ascending=[False, True])
    best = order.groupby("method", sort=False).head(1).index
    return table.assign(chosen=table.index.isin(best))


def gathered(plans: Mapping[str, Sequence[TrainConfig]]) -> list[TrainConfig]:
    """The runs of all comparisons, for one sweep."""
    return [run for runs in plans.values() for run in runs]
