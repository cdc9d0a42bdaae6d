"""The panels of the figures about balancing itself: paths, changes, units, times."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter, NullLocator

from normkit.plots.enorm_panels import beside, name_rows
from normkit.plots.marks import GREY, end_labels, points
from normkit.plots.style import COLORS, LABELS, MARKERS, Picture

__all__ = [
    "DEEP", "MODES", "ROUNDING", "VARIANTS", "changes", "name_balance", "name_groups",
    "name_modes", "name_rounding", "off_line", "paths", "scatter", "times", "zero_ticks",
]  # fmt: skip

ROUNDING, DEEP = 1e-16, 1e-10
VARIANTS = {"paper": "enorm", "released": "released_enorm"}
MODES = {
    "no BatchNorm": ("batch", "no BatchNorm"),
    "rescale": ("enorm", "BatchNorm rescaled too"),
    "ignore": ("released_enorm", "BatchNorm left as it is"),
}
_DOTS = {"linestyle": "", "markeredgecolor": "white", "markeredgewidth": 0.4}


def paths(axes: Axes, rows: pd.DataFrame, *, deep: bool) -> None:
    """Draw one thin line per variant and start, its end marked; where lines are as deep as
    rounding, a dotted line there."""
    axes.set_yscale("log")
    for name, key in VARIANTS.items():
        for start, line in rows[rows["variant"] == name].groupby("start"):
            axes.plot(
                line["cycle"], line["value"], color=COLORS[key], linewidth=0.7, alpha=0.8,
                marker=MARKERS[key], markevery=[-1], markersize=2.8, label=f"{name} {start}",
            )  # fmt: skip
    if deep:
        axes.axhline(ROUNDING, color="#888888", linestyle=":", linewidth=0.8, zorder=0)
        axes.set_ylim(bottom=ROUNDING / 300)  # room for a word below the line
    axes.yaxis.set_major_locator(LogLocator(base=1e4 if deep else 1e2, numticks=9))
    axes.yaxis.set_minor_locator(NullLocator())


def name_rounding(axes: Axes) -> None:
    """Say what the dotted line is."""
    axes.annotate(
        "rounding", (0.02, ROUNDING), (0, -2), xycoords=axes.get_yaxis_transform(),
        textcoords="offset points", fontsize=6, color=GREY, va="top",
    )  # fmt: skip


def changes(axes: Axes, rows: pd.DataFrame, names: list[str], zero: float) -> None:
    """Draw one mark per change, in the row of its network; changes of 0 at `zero`."""
    axes.set_xscale("log")
    for index, (mode, (key, _)) in enumerate(MODES.items()):
        part = rows[rows["mode"] == mode]
        if len(part):
            axes.plot(
                part["change"].where(part["change"] > 0, zero),
                part["network"].map(names.index) + 0.22 * (index - 1),
                color=COLORS[key], marker=MARKERS[key], markersize=4, label=mode, **_DOTS,
            )  # fmt: skip
    name_rows(axes, names)


def zero_ticks(axes: Axes, zero: float, *, exact: bool) -> None:
    """Put the x axis's ticks at decades, and one named 0 at `zero` if a change is 0."""
    low, high = axes.get_xlim()
    decades = LogLocator(numticks=7).tick_values(low, high)
    ticks = [tick for tick in decades if tick > (30 * zero if exact else low) and tick < high]
    names = [f"$10^{{{round(np.log10(tick))}}}$" for tick in ticks]
    axes.set_xticks([zero] * exact + ticks, ["0"] * exact + names)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(low, high)


def name_modes(figure: Picture, modes: set[str]) -> None:
    """Say over the figure what was done with BatchNorm."""
    handles = [
        Line2D([], [], color=COLORS[key], marker=MARKERS[key], label=label, **_DOTS)
        for mode, (key, label) in MODES.items()
        if mode in modes
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=len(handles))


def plain_ticks(axis: Axis) -> None:
    """Let a logarithmic axis say the values themselves, at 1, 2 and 5 unless it is long."""
    low, high = axis.get_view_interval()
    decades = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    ticks = np.outer(decades, (1, 2, 5) if high < 100 * low else (1,)).ravel()
    ticks = ticks[(ticks >= low) & (ticks <= high)]
    axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.set_minor_formatter(NullFormatter())


