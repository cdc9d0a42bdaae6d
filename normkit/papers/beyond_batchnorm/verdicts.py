"""What is claimed of normalizers at initialization, and how it is judged."""

import itertools
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
    "At initialization, at each width and depth: every step of log stable rank from one number of "
    "groups to the next is above 0. During training, in each condition: minus the "
    "Spearman correlation of group size with stable rank, averaged over the epochs, is above 0. "
    "Repeated over seeds.",
)

COSINE = Claim(
    "bb.cosine",
    "beyond_batchnorm",
    "The cosine similarity of activations rises with depth and with group size, and networks in "
    "which it is high train slowly.",
    "At each depth: last layer's similarity minus the first's, averaged over group sizes, is "
    "above 0; every rise from one group size to the next is above 0. Over normalizers, "
    "depths, batch sizes and learning rates: Spearman correlation of similarity at initialization "
    "with mean training accuracy is below 0. Repeated over seeds.",
)

GRADIENT = Claim(
    "bb.gradient",
    "beyond_batchnorm",
    "At initialization the gradient norm of the first layer relative to the last rises with the "
    "number of groups: about 1 for LayerNorm, largest for InstanceNorm.",
    "At each depth: every step of log first/last ratio from one number of groups to the next is "
    "above 0; InstanceNorm's log ratio exceeds every other's; LayerNorm's ratio stays "
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
        part
        for width, rows in table.groupby("width")
        for depth, wide in _last(rows, "stable_rank")
        for part in _steps(f"width {width}, depth {depth}: log rank", np.log(wide))
    ]
    means = trained.groupby(["situation", "seed", "group_size"], as_index=False).value.mean()
    for situation, rows in means.groupby("situation"):
        found = [-correlation(r.group_size, r.value) for _, r in rows.groupby("seed")]
        parts.append(above(f"{situation}, training: minus correlation with group size", found))
    evidence = "beyond_batchnorm/rank.csv, beyond_batchnorm/rank_training.csv"
    return combine(RANK, parts, profile=profile, evidence=evidence)


def judge_cosine(table: pd.DataFrame, speed: pd.DataFrame, profile: str) -> Verdict:
    """bb.cosine from `measures(group_runs)`, its widest nets, and `speeds(training_runs)`."""
    table = table[table.width == table.width.max()]
    first = dict(_last(table, "cosine_similarity", "min"))
    parts: list[Part] = []
    for depth, wide in _last(table, "cosine_similarity"):
        rises = (wide - first[depth]).mean(axis=1)
        parts.append(above(f"depth {depth}: last layer minus first", rises))
        parts += _steps(f"depth {depth}: minus similarity", -wide)
    name = "minus the Spearman correlation with training speed"
    parts.append(above(name, [-found for found in correlations(speed)]))
    evidence = "beyond_batchnorm/cosine.csv, beyond_batchnorm/speed.csv"
    return combine(COSINE, parts, profile=profile, evidence=evidence)


def judge_gradient(table: pd.DataFrame, profile: str) -> Verdict:
    """bb.gradient from `measures(group_runs)`, its widest nets."""
    table = table[table.width == table.width.max()]
    first = dict(_last(table, "gradient_norm", "min"))
    parts: list[Part] = []
    for depth, wide in _last(table, "gradient_norm"):
        ratio = np.log2(first[depth] / wide)
        lead = ratio.iloc[:, -1] - ratio.iloc[:, :-1].max(axis=1)
        margin = math.log2(FLAT_FACTOR)
        parts += _steps(f"depth {depth}: log2 ratio", ratio)
        parts.append(above(f"depth {depth}: InstanceNorm's lead in log2 ratio", lead))
        parts.append(flat(f"depth {depth}: LayerNorm's log2 ratio", ratio.iloc[:, 0], margin))
    return combine(GRADIENT, parts, profile=profile, evidence="beyond_batchnorm/gradient.csv")


def _growth(table: pd.DataFrame) -> pd.Series:
    """(skip_init, method) -> log10 of last over first block, one number per seed."""
    keys = ["skip_init", "method", "seed"]
    last, first = (_at(table, keys, end).set_index(keys).value for end in ("max", "min"))
    return np.log10(last / first).groupby(level=keys[:2]).apply(list)


def _last(
    table: pd.DataFrame, measure: str, end: str = "max"
) -> Iterator[tuple[int, pd.DataFrame]]:
    """Depth, and a seed x groups table of a measure at the last (or first) layer."""
    rows = _at(table[table.measure == measure], ["depth", "groups", "seed"], end)
    for depth, part in rows.groupby("depth"):
        yield depth, part.pivot(index="seed", columns="groups", values="value")


def _at(table: pd.DataFrame, keys: list[str], end: str) -> pd.DataFrame:
    """The rows at the end of each net, also where nothing could be measured there."""
    return table[table.position == table.groupby(keys).position.transform(end)]


def correlations(speed: pd.DataFrame) -> list[float]:
    """Spearman's, of similarity before training with mean training accuracy, seed by seed."""
    return [correlation(rows.cosine, rows.speed) for _, rows in speed.groupby("seed")]


def correlation(x: Sequence[float], y: Sequence[float]) -> float:
    """Spearman's; pairs with a number that is missing are left out, infinite ones are not.

    Example:
        >>> round(correlation([1, 2, float("nan"), float("inf")], [4, 3, 5, 2]), 6)
        -1.0
    """
    pairs = pd.DataFrame({"x": list(x), "y": list(y)}).dropna().rank()
    return float(stats.pearsonr(pairs.x, pairs.y).statistic)


def _steps(name: str, wide: pd.DataFrame) -> list[Part]:
    """One part for every increase from one number of groups to the next."""
    pairs = itertools.pairwise(wide.columns)
    return [above(f"{name}, {a:g} to {b:g} groups", wide[b] - wide[a]) for a, b in pairs]
