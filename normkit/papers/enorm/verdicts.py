"""What is claimed of equi-normalization, and how it is judged."""

import numpy as np
import pandas as pd

from normkit.claims import Claim, Part, Verdict, above, below, combine, exact, flat

__all__ = [
    "CLAIMS",
    "judge_autoencoder",
    "judge_batch",
    "judge_batch_norm",
    "judge_c",
    "judge_conv",
    "judge_cost",
    "judge_depth",
    "judge_energy",
    "judge_fixed",
    "judge_function",
]

SAME, RISE, LIMIT = 1e-10, 1e-12, 1e-6
LEVEL, AT_LEAST, STEADY, COSTS, CHANGED = 0.02, 0.01, 0.03, 0.5, 0.01
FALLING = ("none", "batch", "path_sgd", "weight_norm_batch")
DEEPEST = (
    ("enorm_batch", "enorm"),
    ("enorm", "group"),
    ("enorm", "weight_norm_batch"),
    ("group", "batch"),
    ("weight_norm_batch", "batch"),
    ("batch", "path_sgd"),
    ("path_sgd", "none"),
)
SLIGHTLY = (1.1, 1.2)


def _claim(name: str, statement: str, statistic: str) -> Claim:
    return Claim(f"en.{name}", "enorm", statement, statistic)


FUNCTION = _claim(
    "function",
    "Balancing cycles leave the network's function unchanged.",
    "For every untrained network without BatchNorm: the relative change of its outputs in float64 "
    f"after many cycles is at most {SAME:g}; n is the number of cases.",
)
ENERGY = _claim(
    "energy",
    "The energy never rises, and all rescalings of a network reach one minimum.",
    f"For every network: the largest relative rise in a cycle is at most {RISE:g}, and the "
    f"energies that random rescalings end at differ by at most {LIMIT:g}; n is the number of "
    "cases.",
)
FIXED = _claim(
    "fixed",
    "At the minimum every hidden unit's outgoing norm is c times its incoming one.",
    "For every network and c: the largest deviation from 1 of a unit's outgoing over c times its "
    f"incoming norm is at most {LIMIT:g}; n is the number of random rescalings.",
)
DEPTH = _claim(
    "depth",
    "The accuracy of fully connected networks falls with depth for the baselines and stays flat "
    "with ENorm, which is ahead of BatchNorm at every depth; at the largest depth ENorm+BN is "
    "ahead of ENorm, that of GN and WN+BN, these of BN, and that of Path-SGD and of no "
    "normalization.",
    "Test accuracy, by seed, the learning rate of each method and depth chosen on images held "
    "out. Slope per ten layers: below 0 for no normalization, BN, Path-SGD and WN+BN, within "
    f"{LEVEL} of 0 for ENorm. ENorm minus BN: above 0 at every depth. At the largest depth each "
    "difference of that order is above 0.",
)
CONV = _claim(
    "conv",
    "In a convolutional network ENorm is ahead of the baseline, and ENorm with BatchNorm at "
    "least equals BatchNorm.",
    "Test accuracy, paired by seed: ENorm minus no normalization is above 0, ENorm+BN minus BN "
    f"above -{AT_LEAST}.",
)
AUTOENCODER = _claim(
    "autoencoder",
    "An auto-encoder reaches a lower loss with ENorm, at a lower energy.",
    "From He's start of all layers, paired by seed, after the last epoch: log10 of the plain "
    "run's loss over ENorm's is above 0, likewise for the sum of squared weights.",
)
BATCH = _claim(
    "batch",
    "ENorm's accuracy does not depend on batch size; at the smallest it is ahead of BatchNorm.",
    "Test accuracy, paired by seed: ENorm at the smallest batch minus ENorm at the largest lies "
    f"within {STEADY} of 0, ENorm minus BN at the smallest is above 0.",
)
COST = _claim(
    "cost",
    "The time of a balancing step does not depend on batch size.",
    "log2 of its time at the largest batch over that at the smallest, one number per repetition, "
    f"lies within {COSTS} of 0.",
)
C = _claim(
    "c",
    "A factor c slightly above 1 is best.",
    "Test accuracy, paired by seed, at that c of 1.1 and 1.2 that is best on images held "
    "out: minus that at the smallest c, at c = 1 and at the largest c is above 0.",
)
BATCH_NORM = _claim(
    "bn",
    "In a network with BatchNorm a cycle changes the output unless BatchNorm's weights are "
    "rescaled too.",
    "Relative change of the output in training mode, untrained networks. BatchNorm ignored: "
    f"above {CHANGED} after one cycle. Rescaled: at most {SAME:g} after many.",
)
CLAIMS = (
    *(FUNCTION, ENERGY, FIXED, DEPTH, CONV, AUTOENCODER, BATCH, COST, C, BATCH_NORM),
)


def judge_function(changes: pd.DataFrame, profile: str) -> Verdict:
    """en.function from the table "function" of `Balancing`."""
    rows = changes[changes["mode"] == "no BatchNorm"]
    parts = [
        exact(f"{name}: relative change of the output", part.change.to_numpy(), SAME)
        for name, part in rows.groupby("network", sort=False)
    ]
    return combine(FUNCTION, parts, profile=profile, evidence="enorm/function.csv")


def judge_energy(changes: pd.DataFrame, limits: pd.DataFrame, profile: str) -> Verdict:
    """en.energy from the tables "function" and "limits" of `Balancing`."""
    rises = changes[changes["mode"] != "ignore"].groupby("network", sort=False)
    parts = [
        exact(f"{name}: rise of the energy", part.rise.clip(lower=0).to_numpy(), RISE)
        for name, part in rises
    ]
    for (net, c), part in limits.groupby(["net", "c"], sort=False):
        spread = part.energy / part.energy.min() - 1
        parts.append(exact(f"{net}, c = {c:g}: energies at the limit", spread.to_numpy(), LIMIT))
    return combine(ENERGY, parts, profile=profile, evidence="enorm/balancing.csv")


