"""What a figure asks of its table: columns that exist, one row per run, means with intervals."""

from collections.abc import Iterable
from difflib import get_close_matches

import numpy as np
import pandas as pd
from scipy import stats

from normkit.plots.style import LABELS

__all__ = ["choose", "diverged", "mean_interval", "methods_of", "require", "summarize"]


def mean_interval(values: Iterable[float], *, log: bool = False) -> tuple[float, float, float]:
    """Mean over seeds and its 95 % t interval.

        mean -+ t(0.975, n - 1) s / sqrt(n)

    In plain words: with three seeds the interval is 2.5 standard deviations to each side.
    Fewer than three values have a mean and no interval (nan). On a log axis, `log=True` does all
    of it with logarithms: the geometric mean, and an interval that never reaches zero.

    Raises:
        ValueError: no value.

    Example:
        >>> [round(x, 3) for x in mean_interval([1.0, 2.0, 3.0])]
        [2.0, -0.484, 4.484]
        >>> [round(x, 3) for x in mean_interval([1.0, 10.0, 100.0], log=True)]
        [10.0, 0.033, 3048.862]
    """
    values = np.asarray(list(values), dtype=float)
    if not values.size:
        raise ValueError("values is empty: a mean needs one value at least")
    values = np.log(values) if log else values
    mean, half = values.mean(), np.nan
    if values.size > 2:
        half = stats.t.ppf(0.975, values.size - 1) * values.std(ddof=1) / np.sqrt(values.size)
    result = np.array([mean, mean - half, mean + half])
    return tuple(map(float, np.exp(result) if log else result))


def summarize(table: pd.DataFrame, by: list[str], *, log: bool = False) -> pd.DataFrame:
    """Mean over seeds of `value` and its interval, per group of `by`.

    Returns:
        Columns of `by`, then mean, low, high and n (seeds), in the order of `by`.

    Raises:
        ValueError: a seed occurs twice in a group, so that different runs would be mixed.

    Example:
        >>> table = pd.DataFrame({"depth": [10, 10], "seed": [0, 1], "value": [1.0, 3.0]})
        >>> summarize(table, ["depth"])[["depth", "mean", "n"]].values.tolist()
        [[10.0, 2.0, 2.0]]
    """
    twice = table[table.duplicated([*by, "seed"])]
    if len(twice):
        where = ", ".join(f"{name}={twice.iloc[0][name]}" for name in [*by, "seed"])
        raise ValueError(f"table has several rows for {where}: keep one configuration per figure")
    rows = [
        (*key, *mean_interval(group["value"], log=log), len(group))
        for key, group in table.sort_values("seed").groupby(by)
    ]
    return pd.DataFrame(rows, columns=[*by, "mean", "low", "high", "n"])


def require(
    table: pd.DataFrame, columns: list[str], *, name: str = "table", measure: str = ""
) -> pd.DataFrame:
    """Return the rows of `measure` (all rows if there is no measure to choose) of a good table.

    Raises:
        ValueError: a column is missing, or there is no row; the columns are named.

    Example:
        >>> require(pd.DataFrame({"seed": [0]}), ["seed", "value"])
        Traceback (most recent call last):
        ValueError: table lacks the column value: it has seed, and needs seed, value
    """
    wanted = [*columns, "measure"] if measure else columns
    missing = [column for column in wanted if column not in table.columns]
    if missing:
        kind = "columns" if len(missing) > 1 else "column"
        raise ValueError(
            f"{name} lacks the {kind} {', '.join(missing)}: "
            f"it has {', '.join(map(str, table.columns)) or 'none'}, and needs {', '.join(wanted)}"
        )
    rows = table[table["measure"] == measure] if measure else table
    if rows.empty:
        what = f"no row with measure {measure!r}" if measure and len(table) else "no rows"
        raise ValueError(f"{name} has {what}: it needs one row at least of {', '.join(wanted)}")
    return rows


def choose(name: str, value: str, choices: Iterable[str]) -> str:
    """Return `value` if it is among `choices`, else say which one is nearest.

    Raises:
        ValueError: `value` is not among `choices`.

    Example:
        >>> choose("norm", "l_inf", ["l1", "linf"])
        Traceback (most recent call last):
        ValueError: norm is 'l_inf': accepted are l1, linf; the nearest is 'linf'
    """
    choices = list(dict.fromkeys(choices))
    if value not in choices:
        nearest = get_close_matches(str(value), choices, n=1, cutoff=0)
        hint = f"; the nearest is {nearest[0]!r}" if nearest else ""
        raise ValueError(f"{name} is {value!r}: accepted are {', '.join(choices)}{hint}")
    return value


def methods_of(table: pd.DataFrame) -> list[str]:
    """Return the table's methods in the order of legends.

    Raises:
        ValueError: a method has no color of its own.

    Example:
        >>> methods_of(pd.DataFrame({"method": ["pgd", "plain", "pgd"]}))
        ['plain', 'pgd']
    """
    found = {choose("method", method, LABELS) for method in table["method"].unique()}
    return [method for method in LABELS if method in found]


def diverged(runs: pd.DataFrame) -> str:
    """Say how many of the runs, one a row, diverged; nothing if none did.

    Example:
        >>> diverged(pd.DataFrame({"method": ["pgd"] * 2, "status": ["ok", "diverged at step 9"]}))
        'Diverged (x): PGD-AT 1.'
    """
    bad = runs[runs["status"] != "ok"]
    who = [f"{LABELS[key]} {(bad['method'] == key).sum()}" for key in methods_of(bad)]
    return f"Diverged (x): {', '.join(who)}." if who else ""
