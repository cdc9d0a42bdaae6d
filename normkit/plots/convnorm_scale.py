"""The figure that sets ConvNorm's effects side by side: on digits, on CIFAR-10, as published."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from normkit.plots.enorm_panels import name_rows
from normkit.plots.marks import finish, header, picture
from normkit.plots.regularization_panels import once
from normkit.plots.style import COLUMN, PAGE, Picture, style
from normkit.plots.tables import choose, require

__all__ = ["scale"]

_PLACES = ["digits", "CIFAR-10", "paper"]
_INK, _PALE = "#111111", "#A6A6A6"
_AWAY, _NEAR, _PAPER = "interval on one side of 0", "interval across 0, or none", "paper"
_LOOKS = {_AWAY: (_INK, _INK), _NEAR: (_PALE, _PALE), _PAPER: (_INK, "white")}
_DOT = {"linestyle": "", "marker": "o", "markersize": 4, "markeredgewidth": 0.7}


@style()
def scale(table: pd.DataFrame, *, note: str = "") -> Picture:
    """Effect of every part of every claim, on digits, on CIFAR-10 and in the paper.

    In plain words: a mark is an effect, the bar its 95 % interval; grey ones cannot be told from
    0, the line. Published effects are open marks. What was not run has no mark. Each panel has
    its own range.

    Source: Liu et al., "Convolutional Normalization", NeurIPS 2021,
    https://arxiv.org/abs/2103.00673.
    Deviation: the figure is ours.

    Arguments:
        table: columns claim, part (of a claim; both in the order in which they come), place
            ("digits", "CIFAR-10" or "paper"), effect, low, high (differences of accuracies in
            [0, 1]; low and high are nan where there is no interval, effect too if it was not
            run).
        note: a short grey line at the bottom.

    Raises:
        ValueError: a column is missing, there is nothing to draw, a place is unknown, or a part
            of a claim occurs twice at a place.

    Example:
        >>> table = pd.DataFrame({"claim": "noise", "part": "at 40 %", "effect": [0.25, 0.5],
        ...     "place": ["digits", "paper"], "low": [0.125, None], "high": [0.375, None]})
        >>> [axes.lines[-1].get_xdata().tolist() for axes in scale(table).axes]
        [[25.0], [50.0]]
    """
    rows = require(table, ["claim", "part", "place", "effect", "low", "high"])
    found = {choose("place", place, _PLACES) for place in rows["place"].unique()}
    rows = once(rows, ["claim", "part", "place"], name="table")
    names, at = _names(rows)
    places = [place for place in _PLACES if place in found]
    figure, used = picture(COLUMN if len(places) == 1 else PAGE, 0.85 + 0.165 * len(names)), set()
    grid = figure.subplots(1, len(places), squeeze=False, sharey=True)[0]
    for axes, place in zip(grid, places, strict=True):
        part = rows[(rows["place"] == place) & np.isfinite(rows["effect"])]
        marks = part.assign(y=[at[key] for key in zip(part["claim"], part["part"], strict=True)])
        used |= _effects(axes, marks.sort_values("y"), place)
        name_rows(axes, names)
        header(axes, place)
        axes.set_xlabel("effect, points")
        for row in sorted(set(range(len(names))) - set(at.values())):
            axes.yaxis.get_gridlines()[row].set_visible(False)
    heads = set(range(len(names))) - set(at.values()) | {at[key] for key in at if not key[1]}
    for row in heads:
        grid[0].get_yticklabels()[row].set(fontweight="bold", color=_INK)
    handles = [
        Line2D([], [], label=look, **_DOT, color=color, markerfacecolor=face)
        for look, (color, face) in _LOOKS.items()
        if look in used
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=3)
    return finish(figure, "Bar: 95 % interval. Each panel has its own range.", note)


def _names(rows: pd.DataFrame) -> tuple[list[str], dict[tuple[str, str], int]]:
    """Return the names of the lines, a claim's over those of its parts, and each part's line."""
    names, at = [], {}
    for claim, part in rows.groupby("claim", sort=False):
        if any(part["part"]):
            names.append(str(claim))
        for key in dict.fromkeys(part["part"]):
            at[claim, key] = len(names)
            names.append(str(key) or str(claim))
    return names, at


def _effects(axes: Axes, rows: pd.DataFrame, place: str) -> set[str]:
    """Draw the effects of a place around a line at 0, and return which looks they have."""
    axes.axvline(0, color="#888888", linewidth=0.6, zorder=0)
    away = (rows["low"] > 0) | (rows["high"] < 0)
    looks = np.where(place == "paper", _PAPER, np.where(away, _AWAY, _NEAR))
    for look, (color, face) in _LOOKS.items():
        part = rows[looks == look]
        if len(part):
            x = 100 * part[["effect", "low", "high"]]
            axes.hlines(part["y"], x["low"], x["high"], color=color, linewidth=0.9)
            axes.plot(
                x["effect"], part["y"], color=color, markerfacecolor=face, label=look, **_DOT
            )
    axes.margins(x=0.08)
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    return set(looks)
