"""The explorer's figure of activations and gradients: one line per network, layer by layer."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from normkit.plots.marks import GREY, end_labels, finish, layer_ticks, picture, readable
from normkit.plots.regularization_panels import unmeasured, value_ticks
from normkit.plots.style import COLORS, MARKERS, PAGE, Picture, style
from normkit.plots.tables import choose, require

__all__ = ["MEASURES", "by_layer"]

MEASURES = {
    "activation_variance": "activation variance",
    "stable_rank": "stable rank of activations",
    "cosine_similarity": "mean cosine similarity of images",
    "gradient_norm": "gradient norm",
}
_LOG = ("activation_variance", "gradient_norm")
_BEFORE, _LONGEST = "#CDCDCD", 44


@style()
def by_layer(
    table: pd.DataFrame, *, measure: str, legend: bool = False, note: str = ""
) -> Picture:
    """A measure of a batch of images at every layer, one line per network.

    In plain words: what is looked at now is in color, what was looked at before thin and grey.
    Variance and gradient norm have a logarithmic axis.

    Source: the measures are those of Lubana et al., "Beyond BatchNorm", NeurIPS 2021,
    https://arxiv.org/abs/2106.05956. Deviation: the figure is ours.

    Arguments:
        table: columns line (its name), method (which gives the color; "" was looked at before),
            layer, position (from 1), value.
        measure: of `MEASURES`.
        legend: name the lines over the figure, where they may end far apart.
        note: a short grey line at the bottom.

    Raises:
        ValueError: a column is missing, there is nothing to draw, a method or the measure is
            unknown, or no value can be drawn.

    Example:
        >>> table = pd.DataFrame({"line": "mine", "method": "plain", "layer": ["a", "b"],
        ...     "position": [1, 2], "value": [9.0, 3.0]})
        >>> by_layer(table, measure="stable_rank").axes[0].lines[0].get_ydata().tolist()
        [9.0, 3.0]
    """
    choose("measure", measure, MEASURES)
    rows = require(table, ["line", "method", "layer", "position", "value"])
    log = measure in _LOG
    measured = np.isfinite(rows["value"]) & ((rows["value"] > 0) | (not log))
    require(rows[measured], ["value"], name="table, of values that can be drawn,")
    axes, ends = picture(PAGE, 2.7).subplots(), []
    for name, line in rows.assign(value=rows["value"].where(measured)).groupby("line", sort=False):
        _draw(axes, line)
        last = line[line["value"].notna()].tail(1)
        places = last[["position", "value"]].itertuples(index=False, name=None)
        ends += [(*place, _short(str(name)), _color(line)) for place in places]
    layer_ticks(axes, rows["position"])
    axes.set(xlabel="layer, first to last", ylabel=MEASURES[measure] + " (log scale)" * log)
    _limits(axes, measure)
    if legend:
        _legend(axes.figure, {name: color for _, _, name, color in ends}, axes.lines)
    else:
        end_labels(axes, ends)
    return finish(axes.figure, note, unmeasured(measured, "Not finite, or not above 0"))


def _legend(figure: Picture, names: dict[str, str], lines: list[Line2D]) -> None:
    """Name the lines over the figure, in their colors."""
    made = figure.legend(lines, list(names), loc="outside upper left", ncols=len(names))
    for text, color in zip(made.get_texts(), names.values(), strict=True):
        text.set_color(readable(color))


def _color(line: pd.DataFrame) -> str:
    method = line["method"].iloc[0]
    return COLORS[choose("method", method, COLORS)] if method else GREY


def _draw(axes: Axes, line: pd.DataFrame) -> None:
    method = line["method"].iloc[0]
    if not method:
        axes.plot(line["position"], line["value"], color=_BEFORE, linewidth=0.8, zorder=1)
        return
    every = max(1, round(len(line) / 20))
    axes.plot(
        line["position"], line["value"], color=_color(line), marker=MARKERS[method], zorder=3,
        markevery=every, markeredgecolor="white", markeredgewidth=0.4, markersize=4.2,
    )  # fmt: skip


def _limits(axes: Axes, measure: str) -> None:
    """Leave a range in which small wiggles look small."""
    low, high = axes.dataLim.intervaly
    if measure in _LOG:
        axes.set_yscale("log")
        middle, half = np.sqrt(low * high), max(np.sqrt(high / low) * 1.15, 3.0)
        axes.set_ylim(middle / half, middle * half)
        if half < 30:
            value_ticks(axes)
        axes.yaxis.set_minor_locator(NullLocator())
    elif measure == "stable_rank":
        axes.set_ylim(0.5, max(4.0, 1.06 * high))
    else:
        axes.set_ylim(min(0.0, low - 0.05), 1.04)


def _short(name: str) -> str:
    """The beginning of a long name.

    Example:
        >>> _short("x" * 60) == "x" * 43 + "\N{HORIZONTAL ELLIPSIS}"
        True
    """
    return name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "\N{HORIZONTAL ELLIPSIS}"
