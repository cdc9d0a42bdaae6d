"""The panels of the figures about layers' norms: densities, pairs of dots, ratios."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import offset_copy
from seaborn import kdeplot

from normkit.plots.marks import GREY, count, header, log_ticks, readable
from normkit.plots.style import COLORS, LABELS, MARKERS
from normkit.plots.tables import mean_interval

__all__ = ["accuracies", "densities", "dots", "ratio_rows", "short_name"]

_LINE = 8.4  # points from one line of a legend to the next


def accuracies(
    axes: Axes, weights: pd.DataFrame, accuracy: pd.DataFrame, methods: list[str], *, title: str
) -> None:
    """Write title, counts and, over the panel, each method with its two accuracies in percent."""
    at = {"xycoords": "axes fraction", "textcoords": "offset points", "fontsize": 6.5}
    top = _LINE * len(methods) + 6
    seeds = weights.groupby("method")["seed"].nunique()
    line = f"{count([weights['layer'].nunique()], 'layer')}, {count(seeds, 'seed')}"
    header(axes, title, line, above=top - 4)
    for x, text in ((0.74, "clean %"), (1, "robust %")):
        axes.annotate(text, (x, 1), (0, top), ha="right", color=GREY, **at)
    for index, method in enumerate(methods):
        y, color = top - _LINE * (index + 1), COLORS[method]
        means = accuracy[accuracy["method"] == method][["clean", "robust"]].mean() * 100
        place = offset_copy(axes.transAxes, axes.figure, x=4, y=y + 2.3, units="points")
        axes.add_artist(
            Line2D([0], [1], color=color, marker=MARKERS[method], transform=place, clip_on=False)
        )
        at["color"] = readable(color)
        axes.annotate(LABELS[method], (0, 1), (11, y), **at)
        for x, mean in zip((0.74, 1), means, strict=True):
            number = f"{mean:.1f}" if np.isfinite(mean) else "\N{EN DASH}"
            axes.annotate(number, (x, 1), (0, y), ha="right", **at)


def densities(axes: Axes, table: pd.DataFrame, methods: list[str], *, lane: float) -> None:
    """Draw one density per method and, in a lane of its own below zero, one tick per layer."""
    if table.empty:
        axes.set(xticks=[], yticks=[])
        axes.text(0.5, 0.5, "no such layer", transform=axes.transAxes, ha="center", color=GREY)
        return
    groups = {m: np.sort(table.loc[table["method"] == m, "value"]) for m in methods}
    for method in (m for m in methods if np.unique(groups[m]).size > 1):
        kdeplot(x=groups[method], ax=axes, log_scale=10, cut=2, color=COLORS[method], label=method)
    curves = {c.get_label(): c.get_data() for c in axes.lines if c.get_label() in groups}
    tallest = max((y.max() for _, y in curves.values()), default=1.0)
    for index, method in enumerate(m for m in methods if groups[m].size):
        middle, color = np.median(groups[method]), COLORS[method]
        x, y = curves.get(method, ([middle], [0.0]))
        axes.plot(
            middle, np.interp(np.log10(middle), np.log10(x), y), marker=MARKERS[method],
            color=color, markersize=4.5, markeredgecolor="white", markeredgewidth=0.5, zorder=3,
        )  # fmt: skip
        axes.eventplot(
            groups[method], lineoffsets=-lane * tallest * (index + 1), color=color,
            linelengths=0.7 * lane * tallest, linewidths=0.6,
        )  # fmt: skip
    log_ticks(axes)
    axes.axhline(0, color="#DDDDDD", linewidth=0.5, zorder=0)
    ticks = MaxNLocator(3, steps=[1, 2, 5, 10]).tick_values(0, tallest)
    axes.set_yticks([tick for tick in ticks if 0 <= tick <= tallest])
    axes.set_ylim(-lane * tallest * (len(methods) + 0.8), 1.08 * tallest)
    axes.set(xlabel="", ylabel="")


def dots(axes: Axes, means: pd.DataFrame, method: str, reference: str, *, title: str) -> None:
    """Draw two dots with intervals per layer; say in how many the method's is the larger."""
    names = means.drop_duplicates("position").set_index("position")["layer"]
    wide = means.pivot(index="position", columns="method", values="mean")
    both = wide.dropna()
    larger = int((both[method] > both[reference]).sum())
    share = f" ({100 * larger / len(both):.0f} %)" if len(both) else ""
    header(axes, title, f"larger in {larger} of {len(both)} layers{share}")
    axes.set_xscale("log")
    row = {position: index for index, position in enumerate(sorted(names.index))}
    for key, shift in ((reference, -0.17), (method, 0.17)):
        part = means[means["method"] == key]
        y = part["position"].map(row) + shift
        axes.hlines(y, part["low"], part["high"], color=COLORS[key], linewidth=0.9)
        axes.plot(
            part["mean"], y, linestyle="", marker=MARKERS[key], color=COLORS[key], label=key,
            markeredgecolor="white", markeredgewidth=0.4,
        )  # fmt: skip
    log_ticks(axes)
    axes.set_yticks(list(row.values()), [short_name(names[position]) for position in row])
    axes.set_ylim(len(row) - 0.4, -0.6)
    axes.grid(axis="y")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def ratio_rows(axes: Axes, paired: pd.DataFrame, names: list[str], methods: list[str]) -> None:
    """Draw, per norm and method, a small dot per seed and the mean with its interval."""
    step = 0.8 / len(methods)
    axes.axvline(1, color="#888888", linewidth=0.6, zorder=0)
    for index, method in enumerate(methods):
        for row, name in enumerate(names):
            part = paired[(paired["method"] == method) & (paired["norm"] == name)]
            if part.empty:
                continue
            y = row + step * (index - (len(methods) - 1) / 2)
            mean, low, high = mean_interval(part["value"])
            color = COLORS[method]
            axes.plot(
                part["value"], np.full(len(part), y + 0.36 * step), linestyle="", marker="o",
                markersize=2, markeredgewidth=0, color=color, alpha=0.6,
                label=f"{method} {name} seeds",
            )  # fmt: skip
            axes.hlines(y, low, high, color=color, linewidth=0.9)
            axes.plot(
                [mean], [y], marker=MARKERS[method], markersize=4.5, color=color,
                markeredgecolor="white", markeredgewidth=0.5, label=f"{method} {name}",
            )  # fmt: skip
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def short_name(name: str, length: int = 20) -> str:
    """Shorten a layer's name: no word for a convolution but conv, and its end if still too long.

    Example:
        >>> short_name("blocks.0.convolution1"), short_name("layers.0.convolution")
        ('blocks.0.conv1', 'layers.0')
    """
    name = name.removesuffix(".convolution").replace("convolution", "conv")
    return name if len(name) <= length else f"\N{HORIZONTAL ELLIPSIS}{name[1 - length :]}"
