"""What the figures of ConvNorm share: runs, differences by seed, rows of dots, titles."""

import textwrap

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.transforms import offset_copy

from normkit.plots.enorm_panels import dots, lines, name_rows, runs
from normkit.plots.marks import GREY, header, points, readable
from normkit.plots.multiples import BACKGROUND
from normkit.plots.style import COLORS, LABELS, MARKERS
from normkit.plots.tables import methods_of, require, summarize

__all__ = [
    "PAIR", "against", "changes", "difference", "dot_panel", "grey_names", "level_ticks",
    "paired", "scored", "titles",
]  # fmt: skip

PAIR, _MOST = ("conv_norm", "batch"), 6
_SEED = {"linestyle": "", "marker": "o", "markersize": 2, "markeredgewidth": 0, "alpha": 0.6}


def scored(table: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Return the rows in order, with `value` the accuracy of a run, nan where it diverged.

    In plain words: a run without an accuracy diverged, and so did one whose status, if the table
    has a column of them, is not "ok".

    Raises:
        ValueError: a column is missing, there is no row, or a method is unknown.

    Example:
        >>> table = pd.DataFrame({"method": "conv_norm", "seed": [0, 1],
        ...     "accuracy": [0.5, float("nan")]})
        >>> scored(table, ["method"])["status"].tolist()
        ['ok', 'diverged']
    """
    require(table, [*by, "seed", "accuracy"])
    return runs(table if "status" in table else table.assign(status="ok"), by)


def paired(rows: pd.DataFrame, by: list[str], ours: str, reference: str) -> pd.DataFrame:
    """Return `value`, one method's minus the reference's in points, for each seed that has both.

    Raises:
        ValueError: a run occurs twice, or the table has no run of one of the methods.

    Example:
        >>> rows = pd.DataFrame({"method": ["batch", "conv_norm"], "seed": 0, "level": 0.2,
        ...     "value": [0.5, 0.75]})
        >>> paired(rows, ["level"], "conv_norm", "batch").to_numpy().tolist()
        [[0.2, 0.0, 25.0]]
    """
    summarize(rows, ["method", *by])
    for method in (ours, reference):
        if method not in set(rows["method"]):
            raise ValueError(
                f"table has no run of {method!r}: it needs some of {ours!r} and of {reference!r}"
            )
    wide = rows.pivot(index=[*by, "seed"], columns="method", values="value")
    return (100 * (wide[ours] - wide[reference])).dropna().rename("value").reset_index()


def against(axes: Axes, rows: pd.DataFrame, x: str) -> pd.DataFrame:
    """Draw accuracy against `x`, a line per method, and return the means.

    In plain words: of more than six methods only ConvNorm and BatchNorm have a color and a name.
    """
    shown = _named(rows)
    names = {key: (LABELS[key], COLORS[key], MARKERS[key]) for key in shown}
    rest = rows[~rows["method"].isin(shown) & rows["value"].notna()]
    for _, line in rest.groupby(["method", x], as_index=False)["value"].mean().groupby("method"):
        axes.plot(line[x], line["value"], color=BACKGROUND, linewidth=0.7, zorder=0)
    return lines(axes, rows[rows["method"].isin(shown)], "method", x, names)


def grey_names(rows: pd.DataFrame) -> str:
    """Say which methods `against` draws in grey, if there are any."""
    shown = _named(rows)
    grey = [LABELS[key] for key in methods_of(rows) if key not in shown]
    return f"Grey: {'; '.join(grey)}." if grey else ""


def _named(rows: pd.DataFrame) -> list[str]:
    """Return the methods that get a color: all, or of many the pair to compare."""
    methods = methods_of(rows)
    pair = [key for key in methods if key in PAIR]
    return pair if pair and len(methods) > _MOST else methods


def difference(axes: Axes, rows: pd.DataFrame, x: str) -> pd.DataFrame:
    """Draw differences against `x`, a dot per seed, means and intervals; return the means."""
    color, means = COLORS[PAIR[0]], summarize(rows, [x])
    if means.empty:
        axes.set_yticks([])
        axes.text(0.5, 0.5, "no seed has both", transform=axes.transAxes, color=GREY, ha="center")
        return means
    axes.axhline(0, color="#888888", linewidth=0.6, zorder=0)
    beside = offset_copy(axes.transData, axes.figure, x=4, units="points")
    axes.plot(rows[x], rows["value"], color=color, label="seeds", transform=beside, **_SEED)
    points(axes, x, means, color, MARKERS[PAIR[0]], "difference")
    return means


def level_ticks(axes: Axes, levels: pd.Series) -> None:
    """Put a tick at each level, named in percent where there is room."""
    values = np.array(sorted(set(levels)))
    names, last = [], -np.inf
    for value in values:
        free = value - last > 0.12 * np.ptp(values)
        names.append(f"{100 * value:g}%" if free else "")
        last = value if free else last
    axes.set_xticks(values, names)


def dot_panel(
    axes: Axes, rows: pd.DataFrame, means: pd.DataFrame, methods: list[str], *, paper: bool = False
) -> None:
    """Draw one row of dots per method, open ones for the paper's; say where there are none."""
    if rows.empty:
        _name_methods(axes, methods)
        axes.set(xticks=[], xlim=(0, 1))
        axes.text(0.5, 0.5, "no value", transform=axes.transAxes, color=GREY, ha="center")
        return
    dots(axes, rows, means, methods)
    ticks = axes.get_xticks()
    axes.set_xticks(ticks[:: -(-len(ticks) // 3)])
    axes.set_xlabel("accuracy")
    for line in axes.lines if paper else ():
        if line.get_label() != "diverged":
            line.set(
                markerfacecolor="white", markeredgecolor=line.get_color(), alpha=1,
                markeredgewidth=0.5 if line.get_label().endswith("seeds") else 0.8,
            )  # fmt: skip


def changes(axes: Axes, rows: pd.DataFrame, methods: list[str]) -> pd.DataFrame:
    """Draw one row of differences per method, around a line at 0; return the means."""
    means = summarize(rows, ["method"])
    axes.axvline(0, color="#888888", linewidth=0.6, zorder=0)
    for y, method in enumerate(methods):
        part, line = (table[table["method"] == method] for table in (rows, means))
        if len(part):
            color = COLORS[method]
            axes.plot(part["value"], np.full(len(part), y + 0.27), color=color,
                      label=f"{method} seeds", **_SEED)  # fmt: skip
            axes.hlines(y, line["low"], line["high"], color=color, linewidth=0.9)
            axes.plot(
                line["mean"], [y], marker=MARKERS[method], markersize=4.5, color=color,
                markeredgecolor="white", markeredgewidth=0.5, label=method,
            )  # fmt: skip
    _name_methods(axes, methods)
    return means


def _name_methods(axes: Axes, methods: list[str]) -> None:
    name_rows(axes, [LABELS[method] for method in methods])
    for text, method in zip(axes.get_yticklabels(), methods, strict=False):
        text.set_color(readable(COLORS[method]))


def titles(panels: dict[str, Axes]) -> None:
    """Write the methods' names over their panels, in two lines where one is too short."""
    names = {method: textwrap.fill(LABELS[method], 16) for method in panels}
    for method, axes in panels.items():
        header(axes, names[method], color=readable(COLORS[method]))
    figure = next(iter(panels.values())).figure
    across = max(axes.get_subplotspec().colspan.start for axes in panels.values()) + 1
    tall = {index // across for index, name in enumerate(names.values()) if "\n" in name}
    figure.set_figheight(figure.get_figheight() + 0.15 * len(tall))
