"""Figures of robustness beside large norms: a steep classifier, and published networks."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from normkit.plots.marks import finish, header, log_ticks, picture, readable, shades
from normkit.plots.norm_panels import short_name
from normkit.plots.regularization_panels import names, once, unmeasured
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
    slope that was built in.

    Source: Liang and Huang, "Large norms of CNN layers do not hurt adversarial robustness",
    AAAI 2021, https://arxiv.org/abs/2009.08435, the theorem on separated classes.
    Deviation: the figure is ours.

    Arguments:
        line: columns slope, position (in units of epsilon, along the line through both images:
            0 is the first; from -1, epsilon before it, to epsilon past the second), output.
        table: columns slope, accuracy, robust (in [0, 1]), measured_slope.
        note: a short grey line at the bottom.

    Raises:
        ValueError: a column is missing, there is nothing to draw, a slope is not positive, or
            the line does not begin at -1 and end past 2.

    Example:
        >>> line = pd.DataFrame({"slope": 2.0, "position": [-1.0, 1, 2, 3, 5],
        ...     "output": [6.0, 2, 0, -2, -6]})
        >>> table = pd.DataFrame({"slope": [2.0], "accuracy": 1.0, "robust": 1.0,
        ...     "measured_slope": 2.0})
        >>> lipschitz(line, table).axes[0].texts[0].get_text()
        'one sign in each strip: 1 of 1 slopes'
    """
    line = require(line, ["slope", "position", "output"], name="line")
    table = require(table, ["slope", *_ACCURACIES, "measured_slope"])
    _check(line, table)
    colors = shades(sorted({*line["slope"], *table["slope"]}), "crest")
    figure = picture(PAGE, 2.6)
    grid = figure.add_gridspec(2, 2, width_ratios=[1.5, 1])
    _segment(figure.add_subplot(grid[:, 0]), line, colors)
    upper = figure.add_subplot(grid[0, 1])
    _against_slope(upper, figure.add_subplot(grid[1, 1], sharex=upper), table, colors)
    handles = [
        Line2D([], [], color=color, label=name)
        for color, name in zip(colors.values(), names([*colors]), strict=True)
    ]
    figure.legend(
        handles=[Line2D([], [], linestyle="", label="slope"), *handles],
        loc="outside upper left", ncols=len(handles) + 1,
    )  # fmt: skip
    numbers = table[[*_ACCURACIES, "measured_slope"]].to_numpy().ravel()
    measured = np.isfinite(np.concatenate([line["output"], numbers]))
    facts = r"Grey strips: what is within $\varepsilon$ of an image."
    return finish(figure, f"{facts} {unmeasured(pd.Series(measured))}", note)


def _check(line: pd.DataFrame, table: pd.DataFrame) -> None:
    for rows, name, by in ((line, "line", ["slope", "position"]), (table, "table", ["slope"])):
        once(rows, by, name=name)
        bad = rows.loc[~(rows["slope"] > 0), "slope"]
        if len(bad):
            raise ValueError(f"{name} has the slope {bad.iloc[0]:g}: it must be positive")
    start, end = line["position"].agg(["min", "max"])
    if not (np.isclose(start, -1) and end > 2):
        raise ValueError(
            f"line runs from position {start:g} to {end:g}: it must run from -1, epsilon before "
            "the first image, to epsilon past the second"
        )


