"""The panels of the figures about training with equi-normalization, and diverged runs in them."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import MaxNLocator, NullLocator, PercentFormatter
from matplotlib.transforms import offset_copy

from normkit.plots.marks import end_labels, points, readable
from normkit.plots.multiples import crosses
from normkit.plots.style import COLORS, LABELS, MARKERS
from normkit.plots.tables import methods_of, require, summarize

__all__ = [
    "averages", "beside", "dots", "lines", "mark_lost", "name_rows", "named_values", "percent",
    "runs",
]  # fmt: skip


def runs(table: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Return the rows in order, with `value` the accuracy of a run, nan where it diverged.

    In plain words: a run whose accuracy is not a number counts as diverged, whatever its status.

    Raises:
        ValueError: a column is missing, there is no row, or a method is unknown.

    Example:
        >>> table = pd.DataFrame({"c": [1.0, 2.0], "seed": 0, "accuracy": [0.5, float("nan")],
        ...     "status": "ok"})
        >>> runs(table, ["c"])["status"].tolist()
        ['ok', 'diverged']
    """
    rows = require(table, [*by, "seed", "accuracy", "status"]).sort_values([*by, "seed"])
    if "method" in by:
        methods_of(rows)
    missing = ~np.isfinite(rows["accuracy"]) & (rows["status"] == "ok")
    rows = rows.assign(status=rows["status"].mask(missing, "diverged"))
    return rows.assign(value=rows["accuracy"].where(rows["status"] == "ok"))


def averages(rows: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Return the means over the runs that did not diverge, with their intervals.

    Raises:
        ValueError: all runs diverged, or one occurs twice.

    Example:
        >>> rows = pd.DataFrame({"c": 1.0, "seed": [0, 1], "value": [0.5, float("nan")]})
        >>> averages(rows, ["c"])[["mean", "n"]].values.tolist()
        [[0.5, 1.0]]
    """
    good = rows[np.isfinite(rows["value"])]
    return summarize(require(good, by, name="table, without diverged runs,"), by)


def percent(axis: Axis) -> None:
    """Write the accuracies of an axis in percent, each tick as it is, within 0 and 100."""
    low, high = np.clip(axis.get_view_interval(), -0.02, 1.02)
    {"x": axis.axes.set_xlim, "y": axis.axes.set_ylim}[axis.axis_name](low, high)
    ticks = MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(low, high)
    step = 100 * (ticks[1] - ticks[0])
    decimals = max(0, int(np.ceil(-np.log10(step) - 1e-6)))
    axis.set_ticks([tick for tick in ticks if low <= tick <= high])
    axis.set_major_formatter(PercentFormatter(1, decimals=decimals))


def mark_lost(lost: list[tuple[Axes, pd.Series, str]]) -> None:
    """Mark diverged runs below panels that share a scale: an x and a number per place.

    In plain words: each entry has a panel, the places of its diverged runs and their color;
    entries of one panel get a row each. To be called when the data are drawn.
    """
    rows: dict[Axes, int] = {}
    places = []
    for axes, x, color in lost:
        if len(x):
            places.append((axes, x.value_counts().sort_index(), color, rows.get(axes, 0)))
            rows[axes] = rows.get(axes, 0) + 1
    if not places:
        return
    first = places[0][0]
    (low, high), ticks = first.get_ylim(), first.get_yticks()
    step = 0.12 * (high - low)
    first.set_yticks([tick for tick in ticks if low <= tick <= high])
    first.set_ylim(low - step * max(rows.values()), high)
    for axes in rows:
        axes.axhline(low, color="#DDDDDD", linewidth=0.5, zorder=0)
    for axes, number, color, row in places:
        y = low - step * (row + 0.5)
        crosses(axes, number.index, np.full(len(number), y), color)
        for x, runs_there in number.items():
            axes.annotate(
                f"{runs_there}", (x, y), (3.5, 0), textcoords="offset points", va="center",
                fontsize=5.5, color=readable(color),
            )  # fmt: skip


def beside(axes: Axes, index: int, number: int) -> None:
    """Move what `points` drew last 1.5 points off its neighbors, of which there are `number`."""
    x = 1.5 * (index - (number - 1) / 2)
    place = offset_copy(axes.transData, axes.figure, x=x, units="points")
    for artist in (axes.lines[-1], axes.collections[-1]):
        artist.set_transform(place)


def named_values(axes: Axes, values: Iterable[float]) -> None:
    """Make the x axis logarithmic with a tick at each value, named where there is room."""
    values = np.array(sorted(set(values)))
    axes.set_xscale("log")
    names, last = [], -np.inf
    for place, value in zip(np.log(values), values, strict=True):
        free = place - last > 0.06 * np.ptp(np.log(values))
        names.append(f"{value:g}" if free else "")
        last = place if free else last
    axes.set_xticks(values, names)
    axes.xaxis.set_minor_locator(NullLocator())


def name_rows(axes: Axes, names: list[str]) -> None:
    """Name the rows 0, 1, ... of a panel, the first on top."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(axis="y")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def lines(
    axes: Axes, rows: pd.DataFrame, by: str, x: str, names: dict[object, tuple[str, str, str]]
) -> pd.DataFrame:
    """Draw one line per key, as its name, color and marker say, and return the means."""
    means, bad = averages(rows, [by, x]), rows[rows["status"] != "ok"]
    ends, lost = [], []
    for index, (key, (name, color, marker)) in enumerate(names.items()):
        line = means[means[by] == key]
        lost.append((axes, bad.loc[bad[by] == key, x], color))
        if len(line):
            points(axes, x, line, color, marker, name)
            beside(axes, index, len(names))
            ends.append((*line.iloc[-1][[x, "mean"]], name, color))
    percent(axes.yaxis)
    mark_lost(lost)
    end_labels(axes, ends)
    return means


def dots(axes: Axes, rows: pd.DataFrame, means: pd.DataFrame, methods: list[str]) -> None:
    """Draw one row of dots per method, the first on top."""
    bad, place = rows[rows["status"] != "ok"], {key: y for y, key in enumerate(methods)}
    for method, y in place.items():
        color, part = COLORS[method], rows[(rows["method"] == method) & rows["value"].notna()]
        line = means[means["method"] == method]
        if part.empty:
            continue
        axes.plot(
            part["value"], np.full(len(part), y + 0.27), linestyle="", marker="o", markersize=2,
            markeredgewidth=0, color=color, alpha=0.6, label=f"{method} seeds",
        )  # fmt: skip
        axes.hlines(y, line["low"], line["high"], color=color, linewidth=0.9)
        axes.plot(
            line["mean"], [y], marker=MARKERS[method], markersize=4.5, color=color,
            markeredgecolor="white", markeredgewidth=0.5, label=method,
        )  # fmt: skip
    (low, high), number = np.clip(axes.get_xlim(), -0.02, 1.02), bad["method"].value_counts()
    percent(axes.xaxis)
    axes.set_xlim(low - 0.1 * (high - low) * bool(len(bad)), high)
    for method, runs_there in number.items():
        at, color = low - 0.06 * (high - low), COLORS[method]
        crosses(axes, pd.Series([at]), pd.Series([place[method]]), color)
        axes.annotate(
            f"{runs_there}", (at, place[method]), (4, 0), textcoords="offset points", va="center",
            fontsize=5.5, color=readable(color),
        )  # fmt: skip
    name_rows(axes, [LABELS[method] for method in methods])
    labels = axes.get_yticklabels()  # none in a panel whose names stand at its left neighbor
    for text, method in zip(labels, methods, strict=False):
        text.set_color(readable(COLORS[method]))
