"""What is claimed of ConvNorm, and how it is judged."""

import math

import numpy as np
import pandas as pd

from normkit.claims import Claim, Part, Verdict, above, below, combine, exact

from .tables import first_epochs

__all__ = [
    "CLAIMS",
    "judge_ablation",
    "judge_blackbox",
    "judge_curves",
    "judge_gan",
    "judge_isometry",
    "judge_noise",
    "judge_robust",
    "judge_scarcity",
    "judge_spectral",
    "judge_standard",
    "leads",
]

SAME, BOUND, AT_LEAST, FIRST, SMALLEST = 1e-6, 1e-5, 0.01, 5, 2
ORDER = (
    ("FGSM", "conv_norm", "ocnn", 0.0),
    ("FGSM", "conv_norm", "spectral_norm", 0.0),
    ("FGSM", "ocnn", "batch", 0.0),
    ("FGSM", "spectral_norm", "batch", 0.0),
    ("FGSM", "batch", "oni", 0.0),
    ("PGD-20", "conv_norm", "spectral_norm", AT_LEAST),
    ("PGD-20", "spectral_norm", "oni", 0.0),
)
NAMES = {"batch": "BN", "conv_norm": "ConvNorm", "spectral_norm": "SN", "oni": "ONI"}
NAMES |= {"ocnn": "OCNN", "none": "no normalization", "conv_norm_no_bn": "ConvNorm without BN"}


def _claim(name: str, statement: str, statistic: str) -> Claim:
    return Claim(f"cn.{name}", "convnorm", statement, statistic)


SPECTRAL = _claim(
    "spectral",
    "Layers of trained networks have lower spectral norms with ConvNorm than with BatchNorm, and "
    "lie between 1 and the root of the number of output channels.",
    "Largest singular value of each convolution on the grid H + k - 1, ConvNorm without filter "
    "and BatchNorm. Median over layers, paired by seed: ConvNorm minus BN is below 0. Every layer "
    f"of ConvNorm: outside of [1, sqrt(C_out)] by at most {BOUND:g}; n is the number of layers.",
)
ISOMETRY = _claim(
    "isometry",
    "After ConvNorm every output channel's operator has condition number 1.",
    "Every channel of every layer of the trained ConvNorm networks, in float64, eps = 0: the "
    f"condition number after differs from 1 by at most {SAME:g}; n is the number of channels.",
)
CURVES = _claim(
    "curves",
    "ConvNorm trains without BatchNorm, and its test accuracy is ahead of BatchNorm's in the "
    "first epochs.",
    "Test accuracy, paired by seed. After the last epoch ConvNorm without BN minus no "
    f"normalization is above 0; mean over the first {FIRST} epochs, ConvNorm minus BN is above 0.",
)
ROBUST = _claim(
    "robust",
    "Under free adversarial training ConvNorm is the most robust of BatchNorm, spectral "
    "normalization, ONI, OCNN and ConvNorm.",
    "Accuracy under attack, paired by seed. FGSM: ConvNorm above OCNN and SN, these above BN, BN "
    f"above ONI. PGD-20: ConvNorm minus SN above -{AT_LEAST}, SN above ONI.",
)
BLACKBOX = _claim(
    "blackbox",
    "ConvNorm resists gradient-free and transferred attacks at least as well as BatchNorm.",
    "Accuracy of the networks of cn.robust, paired by seed: ConvNorm minus BN is above "
    f"-{AT_LEAST} under SPSA, and on what PGD-20 finds on another seed's BN and ConvNorm network.",
)
NOISE = _claim(
    "noise",
    "ConvNorm's lead over BatchNorm under label noise is positive and grows with it.",
    "Test accuracy, ConvNorm minus BN by seed. Symmetric: the mean over levels is above 0, and "
    "the slope of the lead over the level is above 0. Asymmetric: the mean is above 0.",
)
SCARCITY = _claim(
    "scarcity",
    "ConvNorm is ahead of BatchNorm on small training sets.",
    f"Test accuracy, paired by seed: ConvNorm minus BN is above 0 at the {SMALLEST} smallest "
    "fractions of the training images.",
)
STANDARD = _claim(
    "standard",
    "ConvNorm's clean accuracy is at least BatchNorm's.",
    f"Test accuracy after the last epoch, paired by seed: ConvNorm minus BN is above -{AT_LEAST}, "
    "on every data set of the profile.",
)
GAN = _claim(
    "gan",
    "ConvNorm in the discriminator improves a GAN's scores.",
    "After the last step, paired by seed, spectral normalization with ConvNorm against without, "
    "in the features of a classifier trained on the same data: log10 of the Frechet distance "
    "falls, the inception score rises.",
)
ABLATION = _claim(
    "ablation",
    "Both the affine filter and BatchNorm add to ConvNorm's accuracy.",
    "Test accuracy after the last epoch, paired by seed: ConvNorm minus ConvNorm without filter, "
    "and minus ConvNorm without BN, are above 0.",
)
CLAIMS = (
    *(SPECTRAL, ISOMETRY, CURVES, ROBUST, BLACKBOX),
    *(NOISE, SCARCITY, STANDARD, GAN, ABLATION),
)


def leads(table: pd.DataFrame, one: str, other: str, value: str = "accuracy") -> pd.Series:
    """By seed, the value of one method minus that of another; rows of one run a method and seed.

    Example:
        >>> table = pd.DataFrame({"method": ["a", "b"], "seed": 0, "accuracy": [0.75, 0.5]})
        >>> leads(table, "a", "b").tolist()
        [0.25]
    """
    wide = table.pivot_table(index="seed", columns="method", values=value, dropna=False)
    missing = [name for name in (one, other) if name not in wide]
    if missing:
        return pd.Series(dtype=float)
    return wide[one] - wide[other]


