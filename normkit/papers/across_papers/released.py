"""Where the authors' code departs from their papers: what each switch changes in the result."""

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from normkit import claims
from normkit.records import Record

from .. import convnorm, norm_decay

__all__ = ["departures"]

COLUMNS = ["paper", "departure", "what", "effect", "low", "high", "n"]
TRAINED = {"conv_norm": "convnorm", "oni": "convnorm", "enorm": "enorm"}
TRAINED |= dict.fromkeys(("group", "evonorm_s0"), "beyond_batchnorm")
NAMES = {
    "conv_norm": "v as a running average, r from torch's start",
    "oni": "ONI of wide kernels without its scaling",
    "noise": "wrong labels drawn among all classes",
    "free": "free adversarial training starts each batch at zero",
    "enorm": "stale norms, the last pair left out",
    "enorm_batch": "a cycle that ignores BatchNorm",
    "mixed": "BatchNorm among the layers",
    "group": "GroupNorm with the unbiased variance",
    "evonorm_s0": "EvoNorm-S0 with the unbiased variance",
    "rule": "a learning rate that grows as batches shrink",
}
CYCLES = 5


def departures(
    plans: Mapping[str, Mapping[tuple, Record]],
    variants: Mapping[tuple, Record],
    measures: pd.DataFrame,
    *,
    balanced: pd.DataFrame,
    changes: pd.DataFrame,
    adversarial: Sequence[Record],
    rule: pd.DataFrame,
) -> pd.DataFrame:
    """What every switch to "as released" changes: released minus paper, with interval and n.

    *In plain words:* runs that differ by nothing but the switch are paired by seed. Where the
    switch changes an identity and not a training, the cases are networks.

    Columns: paper, departure, what (the number that is compared), effect, low, high, n.

    Arguments:
        plans: the records of "clean" and "noise", by method and seed.
        variants: the records of `variant_runs`.
        measures: of all of these networks, from `measured`.
        balanced: the table "paths" of `enorm.balancing`.
        changes: its table "function".
        adversarial: the records of `norm_decay.adversarial_runs`.
        rule: `beyond_batchnorm.speeds` of runs with small batches, under the rule of the paper and
            under that of the code (whose learning rate is the higher one).
    """
    found = [
        *_trained(plans["clean"], plans["noise"], variants, measures),
        *_known(balanced, changes, adversarial, rule),
    ]
    rows = [_row(*row) for row in found]
    return pd.DataFrame(rows, columns=COLUMNS).sort_values("paper", kind="stable")


def _trained(
    clean: Mapping[tuple, Record],
    noise: Mapping[tuple, Record],
    variants: Mapping[tuple, Record],
    measures: pd.DataFrame,
) -> Iterable[tuple]:
    """Those of which the runs of the grid are one side."""
    seeds = sorted({seed for _, seed in variants})

    def gaps(name: str, paper: Mapping[tuple, Record], method: str) -> list[float]:
        pairs = [(variants[name, seed], paper[method, seed]) for seed in seeds]
        return [_accuracy(released) - _accuracy(own) for released, own in pairs]

    for method, paper in TRAINED.items():
        yield paper, NAMES[method], "clean accuracy", gaps(method, clean, method)
    what = "accuracy after training on wrong labels"
    yield "convnorm", NAMES["noise"], what, gaps("noise", noise, "batch")
    robust = measures[measures.measure == "robust"].set_index("key").value
    sides = [
        robust.reindex([variants[f"free_{side}", seed].key for seed in seeds]).to_numpy()
        for side in ("released", "paper")
    ]
    yield "convnorm", NAMES["free"], "robust accuracy", (sides[0] - sides[1]).tolist()


def _known(
    balanced: pd.DataFrame,
    changes: pd.DataFrame,
    adversarial: Sequence[Record],
    rule: pd.DataFrame,
) -> Iterable[tuple]:
    """Those that other notebooks measure, too."""
    shares = convnorm.changed_shares(level=0.2)
    what = "share of labels changed at 20 %"
    yield "convnorm", NAMES["noise"], what, [share - 0.2 for share in shares]
    late = balanced[balanced.cycle == CYCLES].pivot_table(
        "excess", ["net", "start"], "variant", sort=False
    )
    what = f"energy above its minimum after {CYCLES} cycles, relative"
    gap = (late.released - late.paper).tolist()
    yield "enorm", NAMES["enorm"], what, gap
    mode = changes[~changes.network.str.startswith("torchvision")]
    pairs = mode.pivot_table("change", ["network", "seed"], "mode")[["ignore", "rescale"]].dropna()
    what = "change of the output by one cycle, relative"
    yield "enorm", NAMES["enorm_batch"], what, (pairs.ignore - pairs.rescale).tolist()
    what = "PGD-AT's median l1 norm over plain's"
    yield "norm_decay", NAMES["mixed"], what, _mixed(adversarial)
    speeds = rule.assign(released=rule.lr == rule.lr.max())
    pairs = speeds.pivot_table("speed", ["method", "seed"], "released")
    what = "training accuracy over all epochs, small batches"
    gap = (pairs[True] - pairs[False]).dropna().tolist()
    yield "beyond_batchnorm", NAMES["rule"], what, gap


def _mixed(records: Sequence[Record]) -> list[float]:
    """By net and seed: the median ratio with BatchNorm's layers, minus that without."""
    norms = norm_decay.layer_norms(records)
    norms = norms[(norms.norm == "l1") & norms.method.isin(["plain", "pgd"])]
    found = []
    for _, rows in norms.groupby(["net", "seed"], sort=False):
        both = [rows, rows[rows.kind != "batch_norm"]]
        medians = [part.groupby("method").value.median() for part in both]
        if all({"plain", "pgd"} <= set(median.index) for median in medians):
            mixed, apart = (median["pgd"] / median["plain"] for median in medians)
            found.append(mixed - apart)
    return found


def _accuracy(record: Record) -> float:
    ended = record.status == "ok"
    return float(record.table("history").accuracy.iloc[-1]) if ended else float("nan")


def _row(paper: str, name: str, what: str, values: list[float]) -> tuple:
    part = claims.above("", values)
    return paper, name, what, part.effect, part.low, part.high, part.n
