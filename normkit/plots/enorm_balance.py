"""Figures of balancing itself: convergence, the function it keeps, the units, what it costs."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from normkit.plots import enorm_balance_panels as panels
from normkit.plots.marks import count, finish, header, keys, picture, shades, two_powers
from normkit.plots.regularization_panels import once, unmeasured
from normkit.plots.style import COLUMN, PAGE, Picture, style
from normkit.plots.tables import choose, methods_of, require

__all__ = ["balancing", "cost", "function", "units"]

_SIZES = {"excess": "energy / minimum $-$ 1", "imbalance": "imbalance"}
_COSTS = {"added": "added to a step, ms", "share": "share of the plain step, %"}


@style()
def balancing(table: pd.DataFrame, *, note: str = "") -> Picture:
    """Energy above its minimum, and imbalance, against cycles of balancing, a column per network.

        imbalance = max over units i of |log(outgoing_i / (c incoming_i))|

    In plain words: each thin line starts from another rescaling of the same network; all end at
    one minimum, where the imbalance vanishes. The axes are logarithmic; what is below the dotted
    line is drawn on it.

    Source: Stock, Graham, Gribonval and Jegou, "Equi-normalization of neural networks", ICLR
    2019, https://arxiv.org/abs/1902.10416, the theorem on convergence.
    Deviation: the figure is ours.

    Arguments:
        table: columns net (four at most, in the order in which they come), variant ("paper",
            "released"), start (which rescaling), cycle, excess, imbalance.
        note: a short grey line at the bottom.

    Raises:
        ValueError: a column is missing, there is nothing to draw, a variant is unknown, or there
            are too many networks.

    Example:
        >>> table = pd.DataFrame({"net": "small", "variant": "paper", "start": 0,
        ...     "cycle": [0, 1], "excess": [0.5, 0.0], "imbalance": [2.0, 1e-3]})
        >>> [axes.lines[0].get_ydata().tolist() for axes in balancing(table).axes]
        [[0.5, 1e-16], [2.0, 0.001]]
    """
    rows = require(table, ["net", "variant", "start", "cycle", *_SIZES])
    nets = list(dict.fromkeys(rows["net"]))
    for variant in rows["variant"].unique():
        choose("variant", variant, panels.VARIANTS)
    if len(nets) > 4:
        raise ValueError(f"table has {len(nets)} networks: 4 at most fit side by side")
    figure = picture(COLUMN if len(nets) == 1 else PAGE, 3.2)
    grid = figure.subplots(2, len(nets), squeeze=False, sharex="col", sharey="row")
    deep = {size: rows[size].min() < panels.DEEP for size in _SIZES}
    for net, column in zip(nets, grid.T, strict=True):
        header(column[0], str(net))
        part = rows[rows["net"] == net].sort_values("cycle")
        for axes, size in zip(column, _SIZES, strict=True):
            values = part[size].clip(lower=panels.ROUNDING)
            panels.paths(axes, part.assign(value=values), deep=deep[size])
        column[1].set_xlabel("cycle")
        column[1].xaxis.set_major_locator(MaxNLocator(4, integer=True, steps=[1, 2, 5, 10]))
    for row, (size, label) in zip(grid, _SIZES.items(), strict=True):
        row[0].set_ylabel(label)
        if deep[size]:
            panels.name_rounding(row[0])
    keys(figure, [key for name, key in panels.VARIANTS.items() if name in set(rows["variant"])])
    facts = "Imbalance: largest |log(outgoing / c incoming)| of a unit. A line per rescaling from "
    starts = count(rows.groupby(["net", "variant"])["start"].nunique(), "start")
    return finish(figure, f"{facts}which balancing starts: {starts}.", note)


@style()
def function(
    table: pd.DataFrame, *, tolerance: float | Mapping[str, float], note: str = ""
) -> Picture:
    """How much balancing changes the output of networks, one row per network.

        change = |output after - output before| / |output before|

    In plain words: left of the dotted line is rounding, and the function is the same. A change of
    exactly 0 has no place on a logarithmic axis and is drawn at its left end.

    Source: Stock et al., ICLR 2019, https://arxiv.org/abs/1902.10416, the invariance to rescaling.

    Arguments:
        table: columns network (rows in the order in which they come), mode ("rescale", "ignore",
            "no BatchNorm"), change, kind (of numbers, such as "float64"; a panel each).
        tolerance: the change which rounding may make: one number, or one per kind.
        note: a short grey line at the bottom.

    Raises:
        ValueError: a column is missing, there is nothing to draw, or a mode is unknown.

    Example:
        >>> table = pd.DataFrame({"network": ["a", "b"], "mode": "rescale", "kind": "float64",
        ...     "change": [1e-15, 0.0]})
        >>> axes = function(table, tolerance=1e-12).axes[0]
        >>> axes.lines[0].get_xdata().tolist(), axes.get_xticklabels()[0].get_text()
        ([1e-17, 1e-15], '0')
    """
    rows = require(table, ["network", "mode", "change", "kind"])
    modes = {choose("mode", mode, panels.MODES) for mode in rows["mode"].unique()}
    names, kinds = list(dict.fromkeys(rows["network"])), list(dict.fromkeys(rows["kind"]))
    rows = rows.sort_values("change")
    measured = rows["change"] >= 0
    limits = [tolerance[k] if isinstance(tolerance, Mapping) else tolerance for k in kinds]
    exact = bool((rows["change"] == 0).any())
    least = min([*rows.loc[rows["change"] > 0, "change"], *limits])
    zero = 10.0 ** (np.floor(np.log10(least)) - 2)
    figure = picture(PAGE, 0.9 + 0.2 * len(names))
    grid = figure.subplots(1, len(kinds), squeeze=False, sharex=True, sharey=True)[0]
    for axes, kind, limit in zip(grid, kinds, limits, strict=True):
        header(axes, str(kind))
        panels.changes(axes, rows[(rows["kind"] == kind) & measured], names, zero)
        axes.axvline(limit, color="#888888", linestyle=":", linewidth=0.8, zorder=0)
        axes.set_xlabel("relative change of the output")
    panels.zero_ticks(grid[0], zero, exact=exact)
    panels.name_modes(figure, modes)
    left = " 0: no number of the output changed." if exact else ""
    facts = f"Mark: one network. Dotted: the most that counts as rounding.{left}"
    return finish(figure, f"{facts} {unmeasured(measured)}", note)


@style()
def units(table: pd.DataFrame, *, c: float = 1.0, note: str = "") -> Picture:
    """Outgoing against incoming norm of every hidden unit, before and after balancing.

        balanced: outgoing_i = c incoming_i for every unit i

    In plain words: a dot is a unit; balancing moves it onto the line, and what it multiplies the
    one norm by, it divides the other by. The darker, the deeper.

    Source: Stock et al., ICLR 2019, https://arxiv.org/abs/1902.10416, the fixed point.
    Deviation: the figure is ours.

    Arguments:
        table: columns group (a pair of layers, in depth order), unit, incoming, outgoing (norms),
            when ("before" or "after").
        c: the factor between layers, the slope of the line.
        note: a short grey line at the bottom.

    Raises:
        ValueError: a column is missing, there is nothing to draw, or `when` is something else.

    Example:
        >>> table = pd.DataFrame({"group": "1 to 2", "unit": 0, "incoming": [1.0, 2.0],
        ...     "outgoing": [4.0, 2.0], "when": ["before", "after"]})
        >>> before, after = units(table).axes
        >>> [line.get_ydata().tolist() for line in (before.lines[0], after.lines[0])]
        [[4.0], [2.0]]
    """
    rows = require(table, ["group", "unit", "incoming", "outgoing", "when"])
    times = {choose("when", when, ["before", "after"]) for when in rows["when"].unique()}
    alive = (rows["incoming"] > 0) & (rows["outgoing"] > 0)
    good = require(rows[alive], ["incoming", "outgoing"], name="table, of norms above zero,")
    groups = list(dict.fromkeys(rows["group"]))
    colors = dict(zip(groups, shades(list(range(len(groups))), "crest").values(), strict=True))
    good = good.sort_values(["incoming", "outgoing"])
    figure = picture(PAGE, 3.2)
    both = good[["incoming", "outgoing"]].to_numpy()
    low, high = both.min() / 1.3, both.max() * 1.3
    for axes, when in zip(
        figure.subplots(1, len(times), squeeze=False, sharex=True, sharey=True)[0],
        sorted(times, reverse=True), strict=True,
    ):  # fmt: skip
        part = good[good["when"] == when]
        header(axes, when, panels.off_line(part, c))
        panels.scatter(axes, part, colors, c, (low, high))
    panels.name_balance(axes, c)
    figure.axes[0].set_ylabel("norm of outgoing weights")
    panels.name_groups(figure, colors)
    number = count(good.groupby("when").size(), "hidden unit")
    return finish(figure, f"A dot per unit: {number}. {unmeasured(alive, 'Zero')}", note)


@style()
def cost(table: pd.DataFrame, *, note: str = "") -> Picture:
    """Time that a method adds to a training step, against batch size: as it is, and as a share.

        share = seconds / base_seconds, of the same repetition

    In plain words: the mark is the median of the repetitions, the bar goes from the fastest to
    the slowest. Where noise makes a time negative, the axis is linear around zero, between the
    dotted lines, and logarithmic beyond.

    Source: Stock et al., ICLR 2019, https://arxiv.org/abs/1902.10416, on the time per step.

    Arguments:
        table: columns method, batch_size, repetition, seconds (which the method adds to a step),
            base_seconds (of the plain step).
        note: a short grey line at the bottom.

    Raises:
        ValueError: a column is missing, there is nothing to draw, a method is unknown, or a
            repetition occurs twice.

    Example:
        >>> table = pd.DataFrame({"method": "enorm", "batch_size": [1, 2], "repetition": 0,
        ...     "seconds": [0.25, 0.5], "base_seconds": [0.5, 2.0]})
        >>> [axes.lines[0].get_ydata().tolist() for axes in cost(table).axes]
        [[250.0, 500.0], [50.0, 25.0]]
    """
    rows = require(table, ["method", "batch_size", "repetition", "seconds", "base_seconds"])
    rows = once(rows, ["method", "batch_size", "repetition"], name="table")
    rows = rows.assign(added=1e3 * rows["seconds"])
    rows["share"] = 100 * rows["seconds"] / rows["base_seconds"]
    figure = picture(PAGE, 2.4)
    for axes, (size, label) in zip(figure.subplots(1, 2), _COSTS.items(), strict=True):
        panels.times(axes, rows.assign(value=rows[size]), methods_of(rows))
        two_powers(axes, dict.fromkeys(sorted(set(rows["batch_size"])), ""))
        axes.set(xlabel="batch size", ylabel=label)
    number = count(rows.groupby(["method", "batch_size"]).size(), "repetition")
    return finish(figure, f"Median of {number}. Bar: from the fastest to the slowest.", note)
