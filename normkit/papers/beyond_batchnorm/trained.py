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
    "Mean training accuracy (epochs after a divergence count as chance). BatchNorm minus "
    "LayerNorm is above 0 in every plain CNN at the base setting, and in the shallowest with each "
    "at the learning rate that does better on images held out. BatchNorm minus InstanceNorm is "
    "above 0 in the deepest, and larger there than in the shallowest. ResNet-56 under weight "
    "normalization, each form at the better of two rates: training accuracy of the last epoch is "
    f"below {FAILS:g} times chance without SkipInit, and higher with it. Repeated over seeds.",
)

TRADEOFF = Claim(
    "bb.tradeoff",
    "beyond_batchnorm",
    "Small groups train faster early, and are unstable at small batches or large depth.",
    "Training accuracy of groups that are neither smallest nor largest. Faster: averaged over the "
    "first quarter of the epochs (one at least), in the shallowest CNN with large batches, it "
    "lies above LayerNorm's. Unstable: averaged over all epochs, with small batches and in every "
    "deeper CNN, it lies above InstanceNorm's, and by more than in the shallowest CNN with large "
    "batches. Repeated over seeds.",
)


def judge_training(table: pd.DataFrame, residual: pd.DataFrame, profile: str) -> Verdict:
    """bb.training from `speeds(training_runs)` and `speeds(residual_runs)`."""
    large = table[table.batch_size == table.batch_size.max()]
    base = large[large.lr == large.lr.min()]
    nets = {net: _by_method(rows, "speed") for net, rows in base.groupby("net")}
    parts = [above(f"{n}: BatchNorm minus LayerNorm", w.batch - w.layer) for n, w in nets.items()]
    shallow, *_, deep = nets
    best = _by_method(_best(large[large.net == shallow], "method"), "speed")
    name = f"{shallow}, each at its better rate: BatchNorm minus LayerNorm"
    parts.append(above(name, best.batch - best.layer))
    gap, before = (nets[net].batch - nets[net].instance for net in (deep, shallow))
    parts.append(above(f"{deep}: BatchNorm minus InstanceNorm", gap))
    parts.append(above(f"{deep}: the same, minus that of {shallow}", gap - before))
    rows = _best(residual[residual.method == "weight_norm"], "net")
    final = rows.pivot(index="seed", columns="net", values="final")
    without, skip = final["ResNet-56"], final["ResNet-56 with SkipInit"]
    bar = FAILS * rows.chance.iloc[0]
    parts.append(below(f"ResNet-56, WeightNorm: {bar:g} minus accuracy", without, bar))
    parts.append(above("ResNet-56, WeightNorm: gain by SkipInit", skip - without))
    evidence = "beyond_batchnorm/speed.csv, beyond_batchnorm/curves_ResNet-56*.csv"
    return combine(TRAINING_CLAIM, parts, profile=profile, evidence=evidence)


def judge_tradeoff(table: pd.DataFrame, profile: str) -> Verdict:
    """bb.tradeoff from `speeds(tradeoff_runs)`."""
    found = {
        key: (_by_method(rows, "early"), _by_method(rows, "speed"))
        for key, rows in table.groupby(["net", "batch_size"])
    }
    base = (table.net.min(), table.batch_size.max())
    early, speed = found.pop(base)
    name = f"{base[0]}, batch {base[1]}"
    parts = [above(f"{name}, early: groups between minus LayerNorm", early.group - early.layer)]
    for (net, batch), (_, wide) in found.items():
        gap, label = wide.group - wide.instance, f"{net}, batch {batch}"
        parts.append(above(f"{label}: groups between minus InstanceNorm", gap))
        more = gap - (speed.group - speed.instance)
        parts.append(above(f"{label}: the same, minus that of {name}", more))
    evidence = "beyond_batchnorm/tradeoff.csv"
    return combine(TRADEOFF, parts, profile=profile, evidence=evidence)


def _by_method(rows: pd.DataFrame, value: str) -> pd.DataFrame:
    """A seed x method table; runs of one method, as those of several group sizes, are averaged."""
    return rows.pivot_table(index="seed", columns="method", values=value)


def _best(rows: pd.DataFrame, key: str) -> pd.DataFrame:
    """The rows of each key's learning rate that does best on the images held out."""
    means = rows.groupby([key, "lr"]).accuracy.mean()
    best = {name: found.idxmax()[1] for name, found in means.groupby(key)}
    return rows[rows.lr == rows[key].map(best)]


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
