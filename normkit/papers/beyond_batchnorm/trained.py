"""What is claimed of normalizers during training, how it is judged, and which one serves when."""

import pandas as pd

from normkit.claims import Claim, Verdict, above, below, combine

__all__ = ["TRADEOFF", "TRAINING_CLAIM", "guide", "judge_tradeoff", "judge_training"]

FAILS = 2.0

TRAINING_CLAIM = Claim(
    "bb.training",
    "beyond_batchnorm",
    "Each normalizer has its own way to fail: LayerNorm is slower than BatchNorm, weight "
    "normalization cannot train a ResNet without SkipInit, InstanceNorm is unstable in deep "
    "plain networks.",
    "Mean training accuracy (epochs after a divergence count as chance): BatchNorm minus "
    "LayerNorm above 0 in every plain CNN at the base setting; BatchNorm minus InstanceNorm above "
    "0 in the deepest. ResNet-56 under weight normalization, each form at the learning rate that "
    "does best on images held out: training accuracy of the last epoch "
    f"below {FAILS:g} times chance without SkipInit, and higher with it. Repeated over seeds.",
)

TRADEOFF = Claim(
    "bb.tradeoff",
    "beyond_batchnorm",
    "Small groups train faster early, and are unstable at small batches or large depth.",
    "Training accuracy. Faster: averaged over the first quarter of the epochs, in the shallowest "
    "CNN with large batches, the groups that are neither smallest nor largest lie above "
    "LayerNorm. Unstable: averaged over all epochs, with small batches, and in every deeper CNN, "
    "they lie above InstanceNorm. Repeated over seeds.",
)


def judge_training(table: pd.DataFrame, residual: pd.DataFrame, profile: str) -> Verdict:
    """bb.training from `speeds(training_runs)` and `speeds(residual_runs)`."""
    base = table[(table.batch_size == table.batch_size.max()) & (table.lr == _rate(table))]
    parts = []
    for net, rows in base.groupby("net"):
        wide = rows.pivot(index="seed", columns="method", values="speed")
        parts.append(above(f"{net}: BatchNorm minus LayerNorm", wide.batch - wide.layer))
    name = f"{net}: BatchNorm minus InstanceNorm"  # the last of the loop is the deepest
    parts.append(above(name, wide.batch - wide.instance))
    rows = residual[residual.method == "weight_norm"]
    means = rows.groupby(["net", "lr"]).accuracy.mean()
    best = {net: found.idxmax()[1] for net, found in means.groupby("net")}
    rows = rows[rows.lr == rows.net.map(best)]
    final = rows.pivot(index="seed", columns="net", values="final")
    without, skip = final["ResNet-56"], final["ResNet-56 with SkipInit"]
    bar = FAILS * rows.chance.iloc[0]
    parts.append(below(f"ResNet-56, WeightNorm: {bar:g} minus accuracy", without, bar))
    parts.append(above("ResNet-56, WeightNorm: gain by SkipInit", skip - without))
    evidence = "beyond_batchnorm/curves.csv"
    return combine(TRAINING_CLAIM, parts, profile=profile, evidence=evidence)


def judge_tradeoff(table: pd.DataFrame, profile: str) -> Verdict:
    """bb.tradeoff from `tradeoffs(tradeoff_runs)`."""
    parts = []
    large = table.batch_size.max()
    for (net, batch), rows in table.groupby(["net", "batch_size"]):
        between = rows[rows.method == "group"].groupby("seed")
        end = rows[rows.method != "group"].set_index(["method", "seed"])
        if net == table.net.min() and batch == large:
            name = f"{net}, batch {batch}: early, groups between minus LayerNorm"
            parts.append(above(name, between.early.mean() - end.early["layer"]))
        else:
            name = f"{net}, batch {batch}: groups between minus InstanceNorm"
            parts.append(above(name, between.speed.mean() - end.speed["instance"]))
    evidence = "beyond_batchnorm/tradeoff.csv"
    return combine(TRADEOFF, parts, profile=profile, evidence=evidence)


def guide(table: pd.DataFrame) -> pd.DataFrame:
    """Which normalizer, when: mean training accuracy against BatchNorm's in each situation.

    *In plain words:* paired by seed, so that what the seed does to both cancels.

    Arguments:
        table: `speeds`, of plain and residual nets together.

    Returns:
        columns situation, method, effect (mean difference), low and high (its 95 % t interval),
        n (seeds), speed (mean training accuracy), fails (below twice chance), diverged (runs).
    """
    rows = []
    for (situation, method), runs in table.groupby(["situation", "method"], sort=False):
        same = table[(table.situation == situation) & (table.method == "batch")]
        paired = runs.set_index("seed").speed - same.set_index("seed").speed
        part = above(situation, paired.dropna())
        rows.append(
            {
                "situation": situation,
                "method": method,
                "effect": part.effect,
                "low": part.low,
                "high": part.high,
                "n": part.n,
                "speed": runs.speed.mean(),
                "fails": bool(runs.final.mean() < FAILS * runs.chance.iloc[0]),
                "diverged": int((runs.status != "ok").sum()),
            }
        )
    return pd.DataFrame(rows)


def _rate(table: pd.DataFrame) -> float:
    """The learning rate of the base setting: the lower one that large batches are trained with."""
    return table[table.batch_size == table.batch_size.max()].lr.min()
