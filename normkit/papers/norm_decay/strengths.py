"""What is claimed of norm decay's strength, and how it is judged."""

import math

import numpy as np
import pandas as pd

from normkit.claims import Claim, Part, Verdict, above, below, combine

from .regularization import DECAYS

__all__ = ["ACCURACY", "CURVES", "judge_accuracy", "judge_curves", "norm_totals"]

RISE = 0.05
KEPT = 0.03
FALL = 0.1

ACCURACY = Claim(
    "ln.accuracy",
    "norm_decay",
    "Some strength of norm decay beats plain training in clean accuracy, and robust accuracy "
    "does not rise as norms fall.",
    "For each net, paired by seed. Clean: for norm decay in l1 and in linf, at the strength that "
    "is best on images held out, test accuracy minus plain's is above 0. Robust: for norm decay, "
    "clipped singular values and weight decay, at the largest strength whose accuracy on images "
    f"held out is within {KEPT} of plain's, robust accuracy minus plain's is below {RISE}.",
)

CURVES = Claim(
    "ln.curves",
    "norm_decay",
    "The sum of layer norms falls with the strength of norm decay; BatchNorm's norms do not "
    "fall without projection.",
    "For each net and norm, paired by seed, after the last epoch. Sum over convolutional and "
    "dense layers: log2 of its ratio from each strength to the next larger is above 0. BatchNorm: "
    "log2 of the ratio of the median at the largest strength to plain's is above "
    f"-{FALL}.",
)


def judge_accuracy(table: pd.DataFrame, profile: str) -> Verdict:
    """ln.accuracy from the table of `chosen_strengths`."""
    clean: list[Part] = []
    robust: list[Part] = []
    for net, rows in table.groupby("net", sort=False):
        plain = rows[rows.method == "plain"].set_index("seed")
        for method, runs in rows[rows.method != "plain"].groupby("method", sort=False):
            if method in DECAYS:
                best = runs[runs.chosen].set_index("seed")
                name = f"{net}, {method} {best.strength.iloc[0]:g} (chosen)"
                clean.append(
                    above(f"{name}: clean accuracy above plain's", best.clean - plain.clean)
                )
            held = _largest_kept(runs, plain)
            name = f"{net}, {method}: {RISE:g} minus gain in robust accuracy"
            if held is None:
                robust.append(above(f"{name}; no strength keeps the accuracy", []))
                continue
            gains = held.set_index("seed").robust - plain.robust
            robust.append(below(f"{name} at {held.strength.iloc[0]:g}", gains, RISE))
    evidence = ", ".join(f"norm_decay/strengths_{net}.csv" for net in table.net.unique())
    return combine(ACCURACY, clean + robust, profile=profile, evidence=evidence)


def _largest_kept(runs: pd.DataFrame, plain: pd.DataFrame) -> pd.DataFrame | None:
    """The runs of the largest strength that keeps plain's accuracy on the images held out.

    Strengths stand from weak to strong; one at which a run diverged keeps nothing.
    """
    enough = plain.validation.mean() - KEPT
    kept = [
        rows
        for _, rows in runs.groupby("strength", sort=False)
        if rows.validation.mean(skipna=False) >= enough
    ]
    return kept[-1] if kept else None


def judge_curves(norms: pd.DataFrame, profile: str) -> Verdict:
    """ln.curves from the table of `norm_history`."""
    falls: list[Part] = []
    stays: list[Part] = []
    totals = norm_totals(norms[~norms.projected])
    for net in norms.net.unique():
        for method, norm in DECAYS.items():
            found = totals[(totals.net == net) & totals.method.isin(["plain", method])]
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
                stays.append(above(f"{name}, log2, plus {FALL}", rises, -FALL))
    places = [
        f"norm_decay/curves_{n}_{norm}.csv" for n in norms.net.unique() for norm in DECAYS.values()
    ]
    return combine(CURVES, falls + stays, profile=profile, evidence=", ".join(places))


def norm_totals(norms: pd.DataFrame) -> pd.DataFrame:
    """Layer norms after the last epoch in one number, one row per run, norm and part.

    Columns: net, method, strength, projected, seed, norm, part, value: the sum over convolutional
    and dense layers (part "weights"), the median over BatchNorm layers (part "batch_norm"), a nan
    for a run that diverged.

    Example:
        >>> row = {"net": "cnn", "method": "plain", "strength": 0.0, "projected": False, "seed": 0,
        ...     "layer": "a", "norm": "l1"}
        >>> table = pd.DataFrame([{**row, "epoch": epoch, "kind": kind, "value": 3.0}
        ...     for epoch in (1, 2) for kind in ("conv", "linear", "batch_norm")])
        >>> norm_totals(table).set_index("part").value.to_dict()
        {'weights': 6.0, 'batch_norm': 3.0}
    """
    last = norms[norms.epoch == norms.epoch.max()]
    part = last.kind.where(last.kind == "batch_norm", "weights")
    keys = ["net", "method", "strength", "projected", "seed", "norm", "part"]
    groups = last.assign(part=part).groupby(keys, sort=False).value
    rows = [(*key, _total(key[-1], values)) for key, values in groups]
    return pd.DataFrame(rows, columns=[*keys, "value"])


def _total(part: str, values: pd.Series) -> float:
    if not np.isfinite(values).all():
        return math.nan
    return float(values.median() if part == "batch_norm" else values.sum())
