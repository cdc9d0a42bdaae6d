"""What is claimed of norm decay's strength, and how it is judged."""

import math

import numpy as np
import pandas as pd

from normkit.claims import Claim, Part, Verdict, above, below, combine

from .regularization import DECAYS

__all__ = ["ACCURACY", "CURVES", "judge_accuracy", "judge_curves", "norm_sums"]

RISE = 0.05
FALL = 0.1

ACCURACY = Claim(
    "ln.accuracy",
    "norm_decay",
    "Some strength of norm decay beats plain training in clean accuracy, and robust accuracy "
    "does not rise as norms fall.",
    "For each net, paired by seed. Clean: at the strength of norm decay (l1, linf) that is best "
    "on images held out, test accuracy minus plain's is above 0. Robust: for norm decay, clipped "
    "singular values and weight decay, at the strength chosen so and at the strongest, robust "
    f"accuracy minus plain's is below {RISE}.",
)

CURVES = Claim(
    "ln.curves",
    "norm_decay",
    "The sum of layer norms falls with the strength of norm decay; BatchNorm's norms do not "
    "fall without projection.",
    "For each net and norm, paired by seed, after the last epoch. Sum over convolutional and "
    "dense layers: log2 of its ratio from each strength to the next larger is above 0. BatchNorm: "
    f"log2 of the ratio of the sum at the largest strength to plain's is above -{FALL}.",
)


def judge_accuracy(table: pd.DataFrame, profile: str) -> Verdict:
    """ln.accuracy from the table of `chosen_strengths`."""
    clean: list[Part] = []
    robust: list[Part] = []
    for net, rows in table.groupby("net", sort=False):
        plain = rows[rows.method == "plain"].set_index("seed")
        for method, runs in rows[rows.method != "plain"].groupby("method", sort=False):
            strongest = runs.strength.iloc[-1]  # runs stand from weak to strong
            best = runs[runs.chosen]
            for name, found in (("chosen", best), ("strongest", runs[runs.strength == strongest])):
                title = f"{net}, {method} {found.strength.iloc[0]:g}"
                gains = found.set_index("seed")[["clean", "robust"]] - plain[["clean", "robust"]]
                part = f"{title} ({name}): robust accuracy above plain's, below {RISE}"
                robust.append(below(part, gains.robust, RISE))
                if method in DECAYS and name == "chosen":
                    part = f"{title} ({name}): clean accuracy above plain's"
                    clean.append(above(part, gains.clean))
    evidence = "norm_decay/strengths.csv"
    return combine(ACCURACY, clean + robust, profile=profile, evidence=evidence)


def judge_curves(norms: pd.DataFrame, profile: str) -> Verdict:
    """ln.curves from the table of `norm_history`."""
    falls: list[Part] = []
    stays: list[Part] = []
    sums = norm_sums(norms[~norms.projected])
    for net in norms.net.unique():
        for method, norm in DECAYS.items():
            found = sums[(sums.net == net) & sums.method.isin(["plain", method])]
            wide = found[found.norm == norm].pivot(
                index="seed", columns=["part", "strength"], values="value"
            )
            logs = np.log2(wide.sort_index(axis=1))
            weights = logs["weights"]
            for weak, strong in zip(weights, weights.columns[1:], strict=False):
                name = f"{net}, {norm}: sum of norms from strength {weak:g} to {strong:g}"
                falls.append(above(name, weights[weak] - weights[strong]))
            if "batch_norm" in logs:
                rises = logs["batch_norm"].iloc[:, -1] - logs["batch_norm"][0.0]
                name = f"{net}, {norm}: BatchNorm's norms at {weights.columns[-1]:g} over plain's"
                stays.append(above(f"{name}, log2", rises, -FALL))
    evidence = "norm_decay/curves_l1.csv, norm_decay/curves_linf.csv"
    return combine(CURVES, falls + stays, profile=profile, evidence=evidence)


def norm_sums(norms: pd.DataFrame) -> pd.DataFrame:
    """Sums of layer norms after the last epoch, one row per run, norm and part.

    Columns: net, method, strength, projected, seed, norm, part (weights: convolutional and dense
    layers; or batch_norm), value.

    Example:
        >>> row = {"net": "cnn", "method": "plain", "strength": 0.0, "projected": False, "seed": 0,
        ...     "layer": "a", "norm": "l1"}
        >>> table = pd.DataFrame([{**row, "epoch": epoch, "kind": kind, "value": 3.0}
        ...     for epoch in (1, 2) for kind in ("conv", "linear", "batch_norm")])
        >>> norm_sums(table).set_index("part").value.to_dict()
        {'batch_norm': 3.0, 'weights': 6.0}
    """
    last = norms[norms.epoch == norms.epoch.max()]
    part = last.kind.where(last.kind == "batch_norm", "weights")
    keys = ["net", "method", "strength", "projected", "seed", "norm"]
    sums = last.assign(part=part).groupby([*keys, "part"], sort=False).value
    return sums.agg(_finite_sum).reset_index()


def _finite_sum(values: pd.Series) -> float:
    return float(values.sum()) if np.isfinite(values).all() else math.nan
