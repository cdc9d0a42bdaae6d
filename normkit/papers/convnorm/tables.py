"""The tables of the comparison: accuracy epoch by epoch, check_result, Welch's tests."""

import itertools
import math
import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from normkit.records import Record

from .methods import method_of
from .published import published_robust

__all__ = [
    "check_result",
    "curves",
    "first_epochs",
    "gan_scores",
    "robust",
    "sheets",
    "welch",
]

ATTACKS = ("clean", "FGSM", "PGD-10", "PGD-20")


def curves(records: Sequence[Record]) -> pd.DataFrame:
    """Accuracy as training goes on, one row per run and epoch.

    Columns: method, seed, epoch, train_accuracy, accuracy (in [0, 1]), status. A run that
    diverged has the epochs it finished, and one more with NaN.
    """
    tables = []
    for record in records:
        table = record.table("history")[["epoch", "train_accuracy", "accuracy"]]
        if record.status != "ok":
            lost = {"epoch": record.config["epochs"], "train_accuracy": math.nan}
            table = pd.concat([table, pd.DataFrame([lost | {"accuracy": math.nan}])])
        named = {"method": method_of(record.config), "seed": record.config["seed"]}
        tables.append(table.assign(**named, status=record.status))
    whole = pd.concat(tables, ignore_index=True)
    return whole.astype({"epoch": int, "train_accuracy": float, "accuracy": float})


def first_epochs(table: pd.DataFrame, count: int) -> pd.DataFrame:
    """The mean accuracy of the first epochs of each run, NaN unless it finished them all.

    Columns: method, seed, accuracy.

    Example:
        >>> rows = {"method": "batch", "seed": 0, "epoch": [1, 2, 3]}
        >>> whole = pd.DataFrame(rows | {"accuracy": [0.5, 0.75, 1.0]})
        >>> [float(first_epochs(part, 2).accuracy[0]) for part in (whole, whole[1:])]
        [0.625, nan]
    """
    first = table[table.epoch <= count]
    needed = min(count, table.epoch.max())
    runs = first.groupby(["method", "seed"]).accuracy
    means = runs.mean().where(runs.count() >= needed)
    return means.reset_index()


def robust(accuracies: pd.DataFrame) -> pd.DataFrame:
    """Our accuracies and the published ones in one table.

    Columns: source (here or paper), attack, method, seed, accuracy.
    """
    ours = accuracies.assign(source="here").astype({"accuracy": float})
    columns = ["source", "attack", "method", "seed", "accuracy"]
    return pd.concat([ours[columns], published_robust()], ignore_index=True)


def check_result(accuracies: pd.DataFrame) -> pd.DataFrame:
    """The authors' table, our seeds beside theirs: top-1 in percent, mean and 95 % t interval.

    Rows: attack and method. Columns: source and seed, then mean, low, high and n of each source;
    NaN where the authors published nothing.

    Arguments:
        accuracies: table "accuracy" of `Attacked`.
    """
    table = robust(accuracies).assign(accuracy=lambda t: 100 * t.accuracy)
    attacks = [name for name in ATTACKS if name in set(table.attack)]
    methods = list(dict.fromkeys(table.method))
    parts = {}
    for source, rows in table.groupby("source", sort=False):
        wide = rows.pivot_table(index=["attack", "method"], columns="seed", values="accuracy")
        wide.columns = [f"seed {seed}" for seed in wide.columns]
        mean, half = wide.mean(axis=1), wide.apply(_half_width, axis=1)
        n = wide.count(axis=1)
        parts[source] = wide.assign(mean=mean, low=mean - half, high=mean + half, n=n)
    order = [(attack, method) for attack in attacks for method in methods]
    whole = pd.concat(parts, axis=1)
    return whole.reindex([row for row in order if row in whole.index])


def _half_width(values: pd.Series) -> float:
    kept = values.dropna()
    if len(kept) < 2:
        return math.nan
    return float(stats.t.ppf(0.975, len(kept) - 1) * kept.std(ddof=1) / math.sqrt(len(kept)))


def welch(accuracies: pd.DataFrame) -> pd.DataFrame:
    """Welch's test between every two methods, under each attack, here and as published.

    Columns: source, attack, method, other, difference (in [0, 1]), low, high (95 %), p, n, found:
    "higher", "lower", or "not separable" where the interval holds 0.

    Source: Welch 1947, https://doi.org/10.1093/biomet/34.1-2.28; seeds are independent runs.

    Example:
        >>> ours = pd.DataFrame({"attack": "FGSM", "method": "oni", "seed": [0], "accuracy": 0.4})
        >>> found = welch(ours)
        >>> rows = found[(found.attack == "PGD-20") & (found.method == "conv_norm")]
        >>> rows[["other", "found"]].values.tolist()
        [['spectral_norm', 'not separable'], ['oni', 'higher']]
    """
    rows = []
    for (source, attack), part in robust(accuracies).groupby(["source", "attack"], sort=False):
        values = {name: group.accuracy.dropna() for name, group in part.groupby("method")}
        names = [name for name in dict.fromkeys(part.method) if len(values[name]) > 1]
        for one, other in itertools.combinations(names, 2):
            rows.append((source, attack, one, other, *_welch(values[one], values[other])))
    columns = ["source", "attack", "method", "other", "difference", "low", "high", "p", "n"]
    table = pd.DataFrame(rows, columns=columns)
    across = (table.low <= 0) & (table.high >= 0)
    table["found"] = np.where(
        across, "not separable", np.where(table.difference > 0, "higher", "lower")
    )
    return table


def _welch(one: pd.Series, other: pd.Series) -> tuple[float, float, float, float, int]:
    difference = float(one.mean() - other.mean())
    if one.nunique() == other.nunique() == 1:  # no spread, so nothing to compare it with
        return difference, -math.inf, math.inf, math.nan, min(len(one), len(other))
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # one has no spread
        test = stats.ttest_ind(one, other, equal_var=False)
        interval = test.confidence_interval(0.95)
    return difference, interval.low, interval.high, test.pvalue, min(len(one), len(other))


def gan_scores(records: Sequence[Record]) -> pd.DataFrame:
    """The scores of generative runs as they go on.

    Columns: method (the discriminator), seed, step, frechet, inception, status.
    """
    tables = []
    for record in records:
        named = {"method": record.config["discriminator"], "seed": record.config["seed"]}
        table = record.table("history")[["step", "frechet", "inception"]]
        tables.append(table.assign(**named, status=record.status))
    columns = ["step", "frechet", "inception", "method", "seed", "status"]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)


def sheets(records: Sequence[Record], seed: int) -> pd.DataFrame:
    """The last samples of the runs of one seed: method, index, row, column, channel, value."""
    chosen = [record for record in records if record.config["seed"] == seed]
    named = [record.table("samples").assign(method=record.config["discriminator"])
             for record in chosen if record.status == "ok"]  # fmt: skip
    return pd.concat(named, ignore_index=True) if named else pd.DataFrame()
