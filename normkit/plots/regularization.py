"""Figures of training with smaller norms: what it does to accuracy, and to the norms."""

from collections.abc import Sequence
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator, PercentFormatter

from normkit.plots import regularization_panels as panels
from normkit.plots.marks import count, evidence, finish, header, picture, readable, shades
from normkit.plots.multiples import crosses
from normkit.plots.style import COLORS, COLUMN, LABELS, NORMS, PAGE, Picture, style
from normkit.plots.tables import choose, diverged, methods_of, require, summarize

__all__ = ["accuracies", "curves", "layers_over_time"]

_ACCURACIES = {"clean": "accuracy", "robust": "robust accuracy"}
_LAYERS = {"weights": "conv and linear layers", "batch_norm": "BatchNorm layers"}
_TOTALS = {"weights": "sum", "batch_norm": "median"}
_PROJECTED = {False: "", True: ", BatchNorm projected"}


@style()
def accuracies(runs: pd.DataFrame, *, note: str = "") -> Picture:
    """Accuracy on clean and on attacked images against the strength, one column per method.

    In plain words: to the right is always stronger. Mean over seeds and 95 % t interval, a small
    dot per seed; dotted, with its interval as a band, is training without any of the methods; the
    ring is the strength chosen on validation images. Diverged runs are in no mean: an x at the
    bottom stands at their strength.

    Source: Liang and Huang, "Large norms of CNN layers do not hurt adversarial robustness",
    AAAI 2021, https://arxiv.org/abs/2009.08435, the experiments with regularized training.
    Deviation: means with intervals over seeds.

    Arguments:
        runs: a row per run: columns method, strength (the bound under "svc", of no meaning under
            "plain"), seed, clean, robust (in [0, 1]), chosen (bool), status ("ok", or else the
            run diverged).
        note: a short grey line at the bottom.

    Raises:
        ValueError: a column is missing, there is nothing to draw, a method is unknown, a strength
            is not positive, or a run occurs twice.

    Example:
        >>> runs = pd.DataFrame({"method": "wd", "strength": [1e-4, 1e-3], "seed": 0,
        ...     "clean": [0.9, 0.8], "robust": [0.1, 0.2], "chosen": [True, False],
        ...     "status": "ok"})
        >>> clean, robust = accuracies(runs).axes
        >>> clean.lines[1].get_ydata().tolist(), robust.get_xlabel()
        ([0.9, 0.8], 'weight decay')
    """
    run = ["method", "strength", "seed", "chosen"]
    runs = panels.checked(require(runs, [*run, *_ACCURACIES, "status"], name="runs"))
    runs = runs.sort_values(run[:3])
    kept = runs[runs["status"] == "ok"].melt(run, [*_ACCURACIES], "measure")
    measured = np.isfinite(kept["value"])
    good = require(kept[measured], ["value"], name="runs, without diverged ones,")
    others = require(runs[runs["method"] != "plain"], run, name="runs, without plain ones,")
    methods = methods_of(others)
    figure = picture(COLUMN if len(methods) == 1 else PAGE, 3.2)
    grid = figure.subplots(2, len(methods), squeeze=False, sharex="col", sharey="row")
    for method, column in zip(methods, grid.T, strict=True):
        header(column[0], fill(LABELS[method], 15), color=readable(COLORS[method]))
        for axes, measure in zip(column, _ACCURACIES, strict=True):
            panels.accuracy(axes, good[good["measure"] == measure], method)
        panels.strength_axis(column[1], others[others["method"] == method]["strength"], method)
    for row, label in zip(grid, _ACCURACIES.values(), strict=True):
        row[0].set_ylabel(label)
        row[0].yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        row[0].yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        low, high = np.clip(row[0].get_ylim(), -0.02, 1.02)
        lane = 0.14 * (high - low) * (others["status"] != "ok").any()
        row[0].set_ylim(low - lane, high)
        for method, axes in zip(methods, row, strict=True):
            bad = others[(others["method"] == method) & (others["status"] != "ok")]["strength"]
            crosses(axes, bad, 0 * bad + low - lane / 2, COLORS[method])
    panels.key(figure)
    seeds = good.groupby(["method", "strength", "measure"]).size()
    facts = f"To the right is stronger. {evidence('Mean', 'Bar and band', seeds)}"
    return finish(figure, f"{facts} {diverged(runs)} {panels.unmeasured(measured)}", note)


