"""The explorer's figures of one layer's weights: kernel tiles, and channels one at a time."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from seaborn import color_palette

from normkit.plots.marks import count, finish, header, picture, readable
from normkit.plots.regularization_panels import value_ticks
from normkit.plots.style import COLORS, Picture, style
from normkit.plots.tables import choose, require

__all__ = ["channels", "kernels"]

_WIDTH = 7
_WIDE = 5  # condition number from which on the axis is logarithmic
_STATES = {"before": ("conv", "before: taps alone"), "after": ("conv_norm", "after ConvNorm")}


@style()
def channels(table: pd.DataFrame, *, title: str = "", note: str = "") -> Picture:
    """Norm and condition number of each output channel's own operator, before and after ConvNorm.

    In plain words: each panel has the channels in its own order, from the largest to the smallest
    before; a condition number of 1 is a channel that passes every wave on alike.

    Arguments:
        table: columns state ("before" or "after"), channel, norm, condition.
        title: the layer's name.
        note: a short grey line at the bottom.

    Raises:
        ValueError: a column is missing, there is nothing to draw, or a state is unknown.

    Example:
        >>> table = pd.DataFrame({"state": "before", "channel": [0, 1], "norm": [1.0, 2.0],
        ...     "condition": [3.0, 5.0]})
        >>> [axes.lines[0].get_ydata().tolist() for axes in channels(table).axes]
        [[2.0, 1.0], [5.0, 3.0]]
    """
    table = require(table, ["state", "channel", "norm", "condition"])
    for state in table["state"].unique():
        choose("state", state, _STATES)
    figure = picture(_WIDTH, 2.9)
    left, right = figure.subplots(1, 2)
    _sorted(left, table, "norm", "spectral norm of the channel")
    left.set_ylim(bottom=0)
    finite = table.loc[np.isfinite(table["condition"]), "condition"]
    wide = finite.max() > _WIDE
    _sorted(right, table, "condition", "condition number" + (" (log scale)" if wide else ""))
    if wide:
        right.set_yscale("log")
        value_ticks(right)
    else:
        right.set_ylim(0.9, max(1.1, finite.max() * 1.05) if len(finite) else 1.1)
    header(left, title)
    handles = left.get_lines()
    legend = figure.legend(handles=handles, loc="outside upper left", ncols=len(handles))
    for text, handle in zip(legend.get_texts(), handles, strict=True):
        text.set_color(readable(handle.get_color()))
    blind = {state: int(np.isinf(part["condition"]).sum()) for state, part in _parts(table)}
    said = [f"{count([n], 'channel')} {state}" for state, n in blind.items() if n]
    said = f"Blind to a wave, so of infinite condition, and not drawn: {', '.join(said)}."
    return finish(figure, said if any(blind.values()) else "", note)


def _parts(table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    return [
        (state, table[table["state"] == state])
        for state in _STATES
        if (table["state"] == state).any()
    ]


def _sorted(axes: Axes, table: pd.DataFrame, column: str, label: str) -> None:
    """Draw one number per channel, in the order of the numbers before."""
    order = table[table["state"] == "before"].sort_values(column, ascending=False)["channel"]
    for state, part in _parts(table):
        key, name = _STATES[state]
        y = part.set_index("channel")[column].reindex(order).to_numpy()
        y = np.where(np.isfinite(y), y, np.nan)
        axes.plot(
            np.arange(1, len(y) + 1), y, linestyle="", marker="o" if state == "before" else "D",
            markersize=2.6 if len(y) > 40 else 3.6, markeredgewidth=0, color=COLORS[key],
            label=name,
        )  # fmt: skip
    axes.set(xlabel=f"output channel, largest before first (of {len(order)})", ylabel=label)
    axes.grid(axis="y")


@style()
def kernels(table: pd.DataFrame, *, title: str = "", note: str = "") -> Picture:
    """The weights themselves: a tile per kernel, a row of tiles per output channel.

    In plain words: red is positive, blue negative, white zero; one scale for all tiles.

    Arguments:
        table: columns output, input, row, column, value.
        title: the layer's name.
        note: a short grey line at the bottom.

    Raises:
        ValueError: a column is missing, or there is nothing to draw.

    Example:
        >>> table = pd.DataFrame({"output": [0, 0], "input": [0, 1], "row": 0, "column": 0,
        ...     "value": [1.0, -2.0]})
        >>> kernels(table).axes[0].images[0].get_array().tolist()
        [[1.0, -2.0]]
    """
    table = require(table, ["output", "input", "row", "column", "value"])
    shape = tuple(int(table[name].max()) + 1 for name in ("output", "input", "row", "column"))
    tiles = np.full(shape, np.nan)
    tiles[tuple(table[name] for name in ("output", "input", "row", "column"))] = table["value"]
    gap = int(shape[2] * shape[3] > 1)
    wide = np.full((shape[0], shape[1], shape[2] + gap, shape[3] + gap), np.nan)
    wide[:, :, : shape[2], : shape[3]] = tiles
    whole = wide.transpose(0, 2, 1, 3).reshape(shape[0] * (shape[2] + gap), -1)
    whole = whole[: whole.shape[0] - gap, : whole.shape[1] - gap]
    height = np.clip(6 * whole.shape[0] / whole.shape[1] + 0.7, 1.6, 4.2)
    figure = picture(_WIDTH, float(height))
    axes = figure.subplots()
    most = float(np.nanmax(np.abs(whole))) or 1.0
    image = axes.imshow(
        whole, cmap=color_palette("vlag", as_cmap=True), vmin=-most, vmax=most,
        interpolation="nearest", extent=(0, shape[1], shape[0], 0), aspect="auto",
    )  # fmt: skip
    axes.set_box_aspect(whole.shape[0] / whole.shape[1])
    axes.set_anchor("W")
    bar = figure.colorbar(image, ax=axes, shrink=0.9, aspect=18, pad=0.02)
    bar.outline.set_visible(False)
    bar.set_label("weight")
    _count(axes, shape)
    header(axes, title)
    return finish(figure, note)


def _count(axes: Axes, shape: tuple[int, ...]) -> None:
    """Number the channels along both axes, some of them."""
    for axis, number in ((axes.xaxis, shape[1]), (axes.yaxis, shape[0])):
        step = max(1, -(-number // 8))
        every = np.arange(0, number, step)
        axis.set_ticks(every + 0.5, [str(n) for n in every])
        axis.set_tick_params(length=0)
    axes.set(xlabel="input channel", ylabel="output channel")
    axes.spines[:].set_visible(False)
