"""The marks that figures share: panels, lines with bands, labels, the lines at the bottom."""

import textwrap
from collections.abc import Iterable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullFormatter, NullLocator
from scipy.optimize import isotonic_regression
from seaborn import color_palette

from normkit.plots.style import COLORS, LABELS, MARKERS, Picture

__all__ = [
    "GREY", "band", "count", "end_labels", "evidence", "finish", "header", "keys", "layer_ticks", 
    "log_ticks", "panels", "picture", "points", "readable", "shades", "two_powers",
]  # fmt: skip

GREY = "#767676"
_END = "end label"


def picture(width: float, height: float) -> Picture:
    """Return an empty figure of that many inches, laid out so that nothing is clipped."""
    return Picture(figsize=(width, height), layout="constrained")


def panels(
    figure: Picture, number: int, rows: int = 1, *, height_ratios: list[float] | None = None,
    sharex: bool = False, sharey: bool = False,
) -> np.ndarray:  # fmt: skip
    """Return `number` columns of `rows` axes each, two columns side by side."""
    across = min(2, number)
    down = -(-number // across)
    axes = figure.subplots(
        rows * down, across, squeeze=False, sharex=sharex, sharey=sharey,
        height_ratios=height_ratios,
    )  # fmt: skip
    axes = axes.reshape(down, rows, across).swapaxes(1, 2).reshape(-1, rows)
    for spare in axes[number:].ravel():
        spare.remove()
    return axes[:number]


def count(numbers: Iterable[int], what: str) -> str:
    """Say how many: one number, or the range of several.

    Example:
        >>> count([3, 3], "seed"), count([2, 3], "seed"), count([1], "seed")
        ('3 seeds', '2 to 3 seeds', '1 seed')
    """
    low, high = min(numbers), max(numbers)
    number = f"{low}" if low == high else f"{low} to {high}"
    return f"{number} {what}{'s' * (high != 1)}"


def readable(color: str) -> str:
    """Return the color, darkened as far as small letters on white need (contrast 3.5 to 1).

    Example:
        >>> readable("#332288"), readable("#BBBBBB")
        ('#332288', '#868686')
    """
    rgb = np.array(to_rgb(color))
    while 1.05 / (np.dot([0.2126, 0.7152, 0.0722], rgb**2.2) + 0.05) < 3.5:
        rgb *= 0.97
    return to_hex(rgb)


def evidence(mean: str, mark: str, seeds: Iterable[int]) -> str:
    """Say what is averaged over how many seeds, and which mark is the interval.

    Example:
        >>> evidence("Mean", "Bar", [3, 3])
        'Mean over 3 seeds. Bar: 95 % t interval.'
        >>> evidence("Mean", "Bar", [2])
        'Mean over 2 seeds: too few for an interval.'
    """
    over = f"{mean} over {count(seeds, 'seed')}"
    if max(seeds) < 3:
        return f"{over}: too few for an interval."
    return f"{over}. {mark}: 95 % t interval{', from 3 seeds on' * (min(seeds) < 3)}."


def header(
    axes: Axes, title: str, line: str = "", *, above: float = 0, color: str = "#111111"
) -> None:
    """Write a bold title and one grey line under it, `above` points over the panel."""
    axes.set_title(title, pad=above + (13 if line else 4), color=color)
    if line:
        axes.annotate(
            line, (0, 1), (0, above + 4), xycoords="axes fraction",
            textcoords="offset points", color=GREY, fontsize=6.5,
        )  # fmt: skip


def keys(figure: Picture, methods: list[str], *, rows: int = 1) -> None:
    """Name the methods in one line, or in several, over the whole figure."""
    handles = [
        Line2D([], [], color=COLORS[m], marker=MARKERS[m], linewidth=0.9, label=LABELS[m])
        for m in methods
    ]
    across = -(-len(methods) // rows)
    legend = figure.legend(handles=handles, loc="outside upper left", ncols=across)
    for text, method in zip(legend.get_texts(), methods, strict=True):
        text.set_color(readable(COLORS[method]))


def shades(keys: list[float], palette: str) -> dict[float, str]:
    """Return one color per key along a palette: "crest" for depth or time, "flare" for groups.

    Example:
        >>> len(set(shades([1, 2, 4], "flare").values()))
        3
    """
    ramp = color_palette(palette, as_cmap=True)
    steps = np.linspace(0.05, 0.95, len(keys)) if len(keys) > 1 else [0.6]
    return {key: to_hex(ramp(step)) for key, step in zip(keys, steps, strict=True)}


def band(axes: Axes, x: str, summary: pd.DataFrame, color: str, marker: str, label: str) -> None:
    """Draw the means as a line with sparse markers, and the interval as a band behind it."""
    every = max(1, round(len(summary) / 7))
    axes.fill_between(
        summary[x], summary["low"], summary["high"], color=color, alpha=0.18, linewidth=0
    )
    axes.plot(
        summary[x], summary["mean"], color=color, marker=marker, markevery=every,
        markeredgecolor="white", markeredgewidth=0.4, label=label,
    )  # fmt: skip


def points(axes: Axes, x: str, summary: pd.DataFrame, color: str, marker: str, label: str) -> None:
    """Draw the means as marked points on a line, and the interval as a bar through each."""
    axes.vlines(summary[x], summary["low"], summary["high"], color=color, linewidth=0.9)
    axes.plot(
        summary[x], summary["mean"], color=color, marker=marker, label=label,
        markeredgecolor="white", markeredgewidth=0.4,
    )  # fmt: skip


def log_ticks(axes: Axes) -> None:
    """Make the x axis logarithmic with ticks that say the value itself, three of them at least.

    To be called when the data are drawn: the ticks depend on the range.
    """
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    decades = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    for steps in ([1], [1, 2, 5], [1, 1.5, 2, 3, 5, 7]):
        ticks = np.outer(decades, steps).ravel()
        ticks = ticks[(ticks >= low) & (ticks <= high)]
        if len(ticks) >= 3:
            break
    else:
        ticks = MaxNLocator(3, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlim(low, high)


def two_powers(axes: Axes, names: dict[float, str]) -> None:
    """Make the x axis logarithmic to base 2 with a tick, and a name under it, at each value."""
    axes.set_xscale("log", base=2)
    below = "\n{}" if any(names.values()) else ""
    ticks = [f"{value:g}{below.format(name or ' ')}" for value, name in names.items()]
    axes.set_xticks(list(names), ticks)
    axes.xaxis.set_minor_locator(NullLocator())


def layer_ticks(axes: Axes, positions: Iterable[int]) -> None:
    """Put ticks at the first layer, and at round numbers up to the last."""
    first, last = min(positions), max(positions)
    steps = MaxNLocator(4, integer=True, steps=[1, 2, 5, 10]).tick_values(first, last)
    axes.set_xticks([first, *(step for step in steps if first + 1 < step <= last)])


def end_labels(axes: Axes, ends: list[tuple[float, float, str, str]]) -> None:
    """Label lines at their right ends: (x, y, text, color) each; `finish` moves them apart."""
    for x, y, text, color in ends:
        axes.annotate(
            text, (x, y), (10, 0), textcoords="offset points", color=readable(color), fontsize=6.5,
            va="center", gid=_END, annotation_clip=False,
            arrowprops={
                "arrowstyle": "-", "color": color, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 2,
                "relpos": (0, 0.5),
            },
        )  # fmt: skip


def _spread(axes: Axes) -> None:
    """Align the direct labels, and move them up and down as little as keeps them legible."""
    labels = [text for text in axes.texts if text.get_gid() == _END]
    if not labels:
        return
    scale = 72 / axes.figure.dpi
    x, y = scale * np.array([axes.transData.transform(text.xy) for text in labels]).T
    order, gap = np.argsort(y, kind="stable"), 7.6 * np.arange(len(y))
    low, high = axes.bbox.y0 * scale + 2, axes.bbox.y1 * scale
    free = np.clip(isotonic_regression(y[order] - gap).x, low, max(low, high - gap[-1]))
    for index, place in zip(order, free + gap, strict=True):
        labels[index].xyann = (x.max() - x[index] + 10, place - y[index])


def finish(figure: Picture, *sentences: str) -> Picture:
    """Write the grey lines at the bottom, lay the figure out once and for all, and return it.

    The layout is then fixed, so that the same figure gives the same bytes however often it is
    drawn.
    """
    letters = int(figure.get_figwidth() * 72 / 3.35)
    lines = [line for text in sentences if text for line in textwrap.wrap(text, letters)]
    if lines:
        figure.supxlabel("\n".join(lines), x=0.01, ha="left", fontsize=6, color=GREY)
    layout = figure.get_layout_engine()
    layout.execute(figure)
    for axes in figure.axes:
        _spread(axes)
    layout.execute(figure)
    figure.set_layout_engine("none")
    return figure