def _lead(table: pd.DataFrame, one: str, other: str, where: str, slack: float = 0.0) -> Part:
    name = f"{NAMES.get(one, one)} minus {NAMES.get(other, other)}, {where}"
    return above(name, leads(table, one, other).tolist(), margin=-slack)


def judge_spectral(norms: pd.DataFrame, profile: str) -> Verdict:
    """cn.spectral from `layer_norms`."""
    medians = norms.groupby(["method", "seed"]).sigma.median().reset_index()
    ours = norms[norms.method == "conv_norm"]
    outside = np.maximum(1 - ours.sigma, ours.sigma - np.sqrt(ours.out_channels)).clip(lower=0)
    lead = leads(medians, "conv_norm", "batch", "sigma").tolist()
    parts = [
        below("median over layers: ConvNorm minus BN", lead),
        exact("ConvNorm's layers: distance from [1, sqrt(C_out)]", outside.to_numpy(), BOUND),
    ]
    return combine(SPECTRAL, parts, profile=profile, evidence="convnorm/spectral.csv")


def judge_isometry(conditions: pd.DataFrame, profile: str) -> Verdict:
    """cn.isometry from `conditions`."""
    after = conditions[conditions.state == "after"].condition.to_numpy()
    part = exact("condition number after ConvNorm minus 1", after - 1, SAME)
    return combine(ISOMETRY, [part], profile=profile, evidence="convnorm/isometry.csv")


def judge_curves(table: pd.DataFrame, profile: str) -> Verdict:
    """cn.curves from `curves`."""
    last = table[table.epoch == table.epoch.max()]
    means = first_epochs(table, FIRST)
    parts = [
        _lead(last, "conv_norm_no_bn", "none", "last epoch"),
        _lead(means, "conv_norm", "batch", f"mean of the first {FIRST} epochs"),
    ]
    return combine(CURVES, parts, profile=profile, evidence="convnorm/curves.csv")


def judge_robust(accuracies: pd.DataFrame, profile: str) -> Verdict:
    """cn.robust from the table "accuracy" of `Attacked`."""
    parts = [
        _lead(accuracies[accuracies.attack == attack], one, other, attack, slack)
        for attack, one, other, slack in ORDER
    ]
    return combine(ROBUST, parts, profile=profile, evidence="convnorm/robust.csv")


def judge_blackbox(table: pd.DataFrame, profile: str) -> Verdict:
    """cn.blackbox from the table of that name of `Attacked`."""
    parts = []
    for (attack, source), rows in table.groupby(["attack", "source"], sort=False):
        where = f"transfer from {NAMES[source]}" if source else attack
        parts.append(_lead(rows, "conv_norm", "batch", where, AT_LEAST))
    return combine(BLACKBOX, parts, profile=profile, evidence="convnorm/blackbox.csv")


def judge_noise(table: pd.DataFrame, profile: str) -> Verdict:
    """cn.noise from `outcomes` of the runs on noisy labels."""
    parts = []
    for kind, rows in table.groupby("kind", sort=False):
        levels = rows.groupby("level")
        wide = pd.DataFrame({n: leads(part, "conv_norm", "batch") for n, part in levels}).dropna()
        parts.append(above(f"{kind}: mean lead over levels", wide.mean(axis=1).tolist()))
        if kind == "symmetric" and wide.shape[1] > 1:
            slopes = [np.polyfit(list(wide), row, 1)[0] for row in wide.to_numpy()]
            parts.append(above("symmetric: slope of the lead over the level", slopes))
    return combine(NOISE, parts, profile=profile, evidence="convnorm/noise.csv")


def judge_scarcity(table: pd.DataFrame, profile: str) -> Verdict:
    """cn.scarcity from `outcomes` of the runs on few images."""
    sizes = sorted(set(table.subset))[:SMALLEST] if len(table) else []
    parts = [
        _lead(table[table.subset == size], "conv_norm", "batch", f"{size:,} images")
        for size in sizes
    ]
    return combine(SCARCITY, parts, profile=profile, evidence="convnorm/scarcity.csv")


def judge_standard(table: pd.DataFrame, profile: str) -> Verdict:
    """cn.standard from `outcomes` of the clean runs."""
    parts = [
        _lead(rows, "conv_norm", "batch", name, AT_LEAST)
        for name, rows in table.groupby("dataset", sort=False)
    ]
    return combine(STANDARD, parts, profile=profile, evidence="convnorm/standard.csv")


def judge_gan(table: pd.DataFrame, profile: str) -> Verdict:
    """cn.gan from `gan_scores`."""
    if not len(table):
        return combine(GAN, [], profile=profile, evidence="convnorm/gan.csv")
    last = table[(table.step == table.step.max()) & (table.status == "ok")]
    last = last.assign(distance=last.frechet.map(math.log10))
    pair = ("conv_norm_spectral", "spectral_norm")
    parts = [
        below("log10 of the Frechet distance", leads(last, *pair, "distance").tolist()),
        above("inception score", leads(last, *pair, "inception").tolist()),
    ]
    return combine(GAN, parts, profile=profile, evidence="convnorm/gan.csv")


def judge_ablation(table: pd.DataFrame, profile: str) -> Verdict:
    """cn.ablation from `outcomes` of the clean runs."""
    parts = [
        above(f"ConvNorm minus ConvNorm without {what}", leads(table, "conv_norm", other).tolist())
        for what, other in (("filter", "conv_norm_no_affine"), ("BN", "conv_norm_no_bn"))
    ]
    return combine(ABLATION, parts, profile=profile, evidence="convnorm/ablation.csv")
