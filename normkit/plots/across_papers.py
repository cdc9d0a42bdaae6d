"""Figures of every method under every measurement: ranks, norm against robustness, cost."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator, PercentFormatter
from seaborn import heatmap

from normkit.plots.marks import GREY, count, evidence, finish, header, picture, readable
from normkit.plots.style import LABELS, PAGE, Picture, style
from normkit.plots.tables import require, summarize

__all__ = ["MEASURES", "cost", "departures", "predict", "ranks"]

MEASURES = {
    "clean": "clean\nimages",
    "robust": "under\nattack",
    "noisy": "wrong\nlabels",
    "first_epoch": "first\nepoch",
    "spectral": "spectral\nnorm",
    "l1": r"$\ell_1$" + "\nnorm",
    "linf": r"$\ell_\infty$" + "\nnorm",
    "slope": "slope\nfound",
    "energy": "energy",
    "stable_rank": "stable\nrank",
    "cosine": "cosine\nsimilarity",
    "gradient_ratio": "gradient\nratio",
}
FIRST = {"clean": "most", "robust": "most", "noisy": "most", "first_epoch": "most"}
FIRST |= dict.fromkeys(("spectral", "l1", "linf", "slope", "energy", "cosine"), "least")
FIRST |= {"stable_rank": "most", "gradient_ratio": "near 1"}
KINDS = {
    "none": ("#BBBBBB", "none"),
    **dict.fromkeys(("batch", "layer", "instance", "group", "filter_response", "evonorm_s0"),
                    ("#0072B2", "activations normalized")),
    **dict.fromkeys(("weight_norm", "scaled_ws", "spectral_norm", "oni", "conv_norm"),
                    ("#117733", "weights normalized")),
    **dict.fromkeys(("ocnn", "enorm", "nd_l1", "nd_linf", "svc", "wd"),
                    ("#E69F00", "norms pulled or clipped")),
    "pgd": ("#EE6677", "adversarial training"),
}  # fmt: skip


@style()
def ranks(table: pd.DataFrame, *, note: str = "") -> Picture:
    """The rank of every method under every measurement, with its 95 % t interval over seeds.

    In plain words: dark is first. In a cell the mean rank and, below, the interval. Above each
    column stands what comes first. Methods are in the order of their robust accuracy.

    Arguments:
        table: columns method, measure (of `MEASURES`), value, rank, low, high, n; one row per
            cell. Where the value is NaN, every run diverged, and the cell says so.
        note: a short grey line at the bottom.

    Raises:
        ValueError: a column is missing, or there is nothing to draw.

    Example:
        >>> table = pd.DataFrame({"method": ["batch", "none"], "measure": "clean",
        ...     "value": [0.9, 0.8], "rank": [1.0, 2.0], "low": 1.0, "high": 2.0, "n": 3})
        >>> [text.get_text() for text in ranks(table).axes[0].texts][:2]
        ['1', '1\N{EN DASH}2']
    """
    rows = require(table, ["method", "measure", "value", "rank", "low", "high", "n"])
    measures = [name for name in MEASURES if name in set(rows["measure"])]
    grid = rows.pivot(index="method", columns="measure", values="rank")[measures]
    grid = grid.reindex(rows["method"].unique())
    grid = grid.sort_values("robust" if "robust" in measures else measures[0], kind="stable")
    figure = picture(PAGE, 1.3 + 0.235 * len(grid))
    axes = figure.subplots()
    heatmap(
        grid, ax=axes, cmap="mako", vmin=1, vmax=len(grid), linewidths=0.6, linecolor="white",
        cbar_kws={"label": "mean rank", "pad": 0.015, "fraction": 0.03},
    )  # fmt: skip
    figure.axes[1].invert_yaxis()
    found = rows.set_index(["method", "measure"])
    for y, method in enumerate(grid.index):
        for x, measure in enumerate(measures):
            _rank_cell(axes, x + 0.5, y + 0.5, found.loc[(method, measure)], len(grid))
    names = [f"{MEASURES[name]}\n({FIRST[name]})" for name in measures]
    axes.set_xticks(np.arange(len(names)) + 0.5, names, fontsize=5, rotation=0)
    axes.set_yticks(np.arange(len(grid)) + 0.5, [LABELS[m] for m in grid.index], rotation=0)
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    axes.set(xlabel="", ylabel="")
    for text, method in zip(axes.get_yticklabels(), grid.index, strict=True):
        text.set_color(readable(KINDS[method][0]))
    facts = evidence("Mean rank", "Below", rows["n"].astype(int))
    return finish(figure, f"{facts} First is what stands in brackets.", note)


@style()
def predict(table: pd.DataFrame, correlations: pd.DataFrame, *, note: str = "") -> Picture:
    """Robust accuracy against each norm, a dot per method, with Spearman's correlation.

    In plain words: if a norm told how robust a network is, the dots would lie on a falling line.

    Arguments:
        table: columns method, seed, measure, value; with the measure robust.
        correlations: columns measure, effect, low, high, n (methods).
        note: a short grey line at the bottom.

    Raises:
        ValueError: a column is missing, or there is nothing to draw.

    Example:
        >>> rows = [("batch", 0, "l1", 2.0), ("batch", 0, "robust", 0.3)]
        >>> table = pd.DataFrame(rows, columns=["method", "seed", "measure", "value"])
        >>> found = pd.DataFrame({"measure": ["l1"], "effect": -0.5, "low": -1.0, "high": 0.2,
        ...     "n": 19})
        >>> axes = predict(table, found).axes[0]
        >>> axes.get_xlabel().replace("$", "")
        'Spearman \N{MINUS SIGN}0.50 [\N{MINUS SIGN}1.00, 0.20]'
    """
    rows = require(table, ["method", "seed", "measure", "value"])
    require(correlations, ["measure", "effect", "low", "high", "n"])
    figure = picture(PAGE, 0.75 + 1.55 * -(-len(correlations) // 3))
    grid = figure.subplots(
        -(-len(correlations) // 3), min(3, len(correlations)), squeeze=False, sharey=True
    )
    means = rows.pivot_table("value", "method", "measure", sort=False)
    for axes, found in zip(grid.ravel(), correlations.itertuples(), strict=False):
        _predictor(axes, means, found.measure)
        interval = f"[{found.low:.2f}, {found.high:.2f}]"
        label = f"Spearman {found.effect:.2f} {interval}".replace("-", "\N{MINUS SIGN}")
        axes.set_xlabel(label)
    for spare in grid.ravel()[len(correlations) :]:
        spare.remove()
    for axes in grid[:, 0]:
        axes.set_ylabel("robust accuracy")
    kinds = dict.fromkeys(KINDS[method] for method in means.index)
    handles = [
        figure.axes[0].scatter([], [], color=color, s=14, label=name) for color, name in kinds
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=len(handles))
    methods = count(correlations["n"].astype(int), "method")
    facts = f"A dot is a method: its mean over {count([rows['seed'].nunique()], 'seed')}."
    return finish(figure, f"{facts} Interval: 95 %, bootstrap over {methods}.", note)


@style()
def cost(table: pd.DataFrame, *, note: str = "") -> Picture:
    """The time of a training step as a multiple of BatchNorm's, per method.

    Arguments:
        table: columns method, seed (a repetition), ratio.
        note: a short grey line at the bottom.

    Raises:
        ValueError: a column is missing, or there is nothing to draw.

    Example:
        >>> table = pd.DataFrame({"method": ["batch", "oni"], "seed": 0, "ratio": [1.0, 1.6]})
        >>> cost(table).axes[0].get_xscale()
        'log'
    """
    rows = require(table, ["method", "seed", "ratio"]).rename(columns={"ratio": "value"})
    means = summarize(rows, ["method"], log=True).sort_values("mean", kind="stable")
    figure = picture(PAGE, 0.7 + 0.15 * len(means))
    axes = figure.subplots()
    for y, row in enumerate(means.itertuples()):
        color = KINDS[row.method][0]
        axes.plot([row.low, row.high], [y, y], color=color, linewidth=1)
        axes.plot(row.mean, y, "o", color=color, markersize=4)
    axes.set_yticks(range(len(means)), [LABELS[m] for m in means["method"]])
    axes.axvline(1, color=GREY, linewidth=0.6, linestyle=":")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel("time of a step, times that of BatchNorm")
    axes.invert_yaxis()
    facts = evidence("Geometric mean", "Bar", means["n"]).replace("seed", "round")
    return finish(figure, facts, note)


@style()
def departures(table: pd.DataFrame, *, note: str = "") -> Picture:
    """What each switch from paper to released code changes, in half-widths of its interval.

    In plain words: beyond the dotted lines the interval excludes no change. The numbers stand at
    the right: effect, 95 % interval and n.

    Arguments:
        table: columns departure, what, effect, low, high, n.
        note: a short grey line at the bottom.

    Raises:
        ValueError: a column is missing, or there is nothing to draw.

    Example:
        >>> table = pd.DataFrame({"departure": ["stale norms"], "what": "clean accuracy",
        ...     "effect": 0.01, "low": -0.01, "high": 0.03, "n": 3})
        >>> departures(table).axes[0].lines[0].get_xdata().tolist()
        [0.5]
    """
    rows = require(table, ["departure", "what", "effect", "low", "high", "n"])
    figure = picture(PAGE, 0.8 + 0.3 * len(rows))
    axes = figure.subplots()
    half = ((rows["high"] - rows["low"]) / 2).replace(0, np.nan)
    size = (rows["effect"] / half).clip(-8, 8).fillna(0)
    for y, (row, at) in enumerate(zip(rows.itertuples(), size, strict=True)):
        sure = abs(at) > 1
        axes.plot(at, y, "D" if sure else "o", color="#EE6677" if sure else GREY, markersize=4)
        numbers = f"{row.effect:+.3g} [{row.low:.2g}, {row.high:.2g}], n = {row.n}"
        axes.text(
            1.01, y, numbers.replace("-", "\N{MINUS SIGN}"), fontsize=5.5, va="center",
            transform=axes.get_yaxis_transform(),
        )  # fmt: skip
    names = [f"{row.departure}\n{row.what}" for row in rows.itertuples()]
    axes.set_yticks(range(len(rows)), names, fontsize=5.5)
    for side in (-1, 1):
        axes.axvline(side, color=GREY, linewidth=0.6, linestyle=":", zorder=0)
    axes.set_xlim(-9, 9)
    axes.invert_yaxis()
    axes.set_xlabel("released minus paper, in half-widths of the 95 % interval")
    return finish(figure, "Dots beyond 8 are drawn at 8.", note)


def _rank_cell(axes: Axes, x: float, y: float, row: pd.Series, most: int) -> None:
    color = "white" if row["rank"] < 0.6 * most else "#111111"
    if np.isnan(row["value"]):
        axes.text(x, y, "diverged", color=color, fontsize=4, ha="center", va="center")
        return
    axes.text(x, y - 0.14, f"{row['rank']:.2g}", color=color, fontsize=6, ha="center", va="center")
    if not np.isfinite(row["low"]):
        return
    interval = f"{row['low']:.0f}\N{EN DASH}{row['high']:.0f}"
    axes.text(x, y + 0.26, interval, color=color, fontsize=4, ha="center", va="center")


def _predictor(axes: Axes, means: pd.DataFrame, measure: str) -> None:
    header(axes, MEASURES[measure].replace("\n", " "))
    pair = means[[measure, "robust"]].dropna()
    colors = [KINDS[method][0] for method in pair.index]
    axes.scatter(pair[measure], pair["robust"], c=colors, s=14, linewidths=0, zorder=3)
    if measure != "clean" and pair[measure].max() > 4 * pair[measure].min() > 0:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_locator(NullLocator())
    if measure == "clean":
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.margins(0.12)