@style()
def curves(norms: pd.DataFrame, *, norm: str, note: str = "") -> Picture:
    """Sum and median of the norms of a net's layers during training, one line per strength.

    In plain words: left the sum over convolutions and linear layers, right the median over
    BatchNorm layers; the darker, the stronger; dotted is training without the method. Geometric
    mean over seeds and 95 % t interval. Runs with BatchNorm projection have a row of their own,
    where the dotted line is again plain training if it was not run with the projection.

    Source: Liang and Huang, AAAI 2021, https://arxiv.org/abs/2009.08435, the norms during
    training.
    Deviation: the summaries are ours; the paper's figure is `layers_over_time`.

    Arguments:
        norms: columns method, strength, projected (bool), seed, epoch, kind ("conv", "linear",
            "batch_norm"; others are left out), layer, norm, value. A run whose norms end, or
            are not finite, before the last epoch diverged: it is counted and left out.
        norm: which of the norms in the table.
        note: a short grey line at the bottom.

    Raises:
        ValueError: a column is missing, there is nothing to draw, the norm or a method is unknown,
            a strength is not positive, or a layer occurs twice in an epoch of a run.

    Example:
        >>> norms = pd.DataFrame({"method": "wd", "strength": 1e-3, "projected": False, "seed": 0,
        ...     "epoch": [0, 0, 1, 1], "kind": "conv", "layer": ["a", "b"] * 2, "norm": "l1",
        ...     "value": [3.0, 4.0, 1.0, 2.0]})
        >>> curves(norms, norm="l1").axes[0].lines[0].get_ydata().round(9).tolist()
        [7.0, 3.0]
    """
    table, lost = panels.ready(norms, norm)
    total = panels.totals(table)
    positive = total["value"] > 0
    by = ["method", "projected", "strength", "part", "epoch"]
    means = summarize(total[positive], by, log=True)
    rows = _rows(require(means, by, name="norms, of layers that are not zero,"))
    parts = [part for part in _LAYERS if part in set(means["part"])]
    figure = picture([COLUMN, PAGE][len(parts) - 1], 0.5 + 1.6 * len(rows))
    grid = figure.subplots(len(rows), len(parts), squeeze=False, sharex=True, sharey="col")
    for (method, title, drawn), line in zip(rows, grid, strict=True):
        for axes, part in zip(line, parts, strict=True):
            header(axes, f"{_LAYERS[part]}: {_TOTALS[part]}", title)
            panels.growth(axes, drawn[drawn["part"] == part], method)
            axes.set_ylabel(NORMS.get(norm, norm))
    for above, axes in zip(grid[0], grid[-1], strict=True):
        panels.value_ticks(above)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    facts = f"At a line's end: the strength. {evidence('Geometric mean', 'Band', means['n'])}"
    return finish(figure, f"{facts} {lost} {panels.unmeasured(positive, 'Zero')}", note)


