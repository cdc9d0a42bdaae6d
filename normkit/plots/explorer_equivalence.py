"""The explorer's figure of equi-normalization: norms of layers before and now, and energy."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from normkit.plots.marks import GREY, finish, layer_ticks, picture, readable
from normkit.plots.regularization_panels import unmeasured, value_ticks
from normkit.plots.style import COLORS, PAGE, Picture, style
from normkit.plots.tables import require

__all__ = ["balance"]

_BEFORE, _NOW = COLORS["none"], COLORS["enorm"]
_MARKERS = {"weight": "o", "scale": "D"}
_DOTS = {"linestyle": "", "markeredgewidth": 0.4}


@style()
def balance(
    table: pd.DataFrame, *, cycle: int, p: float = 2, last: int = 30, note: str = ""
) -> Picture:
    """Norms of layers before and after cycles of balancing, and the energy of every cycle.

    In plain words: on the left a line leads from each layer's norm before to the one now; on the
    right the energy, of which the ring is now.

    Source: Stock, Graham, Gribonval and Jegou, "Equi-normalization of neural networks", ICLR
    2019, https://arxiv.org/abs/1902.10416. Deviation: the figure is ours.

    Arguments:
        table: columns cycle, layer, kind ("weight", or "scale" of a normalization), measure
            ("norm" at cycle 0 and at `cycle`, "energy"), value.
        cycle: which is now.
        p: of the norms.
        last: cycle at the right end of the axis.
        note: a short grey line at the bottom.

    Raises:
        ValueError: a column is missing, there is nothing to draw, or no energy of the cycle.

    Example:
        >>> table = pd.DataFrame({"cycle": [0, 1, 0, 1], "layer": ["a", "a", "", ""],
        ...     "kind": "weight", "measure": ["norm"] * 2 + ["energy"] * 2,
        ...     "value": [4.0, 2.0, 20.0, 10.0]})
        >>> balance(table, cycle=1).axes[1].lines[0].get_ydata().tolist()
        [100.0, 50.0]
    """
    columns = ["cycle", "layer", "kind", "measure", "value"]
    norms, energy = (require(table, columns, measure=name) for name in ("norm", "energy"))
    norms, energy = (rows.sort_values("cycle", kind="stable") for rows in (norms, energy))
    if cycle not in set(energy["cycle"]):
        raise ValueError(f"table has no energy of cycle {cycle}: it has {len(energy)} cycles")
    measured = np.isfinite(norms["value"]) & (norms["value"] > 0)
    norms = require(norms[measured], ["value"], name="table, of norms above zero,")
    figure = picture(PAGE, 2.6)
    left, right = figure.subplots(1, 2, width_ratios=(1.9, 1))
    _norms(left, norms, cycle)
    left.set_xlabel("layer, first to last")
    left.set_ylabel(rf"$\ell_{{{p:g}}}$ norm of weights (log scale)")
    _energy(right, energy.set_index("cycle")["value"], cycle, last)
    kinds = _legend(figure, set(norms["kind"]), cycle)
    return finish(figure, f"{note} {kinds}", unmeasured(measured, "Zero or not finite"))


def _norms(axes: Axes, rows: pd.DataFrame, cycle: int) -> None:
    """Draw a line from before to now for each layer, and a dot at each end."""
    places = {name: x for x, name in enumerate(dict.fromkeys(rows["layer"]), start=1)}
    axes.set_yscale("log")
    both = rows.groupby("layer", sort=False)["value"].agg(["first", "last"])
    axes.vlines(
        both.index.map(places), both["first"], both["last"], color=readable(_NOW), linewidth=0.9,
        alpha=0.6, zorder=1,
    )  # fmt: skip
    size = 4.2 if len(places) <= 25 else 3.0
    for when, color in ((0, _BEFORE), (cycle, _NOW)):
        for kind, marker in _MARKERS.items():
            part = rows[(rows["cycle"] == when) & (rows["kind"] == kind)]
            axes.plot(
                part["layer"].map(places), part["value"], color=color, marker=marker,
                markeredgecolor="white", markersize=size * (0.8 if kind == "scale" else 1),
                zorder=2 + (when > 0), label=f"{kind} {when}", **_DOTS,
            )  # fmt: skip
    if len(places) > 12:
        layer_ticks(axes, places.values())
    else:
        axes.set_xticks(list(places.values()))
    axes.set_xlim(0.4, len(places) + 0.6)
    low, high = axes.dataLim.intervaly
    middle, half = np.sqrt(low * high), max(1.25 * np.sqrt(high / low), 1.6)
    axes.set_ylim(middle / half, middle * half)
    if half < 30:
        value_ticks(axes)
    axes.yaxis.set_minor_locator(NullLocator())


def _energy(axes: Axes, energy: pd.Series, cycle: int, last: int) -> None:
    """Draw the energy in percent of that before, and mark the one that is now."""
    share = 100 * energy / energy.loc[0] if energy.loc[0] else 100 * energy
    axes.plot(share.index, share, color=_NOW, marker="o", markersize=2.2, markeredgewidth=0)
    axes.plot(
        [cycle], [share.loc[cycle]], marker="o", markersize=6, color="white", linestyle="",
        markeredgecolor=readable(_NOW), markeredgewidth=1.3, zorder=3,
    )  # fmt: skip
    low, high = min(share), max(share)
    room = max(0.12 * (high - low), 0.5)
    axes.set(xlim=(-0.04 * last, 1.04 * last), ylim=(low - room, high + room))
    axes.axhline(100, color="#888888", linewidth=0.7, linestyle=":", zorder=0)
    axes.set(xlabel="cycle", ylabel="energy, % of that before")
    axes.yaxis.set_major_formatter("{x:g}")


def _legend(figure: Picture, kinds: set[str], cycle: int) -> str:
    """Name the two times over the figure; the two kinds of dots in words."""
    now = f"now, after {cycle} cycle{'s' * (cycle != 1)}"
    handles = [
        Line2D([], [], color=color, marker="o", label=label, linestyle="")
        for color, label in ((_BEFORE, "before"), (_NOW, now))
    ]
    legend = figure.legend(handles=handles, loc="outside upper left", ncols=2)
    for text, color in zip(legend.get_texts(), (GREY, readable(_NOW)), strict=True):
        text.set_color(color)
    return "Diamond: a normalization's scales." if "scale" in kinds else ""
