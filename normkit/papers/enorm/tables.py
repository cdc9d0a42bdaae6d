"""The curves of auto-encoders, and the runs of all comparisons in one list and apart again."""

from collections.abc import Mapping, Sequence

import pandas as pd

from normkit.records import Record
from normkit.training import TrainConfig

from .runs import method_of

__all__ = ["curves", "gathered", "parted"]


def gathered(plans: Mapping[str, Sequence[TrainConfig]]) -> list[TrainConfig]:
    """The runs of all comparisons, for one sweep."""
    return [run for runs in plans.values() for run in runs]


def parted(
    plans: Mapping[str, Sequence[TrainConfig]], records: Sequence[Record]
) -> dict[str, list[Record]]:
    """The records of `gathered` runs, by comparison.

    Example:
        >>> parted({"a": ["run 0"], "b": ["run 1", "run 2"]}, ["r0", "r1", "r2"])
        {'a': ['r0'], 'b': ['r1', 'r2']}
    """
    rest = iter(records)
    return {name: [next(rest) for _ in runs] for name, runs in plans.items()}


def curves(records: Sequence[Record]) -> pd.DataFrame:
    """Loss and energy as training goes on, one row per run and epoch.

    Columns: initialization, method, seed, lr, epoch, train_loss, loss, energy (the sum of squared
    weights of the linear layers), status. A run that diverged has the epochs it finished, and one
    more with nans.
    """
    tables = []
    for record in records:
        config, history = record.config, record.table("history")
        norms = record.table("norms")
        squares = norms[(norms.norm == "frobenius") & (norms.kind == "linear")]
        energy = squares.value.pow(2).groupby(squares.epoch).sum()
        table = history[["epoch", "train_loss", "loss"]].assign(energy=history.epoch.map(energy))
        if record.status != "ok":
            table = pd.concat([table, pd.DataFrame({"epoch": [config["epochs"]]})])
        named = {"initialization": config["initialization"], "method": method_of(config)}
        named |= {"seed": config["seed"], "lr": config["lr"], "status": record.status}
        tables.append(table.assign(**named))
    numbers = dict.fromkeys(("train_loss", "loss", "energy"), float)
    return pd.concat(tables, ignore_index=True).astype({"epoch": int} | numbers)
