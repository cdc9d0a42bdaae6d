"""The explorer's figure of a network: one norm of all its layers, and how it is distributed."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator
from scipy.stats import gaussian_kde

from normkit.plots.marks import GREY, count, finish, layer_ticks, picture, readable
from normkit.plots.norm_panels import short_name
from normkit.plots.regularization_panels import value_ticks
from normkit.plots.style import COLORS, NORMS, Picture, style
from normkit.plots.tables import choose, require

__all__ = ["network"]

_WIDTH = 7
_ROLES = {"first": ("plain", "o", -0.13), "second": ("pgd", "D", 0.13)}
_SCALES = ("log", "linear")
_NAMED = 24  # layers up to which each is named along the axis
_SMOOTH = 6  # values from which a density is drawn; fewer are dots beside a box


@style()
def network(
    table: pd.DataFrame, *, scale: str = "log", chosen: str = "", note: str = ""
) -> Picture:
    """One norm of each layer of a network, in order, with its bracket; another network beside it.

    In plain words: a dot is a layer, hollow if it is a BatchNorm, and the bar through it goes from
    the lower to the upper end of what is known; on the right the same values as a density. The
    layer that is chosen has a ring and its name.

    Arguments:
        table: columns network, role ("first" or "second"), position (of the layer, from 0),
            layer, kind, norm (one of them), value, lower, upper.
        scale: "log" or "linear".
        chosen: name of a layer of the first network.
        note: a short grey line at the bottom.

    Raises:
        ValueError: a column is missing, there is nothing to draw, or the scale is unknown.

    Example:
        >>> table = pd.DataFrame({"network": "net", "role": "first", "position": [0, 1],
        ...     "layer": ["a", "b"], "kind": "conv", "norm": "linf", "value": [1.0, 4.0],
        ...     "lower": [1.0, 4.0], "upper": [1.0, 4.0]})
        >>> network(table, scale="linear").axes[0].lines[0].get_ydata().tolist()
        [1.0, 4.0]
    """
    columns = ["network", "role", "position", "layer", "kind", "norm", "value", "lower", "upper"]
    table = require(table, columns)
    choose("scale", scale, _SCALES)
    positive = table["value"] > 0 if scale == "log" else np.isfinite(table["value"])
    drawn = require(
        table[positive & np.isfinite(table["value"])], columns,
        name=f"table, of norms that a {scale} scale can show,",
    )  # fmt: skip
    figure = picture(_WIDTH, 3.0)
    axes, side = figure.subplots(1, 2, sharey=True, width_ratios=[6, 1])
    axes.set_yscale(scale)
    names = _names(table)
    handles = []
    for role in names:
        part = drawn[drawn["role"] == role]
        handles.append(_layers(axes, part, role, names[role], len(names)))
    _lost(axes, table[~table.index.isin(drawn.index)])
    _choose(axes, drawn[(drawn["role"] == "first") & (drawn["layer"] == chosen)], len(names))
    _beside(side, {role: drawn.loc[drawn["role"] == role, "value"] for role in names}, scale)
    _axes(axes, table, scale)
    if (drawn["kind"] == "batch_norm").any():
        handles.append(_dot("conv or linear", GREY, "o", GREY))
        handles.append(_dot("BatchNorm", GREY, "o", "white"))
    figure.legend(handles=handles, loc="outside upper left", ncols=4)
    return finish(figure, _facts(table, drawn, scale), note)


def _names(table: pd.DataFrame) -> dict[str, str]:
    """What each network is called, shortened to fit a legend."""
    names = table.drop_duplicates("role").set_index("role")["network"]
    return {role: _short(str(names[role])) for role in _ROLES if role in names.index}


def _short(name: str) -> str:
    return name if len(name) <= 44 else name[:43] + "…"


def _dot(label: str, color: str, marker: str, face: str) -> Line2D:
    return Line2D(
        [], [], linestyle="", marker=marker, color=color, markerfacecolor=face, label=label
    )


def _layers(axes: Axes, rows: pd.DataFrame, role: str, name: str, networks: int) -> Line2D:
    """Draw a dot and a bracket per layer; BatchNorms hollow."""
    key, marker, shift = _ROLES[role]
    color = COLORS[key]
    shift = shift if networks > 1 else 0.0
    for hollow in (False, True):
        part = rows[(rows["kind"] == "batch_norm") == hollow]
        axes.plot(
            part["position"] + shift, part["value"], linestyle="", marker=marker, color=color,
            markerfacecolor="white" if hollow else color, markeredgewidth=0.8 if hollow else 0.4,
            markeredgecolor=color if hollow else "white", markersize=3.4 if hollow else 4,
            label=role, zorder=3,
        )  # fmt: skip
    axes.vlines(
        rows["position"] + shift, rows["lower"], rows["upper"], color=color, linewidth=1.4,
        alpha=0.35, zorder=2,
    )  # fmt: skip
    return _dot(name, color, marker, color)


def _lost(axes: Axes, rows: pd.DataFrame) -> None:
    """Mark the layers without a value at the foot of the panel."""
    axes.plot(
        rows["position"], np.full(len(rows), 0.03), linestyle="", marker="x", color=GREY,
        markersize=3, transform=axes.get_xaxis_transform(), label="lost",
    )  # fmt: skip


def _choose(axes: Axes, rows: pd.DataFrame, networks: int) -> None:
    """Put a ring around a layer's dot, and its name and value over it."""
    for row in rows.itertuples():
        x = row.position + (_ROLES["first"][2] if networks > 1 else 0.0)
        axes.axvline(row.position, color="#EFEFEF", linewidth=5, zorder=0)
        axes.plot(
            x, row.value, linestyle="", marker="o", markersize=8, markerfacecolor="none",
            markeredgecolor=readable(COLORS["norm_decay"]), markeredgewidth=1.1, zorder=4,
            label="chosen",
        )  # fmt: skip
        axes.annotate(
            f"{row.layer or 'the network'}: {row.value:.4g}", (row.position, 1), (0, 2),
            xycoords=("data", "axes fraction"), textcoords="offset points", fontsize=6.5,
            ha="center", va="bottom", color=readable(COLORS["norm_decay"]), fontweight="bold",
        )  # fmt: skip


