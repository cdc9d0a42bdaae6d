"""Figures about the computing of norms: how wrong a formula is, how long a method takes."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from normkit.plots.marks import GREY, count, finish, header, keys, log_ticks, picture, readable
from normkit.plots.style import COLORS, MARKERS, NORMS, PAGE, Picture, style
from normkit.plots.tables import methods_of, require, summarize

__all__ = ["errors", "times"]

_ZERO, _MOST = 1e-17, 1e3
_NOISE = 1e-12


@style()
def errors(table: pd.DataFrame, *, note: str = "") -> Picture:
    """Relative error of a norm against the dense matrix, a dot per random layer, by kind.

    In plain words: one panel per norm, one row per kind of layer, in it one lane per method; at
    the right end of a lane, how many of its layers are off by more than 1e-12 (the dotted line).
    What has no error at all stands at the left end of the logarithmic axis.

    Source: Liang and Huang, AAAI 2021, https://arxiv.org/abs/2009.08435, the formulas.

    Arguments:
        table: columns case, kind, norm, method, error (relative).
        note: a short grey line at the bottom.

    Raises:
        ValueError: a column is missing, there is nothing to draw, or a method is unknown.

    Example:
        >>> table = pd.DataFrame({"case": [0, 1], "kind": "Conv2d", "norm": "l1",
        ...     "method": "border_free", "error": [0.0, 0.5]})
        >>> [text.get_text() for text in errors(table).axes[0].texts]
        ['50 %']
    """
    table = require(table, ["case", "kind", "norm", "method", "error"])
    kinds, methods = list(dict.fromkeys(table["kind"])), methods_of(table)
    names = [name for name in NORMS if name in set(table["norm"])]
    figure = picture(PAGE, 0.75 + len(kinds) * (0.08 + 0.1 * len(methods)))
    panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for axes, name in zip(panels, names, strict=True):
        part = table[table["norm"] == name]
        header(axes, NORMS[name])
        for row, kind in enumerate(kinds):
            _lanes(axes, part[part["kind"] == kind], row, methods)
        _error_axis(axes)
    panels[0].set_yticks(range(len(kinds)), kinds)
    panels[0].set_ylim(len(kinds) - 0.5, -0.5)
    keys(figure, methods)
    cases = count(table.groupby("kind")["case"].nunique(), "layer")
    facts = f"Dot: one random layer, {cases} of each kind. Right: share off by more than 1e-12."
    return finish(figure, facts, note)


@style()
def times(table: pd.DataFrame, *, note: str = "") -> Picture:
    """Time that a norm takes, per layer and method, on a logarithmic axis.

    In plain words: further left is faster; geometric mean over repetitions and its 95 % t
    interval, which is often narrower than the marker.

    Source: Liang and Huang, AAAI 2021, https://arxiv.org/abs/2009.08435, the table of times.

    Arguments:
        table: columns layer, method, repetition, seconds.
        note: a short grey line at the bottom.

    Raises:
        ValueError: a column is missing, there is nothing to draw, or a method is unknown.

    Example:
        >>> table = pd.DataFrame([
        ...     {"layer": "3x3", "method": method, "repetition": i, "seconds": seconds}
        ...     for method, seconds in (("l1", 1e-4), ("fft_svd", 0.5)) for i in range(3)])
        >>> [line.get_xdata().round(6).tolist() for line in times(table).axes[0].lines]
        [[0.1], [500.0]]
    """
    table = require(table, ["layer", "method", "repetition", "seconds"])
    methods = methods_of(table)
    milliseconds = table.rename(columns={"repetition": "seed"})
    milliseconds = milliseconds.assign(value=1e3 * table["seconds"])
    means = summarize(milliseconds, ["layer", "method"], log=True)
    row = {layer: place for place, layer in enumerate(dict.fromkeys(table["layer"]))}
    figure = picture(PAGE, 0.8 + len(row) * (0.1 + 0.055 * len(methods)))
    axes = figure.subplots()
    for index, method in enumerate(methods):
        part = means[means["method"] == method]
        y = part["layer"].map(row) + 0.12 * (index - (len(methods) - 1) / 2)
        axes.hlines(y, part["low"], part["high"], color=COLORS[method], linewidth=0.9)
        axes.plot(
            part["mean"], y, linestyle="", marker=MARKERS[method], color=COLORS[method],
            markersize=4.5, markeredgecolor="white", markeredgewidth=0.4, label=method,
        )  # fmt: skip
    for place in list(row.values())[:-1]:
        axes.axhline(place + 0.5, color="#ECECEC", linewidth=0.5, zorder=0)
    log_ticks(axes)
    axes.grid(axis="x")
    axes.set_yticks(list(row.values()), list(row))
    axes.set_ylim(len(row) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("milliseconds (log scale)")
    keys(figure, methods)
    return finish(figure, _repeated(means), note)


def _lanes(axes: Axes, part: pd.DataFrame, row: int, methods: list[str]) -> None:
    """Draw the errors of one kind of layer, a lane per method, and the share that is wrong."""
    step, used = 0.8 / len(methods), [m for m in methods if m in set(part["method"])]
    for index, method in enumerate(used):
        values = part.loc[part["method"] == method, "error"].abs().to_numpy()
        y = row + step * (index - (len(used) - 1) / 2)
        apart = np.arange(len(values)) * 0.618034 % 1 - 0.5  # spreads evenly, always the same
        axes.plot(
            values.clip(_ZERO, _MOST), y + 0.7 * step * apart, linestyle="", marker="o",
            markersize=1.1, markeredgewidth=0, color=COLORS[method], alpha=0.6, label=method,
        )  # fmt: skip
        share = 100 * np.mean(~(values <= _NOISE))
        text = "< 1 %" if 0 < share < 1 else f"{share:.0f} %"
        axes.annotate(
            text, (1, y), (0, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
            ha="right", va="center", fontsize=5.5, color=readable(COLORS[method]),
        )  # fmt: skip


def _error_axis(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.set_xlim(_ZERO / 3, _MOST * 3e3)
    ticks = {_ZERO: "0", 1e-14: "1e-14", 1e-10: "1e-10", 1e-6: "1e-6", 1e-2: "0.01", 1e2: "100"}
    axes.set_xticks(list(ticks), list(ticks.values()))
    axes.minorticks_off()
    axes.axvline(_NOISE, color=GREY, linewidth=0.6, linestyle=":", zorder=0)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("relative error against the dense matrix")


def _repeated(means: pd.DataFrame) -> str:
    """Say how often times were taken, and what the bar is."""
    n = sorted(set(means["n"]))
    over = f"Geometric mean of {count(n, 'repetition')}"
    if max(n) < 3:
        return f"{over}: too few for an interval."
    return f"{over}. Bar: 95 % t interval{', from 3 repetitions on' * (min(n) < 3)}."
