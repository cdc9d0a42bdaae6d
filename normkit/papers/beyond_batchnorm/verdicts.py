"""What is claimed of normalizers at initialization, and how it is judged."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from normkit.claims import Claim, Part, Verdict, above, below, combine, flat

__all__ = [
    "COSINE",
    "GRADIENT",
    "RANK",
    "VARIANCE",
    "correlation",
    "correlations",
    "judge_cosine",
    "judge_gradient",
    "judge_rank",
    "judge_variance",
]

EXPLODES, KEEPS, SKIP = 6.0, 2.0, 1.0
FLAT_FACTOR = 2.0

VARIANCE = Claim(
    "bb.variance",
    "beyond_batchnorm",
    "At initialization the activation variance of a ResNet-56 explodes with depth without "
    "normalization and with scaled weight standardization, not with activation-based "
    "normalization, and not with SkipInit.",
    f"log10 of the variance after the last block over the first: above {EXPLODES:g} for none and "
    f"scaled_ws, below {KEEPS:g} for batch, layer, instance and group, below {SKIP:g} for "
    "scaled_ws with SkipInit; repeated over seeds.",
)

RANK = Claim(
    "bb.rank",
    "beyond_batchnorm",
    "The stable rank of the last layer's activations rises with the number of groups, at "
    "initialization and during training.",
    "At initialization, at each width and depth: the smallest step of log stable rank from one "
    "number of groups to the next is above 0. During training, in each condition: minus the "
    "Spearman correlation of group size with stable rank, averaged over the epochs, is above 0. "
    "Repeated over seeds.",
)

COSINE = Claim(
    "bb.cosine",
    "beyond_batchnorm",
    "The cosine similarity of activations rises with depth and with group size, and networks in "
    "which it is high train slowly.",
    "At each depth: last layer's similarity minus the first's, averaged over group sizes, is "
    "above 0; its smallest rise from one group size to the next is above 0. Over normalizers, "
    "depths, batch sizes and learning rates: Spearman correlation of similarity at initialization "
    "with mean training accuracy is below 0. Repeated over seeds.",
)

GRADIENT = Claim(
    "bb.gradient",
    "beyond_batchnorm",
    "At initialization the gradient norm of the first layer relative to the last rises with the "
    "number of groups: about 1 for LayerNorm, largest for InstanceNorm.",
    "At each depth: the smallest step of log first/last ratio from one number of groups to the "
    "next is above 0; InstanceNorm's log ratio exceeds every other's; LayerNorm's ratio stays "
    f"within a factor of {FLAT_FACTOR:g} of 1. Repeated over seeds.",
)

def judge_variance(table: pd.DataFrame, profile: str) -> Verdict:
    """bb.variance from `measures(depth_runs)`."""
    growth = _growth(table[table.measure == "activation_variance"])
    parts = [
        above(f"{m}: log10 growth, minus {EXPLODES:g}", growth[False, m], EXPLODES)
        for m in ("none", "scaled_ws")
    ]
    parts += [
        below(f"{m}: {KEEPS:g} minus log10 growth", growth[False, m], KEEPS)
        for m in ("batch", "layer", "instance", "group")
    ]
    name = f"scaled_ws with SkipInit: {SKIP:g} minus log10 growth"
    parts.append(below(name, growth[True, "scaled_ws"], SKIP))
    evidence = "beyond_batchnorm/variance.csv"
    return combine(VARIANCE, parts, profile=profile, evidence=evidence)


def judge_rank(table: pd.DataFrame, trained: pd.DataFrame, profile: str) -> Verdict:
    """bb.rank from `measures(group_runs)` and `ranks(tradeoff_runs)`."""
    parts = [
        above(f"width {width}, depth {depth}: smallest step of log rank", _steps(np.log(wide)))
        for width, rows in table.groupby("width")
        for depth, wide in _last(rows, "stable_rank")
    ]
    means = trained.groupby(["situation", "seed", "group_size"], as_index=False).value.mean()
    for situation, rows in means.groupby("situation"):
        found = [-correlation(r.group_size, r.value) for _, r in rows.groupby("seed")]
        parts.append(above(f"{situation}, training: minus correlation with group size", found))
    return combine(RANK, parts, profile=profile, evidence="beyond_batchnorm/rank.csv")


def judge_cosine(table: pd.DataFrame, speed: pd.DataFrame, profile: str) -> Verdict:
    """bb.cosine from `measures(group_runs)`, its widest nets, and `speeds(training_runs)`."""
    table = table[table.width == table.width.max()]
    first = dict(_last(table, "cosine_similarity", ascending=False))
    parts: list[Part] = []
    for depth, wide in _last(table, "cosine_similarity"):
        rises = (wide - first[depth]).mean(axis=1)
        parts.append(above(f"depth {depth}: last layer minus first", rises))
        parts.append(above(f"depth {depth}: smallest rise with group size", _steps(-wide)))
    name = "minus the Spearman correlation with training speed"
    parts.append(above(name, [-found for found in correlations(speed)]))
    return combine(COSINE, parts, profile=profile, evidence="beyond_batchnorm/cosine.csv")


def judge_gradient(table: pd.DataFrame, profile: str) -> Verdict:
    """bb.gradient from `measures(group_runs)`, its widest nets."""
    table = table[table.width == table.width.max()]
    first = dict(_last(table, "gradient_norm", ascending=False))
    parts: list[Part] = []
    for depth, wide in _last(table, "gradient_norm"):
        ratio = np.log2(first[depth] / wide)
        lead = ratio.iloc[:, -1] - ratio.iloc[:, :-1].max(axis=1)
        margin = math.log2(FLAT_FACTOR)
        parts.append(above(f"depth {depth}: smallest step of log2 ratio", _steps(ratio)))
        parts.append(above(f"depth {depth}: InstanceNorm's lead in log2 ratio", lead))
        parts.append(flat(f"depth {depth}: LayerNorm's log2 ratio", ratio.iloc[:, 0], margin))
    return combine(GRADIENT, parts, profile=profile, evidence="beyond_batchnorm/gradient.csv")


def _growth(table: pd.DataFrame) -> pd.Series:
    """(skip_init, method) -> log10 of last over first block, one number per seed."""
    ordered = table.sort_values("position").groupby(["skip_init", "method", "seed"]).value
    ratio = np.log10(ordered.last() / ordered.first())
    return ratio.groupby(level=["skip_init", "method"]).apply(list)


def _last(
    table: pd.DataFrame, measure: str, ascending: bool = True
) -> Iterator[tuple[int, pd.DataFrame]]:
    """Depth, and a seed x groups table of a measure at the last (or first) layer."""
    rows = table[table.measure == measure].sort_values("position", ascending=ascending)
    for depth, part in rows.groupby("depth"):
        yield depth, part.groupby(["seed", "groups"]).value.last().unstack("groups")


def correlations(speed: pd.DataFrame) -> list[float]:
    """Spearman's, of similarity before training with mean training accuracy, seed by seed."""
    return [correlation(rows.cosine, rows.speed) for _, rows in speed.groupby("seed")]


def correlation(x: Sequence[float], y: Sequence[float]) -> float:
    """Spearman's; pairs with a number that is missing are left out.

    Example:
        >>> round(correlation([1, 2, float("nan")], [4, 3, 5]), 6)
        -1.0
    """
    return float(stats.spearmanr(x, y, nan_policy="omit").statistic)


def _steps(wide: pd.DataFrame) -> pd.Series:
    """The smallest increase from one number of groups to the next, by seed."""
    return wide.diff(axis=1).iloc[:, 1:].min(axis=1)
