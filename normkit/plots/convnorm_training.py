"""Figures of training with ConvNorm: curves, label noise, few images, corrupted images."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from normkit.plots.convnorm_panels import (
    PAIR,
    against,
    difference,
    grey_names,
    level_ticks,
    paired,
    scored,
    titles,
)
from normkit.plots.enorm_panels import percent
from normkit.plots.marks import GREY, band, evidence, finish, header, picture
from normkit.plots.multiples import BACKGROUND, crosses, label_gaps, multiples
from normkit.plots.style import COLORS, COLUMN, LABELS, MARKERS, PAGE, Picture, style
from normkit.plots.tables import choose, diverged, methods_of, require, summarize

__all__ = ["corruptions", "curves", "noise", "scarcity"]

_KINDS = ["symmetric", "asymmetric"]
_LEAD = f"{LABELS[PAIR[0]]} minus\n{LABELS[PAIR[1]]}, points"


@style()
def curves(table: pd.DataFrame, *, note: str = "") -> Picture:
    """Accuracy against epoch, one panel per method, BatchNorm and the others behind it.

    In plain words: mean over seeds and 95 % t interval; test images solid, training images
    dotted. A run whose accuracy is no number at the end diverged: an x stands where it did.

    Source: Liu et al., "Convolutional Normalization", NeurIPS 2021,
    https://arxiv.org/abs/2103.00673, the figures of training curves.

    Arguments:
        table: columns method, seed, epoch, train_accuracy, accuracy (test), both in [0, 1].
        note: a short grey line at the bottom.

    Raises:
        ValueError: a column is missing, there is nothing to draw, a method is unknown, or an
            epoch of a run occurs twice.

    Example:
        >>> table = pd.DataFrame({"method": "conv_norm", "seed": 0, "epoch": [1, 2],
        ...     "train_accuracy": [0.2, 0.6], "accuracy": [0.3, 0.7]})
        >>> [line.get_ydata().tolist() for line in curves(table).axes[0].lines]
        [[0.3, 0.7], [0.2, 0.6]]
    """
    rows = require(table, ["method", "seed", "epoch", "train_accuracy", "accuracy"])
    rows, means = rows.sort_values(["method", "seed", "epoch"]), {}
    tiles = multiples("", methods_of(rows), xlabel="epoch", ylabel="accuracy")
    titles(tiles)
    for column in ("accuracy", "train_accuracy"):
        good = require(rows[np.isfinite(rows[column])], [column], name="table, of numbers,")
        means[column] = summarize(good.assign(value=good[column]), ["method", "epoch"])
    last = rows.groupby(["method", "seed"], as_index=False).tail(1)
    last = last.assign(status=np.where(np.isfinite(last["accuracy"]), "ok", "diverged"))
    for method, axes in tiles.items():
        _curve(axes, means, method)
        lost = last[(last["method"] == method) & (last["status"] != "ok")]
        runs = rows[(rows["method"] == method) & rows["seed"].isin(lost["seed"])]
        kept = runs[np.isfinite(runs["accuracy"])].groupby("seed").tail(1)
        crosses(axes, kept["epoch"], kept["accuracy"], COLORS[method])
    percent(axes.yaxis)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
    _name_curves(axes.figure, "batch" in tiles)
    facts = f"{evidence('Mean', 'Band', means['accuracy']['n'])} {diverged(last)}"
    return label_gaps(finish(axes.figure, facts, note))


def _curve(axes: Axes, means: dict[str, pd.DataFrame], method: str) -> None:
    """Draw a method's test and training accuracy, and behind them the others' on test images."""
    for column, table in means.items():
        line, dotted = table[table["method"] == method], column != "accuracy"
        if len(line):
            band(axes, "epoch", line, COLORS[method], "" if dotted else MARKERS[method], method)
            axes.lines[-1].set_linestyle(":" if dotted else "-")
    test = means["accuracy"]
    for other, line in test[test["method"] != method].groupby("method"):
        ink = other == "batch"
        axes.plot(
            line["epoch"], line["mean"], color=COLORS["batch"] if ink else BACKGROUND,
            linewidth=0.6, zorder=1.5 if ink else 0,
        )  # fmt: skip


def _name_curves(figure: Picture, reference: bool) -> None:
    """Say over the figure what the kinds of lines are."""
    handles = [
        Line2D([], [], color=GREY, marker="o", label="test"),
        Line2D([], [], color=GREY, linestyle=":", label="training"),
        Line2D([], [], color=COLORS["batch"], linewidth=0.6, label="BatchNorm, test"),
        Line2D([], [], color=BACKGROUND, label="the others, test"),
    ]
    if not reference:
        del handles[2]
    figure.legend(handles=handles, loc="outside upper left", ncols=len(handles))


@style()
def noise(table: pd.DataFrame, *, note: str = "") -> Picture:
    """Accuracy against the share of wrong training labels, and ConvNorm's lead over BatchNorm.

        lead = accuracy(ConvNorm) - accuracy(BatchNorm), with the same seed

    In plain words: a row per kind of noise; left the accuracies, right the lead, a small dot per
    seed. Mean over seeds and 95 % t interval; diverged runs are in no mean, an x and their number
    stand at the bottom.

    Source: Liu et al., NeurIPS 2021, https://arxiv.org/abs/2103.00673, on label noise.

    Arguments:
        table: columns kind ("symmetric" or "asymmetric"), level (share of the training images
            that the noise draws a label for, in [0, 1]), method, seed, accuracy (in [0, 1]; nan
            where the run diverged); a column status is heeded, if there is one.
        note: a short grey line at the bottom.

    Raises:
        ValueError: a column is missing, there is nothing to draw, a kind or a method is unknown,
            a run occurs twice, or there is none of ConvNorm or of BatchNorm.

    Example:
        >>> table = pd.DataFrame({"kind": "symmetric", "level": [0.0, 0.0, 0.4, 0.4], "seed": 0,
        ...     "method": ["batch", "conv_norm"] * 2, "accuracy": [0.75, 0.75, 0.5, 0.625]})
        >>> noise(table).axes[1].lines[2].get_ydata().tolist()
        [0.0, 12.5]
    """
    for kind in require(table, ["kind"])["kind"].unique():
        choose("kind", kind, _KINDS)
    rows = scored(table, ["kind", "method", "level"])
    groups = [(kind, part) for kind in _KINDS if len(part := rows[rows["kind"] == kind])]
    return _levels(groups, "level", "share of noisy labels", note)


@style()
def scarcity(table: pd.DataFrame, *, note: str = "") -> Picture:
    """Accuracy against the share of the training set, and ConvNorm's lead over BatchNorm.

        lead = accuracy(ConvNorm) - accuracy(BatchNorm), with the same seed

    In plain words: left the accuracies, right the lead, a small dot per seed. Mean over seeds and
    95 % t interval; diverged runs are in no mean, an x and their number stand at the bottom.

    Source: Liu et al., NeurIPS 2021, https://arxiv.org/abs/2103.00673, on data scarcity.

    Arguments:
        table: columns fraction (of the training images, in [0, 1]), method, seed, accuracy (in
            [0, 1]; nan where the run diverged); a column status is heeded, if there is one.
        note: a short grey line at the bottom.

    Raises:
        ValueError: a column is missing, there is nothing to draw, a method is unknown, a run
            occurs twice, or there is none of ConvNorm or of BatchNorm.

    Example:
        >>> table = pd.DataFrame({"fraction": [0.1, 0.1, 0.5, 0.5], "seed": 0,
        ...     "method": ["batch", "conv_norm"] * 2, "accuracy": [0.25, 0.5, 0.75, 0.75]})
        >>> scarcity(table).axes[1].lines[2].get_ydata().tolist()
        [25.0, 0.0]
    """
    rows = scored(table, ["method", "fraction"])
    return _levels([("", rows)], "fraction", "share of the training images", note)


def _levels(
    groups: list[tuple[str, pd.DataFrame]], field: str, xlabel: str, note: str
) -> Picture:
    """Draw, per group, accuracy against a field, and the lead of ConvNorm over BatchNorm."""
    leads = [paired(rows, [field], *PAIR) for _, rows in groups]
    figure, seeds = picture(PAGE, 0.5 + 1.85 * len(groups)), []
    grid = figure.subplots(len(groups), 2, squeeze=False, width_ratios=[1.25, 1])
    for (left, right), (name, rows), lead in zip(grid, groups, leads, strict=True):
        header(left, name)
        seeds += against(left, rows, field)["n"].tolist()
        seeds += difference(right, lead, field)["n"].tolist()
        for axes in (left, right):
            level_ticks(axes, rows[field])
            axes.set_xlabel(xlabel)
        left.set_ylabel("accuracy")
        right.set_ylabel(_LEAD)
        right.set_xlim(left.get_xlim())
    rows = pd.concat([rows for _, rows in groups])
    facts = f"{evidence('Mean', 'Bar', seeds)} Small dot: one seed. {grey_names(rows)}"
    return finish(figure, f"{facts} {diverged(rows)}".replace("  ", " "), note)


@style()
def corruptions(table: pd.DataFrame, *, note: str = "") -> Picture:
    """Accuracy on images with Gaussian noise against its standard deviation, a line per method.

    In plain words: mean over seeds and 95 % t interval; diverged runs are in no mean, an x and
    their number stand at the bottom.

    Source: Liu et al., NeurIPS 2021, https://arxiv.org/abs/2103.00673, on robustness.
    Deviation: the figure is ours.

    Arguments:
        table: columns std (of the noise on test images in [0, 1]), method, seed, accuracy (in
            [0, 1]; nan where the run diverged); a column status is heeded, if there is one.
        note: a short grey line at the bottom.

    Raises:
        ValueError: a column is missing, there is nothing to draw, a method is unknown, or a run
            occurs twice.

    Example:
        >>> table = pd.DataFrame({"std": [0.0, 0.1], "method": "conv_norm", "seed": 0,
        ...     "accuracy": [0.75, 0.5]})
        >>> corruptions(table).axes[0].lines[0].get_ydata().tolist()
        [0.75, 0.5]
    """
    rows = scored(table, ["method", "std"])
    axes = picture(COLUMN, 2.3).subplots()
    means = against(axes, rows, "std")
    axes.set(xlabel="standard deviation of the noise, images in [0, 1]", ylabel="accuracy")
    facts = f"{evidence('Mean', 'Bar', means['n'])} {grey_names(rows)} {diverged(rows)}"
    return finish(axes.figure, facts.replace("  ", " "), note)
