"""Figures of equi-normalization in fully connected networks: accuracy against depth."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from normkit.plots.enorm_panels import averages, mark_lost, percent, runs
from normkit.plots.marks import (
    GREY,
    count,
    evidence,
    finish,
    header,
    layer_ticks,
    points,
    readable,
)
from normkit.plots.multiples import BACKGROUND, label_gaps, multiples
from normkit.plots.regularization_panels import once
from normkit.plots.style import COLORS, LABELS, MARKERS, Picture, style
from normkit.plots.tables import diverged, methods_of, require

__all__ = ["depth", "depth_change"]

_OPEN = {"markerfacecolor": "white", "markersize": 3, "markeredgewidth": 0.6, "linewidth": 0.6}
_XLABEL = "square layers $p$"


@style()
def depth(table: pd.DataFrame, published: pd.DataFrame, *, note: str = "") -> Picture:
    """Accuracy of fully connected networks against their depth, one panel per method.

    In plain words: mean over seeds and 95 % t interval; the other methods are grey, the published
    values of the panel's method are open markers on a thin line. Diverged runs are in no mean: an
    x and a number say below which depth, and how many.

    Source: Stock, Graham, Gribonval and Jegou, "Equi-normalization of neural networks", ICLR
    2019, https://arxiv.org/abs/1902.10416, the experiments with fully connected networks.

    Arguments:
        table: columns method, p (number of square hidden layers), seed, accuracy (in [0, 1]; nan
            where the run diverged), status ("ok", or else the run diverged).
        published: columns method, p, accuracy (in [0, 1]); methods not in the table are left out.
        note: a short grey line at the bottom.

    Raises:
        ValueError: a column is missing, there is nothing to draw, a method is unknown, or a run
            or published value occurs twice.

    Example:
        >>> table = pd.DataFrame({"method": "enorm", "p": [1, 5], "seed": 0,
        ...     "accuracy": [0.56, 0.55], "status": "ok"})
        >>> published = pd.DataFrame({"method": "enorm", "p": [1, 5], "accuracy": [0.57, 0.58]})
        >>> ours, paper = depth(table, published).axes[0].lines
        >>> ours.get_ydata().tolist(), paper.get_ydata().tolist(), paper.get_label()
        ([0.56, 0.55], [0.57, 0.58], 'paper')
    """
    rows, theirs = runs(table, ["method", "p"]), _published(published)
    means = averages(rows, ["method", "p"])
    panels = multiples("", methods_of(rows), xlabel=_XLABEL, ylabel="accuracy")
    _draw(panels, means, theirs)
    axes = next(iter(panels.values()))
    percent(axes.yaxis)
    return _finish(panels, rows, means, note)


@style()
def depth_change(table: pd.DataFrame, published: pd.DataFrame, *, note: str = "") -> Picture:
    """Accuracy minus that of the shallowest network, against depth, one panel per method.

        change(p) = accuracy(p) - accuracy(smallest p), with the same seed

    In plain words: the slopes compare, though the levels differ. Panels, grey lines, open markers
    and x as in `depth`; a run whose shallowest network diverged has no change, and is left out.

    Source: Stock et al., ICLR 2019, https://arxiv.org/abs/1902.10416, the experiments with fully
    connected networks.
    Deviation: the paper shows accuracies, not changes.

    Arguments:
        table: as for `depth`.
        published: as for `depth`; a method without a value at our smallest p is left out.
        note: a short grey line at the bottom.

    Raises:
        ValueError: as for `depth`.

    Example:
        >>> table = pd.DataFrame({"method": "enorm", "p": [1, 5], "seed": 0,
        ...     "accuracy": [0.5, 0.75], "status": "ok"})
        >>> published = pd.DataFrame({"method": "enorm", "p": [1, 5], "accuracy": [0.25, 0.5]})
        >>> ours, paper, zero = depth_change(table, published).axes[0].lines
        >>> ours.get_ydata().tolist(), paper.get_ydata().tolist()
        ([0.0, 25.0], [0.0, 25.0])
    """
    rows, theirs = runs(table, ["method", "p"]), _published(published)
    once(rows, ["method", "p", "seed"], name="table")
    first, ran = rows["p"].min(), rows["value"].notna()
    rows = _minus_first(rows, first, ["method", "seed"])
    theirs = _minus_first(theirs, first, ["method"])
    means = averages(rows, ["method", "p"])
    ylabel = f"accuracy minus that\nat $p$ = {first:g}, points"
    panels = multiples("", methods_of(rows), xlabel=_XLABEL, ylabel=ylabel)
    _draw(panels, means, theirs[theirs["value"].notna()])
    for axes in panels.values():
        axes.axhline(0, color="#888888", linewidth=0.6, zorder=0.5)
    baseless = int((ran & rows["value"].isna()).sum())
    lost = f"Without a run at $p$ = {first:g}, left out: {count([baseless], 'run')}."
    return _finish(panels, rows, means, note, lost if baseless else "")


def _published(table: pd.DataFrame) -> pd.DataFrame:
    rows = require(table, ["method", "p", "accuracy"], name="published")
    methods_of(rows)
    rows = once(rows.assign(value=rows["accuracy"]), ["method", "p"], name="published")
    return rows.sort_values(["method", "p"])


def _minus_first(rows: pd.DataFrame, first: float, by: list[str]) -> pd.DataFrame:
    """Return the rows, `value` now in points above that at depth `first`; nan without one."""
    base = rows["value"].where(rows["p"] == first)
    base = base.groupby([rows[key] for key in by]).transform("max")
    return rows.assign(value=100 * (rows["value"] - base))


def _draw(panels: dict[str, Axes], means: pd.DataFrame, published: pd.DataFrame) -> None:
    for method, axes in panels.items():
        color, marker = COLORS[method], MARKERS[method]
        header(axes, LABELS[method].replace(" + ", "\n+ "), color=readable(color))
        for _, line in means[means["method"] != method].groupby("method"):
            axes.plot(line["p"], line["mean"], color=BACKGROUND, linewidth=0.6, zorder=0)
        points(axes, "p", means[means["method"] == method], color, marker, method)
        theirs = published[published["method"] == method]
        if len(theirs):
            axes.plot(
                theirs["p"], theirs["value"], color=color, marker=marker, label="paper", **_OPEN,
                zorder=1.8,
            )  # fmt: skip


def _finish(
    panels: dict[str, Axes], rows: pd.DataFrame, means: pd.DataFrame, note: str, lost: str = ""
) -> Picture:
    """Mark the diverged runs, name the marks over the figure, and write its last lines."""
    bad = rows[rows["status"] != "ok"]
    mark_lost([
        (axes, bad.loc[bad["method"] == method, "p"], COLORS[method])
        for method, axes in panels.items()
    ])  # fmt: skip
    axes = next(iter(panels.values()))
    layer_ticks(axes, rows["p"])
    figure = axes.figure
    figure.set_figheight(figure.get_figheight() + 0.2 * axes.get_gridspec().nrows)
    handles = [
        Line2D([], [], color=GREY, marker="o", markeredgewidth=0.4, label="ours"),
        Line2D([], [], color=GREY, marker="o", label="paper", **_OPEN),
        Line2D([], [], color=BACKGROUND, label="the other methods, ours"),
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=3)
    facts = " ".join(filter(None, [evidence("Mean", "Bar", means["n"]), lost, diverged(rows)]))
    return label_gaps(finish(figure, facts, note))
