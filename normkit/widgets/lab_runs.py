"""The runs of the lab: which setting is varied, and what the store holds of them."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from normkit import training
from normkit.records import Record, Store, StoreError
from normkit.training import Adversary, Evaluation, Penalty, Projection, TrainConfig

from .cache import Cache

__all__ = ["KNOBS", "Knob", "dots", "settings"]

BASE = TrainConfig(
    epochs=10, norms=(), final_norms=("linf",),
    evaluation=Evaluation(epsilon=16 / 255, step_size=4 / 255, steps=10),
)  # fmt: skip
COLUMNS = ["value", "seed", "accuracy", "robust_accuracy", "norm", "status", "key"]
Config = TrainConfig


class Knob(NamedTuple):
    """One setting of a run that is varied while all others stay.

    Arguments:
        name: what it is called.
        values: that are offered, by text.
        start: the one that stands there at first.
        scale: of the axis: linear or log.
        set: the run with the value.
        read: the value of a run.
    """

    name: str
    values: dict[str, float]
    start: float
    scale: str
    set: Callable[[float], Config]
    read: Callable[[Config], float]

    def of(self, config: Config) -> float | None:
        """The value of a run that differs in this setting (and the seed) only, else None."""
        value = self.read(config)
        try:
            same = dataclasses.replace(self.set(value), seed=config.seed)
        except ValueError:  # a value that this setting cannot have
            return None
        return value if same == config else None


def _decayed(beta: float) -> Config:
    penalty = Penalty("norm_decay", "linf", beta) if beta else Penalty()
    return dataclasses.replace(BASE, penalty=penalty)


def _balanced(c: float) -> Config:
    return dataclasses.replace(
        BASE, model="small_cnn", normalization="none", lr=0.05, projection=Projection("enorm", c=c)
    )


def _grouped(groups: float) -> Config:
    return dataclasses.replace(BASE, normalization="group", groups=int(groups))


def _attacked(epsilon: float) -> Config:
    if not epsilon:
        return BASE
    found = Adversary("pgd", epsilon=epsilon, step_size=0.75 * epsilon, steps=2)
    return dataclasses.replace(BASE, adversary=found)


def _texts(*values: float) -> dict[str, float]:
    return {f"{value:g}": float(value) for value in values}


def _beta(run: Config) -> float:
    return run.penalty.beta if run.penalty.kind == "norm_decay" else 0.0


def _epsilon(run: Config) -> float:
    return run.adversary.epsilon if run.adversary.kind == "pgd" else 0.0


RADII = {f"{step}/255": step / 255 for step in (0, 8, 16, 24, 32, 48, 64)}
BETAS = _texts(0, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
CS = _texts(0.5, 0.7, 0.85, 1, 1.2, 1.4, 2)
KNOBS = {
    knob.name: knob
    for knob in (
        Knob("norm decay beta", BETAS, 0.01, "log", _decayed, _beta),
        Knob("ENorm c", CS, 1.2, "log", _balanced, lambda run: run.projection.c),
        Knob("groups of GroupNorm", _texts(1, 2, 4, 8), 4.0, "log", _grouped,
             lambda run: float(run.groups or 1)),
        Knob("epsilon of PGD-AT", RADII, 16 / 255, "linear", _attacked, _epsilon),
    )
}  # fmt: skip


def dots(
    store: Store, knob: Knob, cache: Cache | None = None, check: Callable[[], None] = lambda: None
) -> pd.DataFrame:
    """The store's runs that differ in a knob (and the seed) only.

    Arguments:
        store: where they are looked for.
        knob: what varies.
        cache: keeps what was read of each record.
        check: called at each record.

    Returns:
        Columns value, seed, accuracy, robust_accuracy, norm (the median linf norm over
        convolutions and dense layers), status, key.

    Example:
        >>> len(dots(Store("nowhere"), KNOBS["ENorm c"]))
        0
    """
    cache = cache or Cache(1)
    rows = []
    for key in store.keys():
        check()
        rows.append(cache.get((knob.name, key), lambda key=key: _dot(store, key, knob)))
    return pd.DataFrame([row for row in rows if row], columns=COLUMNS)


def _dot(store: Store, key: str, knob: Knob) -> dict[str, Any] | None:
    try:
        record = store.open(key)
        config = training.from_dict(record.config) if _is_run(record) else None
    except (StoreError, TypeError, ValueError):  # damaged, or no configuration of today
        return None
    value = None if config is None else knob.of(config)
    if value is None or store.key(config) != key:  # of other code: another result
        return None
    return _row(record, config, value)


def _is_run(record: Record) -> bool:
    return record.manifest["kind"] == "TrainConfig"


def _row(record: Record, config: Config, value: float) -> dict[str, Any]:
    row = dict.fromkeys(("accuracy", "robust_accuracy", "norm"), np.nan)
    if record.status == "ok":
        norms = record.table("norms").query("norm == 'linf' and kind != 'batch_norm'")
        last = record.table("history").iloc[-1]
        row = {"accuracy": last["accuracy"], "robust_accuracy": last["robust_accuracy"]}
        row = {name: float(number) for name, number in row.items()}
        row["norm"] = float(norms["value"].median())
    head = {"value": value, "seed": config.seed, "status": record.status, "key": record.key}
    return head | row


def settings(config: Config) -> list[str]:
    """What a run changes in the default, as texts that `python -m normkit train` takes.

    Example:
        >>> settings(TrainConfig(epochs=3, penalty=Penalty("norm_decay", beta=0.1)))
        ['epochs=3', 'penalty.kind=norm_decay', 'penalty.beta=0.1']
    """
    found = []
    for name in training.field_names():
        mine, usual = (_read(run, name) for run in (config, TrainConfig()))
        if mine != usual:
            text = ",".join(mine) if isinstance(mine, tuple) else str(mine)
            found.append(f"{name}={text}")
    return found


def _read(config: Config, name: str) -> Any:
    value: Any = config
    for part in name.split("."):
        value = getattr(value, part)
    return value
