"""What is claimed of layer norms and robustness, and how it is judged."""

import math

import numpy as np
import pandas as pd

from normkit.claims import Claim, Part, Verdict, above, combine, exact

from .lipschitz import LIPSCHITZ
from .strengths import ACCURACY, CURVES

__all__ = [
    "CLAIMS",
    "judge_density",
    "judge_exact",
    "judge_layers",
    "judge_speed",
    "median_ratios",
]

ROBUST_MARGIN = 0.2
NORMS = ("l1", "linf")
TOLERANCE = 1e-12
SLOWER = ("power_method", "fft_svd")
FACTOR = 10

EXACT = Claim(
    "ln.exact",
    "norm_decay",
    "The l1 and linf norms of a convolution follow exactly from its taps.",
    "For every kind of layer and both norms: the largest relative difference from the dense "
    f"matrix in float64 is at most {TOLERANCE}; n is the number of random layers.",
)

SPEED = Claim(
    "ln.speed",
    "norm_decay",
    "The exact l1 and linf norms take a tenth or less of the time of a spectral norm.",
    "For each of six layers, both norms, against the power method (500 steps) and the full SVD: "
    f"log10 of the ratio of times, minus log10({FACTOR}), is above 0; one repetition times all.",
)

DENSITY = Claim(
    "ln.density",
    "norm_decay",
    "Adversarially trained networks (PGD-AT, TRADES, ALP) have layer norms at least as large as "
    "plain ones, and a far higher robust accuracy.",
    "For each net and method, paired by seed: log2 of the ratio of the median layer norm to "
    f"plain's is above 0, robust accuracy exceeds plain's by more than {ROBUST_MARGIN}.",
)

LAYERS = Claim(
    "ln.layers",
    "norm_decay",
    "Under adversarial training (PGD-AT) most layers have a larger norm than in the plain net.",
    "For each net, paired by seed: the share of convolutional and dense layers whose norm is "
    "larger is above one half.",
)

CLAIMS = (
    EXACT,
    SPEED,
    ACCURACY,
    CURVES,
    DENSITY,
    LAYERS,
    LIPSCHITZ,
)


def judge_exact(errors: pd.DataFrame, profile: str) -> Verdict:
    """ln.exact from the table "errors" of `Exactness`."""
    ours = errors[errors.method == "exact"].groupby(["kind", "norm"], sort=False)
    parts = [
        exact(f"{kind}: relative error of the {norm} norm", rows.error.to_numpy(), TOLERANCE)
        for (kind, norm), rows in ours
    ]
    return combine(EXACT, parts, profile=profile, evidence="norm_decay/exact.csv")


def judge_speed(times: pd.DataFrame, profile: str) -> Verdict:
    """ln.speed from the table "times" of `Speed`."""
    wide = times.pivot(index=["layer", "repetition"], columns="method", values="seconds")
    logs, margin = np.log10(wide), math.log10(FACTOR)
    parts = [
        above(f"{layer}: {norm} norm against {other}", logs.loc[layer, other] - mine, margin)
        for layer in times.layer.drop_duplicates()
        for norm in NORMS
        for mine in [logs.loc[layer, norm]]
        for other in SLOWER
    ]
    return combine(SPEED, parts, profile=profile, evidence="norm_decay/speed.csv")


def judge_density(norms: pd.DataFrame, accuracy: pd.DataFrame, profile: str) -> Verdict:
    """ln.density from the tables of `layer_norms` and `accuracies`."""
    medians = _weights(norms).groupby(["net", "method", "seed", "norm"]).value.median()
    robust = accuracy.set_index(["net", "method", "seed"]).robust.sort_index()
    parts = []
    for net, method in _pairs(accuracy):
        for norm in NORMS:
            ratios = [
                math.log2(_at(medians, net, method, seed, norm))
                - math.log2(_at(medians, net, "plain", seed, norm))
                for seed in sorted(accuracy.seed.unique())
            ]
            parts.append(above(f"{net}, {method}: log2 ratio of median {norm} norms", ratios))
        gaps = robust[net, method] - robust[net, "plain"]
        name = f"{net}, {method}: robust accuracy above plain's, minus {ROBUST_MARGIN}"
        parts.append(above(name, gaps, margin=ROBUST_MARGIN))
    return combine(DENSITY, parts, profile=profile, evidence="norm_decay/density_linf.csv")


def judge_layers(norms: pd.DataFrame, profile: str) -> Verdict:
    """ln.layers from the table of `layer_norms`."""
    parts: list[Part] = []
    for norm in NORMS:
        table = _weights(norms)[_weights(norms).norm == norm]
        wide = table.pivot(index=["net", "seed", "layer"], columns="method", values="value")
        wide = wide.reindex(columns=["plain", "pgd"])
        for net, rows in wide.groupby(level="net", sort=False):
            larger = (rows["pgd"] > rows["plain"]).where(
                rows.notna()[["pgd", "plain"]].all(axis=1)
            )
            shares = larger.astype(float).groupby(level="seed").mean()
            parts.append(
                above(
                    f"{net}: share of layers with larger {norm} norm, minus 1/2",
                    shares,
                    margin=0.5,
                )
            )
    return combine(LAYERS, parts, profile=profile, evidence="norm_decay/layers_linf.csv")


def median_ratios(norms: pd.DataFrame) -> pd.Series:
    """Median layer norm over plain's of the same seed, mean over seeds; by net, norm and method.

    Example:
        >>> run = {"net": "cnn", "norm": "l1", "seed": 0}
        >>> norms = pd.DataFrame([run | {"method": "plain", "value": 2.0},
        ...     run | {"method": "pgd", "value": 3.0}])
        >>> float(median_ratios(norms)["cnn", "l1", "pgd"])
        1.5
    """
    medians = norms.groupby(["net", "norm", "seed", "method"], sort=False).value.median()
    wide = medians.unstack("method")
    ratios = wide.div(wide["plain"], axis=0).drop(columns="plain").stack()
    return ratios.groupby(level=["net", "norm", "method"], sort=False).mean()


def _weights(norms: pd.DataFrame) -> pd.DataFrame:
    return norms[norms.kind != "batch_norm"]


def _pairs(accuracy: pd.DataFrame) -> list[tuple[str, str]]:
    pairs = accuracy[["net", "method"]].drop_duplicates().itertuples(index=False)
    return [(net, method) for net, method in pairs if method != "plain"]


def _at(medians: pd.Series, *index) -> float:
    return float(medians.get(index, np.nan))