def scatter(
    axes: Axes, rows: pd.DataFrame, colors: dict[str, str], c: float, ends: tuple[float, float]
) -> None:
    """Draw a dot per unit, and the line on which the outgoing norm is c times the incoming."""
    axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends, xlabel="norm of incoming weights")
    axes.set_box_aspect(1)
    for axis in (axes.xaxis, axes.yaxis):
        plain_ticks(axis)
    for group, color in colors.items():
        part = rows[rows["group"] == group]
        axes.plot(
            part["incoming"], part["outgoing"], linestyle="", marker="o", markersize=2.4,
            markeredgewidth=0, alpha=0.7, color=color, label=str(group),
        )  # fmt: skip
    line = np.array(ends)
    axes.plot(line, c * line, color="#888888", linewidth=0.7, zorder=0.5, label="balanced")


def name_balance(axes: Axes, c: float) -> None:
    """Write along the line, at its upper end, what it stands for."""
    shift = np.log(c) / np.ptp(np.log(axes.get_xlim()))
    text, end = "outgoing = " + f"{c:g} " * (c != 1) + "incoming", min(0.97, 0.97 - shift)
    axes.annotate(
        text, (end, end + shift),
        (-3, 3), xycoords="axes fraction", textcoords="offset points", rotation=45, ha="right",
        va="bottom", rotation_mode="anchor", fontsize=6, color=GREY,
    )  # fmt: skip


def off_line(rows: pd.DataFrame, c: float) -> str:
    """Say how far the norms are off the line at most.

    Example:
        >>> rows = pd.DataFrame({"incoming": [1.0, 1.0], "outgoing": [0.5, 4.0]})
        >>> off_line(rows, 1.0)
        'at most a factor of 4 off the line'
        >>> off_line(rows.assign(outgoing=1 + 3e-7), 1.0)
        'at most a factor of 1 + 3e-07 off the line'
    """
    logs = np.log(rows["outgoing"] / (c * rows["incoming"]))
    more = np.expm1(logs.abs().max())
    if more < 1e-2:
        return f"at most a factor of 1 + {more:.0e} off the line" if more else "all on the line"
    return f"at most a factor of {1 + more:.3g} off the line"


def name_groups(figure: Picture, colors: dict[str, str]) -> None:
    """Say over the figure which color is which pair of layers; the ends only, of many."""
    names = {str(group): color for group, color in colors.items()}
    if len(names) > 6:
        first, last = list(names)[0], list(names)[-1]
        names = {f"first: {first}": names[first], f"last: {last}": names[last]}
    handles = [
        Line2D([], [], linestyle="", marker="o", color=color, label=name)
        for name, color in names.items()
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=len(handles))


def times(axes: Axes, rows: pd.DataFrame, methods: list[str]) -> None:
    """Draw medians with bars from least to most, on a log axis, linear around 0 if need be."""
    by = rows.groupby(["method", "batch_size"])["value"]
    middle = by.agg(mean="median", low="min", high="max").reset_index()
    ends = []
    for index, method in enumerate(methods):
        line = middle[middle["method"] == method]
        points(axes, "batch_size", line, COLORS[method], MARKERS[method], method)
        beside(axes, index, len(methods))
        ends.append((*line.iloc[-1][["batch_size", "mean"]], LABELS[method], COLORS[method]))
    if middle["low"].min() > 0:
        axes.set_yscale("log")
        plain_ticks(axes.yaxis)
    else:
        noise = max(-middle["low"].min(), 1e-3 * middle["high"].max()) or 1.0
        edge = 10 ** np.ceil(np.log10(noise))
        axes.set_yscale("symlog", linthresh=edge, linscale=0.4)
        for y in (-edge, edge):
            axes.axhline(y, color="#888888", linestyle=":", linewidth=0.5, zorder=0)
    axes.yaxis.set_major_formatter("{x:g}")
    end_labels(axes, ends)
