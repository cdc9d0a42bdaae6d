"""The runs that choose a learning rate, and those that are judged."""

import dataclasses
from collections.abc import Callable, Sequence

import pandas as pd

from normkit.records import Record
from normkit.training import Penalty, Projection, TrainConfig

from ..profiles import choose
from .settings import SETTINGS, Comparison, Experiments, with_mnist

__all__ = ["choosing_runs", "datasets", "judged_runs", "method_of", "outcomes", "planned",
           "rates"]  # fmt: skip


def datasets(profile: str) -> tuple[str, ...]:
    """The data sets that a profile reads."""
    used = _setting(profile).comparisons().values()
    return tuple(dict.fromkeys(comparison.base.dataset for comparison in used))


def choosing_runs(
    profile: str,
    *,
    seeds: Sequence[int] | None = None,
    epochs: int | None = None,
    device: str = "cpu",
) -> dict[str, list[TrainConfig]]:
    """The runs that choose learning rates, by comparison; None takes the profile's value.

    Raises:
        ValueError: an unknown profile.

    Example:
        >>> runs = choosing_runs("quick")["depth"]
        >>> len(runs), {run.validation for run in runs}, {run.seed for run in runs}
        (63, {0.2}, {100})
    """
    setting = _chosen(profile, seeds, epochs, device)
    return {
        name: [
            dataclasses.replace(
                _run(comparison, method, value, lr),
                seed=comparison.choosing,
                validation=comparison.validation,
                norms=(),
            )
            for method in comparison.methods
            for value in comparison.values
            for lr in comparison.lrs
        ]
        for name, comparison in setting.comparisons().items()
    }


def judged_runs(
    profile: str,
    tried: dict[str, Sequence[Record]],
    *,
    seeds: Sequence[int] | None = None,
    epochs: int | None = None,
    device: str = "cpu",
) -> dict[str, list[TrainConfig]]:
    """The runs that are judged, with the learning rates that the tried ones chose.

    Arguments:
        profile: as for `choosing_runs`, like the others.
        tried: the records of `choosing_runs`, by comparison; what was not tried takes the first
            rate.
    """
    setting = _chosen(profile, seeds, epochs, device)
    plans: dict[str, list[TrainConfig]] = {}
    for name, comparison in setting.comparisons().items():
        best = rates(outcomes(tried[name], comparison.field))
        best = best[best.chosen].set_index(["method", comparison.field]).lr.to_dict()
        plans[name] = [
            dataclasses.replace(run, lr=float(best.get((method, value), run.lr)), seed=seed)
            for seed in setting.seeds
            for method in comparison.methods
            for value in comparison.values
            for run in [_run(comparison, method, value, comparison.lrs[0])]
        ]
    return plans


def planned(
    profile: str,
    finished: Callable[[TrainConfig], Record | None],
    *,
    seeds: Sequence[int] | None = None,
    epochs: int | None = None,
    device: str = "cpu",
) -> list[TrainConfig]:
    """Every run of a profile; a rate that is yet to be chosen is the first of the choice."""
    chosen = {"seeds": seeds, "epochs": epochs, "device": device}
    tries = choosing_runs(profile, **chosen)
    tried = {name: [r for r in map(finished, runs) if r] for name, runs in tries.items()}
    plans = judged_runs(profile, tried, **chosen)
    return [run for part in (tries, plans) for runs in part.values() for run in runs]


def outcomes(records: Sequence[Record], field: str) -> pd.DataFrame:
    """Results after the last epoch, one row per run.

    Columns: method, the field (p, batch_size, c or initialization), seed, lr, train, accuracy (in
    [0, 1]), train_loss, loss, status; NaN where the run diverged.
    """
    rows, names = [], {"train": "train_accuracy", "accuracy": "accuracy"}
    names |= {"train_loss": "train_loss", "loss": "loss"}
    for record in records:
        config, found = record.config, dict.fromkeys(names, float("nan"))
        if record.status == "ok":
            last = record.table("history").iloc[-1]
            found = {name: float(last[column]) for name, column in names.items()}
        row = {"method": method_of(config), field: _value(config, field), "seed": config["seed"]}
        rows.append(row | {"lr": config["lr"]} | found | {"status": record.status})
    return pd.DataFrame(rows, columns=["method", field, "seed", "lr", *names, "status"])


def rates(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of `outcomes`, and whether their learning rate is the chosen one.

    *In plain words:* for each method and value the rate of the highest accuracy on the images held
    out, or of the lowest loss where there is no accuracy; of equals the smallest. A run that
    diverged is the worst; where all did, the smallest rate is taken.

    Example:
        >>> row = {"method": "none", "p": 1, "loss": float("nan")}
        >>> rates(pd.DataFrame([{**row, "lr": 0.1, "accuracy": 0.8},
        ...     {**row, "lr": 0.2, "accuracy": 0.9}])).chosen.tolist()
        [False, True]
    """
    field = next(name for name in ("p", "batch_size", "c", "initialization") if name in table)
    score = table.accuracy.fillna(-table.loss).fillna(-float("inf"))
    order = table.assign(score=score).sort_values(["score", "lr"], ascending=[False, True])
    best = order.groupby(["method", field], sort=False).head(1).index
    return table.assign(chosen=table.index.isin(best))


def method_of(config: dict) -> str:
    """The method of a configuration's plain values."""
    batch = config["normalization"] == "batch"
    if config["projection"]["kind"] == "enorm":
        return "enorm_batch" if batch else "enorm"
    if config["penalty"]["kind"] == "path_sgd":
        return "path_sgd"
    if config["convolution"] == "weight_norm":
        return "weight_norm_batch"
    return config["normalization"]


def _setting(profile: str, seeds: Sequence[int] | None = None) -> Experiments:
    setting = choose(SETTINGS, profile, seeds=seeds)
    return with_mnist(setting) if profile == "cifar10" else setting


def _chosen(
    profile: str, seeds: Sequence[int] | None, epochs: int | None, device: str
) -> Experiments:
    setting, made = _setting(profile, seeds), {}
    for name, comparison in setting.comparisons().items():
        changed = {"device": device} | ({} if epochs is None else {"epochs": epochs})
        base = dataclasses.replace(comparison.base, **changed)
        made[name] = dataclasses.replace(comparison, base=base)
    return dataclasses.replace(setting, **made)


def _run(comparison: Comparison, method: str, value: object, lr: float) -> TrainConfig:
    """One run; ENorm goes through BatchNorm as the paper's line ENorm+BN does."""
    c = float(value) if comparison.field == "c" else comparison.c
    changed: dict[str, object] = {"lr": lr}
    if method in ("batch", "weight_norm_batch", "enorm_batch"):
        changed["normalization"] = "batch"
    if method == "weight_norm_batch":
        changed["convolution"] = "weight_norm"
    if method == "group":
        changed |= {"normalization": "group", "groups": comparison.groups}
    if method == "path_sgd":
        changed["penalty"] = Penalty("path_sgd")
    if method in ("enorm", "enorm_batch"):
        changed["projection"] = Projection("enorm", c=c, through_batch_norm="ignore")
    if comparison.field == "p":
        changed["depth"] = int(value) + 1
    elif comparison.field == "batch_size":
        changed |= {"batch_size": value, "lr": lr * value / 128}
    elif comparison.field == "initialization":
        changed["initialization"] = value
    return dataclasses.replace(comparison.base, **changed)


def _value(config: dict, field: str) -> object:
    if field == "p":
        return config["depth"] - 1
    if field == "c":
        return config["projection"]["c"] if config["projection"]["kind"] == "enorm" else 1.0
    return config[field]
