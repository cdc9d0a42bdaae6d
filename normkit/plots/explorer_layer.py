"""The explorer's figures of one layer's operator: singular values, growth with the map."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from seaborn import color_palette

from normkit.plots.marks import GREY, finish, header, picture, readable, two_powers
from normkit.plots.style import COLORS, NORMS, Picture, style
from normkit.plots.tables import choose, require

__all__ = ["frequencies", "growth", "values"]

_WIDTH, _HEIGHT = 7, 2.9
_INK, _CORE, _BRACKET = COLORS["conv"], COLORS["conv_norm"], COLORS["bracket"]


@style()
def frequencies(table: pd.DataFrame, *, title: str = "", note: str = "") -> Picture:
    """The largest singular value at each frequency: as a map, and against the frequency's length.

    In plain words: dark is where the layer amplifies most; the middle is the constant image, the
    rim the fastest wave. A layer with one axis has a line instead of the map.

    Arguments:
        table: columns fx, fy (in cycles per pixel; no fy for one axis), value.
        title: the layer's name.
        note: a short grey line at the bottom.

    Raises:
        ValueError: a column is missing, or there is nothing to draw.

    Example:
        >>> table = pd.DataFrame({"fy": [-0.5, -0.5, 0, 0], "fx": [-0.5, 0, -0.5, 0],
        ...     "value": [1.0, 2.0, 3.0, 4.0]})
        >>> frequencies(table).axes[0].images[0].get_array().tolist()
        [[1.0, 2.0], [3.0, 4.0]]
    """
    table = require(table, ["fx", "value"])
    if "fy" not in table:
        figure = picture(_WIDTH, _HEIGHT)
        axes = figure.subplots()
        axes.plot(table["fx"], table["value"], color=_INK, marker="o", markersize=2.5)
        axes.set(xlabel="frequency (cycles per pixel)", ylabel="largest singular value")
        axes.set_ylim(bottom=0)
        header(axes, title)
        return finish(figure, note)
    figure = picture(_WIDTH, _HEIGHT)
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.5])
    _map(left, table)
    header(left, title)
    size = np.hypot(table["fx"], table["fy"])
    right.plot(
        size, table["value"], linestyle="", marker="o", markersize=2.6, markeredgewidth=0,
        color=_INK, alpha=0.45,
    )  # fmt: skip
    top = table.loc[table["value"].idxmax()]
    right.set(xlabel="length of the frequency (cycles per pixel)", ylabel="largest singular value")
    right.set_xlim(-0.02, 0.73)
    right.grid(axis="y")
    header(right, f"largest: {top['value']:.4g} at ({top['fx']:+.2f}, {top['fy']:+.2f})")
    return finish(figure, "Dot: one frequency of the map on the left.", note)


def _map(axes: Axes, table: pd.DataFrame) -> None:
    """Draw the values as a picture, a cell per frequency, with its color bar."""
    grid = table.pivot(index="fy", columns="fx", values="value")
    half = [0.5 / n for n in grid.shape]
    edges = [
        grid.columns.min() - half[1], grid.columns.max() + half[1],
        grid.index.max() + half[0], grid.index.min() - half[0],
    ]  # fmt: skip
    low, high = table["value"].min(), table["value"].max()
    flat = high - low <= 1e-6 * high
    image = axes.imshow(
        grid.to_numpy(), extent=edges, interpolation="nearest", aspect="auto",
        cmap=color_palette("crest", as_cmap=True),
        vmin=0.9 * low if flat else low, vmax=1.1 * high if flat else high,
    )  # fmt: skip
    axes.set_box_aspect(1)
    bar = axes.figure.colorbar(image, ax=axes, shrink=0.85, aspect=18, pad=0.03)
    bar.outline.set_visible(False)
    bar.set_label("largest singular value")
    axes.set(xlabel="horizontal frequency (cycles per pixel)", ylabel="vertical frequency")
    axes.set(xticks=[-0.5, -0.25, 0, 0.25], yticks=[-0.5, -0.25, 0, 0.25])
    axes.set_xlim(edges[:2])
    axes.set_ylim(edges[2:])


@style()
def values(
    table: pd.DataFrame, *, title: str = "", root: int = 0,
    bracket: tuple[float, float] | None = None, note: str = "",
) -> Picture:  # fmt: skip
    r"""A layer's singular values from the largest to the smallest.

    In plain words: the further right a curve stays up, the more directions the layer keeps. Of a
    ConvNorm there is a second curve, of the normalized convolution before its filter and its
    BatchNorm, which the dashed line bounds.

    Arguments:
        table: columns curve ("layer" or "core"), which, rank (from 1), count, value.
        title: the layer's name.
        root: number of output channels, for the dashed line at its root; 0: no line.
        bracket: of the spectral norm as executed, drawn as a band.
        note: a short grey line at the bottom.

    Raises:
        ValueError: a column is missing, or there is nothing to draw.

    Example:
        >>> table = pd.DataFrame({"curve": "layer", "which": "all", "rank": [1, 2], "count": 2,
        ...     "value": [2.0, 1.0]})
        >>> values(table).axes[0].lines[0].get_ydata().tolist()
        [2.0, 1.0]
    """
    table = require(table, ["curve", "which", "rank", "count", "value"])
    figure = picture(_WIDTH, _HEIGHT)
    axes = figure.subplots()
    names = {"layer": ("the layer", _INK), "core": ("before filter and BatchNorm", _CORE)}
    for curve, part in table.groupby("curve", sort=False):
        name, color = names[choose("curve", curve, names)]
        marker = "o" if len(part) < 40 else ""
        axes.plot(part["rank"], part["value"], color=color, marker=marker, label=name)
    if bracket is not None:
        low, high = bracket
        axes.axhspan(low, high, color=_BRACKET, alpha=0.18, linewidth=0, zorder=0)
        said = f"{low:.4g}" if high <= low * 1.001 else f"between {low:.4g} and {high:.4g}"
        axes.axhline(low, color=_BRACKET, linewidth=0.9, label=f"norm as executed: {said}")
    if root:
        label = rf"$\sqrt{{C_\mathrm{{out}}}}$ = {root**0.5:.4g}"
        axes.axhline(root**0.5, color=GREY, linestyle="--", linewidth=0.9, label=label)
    axes.set(ylabel="singular value", xlabel=f"rank, of {int(table['count'].iloc[0])} "
             f"({table['which'].iloc[0]})")  # fmt: skip
    axes.set_ylim(bottom=0)
    axes.margins(x=0.02)
    axes.grid(axis="y")
    header(axes, title)
    legend = axes.figure.legend(loc="outside upper left", ncols=4)
    for text, line in zip(legend.get_texts(), legend.legend_handles, strict=True):
        text.set_color(readable(line.get_color()))
    return finish(figure, note)


@style()
def growth(table: pd.DataFrame, norm: str, *, title: str = "", note: str = "") -> Picture:
    """One norm of a layer against the side of the map that it reads.

    In plain words: the dot is the value, the bar its bracket; the ring is the side on the slider.

    Arguments:
        table: columns side (in pixels), value, lower, upper, chosen (whether it has the ring).
        norm: which norm it is.
        title: the layer's name.
        note: a short grey line at the bottom.

    Raises:
        ValueError: a column is missing, there is nothing to draw, or the norm is unknown.

    Example:
        >>> table = pd.DataFrame({"side": [4, 8], "value": [1.0, 2.0], "lower": [1.0, 2.0],
        ...     "upper": [1.0, 2.0], "chosen": [False, True]})
        >>> growth(table, "linf").axes[0].lines[-1].get_xdata().tolist()
        [8]
    """
    columns = ["side", "value", "lower", "upper", "chosen"]
    rows = require(table, columns)
    choose("norm", norm, NORMS)
    rows = require(rows[np.isfinite(rows["value"])], columns, name="table, of measured sizes,")
    figure = picture(_WIDTH, _HEIGHT)
    axes = figure.subplots()
    color = COLORS["bracket"] if norm in ("spectral", "stable_rank") else COLORS["linf"]
    axes.fill_between(
        rows["side"], rows["lower"], rows["upper"], color=color, alpha=0.15, linewidth=0
    )
    axes.plot(rows["side"], rows["value"], color=color, marker="o", label=norm)
    two_powers(axes, {float(side): "" for side in _apart(rows["side"])})
    ring = rows[rows["chosen"]]
    for row in ring.itertuples():
        axes.annotate(
            f"{row.value:.4g}", (row.side, row.value), (0, 8), textcoords="offset points",
            ha="center", fontsize=6.5, color=readable(_CORE), fontweight="bold",
        )  # fmt: skip
    axes.plot(
        ring["side"], ring["value"], linestyle="", marker="o", markersize=8, label="chosen",
        markerfacecolor="none", markeredgecolor=_CORE, markeredgewidth=1.1,
    )  # fmt: skip
    axes.set(xlabel="side of the map that the layer reads (pixels, log scale)", ylabel=NORMS[norm])
    axes.set_ylim(0, 1.18 * max(rows["upper"].max(), 1e-300))
    axes.grid(axis="y")
    header(axes, title)
    lost = len(table) - len(rows)
    said = f" Not measured: {lost} of {len(table)} sizes." if lost else ""
    return finish(figure, f"Ring: the side on the slider. Band: bracket, if any.{said}", note)


def _apart(sides: pd.Series) -> list[int]:
    """The sides that have room for a tick on a logarithmic axis.

    Example:
        >>> _apart(pd.Series([3, 4, 30, 32, 64]))
        [3, 4, 32, 64]
    """
    kept = [int(sides.iloc[-1])]
    for side in sides.iloc[::-1]:
        if side < kept[0] / 1.12:
            kept.insert(0, int(side))
    return kept
