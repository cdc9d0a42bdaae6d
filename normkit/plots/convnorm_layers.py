"""Figures of ConvNorm's layers: their spectral norms, and the conditioning of their channels."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from normkit.plots.convnorm_panels import titles
from normkit.plots.enorm_panels import beside
from normkit.plots.marks import (
    GREY,
    count,
    end_labels,
    evidence,
    finish,
    layer_ticks,
    picture,
    points,
    readable,
)
from normkit.plots.multiples import BACKGROUND, label_gaps, multiples
from normkit.plots.norm_panels import short_name
from normkit.plots.regularization_panels import once, unmeasured, value_ticks
from normkit.plots.style import COLORS, LABELS, MARKERS, PAGE, Picture, style
from normkit.plots.tables import choose, methods_of, require, summarize

__all__ = ["isometry", "spectral"]

_ROOT, _YLABEL = r"√$C_\mathrm{out}$", "spectral norm"
_STATES = {"before": ("conv", "before: convolution"), "after": ("conv_norm", "after: ConvNorm")}
_DOTS = {"linestyle": "", "marker": "o", "markersize": 2.2, "markeredgewidth": 0}


@style()
def spectral(table: pd.DataFrame, *, note: str = "") -> Picture:
    r"""Spectral norm of each layer of trained networks, in depth order, one line per method.

    .. math:: 1 \le \sigma \le \sqrt{C_\mathrm{out}} \quad \text{for ConvNorm}

    In plain words: geometric mean over seeds and its 95 % t interval, on a logarithmic axis; the
    grey steps are the root of each layer's number of output channels, the dotted line is 1. More
    than six methods get a panel each, with the others in grey behind.

    Source: Liu et al., "Convolutional Normalization", NeurIPS 2021,
    https://arxiv.org/abs/2103.00673, the figure of layer-wise spectral norms.

    Arguments:
        table: columns method, seed, position (of the layer, from 0), layer, out_channels, sigma.
        note: a short grey line at the bottom.

    Raises:
        ValueError: a column is missing, there is nothing to draw, a method is unknown, a layer
            of a run occurs twice, or a position has two layers or numbers of channels.

    Example:
        >>> table = pd.DataFrame({"method": "conv_norm", "seed": 0, "position": [0, 1],
        ...     "layer": ["stem", "conv1"], "out_channels": [4, 16], "sigma": [1.5, 2.0]})
        >>> root, one, ours = spectral(table).axes[0].lines
        >>> root.get_ydata().tolist(), ours.get_ydata().round(9).tolist()
        ([2.0, 2.0, 4.0, 4.0], [1.5, 2.0])
    """
    rows = require(table, ["method", "seed", "position", "layer", "out_channels", "sigma"])
    places = _places(rows, ["layer", "out_channels"])
    methods, measured = methods_of(rows), np.isfinite(rows["sigma"]) & (rows["sigma"] > 0)
    rows = require(rows[measured], ["sigma"], name="table, of norms above zero,")
    means = summarize(rows.assign(value=rows["sigma"]), ["method", "position"], log=True)
    draw = _together if len(methods) <= 6 else _apart
    figure = draw(means, methods, places)
    value_ticks(figure.axes[0])
    facts = f"{evidence('Geometric mean', 'Bar', means['n'])} {unmeasured(measured)}"
    return label_gaps(finish(figure, facts, note))


def _places(rows: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """Return what is true of each position, in order.

    Raises:
        ValueError: two things are.
    """
    places = rows[["position", *columns]].drop_duplicates().sort_values("position")
    twice = places[places["position"].duplicated(keep=False)]
    if len(twice):
        said = " and ".join(map(str, twice[columns].iloc[:2].to_numpy().tolist()))
        raise ValueError(
            f"table has {said} at position {twice['position'].iloc[0]}: it needs one "
            f"{', one '.join(columns)} for each position"
        )
    return places


def _together(means: pd.DataFrame, methods: list[str], places: pd.DataFrame) -> Picture:
    """Draw all methods into one panel, with names at layers and lines."""
    axes = picture(PAGE, 3).subplots()
    _bounds(axes, places)
    at = places["position"].iloc[-1] + 0.5
    ends = [(at, np.sqrt(places["out_channels"].iloc[-1]), _ROOT, GREY)]
    for index, method in enumerate(methods):
        line = means[means["method"] == method]
        if len(line):
            points(axes, "position", line, COLORS[method], MARKERS[method], method)
            axes.lines[-1].set_linewidth(0.8)
            beside(axes, index, len(methods))
            ends.append((*line.iloc[-1][["position", "mean"]], LABELS[method], COLORS[method]))
    _name_layers(axes, places)
    axes.set(xlabel="layer, first to last", ylabel=f"{_YLABEL} (log scale)")
    end_labels(axes, ends)
    return axes.figure


def _apart(means: pd.DataFrame, methods: list[str], places: pd.DataFrame) -> Picture:
    """Draw a panel per method."""
    tiles = multiples("", methods, xlabel="layer", ylabel=_YLABEL)
    titles(tiles)
    for method, axes in tiles.items():
        _bounds(axes, places)
        for _, line in means[means["method"] != method].groupby("method"):
            axes.plot(line["position"], line["mean"], color=BACKGROUND, linewidth=0.6, zorder=0)
        line = means[means["method"] == method]
        points(axes, "position", line, COLORS[method], MARKERS[method], method)
        axes.lines[-1].set_linewidth(0.8)
    layer_ticks(axes, places["position"])
    handles = [
        Line2D([], [], color=GREY, linewidth=0.7, label=_ROOT),
        Line2D([], [], color=GREY, linewidth=0.8, linestyle=":", label="1"),
        Line2D([], [], color=BACKGROUND, label="the other methods"),
    ]
    axes.figure.legend(handles=handles, loc="outside upper left", ncols=3)
    return axes.figure


def _bounds(axes: Axes, places: pd.DataFrame) -> None:
    """Draw the root of the number of output channels as steps, and a dotted line at 1."""
    axes.set_yscale("log")
    x = np.add.outer(places["position"].to_numpy(), [-0.5, 0.5]).ravel()
    root = np.repeat(np.sqrt(places["out_channels"].to_numpy()), 2)
    axes.plot(x, root, color=GREY, linewidth=0.7, zorder=1, label=_ROOT)
    axes.axhline(1, color=GREY, linewidth=0.8, linestyle=":", zorder=0, label="1")


def _name_layers(axes: Axes, places: pd.DataFrame) -> None:
    """Write the layers' names along the x axis, aslant if they need the room."""
    names = [short_name(str(name), 18) for name in places["layer"]]
    slant = len(names) * (max(map(len, names)) + 1) > 75
    axes.set_xticks(places["position"], names, fontsize=6)
    axes.set_xlim(places["position"].min() - 0.6, places["position"].max() + 0.6)
    if slant:
        for label in axes.get_xticklabels():
            label.set(rotation=45, ha="right", rotation_mode="anchor", va="center")


