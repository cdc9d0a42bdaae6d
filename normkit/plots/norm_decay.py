"""Figures of "Large norms do not hurt": the norms of layers, with and without adversaries."""

import numpy as np
import pandas as pd

from normkit.plots import norm_panels
from normkit.plots.marks import count, evidence, finish, header, keys, panels, picture
from normkit.plots.style import COLUMN, LABELS, NORMS, PAGE, Picture, style
from normkit.plots.tables import choose, methods_of, require, summarize

__all__ = ["density", "layers", "ratios"]

_NORMS = ["net", "method", "seed", "layer", "position", "kind", "norm", "value"]
_ACCURACY = ["net", "method", "seed", "clean", "robust", "status"]
_RUN = ["net", "method", "seed"]
_WEIGHTS = ["conv", "linear"]


@style()
def density(norms: pd.DataFrame, accuracy: pd.DataFrame, *, norm: str, note: str = "") -> Picture:
    """Density of the layers' norms, one line per method, one panel per net.

    In plain words: a kernel density of log10(norm) over convolutions and linear layers, seeds
    pooled; under it a tick per layer and seed; the marker is the median. BatchNorm layers, whose
    norms are of another size, stand in a row of their own.

    Source: Liang and Huang, "Large norms of CNN layers do not hurt adversarial robustness",
    AAAI 2021, https://arxiv.org/abs/2009.08435, the density figure.
    Deviation: there BatchNorm layers are mixed in.

    Arguments:
        norms: columns net, method, seed, layer, position, kind, norm, value.
        accuracy: columns net, method, seed, clean, robust (in [0, 1]), status ("ok", or else the
            run diverged: it is counted at the bottom and left out).
        norm: which of the norms in the table.
        note: a short grey line at the bottom.

    Raises:
        ValueError: a column is missing, a table is empty, or the norm or a method is unknown.

    Example:
        >>> run = {"net": "cnn", "method": "plain", "seed": 0}
        >>> layer = {"layer": "conv1", "position": 0, "kind": "conv", "norm": "l1"}
        >>> norms = pd.DataFrame([{**run, **layer, "value": v} for v in (1.0, 2.0, 3.0)])
        >>> good = pd.DataFrame([{**run, "clean": 0.9, "robust": 0.1, "status": "ok"}])
        >>> figure = density(norms, good, norm="l1")
        >>> figure.axes[0].get_xlabel()
        '$\\\\ell_1$ norm of a layer (log scale)'
    """
    table, lost = _ready(norms, accuracy, norm)
    good = accuracy[accuracy["status"] == "ok"]
    nets, methods = list(dict.fromkeys(table["net"])), methods_of(table)
    rows = 2 if (table["kind"] == "batch_norm").any() else 1
    down = -(-len(nets) // 2)
    height = [1.9, 2.7][rows - 1] + 0.12 * len(methods)
    figure = picture(COLUMN if len(nets) == 1 else PAGE, 0.3 + down * height)
    columns = panels(figure, len(nets), rows, height_ratios=[2.2, 1][:rows] * down)
    for net, column in zip(nets, columns, strict=True):
        part = table[table["net"] == net]
        weights = part[part["kind"].isin(_WEIGHTS)]
        norm_panels.accuracies(column[0], weights, good[good["net"] == net], methods, title=net)
        norm_panels.densities(column[0], weights, methods, lane=0.055)
        column[0].set_xlabel(f"{NORMS.get(norm, norm)} of a layer (log scale)")
        if rows == 2:
            norms_apart = part[part["kind"] == "batch_norm"]
            norm_panels.densities(column[1], norms_apart, methods, lane=0.13)
            column[1].set_xlabel(f"{NORMS.get(norm, norm)} of a BatchNorm layer (log scale)")
    for column in columns[::2]:
        for axes, label in zip(column, ("density per decade", "density"), strict=False):
            axes.set_ylabel(label)
    figure.align_ylabels()
    facts = "Line: kernel density, seeds pooled. Marker: median. Tick: one layer of one seed."
    return finish(figure, f"{facts} {lost}", note)


@style()
def layers(
    norms: pd.DataFrame, *, norm: str, method: str = "pgd", reference: str = "plain",
    accuracy: pd.DataFrame | None = None, note: str = "",
) -> Picture:  # fmt: skip
    """Norm of every layer, in depth order, under a method and under its reference.

    In plain words: geometric mean over seeds and 95 % t interval of log(norm); over each panel,
    in how many layers the method's mean is the larger one. Convolutions and linear layers only.

    Source: Liang and Huang, AAAI 2021, https://arxiv.org/abs/2009.08435, the bar charts.
    Deviation: dots with intervals over seeds instead of bars of one run.

    Arguments:
        norms: columns net, method, seed, layer, position, kind, norm, value.
        norm: which of the norms in the table.
        method, reference: the two methods to compare.
        accuracy: as for `density`; leaves diverged runs out and counts them.
        note: a short grey line at the bottom.

    Raises:
        ValueError: a column is missing, a table is empty, or the norm or a method is unknown.

    Example:
        >>> layer = {"layer": "conv1", "position": 0, "kind": "conv", "norm": "l1"}
        >>> norms = pd.DataFrame([
        ...     {"net": "cnn", "method": method, "seed": seed, **layer, "value": value + seed}
        ...     for method, value in (("plain", 1.0), ("pgd", 2.0)) for seed in (0, 1, 2)])
        >>> layers(norms, norm="l1").axes[0].texts[0].get_text()
        'larger in 1 of 1 layers (100 %)'
    """
    table, lost = _ready(norms, accuracy, norm)
    for name, key in (("method", method), ("reference", reference)):
        choose(name, key, methods_of(table))
    table = table[table["kind"].isin(_WEIGHTS) & table["method"].isin([method, reference])]
    means = summarize(table, ["net", "position", "layer", "method"], log=True)
    nets = list(dict.fromkeys(table["net"]))
    tall = means.groupby("net")["position"].nunique()[nets].tolist()
    tall = [0.75 + 0.155 * max(tall[row : row + 2]) for row in range(0, len(nets), 2)]
    figure = picture(COLUMN if len(nets) == 1 else PAGE, 0.5 + sum(tall))
    for (axes,), net in zip(panels(figure, len(nets), height_ratios=tall), nets, strict=True):
        norm_panels.dots(axes, means[means["net"] == net], method, reference, title=net)
        axes.set_xlabel(f"{NORMS.get(norm, norm)} (log scale)")
    keys(figure, [reference, method])
    facts = evidence("Geometric mean", "Bar", means["n"])
    return finish(figure, f"{facts} {lost}", note)


@style()
def ratios(
    norms: pd.DataFrame, *, reference: str = "plain", accuracy: pd.DataFrame | None = None,
    note: str = "",
) -> Picture:  # fmt: skip
    """Median norm of a net's layers, divided by the reference's of the same seed.

        ratio = median over layers of norm(method, seed) / the same of norm(reference, seed)

    In plain words: right of the line at 1, the method's layers are larger. Small dots are seeds;
    the large one is their mean with its 95 % t interval. Convolutions and linear layers only.

    Source: Liang and Huang, AAAI 2021, https://arxiv.org/abs/2009.08435.
    Deviation: the summary is ours; the paper shows densities.

    Arguments:
        norms: columns net, method, seed, layer, position, kind, norm, value.
        reference: the method to divide by.
        accuracy: as for `density`; leaves diverged runs out and counts them.
        note: a short grey line at the bottom.

    Raises:
        ValueError: a column is missing, a table is empty, a method is unknown, or no seed has
            both a method and the reference.

    Example:
        >>> layer = {"layer": "conv1", "position": 0, "kind": "conv", "norm": "l1"}
        >>> norms = pd.DataFrame([
        ...     {"net": "cnn", "method": method, "seed": seed, **layer, "value": value}
        ...     for method, value in (("plain", 2.0), ("pgd", 3.0)) for seed in (0, 1, 2)])
        >>> float(ratios(norms).axes[0].lines[-1].get_xdata()[0])
        1.5
    """
    table, lost = _ready(norms, accuracy)
    choose("reference", reference, methods_of(table))
    paired = _paired(table[table["kind"].isin(_WEIGHTS)], reference)
    nets, methods = list(dict.fromkeys(table["net"])), methods_of(paired)
    names = [name for name in ("l1", "linf", "spectral") if name in set(paired["norm"])]
    height = 0.6 + len(names) * (0.12 + 0.12 * len(methods))
    figure = picture(COLUMN if len(nets) == 1 else PAGE, 0.4 + -(-len(nets) // 2) * height)
    columns = panels(figure, len(nets), sharex=True, sharey=True)
    for (axes,), net in zip(columns, nets, strict=True):
        header(axes, net)
        norm_panels.ratio_rows(axes, paired[paired["net"] == net], names, methods)
        axes.set_xlabel(f"median norm of the layers, relative to {LABELS[reference]}")
        axes.tick_params(labelbottom=True)
    axes.set_yticks(range(len(names)), [NORMS[name] for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    keys(figure, methods)
    seeds = paired.groupby(["net", "method", "norm"]).size()
    facts = f"Dot: one seed, paired. {evidence('Mean', 'Bar', seeds)}"
    return finish(figure, f"{facts} {lost}", note)


def _ready(
    norms: pd.DataFrame, accuracy: pd.DataFrame | None, norm: str | None = None
) -> tuple[pd.DataFrame, str]:
    """Return the rows to draw, and a sentence that counts what was left out."""
    table, lost = require(norms, _NORMS, name="norms"), []
    if norm is not None:
        choose("norm", norm, table["norm"])
        table = table[table["norm"] == norm]
    if accuracy is not None:
        bad = require(accuracy, _ACCURACY, name="accuracy")
        bad = bad[bad["status"] != "ok"]
        runs = pd.MultiIndex.from_frame(table[_RUN])
        table = table[~runs.isin(pd.MultiIndex.from_frame(bad[_RUN]))]
        who = [f"{(bad['method'] == key).sum()} {LABELS[key]}" for key in methods_of(bad)]
        lost += [f"Diverged and left out: {', '.join(who)}."] if who else []
    measured = np.isfinite(table["value"]) & (table["value"] > 0)
    if not measured.all():
        lost.append(f"Not measured and left out: {count([int((~measured).sum())], 'norm')}.")
    table = require(table[measured], _NORMS, name="norms, without diverged runs,")
    return table, " ".join(lost)


def _paired(table: pd.DataFrame, reference: str) -> pd.DataFrame:
    """Return one row per net, method, seed and norm: its median over the reference's."""
    medians = table.groupby([*_RUN, "norm"], as_index=False)["value"].median()
    base = medians[medians["method"] == reference].drop(columns="method")
    pairs = medians[medians["method"] != reference].merge(
        base, on=["net", "seed", "norm"], suffixes=("", "_of_reference")
    )
    pairs["value"] /= pairs.pop("value_of_reference")
    pairs = pairs[pairs["norm"].isin(["l1", "linf", "spectral"])]
    return require(pairs, ["value"], name=f"norms, paired by seed with {reference!r},")
