"""The tables and panels of the figures about regularized training."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, NullLocator
from matplotlib.transforms import offset_copy

from normkit.plots.marks import GREY, band, count, end_labels, points, readable, shades
from normkit.plots.style import COLORS, LABELS, MARKERS, Picture
from normkit.plots.tables import choose, methods_of, require, summarize

__all__ = [
    "accuracy", "checked", "depth_key", "describe", "growth", "in_order", "key", "layers", "names",
    "once", "place", "ready", "strength_axis", "totals", "unmeasured", "value_ticks",
]  # fmt: skip

_PARTS = {"conv": "weights", "linear": "weights", "batch_norm": "batch_norm"}
_RUN = ["method", "strength", "projected", "seed"]
_SYMBOLS = {"svc": "bound ", "wd": r"$\lambda$ = "}
_AXES = {"svc": "bound on\nsingular values", "wd": "weight decay"}
_RING = {"marker": "o", "markersize": 8, "markerfacecolor": "none", "markeredgewidth": 0.8}


def checked(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with strength 0 for plain; refuse other strengths that are not positive.

    Raises:
        ValueError: a method is unknown, or a strength has no place on a log axis.
    """
    methods_of(table)
    plain, strength = table["method"] == "plain", table["strength"].astype(float)
    bad = table[~plain & ~((strength > 0) & np.isfinite(strength))]
    if len(bad):
        method, value = bad.iloc[0][["method", "strength"]]
        raise ValueError(f"strength is {value} for {method!r}: it must be positive and finite")
    return table.assign(strength=strength.mask(plain, 0.0))


def once(table: pd.DataFrame, by: list[str], *, name: str) -> pd.DataFrame:
    """Return the table if no two rows of it agree in all of `by`.

    Raises:
        ValueError: two do; the first such row is named.
    """
    twice = table[table.duplicated(by)]
    if len(twice):
        where = ", ".join(f"{key}={twice.iloc[0][key]}" for key in by)
        raise ValueError(f"{name} has several rows for {where}: keep one configuration per figure")
    return table


def unmeasured(kept: pd.Series, why: str = "Not measured") -> str:
    """Count the values that are left out, if there are any.

    Example:
        >>> unmeasured(pd.Series([True, False]))
        'Not measured and left out: 1 value.'
    """
    missing = int((~kept).sum())
    return f"{why} and left out: {count([missing], 'value')}." if missing else ""


def ready(norms: pd.DataFrame, norm: str) -> tuple[pd.DataFrame, str]:
    """Return the rows to draw, and a sentence that counts what was left out.

    Raises:
        ValueError: as the figures say.
    """
    columns = [*_RUN, "epoch", "kind", "layer", "norm", "value"]
    choose("norm", norm, require(norms, columns, name="norms")["norm"])
    table = checked(norms[(norms["norm"] == norm) & norms["kind"].isin(_PARTS)])
    table = once(table, [*_RUN, "layer", "epoch"], name="norms")
    depth = {layer: index for index, layer in enumerate(dict.fromkeys(table["layer"]))}
    table = table.assign(part=table["kind"].map(_PARTS), position=table["layer"].map(depth))
    measured = np.isfinite(table["value"])
    ends = table["epoch"].where(measured).groupby([table[key] for key in _RUN]).transform("max")
    whole = ends == table["epoch"].max()
    lost = table[~whole].drop_duplicates(_RUN)
    who = [f"{(lost['method'] == key).sum()} {LABELS[key]}" for key in methods_of(lost)]
    said = f"Diverged and left out: {', '.join(who)}. " if who else ""
    table = require(table[whole], columns, name="norms, without diverged runs,")
    return table, said + unmeasured(measured[whole])


def totals(table: pd.DataFrame) -> pd.DataFrame:
    """Return, per run and epoch, the sum over the weights' norms and the median of BatchNorm's."""
    by = [*_RUN, "part", "epoch"]
    known = np.isfinite(table["value"]).groupby([table[key] for key in by]).transform("all")
    groups = table[known].groupby(by)["value"]
    both = pd.DataFrame({"weights": groups.sum(), "batch_norm": groups.median()}).reset_index()
    both["value"] = both["weights"].where(both["part"] == "weights", both["batch_norm"])
    return both


def place(column: tuple[str, float, bool]) -> tuple[int, float, bool]:
    """Return where a method, strength and projection stand: as in legends, weak before strong."""
    method, strength, projected = column
    return [*LABELS].index(method), -strength if method == "svc" else strength, projected


def in_order(strengths: Iterable[float], method: str) -> list[float]:
    """Return the strengths from weak to strong: a small bound is a strong one.

    Example:
        >>> in_order([1.0, 0.5], "wd"), in_order([0.5, 1.0], "svc")
        ([0.5, 1.0], [1.0, 0.5])
    """
    return sorted(set(strengths), reverse=method == "svc")


def names(strengths: list[float]) -> list[str]:
    """Write the strengths as short as they can be told apart, all in the same way.

    Example:
        >>> names([0.5, 2.0]), names([1e-3, 0.1])
        (['0.5', '2'], ['$10^{-3}$', '$10^{-1}$'])
    """
    if all(0.01 <= value < 1e4 for value in strengths):
        return [f"{value:g}" for value in strengths]
    parts = [np.format_float_scientific(value, trim="-").split("e") for value in strengths]
    return [rf"${m + chr(183)}10^{{{int(e)}}}$".replace("$1·", "$") for m, e in parts]


