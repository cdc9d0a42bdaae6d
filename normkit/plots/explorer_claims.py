"""Figure of the explorer: the verdict on a claim as it was, beside that with other settings."""

import textwrap

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from normkit.plots.marks import GREY
from normkit.plots.style import COLORS, Picture, style
from normkit.plots.tables import choose, require

__all__ = ["verdicts"]

_INK = COLORS["batch"]
_WIDTH, _ROW, _LETTERS = 6.5, 0.26, 47
_NAMES, _PANEL, _GAP, _ABOVE, _BELOW = 2.3, 1.95, 0.2, 0.62, 0.52  # inches
_STATES = {"before": "Before", "now": "Now"}
_MARKS = {  # and whether they are full
    "reproduced": ("o", True),
    "not separable": ("o", False),
    "contradicted": ("X", True),
    "not run": ("x", True),
}
_AGAINST = "#F0F0F0"
_COLUMNS = ["state", "judged", "profile", "part", "verdict", "effect", "low", "high", "n"]
_COLUMNS += ["least", "most", "decides"]


@style()
def verdicts(table: pd.DataFrame, *, note: str = "") -> Picture:
    """Every part of a claim, its effect and interval, under two settings side by side.

    In plain words: a row is one comparison. The claimed side is the white one; an interval that
    lies on it whole reproduces the part (full dot), one across its edge decides nothing (open
    dot), one on the grey side contradicts it (cross). A claim stands if all of its parts do; the
    part that decided has a dark interval.

    Arguments:
        table: columns state (before or now), judged (the claim's verdict), profile, part, verdict,
            effect, low, high, n, least and most (the edges of the claimed side), decides.
        note: a short grey line at the bottom.

    Raises:
        ValueError: a column is missing, there is nothing to draw, or a state or a verdict is
            unknown.

    Example:
        >>> row = {"judged": "reproduced", "profile": "quick", "part": "gap", "n": 3, "least": 0.0,
        ...     "verdict": "reproduced", "effect": 0.2, "low": 0.1, "high": 0.3,
        ...     "most": float("inf"), "decides": True}
        >>> figure = verdicts(pd.DataFrame([{"state": "before", **row}, {"state": "now", **row}]))
        >>> [axes.get_title(loc="left") for axes in figure.axes]
        ['Before: reproduced', 'Now: reproduced']
    """
    rows = require(table, _COLUMNS)
    for state in rows["state"].unique():
        choose("state", state, _STATES)
    for verdict in rows["verdict"].unique():
        choose("verdict", verdict, _MARKS)
    parts, span = list(dict.fromkeys(rows["part"])), _span(rows)
    figure, both = _frame(len(parts))
    for axes, state in zip(both, _STATES, strict=True):
        _panel(axes, rows[rows["state"] == state], parts, span, _STATES[state])
        axes.set(xlim=span, ylim=(len(parts) - 0.5, -0.5), yticks=[], xlabel="effect")
        axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    for place, part in enumerate(parts):
        lines = textwrap.wrap(part, _LETTERS)[:2] or ["no part was judged yet"]
        both[0].annotate("\n".join(lines), (0, place), (0.05 * 72, 0), va="center", fontsize=6,
                         xycoords=("figure fraction", "data"), textcoords="offset points",
                         annotation_clip=False)  # fmt: skip
    _legend(figure, {*rows["verdict"][np.isfinite(rows["effect"])]})
    said = "Effect in each part's units. Bar: 95 % t interval, or the errors of an identity."
    figure.text(0.05 / _WIDTH, 0.05 / figure.get_figheight(), f"{said} {note}".strip(),
                fontsize=6, color=GREY)  # fmt: skip
    return figure


def _frame(count: int) -> tuple[Picture, list[Axes]]:
    """An empty figure with a column for the names of that many parts, and two panels."""
    height = _ABOVE + _BELOW + _ROW * count
    figure = Picture(figsize=(_WIDTH, height))
    lefts = (_NAMES, _NAMES + _PANEL + _GAP)
    boxes = [(x / _WIDTH, _BELOW / height, _PANEL / _WIDTH, _ROW * count / height) for x in lefts]
    return figure, [figure.add_axes(box) for box in boxes]


def _span(rows: pd.DataFrame) -> tuple[float, float]:
    """From where to where both x axes go: every effect, interval and edge is seen."""
    values = rows[["effect", "low", "high", "least", "most"]].to_numpy(dtype=float)
    values = np.append(values[np.isfinite(values)], 0.0)
    low, high = values.min(), values.max()
    margin = 0.06 * (high - low) or 1.0
    return low - margin, high + margin


def _panel(
    axes: Axes, rows: pd.DataFrame, parts: list[str], span: tuple[float, float], name: str
) -> None:
    """Draw one state's parts over the sides that contradict them."""
    judged = rows["judged"].iloc[0] if len(rows) else "not run"
    counts = rows.loc[rows["n"] > 0, "n"]
    label = "no runs with these settings yet"
    if len(counts):
        ends = " to ".join(map(str, dict.fromkeys([counts.min(), counts.max()])))
        label = f"{rows['profile'].iloc[0]}; n = {ends}"
    lines = textwrap.wrap(label, 38)
    axes.set_title(f"{name}: {judged}", pad=5 + 8 * len(lines))
    axes.annotate("\n".join(lines), (0, 1), (0, 4), xycoords="axes fraction", color=GREY,
                  textcoords="offset points", fontsize=6.5, linespacing=1.1)  # fmt: skip
    axes.spines["left"].set_visible(False)
    axes.axvline(0, color=GREY, linewidth=0.8, zorder=1)
    places = rows.assign(place=[parts.index(part) for part in rows["part"]])
    _sides(axes, places, span)
    _effects(axes, places[np.isfinite(places["effect"])])


def _sides(axes: Axes, rows: pd.DataFrame, span: tuple[float, float]) -> None:
    """Shade what is against the claim, row by row."""
    boxes = [
        [(left, y - 0.42), (right, y - 0.42), (right, y + 0.42), (left, y + 0.42)]
        for y, least, most in rows[["place", "least", "most"]].itertuples(index=False)
        for left, right in ((span[0], least), (most, span[1]))
        if left < right
    ]
    axes.add_collection(PolyCollection(boxes, facecolors=_AGAINST, linewidths=0, zorder=0))


def _effects(axes: Axes, rows: pd.DataFrame) -> None:
    """Draw every interval, and its effect with the mark of its verdict."""
    colors = np.where(rows["decides"], _INK, GREY)
    axes.hlines(rows["place"], rows["low"], rows["high"], colors=colors, linewidth=1.1, zorder=2)
    for (verdict, decides), part in rows.groupby(["verdict", "decides"], sort=False):
        color, (marker, full) = _INK if decides else GREY, _MARKS[verdict]
        axes.plot(part["effect"], part["place"], linestyle="", marker=marker, markersize=4,
                  markeredgecolor=color, markerfacecolor=color if full else "white",
                  zorder=3)  # fmt: skip


def _legend(figure: Picture, shown: set[str]) -> None:
    """Name the marks that are there, and the shade."""
    handles = [
        Line2D([], [], linestyle="", marker=marker, markersize=4, label=name,
               markeredgecolor=_INK, markerfacecolor=_INK if full else "white")
        for name, (marker, full) in _MARKS.items()
        if name in shown
    ]  # fmt: skip
    side = {"marker": "s", "color": "#DDDDDD", "markersize": 6}
    handles.append(Line2D([], [], linestyle="", label="against the claim", **side))
    figure.legend(handles=handles, loc="upper left", ncols=len(handles), borderaxespad=0.4)