@style()
def layers_over_time(
    norms: pd.DataFrame, *, norm: str, strength: float | Sequence[float], note: str = ""
) -> Picture:
    """Norm of every layer against epoch: without the method, and at the strengths given.

    In plain words: a line per layer, the darker the deeper, geometric mean over seeds;
    convolutions and linear layers on top, BatchNorm layers, whose norms are of another size,
    below. All panels of a row have one scale.

    Source: Liang and Huang, AAAI 2021, https://arxiv.org/abs/2009.08435, the norms during
    training.
    Deviation: means over seeds.

    Arguments:
        norms: as for `curves`, the layers in depth order.
        norm: which of the norms in the table.
        strength: one strength in the table, or several.
        note: a short grey line at the bottom.

    Raises:
        ValueError: as for `curves`; no run has such a strength, or there are too many of them.

    Example:
        >>> norms = pd.DataFrame({"method": "wd", "strength": 1e-3, "projected": False, "seed": 0,
        ...     "epoch": [0, 0, 1, 1], "kind": "conv", "layer": ["a", "b"] * 2, "norm": "l1",
        ...     "value": [3.0, 4.0, 1.0, 2.0]})
        >>> axes = layers_over_time(norms, norm="l1", strength=1e-3).axes[0]
        >>> [line.get_ydata().round(9).tolist() for line in axes.lines]
        [[3.0, 1.0], [4.0, 2.0]]
    """
    table, lost = panels.ready(norms, norm)
    table, written = _at(table, np.atleast_1d(strength).tolist())
    lost += panels.unmeasured(~(table["value"] <= 0), " Zero")
    by = ["method", "strength", "projected", "part", "position", "epoch"]
    logs = np.log(table[table["value"] > 0].set_index(by)["value"])
    means = np.exp(logs.groupby(level=by).mean()).reset_index()
    columns = dict(list(means.groupby(by[:3])))
    if len(columns) > 5:
        raise ValueError(f"strength asks for {len(columns)} panels in a row: 5 at most have room")
    parts = [part for part in _LAYERS if part in set(means["part"])]
    colors = shades(sorted(set(means["position"])), "crest")
    figure = picture(PAGE, 0.9 + 1.25 * len(parts))
    grid = figure.subplots(len(parts), len(columns), squeeze=False, sharex=True, sharey="row")
    for column, below in zip(sorted(columns, key=panels.place), grid.T, strict=True):
        method, value, projected = column
        how = panels.describe(method, written.get(value, ""), projected)
        header(below[0], fill(LABELS[method], 15), how)
        for axes, part in zip(below, parts, strict=True):
            panels.layers(axes, columns[column].query("part == @part"), colors)
        below[-1].set_xlabel("epoch")
    for row, part in zip(grid, parts, strict=True):
        row[0].set_ylabel(f"{NORMS.get(norm, norm)},\n{_LAYERS[part]}")
        panels.value_ticks(row[0])
    panels.depth_key(figure, [*colors.values()])
    seeds = table.groupby(by[:3])["seed"].nunique()
    facts = f"A line per layer: geometric mean over {count(seeds, 'seed')}."
    return finish(figure, f"{facts} {lost}", note)


def _rows(means: pd.DataFrame) -> list[tuple[str, str, pd.DataFrame]]:
    """Return, per method and projection, its key, its name, and its means beside plain's."""
    others = require(means[means["method"] != "plain"], ["mean"], name="norms, without plain's,")
    rows = []
    for method in methods_of(others):
        both = means[means["method"].isin(["plain", method])]
        plain = both["method"] == "plain"
        for projected in sorted(set(both[~plain]["projected"])):
            same = both["projected"] == projected
            drawn = both[same | plain & ~(same & plain).any()]
            rows.append((method, f"{LABELS[method]}{_PROJECTED[projected]}", drawn))
    return rows


def _at(table: pd.DataFrame, strengths: list[float]) -> tuple[pd.DataFrame, dict[float, str]]:
    """Return the rows of plain and of these strengths, and how each strength is written."""
    plain, name = table["method"] == "plain", table["strength"].map("{:g}".format)
    wanted = [choose("strength", f"{value:g}", name[~plain]) for value in strengths]
    found = sorted(set(table.loc[~plain & name.isin(wanted), "strength"]))
    written = dict(zip(found, panels.names(found), strict=True))
    return table[plain | name.isin(wanted)], written
