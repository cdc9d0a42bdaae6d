"""The explorer's figure of the lab: runs that differ in one setting, beside each other."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator, PercentFormatter

from normkit.plots.explorer_history import inches
from normkit.plots.marks import GREY, readable
from normkit.plots.style import COLORS, MARKERS, NORMS, PAGE, Picture, style
from normkit.plots.tables import choose, require

__all__ = ["lab"]


@style()
def lab(
    table: pd.DataFrame, *, next_value: float, ticks: Mapping[str, float], scale: str, label: str,
    norm: str = "linf", note: str = "",
) -> Picture:  # fmt: skip
    """Accuracies and norms of runs that differ in one setting, one dot a run.

    In plain words: filled dots were made now, open ones were in the store; the line joins the
    medians. A cross at zero is a run that diverged; the vertical line is what would be run next.

    Arguments:
        table: columns value, accuracy, robust_accuracy, norm, status, made ("here" or "stored");
            it may have no rows.
        next_value: of the setting, where the vertical line stands.
        ticks: the values of the setting by the text under the axis.
        scale: of the setting: linear or log; 0 has a place on both.
        label: the setting, for the axis.
        norm: a key of `NORMS`: whose median over layers stands in column norm.
        note: a short grey line at the bottom.

    Raises:
        ValueError: a column is missing, or an unknown scale or norm.

    Example:
        >>> table = pd.DataFrame({"value": [0.1], "accuracy": 0.9, "robust_accuracy": 0.4,
        ...     "norm": 3.0, "status": "ok", "made": "here"})
        >>> figure = lab(table, next_value=0.2, ticks={"0.1": 0.1, "0.2": 0.2}, scale="linear",
        ...     label="beta")
        >>> here = [line for line in figure.axes[0].lines if line.get_label() == "here"]
        >>> [float(line.get_ydata()[0]) for line in here]
        [0.9, 0.4]
    """
    choose("scale", scale, ("linear", "log"))
    choose("norm", norm, NORMS)
    columns = ["value", "accuracy", "robust_accuracy", "norm", "status", "made"]
    rows = require(table, columns) if len(table) else pd.DataFrame(columns=columns)
    figure = Picture(figsize=(PAGE, 2.2))
    grid = inches(figure, left=0.5, right=0.1, bottom=0.5, top=0.26)
    left, right = figure.subplots(1, 2, gridspec_kw={"wspace": 0.25} | grid)
    for axes in (left, right):
        _setting(axes, ticks, scale, label)
        axes.axvline(next_value, color=GREY, linewidth=0.8, linestyle=(0, (4, 2)), zorder=0)
    for column, key in (("accuracy", "standard"), ("robust_accuracy", "adversarial")):
        _runs(left, rows, column, key)
    bad = rows[rows["status"] != "ok"]
    if len(bad):
        left.plot(
            bad["value"], [0.0] * len(bad), linestyle="", marker="x", color=readable("#EE6677"),
            clip_on=False, label="diverged", zorder=4,
        )  # fmt: skip
    _runs(right, rows, "norm", "norm_decay")
    left.set(ylim=(-0.03, 1.03), ylabel="accuracy")
    left.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    right.set_ylabel(f"median {NORMS[norm]} of layers")
    right.set_ylim(0, 1.1 * max(rows["norm"].dropna().astype(float), default=1))
    figure.legend(handles=_marks(len(bad)), loc="upper left", ncols=6)
    figure.text(0.01, 0.02, note, fontsize=6, color=GREY)
    return figure


def _setting(axes: Axes, ticks: Mapping[str, float], scale: str, label: str) -> None:
    """The x axis of a setting, which may be 0 on a logarithmic scale, too."""
    values = np.array(list(ticks.values()))
    if scale == "log" and values.min() > 0:
        axes.set_xscale("log")
    elif scale == "log":
        axes.set_xscale("symlog", linthresh=values[values > 0].min(), linscale=0.5)
    axes.xaxis.set_major_locator(FixedLocator(values))
    axes.set_xticks(values, list(ticks), fontsize=6)
    axes.xaxis.set_minor_locator(NullLocator())
    ends = axes.transData.transform([(values.min(), 0), (values.max(), 0)])[:, 0]
    room = 0.05 * (ends[1] - ends[0])
    inverse = axes.transData.inverted().transform
    axes.set_xlim(inverse((ends[0] - room, 0))[0], inverse((ends[1] + room, 0))[0])
    axes.set_xlabel(label)


def _runs(axes: Axes, rows: pd.DataFrame, column: str, key: str) -> None:
    """A dot per run, filled or open, and a line through the medians."""
    found = rows[["value", column, "made"]].dropna()
    middle = found.groupby("value")[column].median()
    axes.plot(middle.index, middle, color=COLORS[key], linewidth=0.7, alpha=0.6, label="median")
    for made, face in (("stored", "white"), ("here", COLORS[key])):
        part = found[found["made"] == made]
        axes.plot(
            part["value"], part[column], linestyle="", marker=MARKERS[key], label=made,
            markerfacecolor=face, markeredgecolor=COLORS[key], markeredgewidth=0.9,
        )  # fmt: skip


def _marks(diverged: int) -> Sequence[Line2D]:
    names = {"standard": "test images", "adversarial": "attacked", "norm_decay": "norm"}
    dots = {"linestyle": "", "markeredgewidth": 0.9}
    handles = [
        Line2D([], [], color=COLORS[key], marker=MARKERS[key], label=name, **dots)
        for key, name in names.items()
    ]
    handles.append(
        Line2D([], [], color=GREY, marker="o", markerfacecolor="white", label="stored", **dots)
    )
    handles += [Line2D([], [], color=readable("#EE6677"), marker="x", label="diverged", **dots)][
        : min(1, diverged)
    ]
    return [*handles, Line2D([], [], color=GREY, linestyle=(0, (4, 2)), label="next")]