def _beside(axes: Axes, values: dict[str, pd.Series], scale: str) -> None:
    """Draw how each network's values are distributed along the shared axis."""
    for index, (role, part) in enumerate(values.items()):
        color = COLORS[_ROLES[role][0]]
        y = np.log10(part.to_numpy()) if scale == "log" else part.to_numpy()
        if len(y) >= _SMOOTH and np.ptp(y) > 1e-9 * max(1.0, np.abs(y).max()):
            grid = np.linspace(y.min() - 0.25 * np.ptp(y), y.max() + 0.25 * np.ptp(y), 160)
            density = gaussian_kde(y)(grid)
            at = 10**grid if scale == "log" else grid
            axes.fill_betweenx(at, 0, density / density.max(), color=color, alpha=0.12, lw=0)
            axes.plot(density / density.max(), at, color=color, linewidth=0.9, label=role)
            axes.plot(
                np.full(len(y), -0.06 - 0.1 * index), part, linestyle="", marker="_",
                color=color, markersize=3, markeredgewidth=0.5,
            )  # fmt: skip
        elif len(y):
            x = 0.2 + 0.4 * index
            axes.boxplot(
                part, positions=[x], widths=0.26, showfliers=False, manage_ticks=False,
                **{name: {"color": color, "linewidth": 0.7}
                   for name in ("boxprops", "whiskerprops", "capprops", "medianprops")},
            )  # fmt: skip
            apart = np.arange(len(y)) * 0.618034 % 1 - 0.5
            axes.plot(
                x + 0.16 * apart, part, linestyle="", marker="o", markersize=2.4, color=color,
                markeredgewidth=0, label=role,
            )  # fmt: skip
    axes.set_xlim(-0.25, 1.08)
    axes.set(xticks=[], xlabel="share of layers")
    axes.yaxis.set_visible(False)
    axes.spines[["left", "bottom"]].set_visible(False)


def _axes(axes: Axes, table: pd.DataFrame, scale: str) -> None:
    """Name the axes, and the layers that have room."""
    last = table["position"].max()
    axes.set_xlim(-0.7, last + 0.7)
    norm = NORMS[choose("norm", table["norm"].iloc[0], NORMS)]
    axes.set(ylabel=f"{norm} (log scale)" if scale == "log" else norm)
    axes.grid(axis="y")
    if scale == "log":
        value_ticks(axes)
        axes.yaxis.set_minor_locator(NullLocator())  # a third of the drawing time
    else:
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    places = table.drop_duplicates("position").set_index("position")["layer"].sort_index()
    if len(places) > _NAMED:
        group = places.str.split(".").str[0]
        places = places[group != group.shift()].str.split(".").str[0]
    if len(places) > _NAMED:
        layer_ticks(axes, [0, last])
        axes.set_xlabel("layer, first to last")
        return
    names = [short_name(str(name), 16) for name in places]
    room = np.diff(places.index).min(initial=last + 1) * 95 / (last + 1)
    crowded = room < max(map(len, names))
    axes.set_xticks(places.index, names, fontsize=6)
    every = len(places) > last
    axes.set_xlabel("layer, first to last" + ("" if every else "; the first of each part named"))
    for label in axes.get_xticklabels() if crowded else ():
        label.set(rotation=40, ha="right", rotation_mode="anchor", va="center")


def _facts(table: pd.DataFrame, drawn: pd.DataFrame, scale: str) -> str:
    """Say what the bars are, where there are any, and what could not be drawn."""
    said = []
    if (drawn["upper"] > drawn["lower"] * 1.001).any():
        said.append("Bar: bracket from the lower to the upper end, dot: the end that converged.")
    lost = len(table) - len(drawn)
    if lost:
        why = "not measured, or zero on a log scale" if scale == "log" else "not measured"
        said.append(f"x: {count([lost], 'layer')} {why}.")
    return " ".join(said)
