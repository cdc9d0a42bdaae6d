"""Every method under every measurement, ranked; and norms against robustness."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from normkit import claims
from normkit.records import Record

__all__ = ["COLUMNS", "contrasts", "correlations", "ranks", "scores", "wide"]

# What is measured, and which way is first: more (1), less (-1), or nearest to 1 (0).
COLUMNS = {
    "clean": 1,
    "robust": 1,
    "noisy": 1,
    "first_epoch": 1,
    "spectral": -1,
    "l1": -1,
    "linf": -1,
    "slope": -1,
    "energy": -1,
    "stable_rank": 1,
    "cosine": -1,
    "gradient_ratio": 0,
}
PREDICTORS = ("spectral", "l1", "linf", "slope", "stable_rank", "clean", "energy")
QUESTIONS = (
    *(("conv_norm", "batch", norm) for norm in ("l1", "linf", "spectral", "robust")),
    *(("enorm", "none", measure) for measure in ("spectral", "robust", "clean")),
    *((f"nd_{norm}", "batch", "stable_rank") for norm in ("l1", "linf")),
    *((method, "group", "robust") for method in ("layer", "instance")),
)
DRAWS = 2_000  # of the bootstrap over methods


def scores(
    clean: Mapping[tuple, Record], noise: Mapping[tuple, Record], measures: pd.DataFrame
) -> pd.DataFrame:
    """Every method under every measurement, one row per method, seed and measurement.

    Columns: method, seed, measure (of `COLUMNS`), value (NaN where the run diverged), status.

    Arguments:
        clean: the records of the clean runs, by method and seed.
        noise: of those on wrong labels.
        measures: key, measure, value of the clean networks, from `measured`.
    """
    seen = measures.set_index(["key", "measure"]).value.to_dict()
    rows = []
    for (method, seed), record in clean.items():
        found = dict.fromkeys(COLUMNS, math.nan)
        if record.status == "ok":
            accuracy = record.table("history").accuracy
            found |= {"clean": accuracy.iloc[-1], "first_epoch": accuracy.iloc[0]}
            known = [name for name in COLUMNS if (record.key, name) in seen]
            found |= {name: seen[record.key, name] for name in known}
        other = noise[method, seed]
        if other.status == "ok":
            found["noisy"] = other.table("history").accuracy.iloc[-1]
        rows += [(method, seed, name, found[name], record.status) for name in COLUMNS]
    return pd.DataFrame(rows, columns=["method", "seed", "measure", "value", "status"])


def ranks(table: pd.DataFrame) -> pd.DataFrame:
    """The rank of each method under each measurement: mean over seeds and 95 % t interval.

    *In plain words:* methods are ranked within a seed, the best, or smallest norm, first; equals
    share their mean rank, and a run that diverged is last. `COLUMNS` says which way is first.

    Columns: method, measure, value (mean over seeds), rank, low, high, n.

    Example:
        >>> rows = [("batch", 0, "clean", 0.9), ("none", 0, "clean", 0.7)]
        >>> table = pd.DataFrame(rows, columns=["method", "seed", "measure", "value"])
        >>> ranks(table)[["method", "rank"]].values.tolist()
        [['batch', 1.0], ['none', 2.0]]
    """
    rows = table.assign(order=[_order(*row) for row in table[["measure", "value"]].values])
    by_seed = rows.groupby(["measure", "seed"], sort=False).order
    rows["rank"] = by_seed.rank(method="average", na_option="bottom")
    found, most = [], table.method.nunique()
    for (method, measure), part in rows.groupby(["method", "measure"], sort=False):
        mean = claims.above("", part["rank"].tolist())
        low, high = np.clip([mean.low, mean.high], 1, most)
        found.append((method, measure, part.value.mean(), mean.effect, low, high, mean.n))
    columns = ["method", "measure", "value", "rank", "low", "high", "n"]
    return pd.DataFrame(found, columns=columns)


def wide(table: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds, a row per method and a column per measurement."""
    means = table.pivot_table("value", "method", "measure", sort=False)
    return means[[name for name in COLUMNS if name in means]]


def contrasts(table: pd.DataFrame) -> pd.DataFrame:
    """The four questions that no paper asks of its own method, paired by seed.

    *In plain words:* what ConvNorm does to the l1 and linf norms, ENorm to spectral norm and
    robust accuracy, norm decay to the stable rank, and group size to robust accuracy.

    Columns: question (method minus reference), measure, effect, low, high, n.

    Example:
        >>> rows = [("enorm", 0, "spectral", 3.0), ("none", 0, "spectral", 4.0)]
        >>> table = pd.DataFrame(rows, columns=["method", "seed", "measure", "value"])
        >>> contrasts(table)[["question", "effect"]].values.tolist()
        [['enorm minus none', -1.0]]
    """
    rows = []
    for one, other, measure in QUESTIONS:
        of_one = table[table.measure == measure]
        wide = of_one.pivot(index="seed", columns="method", values="value")
        if {one, other} <= set(wide):
            part = claims.above("", (wide[one] - wide[other]).tolist())
            numbers = (part.effect, part.low, part.high, part.n)
            rows.append((f"{one} minus {other}", measure, *numbers))
    return pd.DataFrame(rows, columns=["question", "measure", "effect", "low", "high", "n"])


def correlations(
    table: pd.DataFrame, *, leave_out: Sequence[str] = (), outcome: str = "robust"
) -> pd.DataFrame:
    """Spearman's correlation of each norm with robust accuracy over methods, with its interval.

    *In plain words:* does the order of methods by a norm tell their order by robust accuracy? A
    method is its mean over seeds. The 95 % interval is a bootstrap over methods, the same methods
    for each norm: another set of methods would give another number within it.

    Columns: measure, effect, low, high, n (methods).

    Example:
        >>> rows = [(f"m{i}", 0, name, float(i)) for i in range(6) for name in ("l1", "robust")]
        >>> table = pd.DataFrame(rows, columns=["method", "seed", "measure", "value"])
        >>> correlations(table).effect.round(6).tolist()
        [1.0]
    """
    means = wide(table[~table.method.isin(leave_out)]).dropna(subset=[outcome])
    draws = np.random.default_rng(0).integers(len(means), size=(DRAWS, len(means)))
    rows = []
    for name in (name for name in PREDICTORS if name in means and name != outcome):
        pair = means[[name, outcome]].to_numpy()
        found = np.array([_spearman(pair[draw]) for draw in draws])
        found = found[np.isfinite(found)]
        low, high = np.quantile(found, [0.025, 0.975]) if len(found) else (math.nan, math.nan)
        rows.append((name, _spearman(pair), low, high, len(means)))
    return pd.DataFrame(rows, columns=["measure", "effect", "low", "high", "n"])


def _order(measure: str, value: float) -> float:
    """Smaller is first."""
    sign = COLUMNS[measure]
    return -sign * value if sign else abs(math.log(value)) if value > 0 else math.nan


def _spearman(pair: np.ndarray) -> float:
    first, second = (stats.rankdata(column) for column in pair.T)
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return math.nan
    return float(np.corrcoef(first, second)[0, 1])