def _segment(axes: Axes, line: pd.DataFrame, colors: dict[float, str]) -> None:
    """Draw the outputs between the images, and count at how many slopes the sign is kept."""
    low, high = line["position"].min(), line["position"].max()
    strips, images = [(low, low + 2), (high - 2, high)], (low + 1, high - 1)
    for strip, grey in zip(strips, ("#F2F2F2", "#E4E4E4"), strict=True):
        axes.axvspan(*strip, color=grey, linewidth=0, zorder=0)
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
        ticks = np.array([tick for tick in axes.get_yticks() if tick >= min(peaks)])
        ticks = ticks[:: 1 + len(ticks) // 5]
        axes.set_yticks([*-ticks, 0, *ticks])
    said = f"one sign in each strip: {kept} of {len(peaks)} slopes"
    header(axes, "output between two images", said)
    for x, name in zip(images, ("first image", "second image"), strict=True):
        axes.plot(x, 0, linestyle="", marker="o", color="#111111", label=name)
        axes.annotate(
            name, (x, 1), (0, -3), xycoords=axes.get_xaxis_transform(), va="top", ha="center",
            textcoords="offset points",
        )  # fmt: skip
    axes.margins(y=0.16)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.set(xlim=(low, high), xlabel=r"position, in units of $\varepsilon$", ylabel="output")


def _against_slope(
    upper: Axes, lower: Axes, table: pd.DataFrame, colors: dict[float, str]
) -> None:
    """Draw the accuracies and the measured slope against the slope that was built in."""
    table = table.sort_values("slope")
    shade = [colors[slope] for slope in table["slope"]]
    for axes, column in ((upper, "robust"), (lower, "measured_slope")):
        axes.set_xscale("log")
        axes.margins(0.08)
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


@style()
def networks(table: pd.DataFrame, accuracy: pd.DataFrame, *, note: str = "") -> Picture:
    """Norm of every layer, in depth order, of networks that were trained in different ways.

    In plain words: one panel per norm, one marker per network; over the panels how accurate each
    network is, with and without an attack. The vertical lines are medians over the layers.
    Convolutions and linear layers only.

    Source: Liang and Huang, AAAI 2021, https://arxiv.org/abs/2009.08435, the bar charts.
    Deviation: dots instead of bars, and a network with certified robustness beside the others.

    Arguments:
        table: columns network ("standard", "certified" or "adversarial"), layer, position, kind,
            norm ("l1", "linf", "spectral"; others are left out), value.
        accuracy: columns network, clean, robust_2, robust_8 (in [0, 1]; radii 2/255 and 8/255).
        note: a short grey line at the bottom.

    Raises:
        ValueError: a column is missing, there is nothing to draw, a network is unknown, or a
            layer or a network's accuracies occur twice.

    Example:
        >>> layer = {"layer": "conv1", "position": 0, "kind": "conv", "norm": "l1"}
        >>> table = pd.DataFrame([{"network": "standard", **layer, "value": 2.0}])
        >>> good = pd.DataFrame({"network": ["standard"], "clean": 0.9, "robust_2": 0.2,
        ...     "robust_8": 0.0})
        >>> networks(table, good).legends[0].texts[0].get_text()
        'standard: 90.0 % clean, 20.0 % at 2/255, 0.0 % at 8/255'
    """
    columns = ["network", "layer", "position", "kind", "norm", "value"]
    once(require(accuracy, ["network", *_RADII], name="accuracy"), ["network"], name="accuracy")
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
    grid[0].set_yticks(range(len(places)), [short_name(name, 18) for name in places])
    found = [name for name in _NETWORKS if name in set(rows["network"])]
    _accuracy_key(figure, found, accuracy.set_index("network"))
    facts = "Vertical line: median over the layers. At 2/255 and 8/255: accuracy under attack."
    return finish(figure, f"{facts} {unmeasured(measured)}", note)


def _rows(axes: Axes, rows: pd.DataFrame, places: list[str]) -> None:
    """Draw a marker per layer and network, and each network's median."""
    y = {name: index for index, name in enumerate(places)}
    ends = rows.groupby("layer")["value"].agg(["min", "max"])
    axes.set_xscale("log")
    axes.hlines(ends.index.map(y), ends["min"], ends["max"], color="#DDDDDD", linewidth=0.8)
    for network in (name for name in _NETWORKS if name in set(rows["network"])):
        part, color = rows[rows["network"] == network].sort_values("layer"), COLORS[network]
        axes.axvline(part["value"].median(), color=color, linewidth=0.6, alpha=0.6, zorder=0)
        axes.plot(
            part["value"], part["layer"].map(y), linestyle="", marker=MARKERS[network],
            color=color, markeredgecolor="white", markeredgewidth=0.4, label=network,
        )  # fmt: skip
    axes.set_ylim(len(places) - 0.4, -0.6)
    log_ticks(axes)
    ticks = axes.get_xticks()
    ticks = ticks[:: 1 + len(ticks) // 6]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
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
