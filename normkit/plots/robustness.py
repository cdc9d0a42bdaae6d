"""Figures of robustness beside large norms: a steep classifier, and published networks."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from normkit.plots.marks import finish, header, log_ticks, picture, readable, shades
from normkit.plots.regularization_panels import once, unmeasured, value_ticks
from normkit.plots.style import COLORS, COLUMN, LABELS, MARKERS, NORMS, PAGE, Picture, style
from normkit.plots.tables import choose, require

__all__ = ["lipschitz", "networks"]

_NETWORKS = ["standard", "certified", "adversarial"]
_NORMS = ["l1", "linf", "spectral"]
_ACCURACIES = ["accuracy", "robust"]
_RADII = {"clean": "clean", "robust_2": "at 2/255", "robust_8": "at 8/255"}


@style()
def lipschitz(line: pd.DataFrame, table: pd.DataFrame, *, note: str = "") -> Picture:
    """A classifier between two images, and its accuracies, for several Lipschitz constants.

        robust at an image x:  the sign of the output is the same wherever |x' - x| <= epsilon

    In plain words: left the output on the way from an image of one class to one of the other;
    the grey strips are what an attack of size epsilon can reach, and only there it counts
    whether the sign changes. Right the accuracies, and the slope that was measured, against the
    slope that was built in: the steep classifier is no less robust.

    Source: Liang and Huang, "Large norms of CNN layers do not hurt adversarial robustness",
    AAAI 2021, https://arxiv.org/abs/2009.08435, the theorem on separated classes.
    Deviation: the figure is ours.

    Arguments:
        line: columns slope, position (in units of epsilon; the smallest is the one image, the
            largest the other), output.
        table: columns slope, accuracy, robust (in [0, 1]), measured_slope.
        note: a short grey line at the bottom.

    Raises:
        ValueError: a column is missing, there is nothing to draw, or a slope is not positive.

    Example:
        >>> line = pd.DataFrame({"slope": 2.0, "position": [0.0, 2, 4], "output": [-4.0, 0, 4]})
        >>> table = pd.DataFrame({"slope": [2.0], "accuracy": 1.0, "robust": 1.0,
        ...     "measured_slope": 2.0})
        >>> lipschitz(line, table).axes[0].get_title(loc="left")
        'one sign within $\\\\varepsilon$ of both images: 1 of 1 slopes'
    """
    line = require(line, ["slope", "position", "output"], name="line")
    table = require(table, ["slope", *_ACCURACIES, "measured_slope"])
    for rows, name, by in ((line, "line", ["slope", "position"]), (table, "table", ["slope"])):
        once(rows, by, name=name)
        bad = rows.loc[~(rows["slope"] > 0), "slope"]
        if len(bad):
            raise ValueError(f"{name} has the slope {bad.iloc[0]:g}: it must be positive")
    colors = shades(sorted({*line["slope"], *table["slope"]}), "crest")
    figure = picture(PAGE, 2.6)
    grid = figure.add_gridspec(2, 2, width_ratios=[1.5, 1])
    _segment(figure.add_subplot(grid[:, 0]), line, colors)
    upper = figure.add_subplot(grid[0, 1])
    _against_slope(upper, figure.add_subplot(grid[1, 1], sharex=upper), table, colors)
    handles = [Line2D([], [], color=color, label=f"{key:g}") for key, color in colors.items()]
    figure.legend(
        handles=[Line2D([], [], linestyle="", label="slope"), *handles],
        loc="outside upper left", ncols=len(handles) + 1,
    )  # fmt: skip
    values = pd.concat([line["output"], table[[*_ACCURACIES, "measured_slope"]].stack()])
    facts = r"Grey strips: what is within $\varepsilon$ of an image."
    return finish(figure, f"{facts} {unmeasured(np.isfinite(values))}", note)


def _segment(axes: Axes, line: pd.DataFrame, colors: dict[float, str]) -> None:
    """Draw the outputs between the images, and count at how many slopes the sign is kept."""
    first, last = line["position"].min(), line["position"].max()
    strips = (first, first + 1), (last - 1, last)
    for low, high in strips:
        axes.axvspan(low, high, color="#ECECEC", linewidth=0, zorder=0)
    axes.axhline(0, color="#888888", linewidth=0.6, zorder=1)
    kept, peaks = 0, []
    for slope, part in line.sort_values("position").groupby("slope"):
        axes.plot(part["position"], part["output"], color=colors[slope], label=f"{slope:g}")
        peaks.append(part["output"].abs().max())
        signs = [
            set(np.sign(part.loc[part["position"].between(*strip), "output"])) for strip in strips
        ]
        kept += signs in ([{-1.0}, {1.0}], [{1.0}, {-1.0}])
    if max(peaks) > 30 * min(peaks) > 0:
        axes.set_yscale("symlog", linthresh=min(peaks))
        axes.set_yticks([y for y in axes.get_yticks() if y == 0 or abs(y) >= min(peaks)])
    header(
        axes, "output between two images",
        rf"one sign within $\varepsilon$ of each image: {kept} of {len(peaks)} slopes",
    )  # fmt: skip
    for x, side, name in ((0, "left", "first image"), (1, "right", "second image")):
        axes.plot([first, last][x], 0, marker="o", color="#111111", clip_on=False, label=name)
        axes.annotate(
            name, (x, 0), (0, -22), xycoords="axes fraction", textcoords="offset points", ha=side
        )
    axes.set_xlim(first, last)
    axes.set(xlabel=r"position, in units of $\varepsilon$", ylabel="output")


def _against_slope(
    upper: Axes, lower: Axes, table: pd.DataFrame, colors: dict[float, str]
) -> None:
    """Draw the accuracies and the measured slope against the slope that was built in."""
    table = table.sort_values("slope")
    shade = [colors[slope] for slope in table["slope"]]
    for axes, column in ((upper, "robust"), (lower, "measured_slope")):
        axes.set_xscale("log")
        axes.plot(table["slope"], table[column], color="#BBBBBB", linewidth=0.8, label=column)
        axes.scatter(table["slope"], table[column], s=14, color=shade, zorder=3)
    upper.plot(
        table["slope"], table["accuracy"], linestyle="", marker="o", markersize=6.5,
        markerfacecolor="none", color="#111111", markeredgewidth=0.7, label="accuracy",
    )  # fmt: skip
    upper.set(ylabel="accuracy", ylim=(-0.08, 1.15))
    upper.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    upper.tick_params(labelbottom=False)
    header(upper, "accuracy", "dot: under attack; ring: clean")
    lower.set_yscale("log")
    lower.set(xlabel="slope", ylabel="measured slope")
    log_ticks(lower)
    value_ticks(lower)


@style()
def networks(table: pd.DataFrame, accuracy: pd.DataFrame, *, note: str = "") -> Picture:
    """Norm of every layer, in depth order, of networks that were trained in different ways.

    In plain words: one panel per norm, one marker per network; over the panels how accurate each
    network is, with and without an attack. The vertical lines are medians over the layers.
    Convolutions and linear layers only.

    Source: Liang and Huang, AAAI 2021, https://arxiv.org/abs/2009.08435, the bar charts.
    Deviation: there the networks are adversarially trained ones alone.

    Arguments:
        table: columns network ("standard", "certified" or "adversarial"), layer, position, kind,
            norm ("l1", "linf", "spectral"; others are left out), value.
        accuracy: columns network, clean, robust_2, robust_8 (in [0, 1]; radii 2/255 and 8/255).
        note: a short grey line at the bottom.

    Raises:
        ValueError: a column is missing, there is nothing to draw, a network is unknown, or a
            layer occurs twice.

    Example:
        >>> layer = {"layer": "conv1", "position": 0, "kind": "conv", "norm": "l1"}
        >>> table = pd.DataFrame([{"network": "standard", **layer, "value": 2.0}])
        >>> good = pd.DataFrame({"network": ["standard"], "clean": 0.9, "robust_2": 0.2,
        ...     "robust_8": 0.0})
        >>> networks(table, good).legends[0].texts[0].get_text()
        'standard: 90.0 % clean, 20.0 % at 2/255, 0.0 % at 8/255'
    """
    columns = ["network", "layer", "position", "kind", "norm", "value"]
    require(accuracy, ["network", *_RADII], name="accuracy")
    rows = require(table, columns)
    rows = rows[rows["kind"].isin(["conv", "linear"]) & rows["norm"].isin(_NORMS)]
    measured = np.isfinite(rows["value"]) & (rows["value"] > 0)
    rows = require(rows[measured], columns, name="table, of measured norms of such layers,")
    once(rows, ["network", "layer", "norm"], name="table")
    for name in {*rows["network"], *accuracy["network"]}:
        choose("network", name, _NETWORKS)
    places = rows.groupby("layer")["position"].min().sort_values(kind="stable").index.tolist()
    shown = [norm for norm in _NORMS if norm in set(rows["norm"])]
    figure = picture(COLUMN if len(shown) == 1 else PAGE, 1.25 + 0.125 * len(places))
    grid = figure.subplots(1, len(shown), squeeze=False, sharey=True)[0]
    for axes, norm in zip(grid, shown, strict=True):
        _rows(axes, rows[rows["norm"] == norm], places)
        header(axes, NORMS[norm])
        axes.set_xlabel("norm (log scale)")
    names = [n if len(n) <= 18 else f"\N{HORIZONTAL ELLIPSIS}{n[-17:]}" for n in places]
    grid[0].set_yticks(range(len(places)), names)
    grid[0].set_ylim(len(places) - 0.4, -0.6)
    found = [name for name in _NETWORKS if name in set(rows["network"])]
    _accuracy_key(figure, found, accuracy.drop_duplicates("network").set_index("network"))
    facts = "Vertical line: median over the layers. At 2/255 and 8/255: accuracy under attack."
    return finish(figure, f"{facts} {unmeasured(measured)}", note)


def _rows(axes: Axes, rows: pd.DataFrame, places: list[str]) -> None:
    """Draw a marker per layer and network, and each network's median."""
    y = {name: index for index, name in enumerate(places)}
    ends = rows.groupby("layer")["value"].agg(["min", "max"])
    axes.set_xscale("log")
    axes.hlines(ends.index.map(y), ends["min"], ends["max"], color="#DDDDDD", linewidth=0.8)
    for network in (name for name in _NETWORKS if name in set(rows["network"])):
        part, color = rows[rows["network"] == network], COLORS[network]
        axes.axvline(part["value"].median(), color=color, linewidth=0.6, alpha=0.6, zorder=0)
        axes.plot(
            part["value"], part["layer"].map(y), linestyle="", marker=MARKERS[network],
            color=color, markeredgecolor="white", markeredgewidth=0.4, label=network,
        )  # fmt: skip
    log_ticks(axes)
    axes.grid(axis="y")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _accuracy_key(figure: Picture, found: list[str], accuracy: pd.DataFrame) -> None:
    """Name the networks over the figure, each with its accuracies in percent."""
    handles = []
    for name in found:
        numbers = accuracy[[*_RADII]].reindex([name]).iloc[0] * 100
        said = [
            f"{number:.1f} % {what}" if np.isfinite(number) else f"\N{EN DASH} {what}"
            for number, what in zip(numbers, _RADII.values(), strict=True)
        ]
        look = {"color": COLORS[name], "marker": MARKERS[name], "linestyle": ""}
        handles.append(Line2D([], [], label=f"{LABELS[name]}: {', '.join(said)}", **look))
    legend = figure.legend(handles=handles, loc="outside upper left")
    for text, name in zip(legend.get_texts(), found, strict=True):
        text.set_color(readable(COLORS[name]))