def _ramp(strengths: Iterable[float], method: str) -> dict[float, str]:
    color = np.array(to_rgb(COLORS[method]))
    light, dark = to_hex(1 - 0.45 * (1 - color)), to_hex(0.55 * color)
    return shades(in_order(strengths, method), f"blend:{light},{COLORS[method]},{dark}")


def accuracy(axes: Axes, good: pd.DataFrame, method: str) -> None:
    """Draw one accuracy against the strength, beside plain's."""
    plain, mine = (good[good["method"] == key] for key in ("plain", method))
    for _, mean, low, high, _ in summarize(plain, ["method"]).itertuples(index=False):
        axes.axhline(mean, color=COLORS["plain"], linestyle=":", label="plain", zorder=1)
        if np.isfinite(low):
            axes.axhspan(low, high, color="#F0F0F0", linewidth=0, zorder=0)
    means, color = summarize(mine, ["strength"]), COLORS[method]
    beside = offset_copy(axes.transData, axes.figure, x=3.5, units="points")
    axes.plot(
        mine["strength"], mine["value"], linestyle="", marker="o", markersize=1.8, alpha=0.6,
        markeredgewidth=0, color=color, label=f"{method} seeds", transform=beside,
    )  # fmt: skip
    points(axes, "strength", means, color, MARKERS[method], method)
    ring = means[means["strength"].isin(mine.loc[mine["chosen"].eq(True), "strength"])]
    if len(ring):  # without points the unclipped line would have an extent that breaks the layout
        axes.plot(
            ring["strength"], ring["mean"], linestyle="", color=readable(color), clip_on=False,
            label=f"{method} chosen", zorder=4, **_RING,
        )  # fmt: skip


def strength_axis(axes: Axes, strengths: Iterable[float], method: str) -> None:
    """Put a tick at each strength, a name at those that have room for one, strong to the right."""
    order = in_order(strengths, method)
    place = np.log(order)
    margin = 0.1 * np.ptp(place) or 1.0
    sign = -1 if method == "svc" else 1
    axes.set_xscale("log")
    axes.set_xlim(*np.exp([place[0] - sign * margin, place[-1] + sign * margin]))
    shown, last = [], -np.inf
    room = 0.8 * margin * axes.get_gridspec().ncols  # the smaller the panel, the fewer names fit
    for name, at in zip(names(order), sign * place, strict=True):
        free = at - last > room
        shown.append(name if free else "")
        last = at if free else last
    axes.set_xticks(order, shown)
    axes.set_xlabel(_AXES.get(method, r"strength $\beta$"))
    axes.xaxis.set_minor_locator(NullLocator())


def key(figure: Picture) -> None:
    """Say over the figure what the line, the dot and the ring are."""
    handles = [
        Line2D([], [], color=COLORS["plain"], linestyle=":", label=LABELS["plain"]),
        Line2D([], [], color=GREY, linestyle="", label="chosen on validation images", **_RING),
        Line2D([], [], color=GREY, linestyle="", marker="o", markersize=1.8, label="one seed"),
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=3)


def value_ticks(axes: Axes) -> None:
    """Write the values of a logarithmic y axis as plain numbers; to be called after drawing."""
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def growth(axes: Axes, means: pd.DataFrame, method: str) -> None:
    """Draw one line per strength against epoch, labeled at its end, and plain's dotted."""
    axes.set_yscale("log")
    plain, mine = (means[means["method"] == key] for key in ("plain", method))
    order = in_order(mine["strength"], method)
    colors = _ramp(order, method) if order else {}
    lines = [(mine[mine["strength"] == strength], colors[strength]) for strength in order]
    lines, ends = [*lines, (plain, COLORS["plain"])], []
    for (line, color), name in zip(lines, [*names(order), LABELS["plain"]], strict=True):
        if len(line):
            band(axes, "epoch", line, color, "", name)
            ends.append((*line.iloc[-1][["epoch", "mean"]], name, color))
    if len(plain):
        axes.lines[-1].set_linestyle(":")
    end_labels(axes, ends)


def describe(method: str, strength: str, projected: bool) -> str:
    """Say how strong a method is, and whether BatchNorm layers are projected.

    Example:
        >>> describe("svc", "0.5", True), describe("plain", "", False)
        ('bound 0.5, projected', 'no penalty')
    """
    how = "no penalty" if method == "plain" else _SYMBOLS.get(method, r"$\beta$ = ") + strength
    return how + ", projected" * projected


def layers(axes: Axes, means: pd.DataFrame, colors: dict[int, str]) -> None:
    """Draw one line per layer against epoch, in the color of its depth."""
    axes.set_yscale("log")
    for position, line in means.groupby("position"):
        axes.plot(
            line["epoch"], line["value"], color=colors[position], linewidth=0.8,
            label=str(position),
        )  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(3, integer=True))


def depth_key(figure: Picture, colors: list[str]) -> None:
    """Say over the figure which color is the first layer, and which the last."""
    ends = zip(("first layer", "last layer"), (colors[0], colors[-1]), strict=True)
    handles = [Line2D([], [], color=color, label=name) for name, color in ends]
    figure.legend(handles=handles, loc="outside upper left", ncols=2)