@style()
def isometry(table: pd.DataFrame, *, note: str = "") -> Picture:
    r"""Condition number of every output channel's operator, before and after ConvNorm, per layer.

    .. math:: \kappa_k = \sigma_{\max}(Q_k) / \sigma_{\min}(Q_k), \qquad
        \kappa_k = 1 \text{ after ConvNorm}

    In plain words: a dot is a channel, the short line the median of a layer's channels; at 1 all
    inputs that a channel sees are passed on with one and the same gain.

    Source: Liu et al., NeurIPS 2021, https://arxiv.org/abs/2103.00673, on isometry per channel.
    Deviation: the figure is ours.

    Arguments:
        table: columns state ("before" or "after"), position (of the layer, from 0), layer,
            channel, condition.
        note: a short grey line at the bottom.

    Raises:
        ValueError: a column is missing, there is nothing to draw, a state is unknown, a channel
            occurs twice, or a position has two layers.

    Example:
        >>> table = pd.DataFrame({"state": ["before", "after"], "position": 0, "layer": "stem",
        ...     "channel": 0, "condition": [30.0, 1.0]})
        >>> [line.get_ydata().tolist() for line in isometry(table).axes[0].lines[:2]]
        [[30.0], [1.0]]
    """
    rows = require(table, ["state", "position", "layer", "channel", "condition"])
    for state in rows["state"].unique():
        choose("state", state, _STATES)
    rows = once(rows, ["state", "position", "channel"], name="table")
    places = _places(rows, ["layer"])
    measured = np.isfinite(rows["condition"]) & (rows["condition"] > 0)
    rows = require(rows[measured], ["condition"], name="table, of finite condition numbers,")
    axes = picture(PAGE, 2.9).subplots()
    axes.set_yscale("log")
    handles = []
    for state, (key, name) in _STATES.items():
        part = rows[rows["state"] == state].sort_values(["position", "condition", "channel"])
        if len(part):
            handles.append(_strip(axes, part, COLORS[key], f"{name}, {_range(part['condition'])}"))
    value_ticks(axes)
    _name_layers(axes, places)
    axes.set(xlabel="layer, first to last", ylabel="condition number (log scale)")
    legend = axes.figure.legend(handles=handles, loc="outside upper left", ncols=len(handles))
    for text, handle in zip(legend.get_texts(), handles, strict=True):
        text.set_color(readable(handle.get_color()))
    number = count(rows.groupby(["state", "position"]).size(), "channel")
    said = f"Dot: one output channel; {number} in a layer. Line: their median."
    return finish(axes.figure, f"{said} {unmeasured(measured, 'Not finite')}", note)


def _strip(axes: Axes, rows: pd.DataFrame, color: str, name: str) -> Line2D:
    """Draw a dot per channel, spread over the layer's width, and the medians."""
    rank = rows.groupby("position").cumcount()
    x = rows["position"] + 0.5 * ((0.618 * (rank + 0.5)) % 1 - 0.5)
    (dots,) = axes.plot(x, rows["condition"], color=color, alpha=0.5, label=name, **_DOTS)
    for position, middle in rows.groupby("position")["condition"].median().items():
        ends = (position - 0.33, position + 0.33)
        axes.hlines(middle, *ends, color=readable(color), linewidth=1.2, zorder=3)
    return dots


def _range(values: pd.Series) -> str:
    """Say from where to where the values go, or how close to 1 they all are.

    Example:
        >>> _range(pd.Series([1.0, 1 + 2e-7])), _range(pd.Series([3.0, 40.0]))
        ('1 to within 2e-07', '3 to 40')
    """
    off = float((values - 1).abs().max())
    if off < 1e-2:
        return f"1 to within {off:.0e}" if off else "exactly 1"
    return f"{values.min():.3g} to {values.max():.3g}"