def judge_fixed(limits: pd.DataFrame, profile: str) -> Verdict:
    """en.fixed from the table "limits" of `Balancing`."""
    parts = [
        exact(f"{net}, c = {c:g}: ratio of norms over c, minus 1", part.ratio.to_numpy(), LIMIT)
        for (net, c), part in limits.groupby(["net", "c"], sort=False)
    ]
    return combine(FIXED, parts, profile=profile, evidence="enorm/units.csv")


def judge_batch_norm(changes: pd.DataFrame, profile: str) -> Verdict:
    """en.bn from the table "function" of `Balancing`."""
    parts: list[Part] = []
    for name, rows in changes.groupby("network", sort=False):
        ignored, kept = (rows[rows["mode"] == mode].change for mode in ("ignore", "rescale"))
        if len(ignored):
            parts.append(above(f"{name}: change, BatchNorm ignored", ignored, CHANGED))
        if len(kept):
            parts.append(exact(f"{name}: change, BatchNorm rescaled", kept.to_numpy(), SAME))
    return combine(BATCH_NORM, parts, profile=profile, evidence="enorm/function.csv")


def judge_depth(table: pd.DataFrame, profile: str) -> Verdict:
    """en.depth from the table of `outcomes`."""
    wide = table.pivot(index="seed", columns=["method", "p"], values="accuracy")
    depths = sorted(table.p.unique())
    slopes = {m: _slopes(wide[m][depths]) for m in table.method.unique()}
    parts = [below(f"{m}: slope per ten layers", slopes[m]) for m in FALLING if m in slopes]
    parts.append(flat("enorm: slope per ten layers", slopes["enorm"], LEVEL))
    for p in depths:
        gaps = wide["enorm", p] - wide["batch", p]
        parts.append(above(f"p = {p}: enorm minus batch", gaps))
    for better, worse in DEEPEST:
        gaps = wide[better, depths[-1]] - wide[worse, depths[-1]]
        parts.append(above(f"p = {depths[-1]}: {better} minus {worse}", gaps))
    return combine(DEPTH, parts, profile=profile, evidence="enorm/depth.csv")


def _slopes(rows: pd.DataFrame) -> list[float]:
    """The least-squares slope per ten layers of each seed; NaN where a run diverged."""
    depths = np.array(rows.columns, dtype=float)
    centered = depths - depths.mean()
    return (10 * rows.to_numpy() @ centered / (centered @ centered)).tolist()


def judge_conv(table: pd.DataFrame, profile: str) -> Verdict:
    """en.conv from the table of `outcomes`."""
    wide = table.pivot(index="seed", columns="method", values="accuracy")
    parts = [
        above("enorm minus none", wide["enorm"] - wide["none"]),
        above(
            f"enorm_batch minus batch, plus {AT_LEAST}",
            wide["enorm_batch"] - wide["batch"],
            -AT_LEAST,
        ),
    ]
    return combine(CONV, parts, profile=profile, evidence="enorm/conv.csv")


def judge_autoencoder(curves: pd.DataFrame, profile: str) -> Verdict:
    """en.autoencoder from the table of `curves`."""
    rows = curves[(curves.epoch == curves.epoch.max()) & (curves.initialization == "he_all")]
    wide = np.log10(rows.pivot(index="seed", columns="method", values=["loss", "energy"]))
    parts = [
        above(f"log10 of the plain {name} over enorm's", wide[name]["none"] - wide[name]["enorm"])
        for name in ("loss", "energy")
    ]
    return combine(AUTOENCODER, parts, profile=profile, evidence="enorm/autoencoder.csv")


def judge_batch(table: pd.DataFrame, profile: str) -> Verdict:
    """en.batch from the table of `outcomes`."""
    wide = table.pivot(index="seed", columns=["method", "batch_size"], values="accuracy")
    small, large = table.batch_size.min(), table.batch_size.max()
    steady = wide["enorm", small] - wide["enorm", large]
    gaps = wide["enorm", small] - wide["batch", small]
    parts = [
        flat(f"enorm: accuracy at batch {small} minus that at {large}", steady, STEADY),
        above(f"batch {small}: enorm minus batch", gaps),
    ]
    return combine(BATCH, parts, profile=profile, evidence="enorm/batch.csv")


def judge_cost(times: pd.DataFrame, profile: str) -> Verdict:
    """en.cost from the table "times" of `Cost`."""
    rows = times[times.method == "enorm"]
    wide = rows.pivot(index="repetition", columns="batch_size", values="seconds")
    small, large = wide.columns.min(), wide.columns.max()
    name = f"log2 of the time at batch {large} over that at {small}"
    parts = [flat(name, np.log2(wide[large] / wide[small]), COSTS)]
    return combine(COST, parts, profile=profile, evidence="enorm/cost.csv")


def judge_c(table: pd.DataFrame, tried: pd.DataFrame, profile: str) -> Verdict:
    """en.c from the tables of `outcomes`, of the judged runs and of those that choose."""
    wide = table.pivot(index="seed", columns="c", values="accuracy")
    held = tried.groupby("c").accuracy.max().fillna(-np.inf)
    best = held[[c for c in SLIGHTLY if c in held.index]].idxmax()
    others = (wide.columns.min(), 1.0, wide.columns.max())
    parts = [
        above(f"c = {best:g} (chosen) minus c = {other:g}", wide[best] - wide[other])
        for other in others
    ]
    return combine(C, parts, profile=profile, evidence="enorm/c.csv")
