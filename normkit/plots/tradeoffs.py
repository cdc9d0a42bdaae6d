"""Figures of what a normalizer gives: group size, rank, which one in which situation."""

from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, NullLocator, PercentFormatter
from seaborn import heatmap

from normkit.plots.marks import (
    GREY,
    band,
    count,
    end_labels,
    evidence,
    finish,
    header,
    panels,
    picture,
    points,
    readable,
    shades,
)  # fmt: skip
from normkit.plots.multiples import crosses
from normkit.plots.style import COLORS, COLUMN, LABELS, PAGE, Picture, style
from normkit.plots.tables import methods_of, require, summarize

__all__ = ["guide", "rank_training", "tradeoff"]

_SHAPES = "osD^vP"
_ENDS = {1.0: "InstanceNorm", np.inf: "LayerNorm"}
_PANELS = {"early": "first epochs", "final": "last epoch"}


@style()
def rank_training(table: pd.DataFrame, *, note: str = "") -> Picture:
    """Stable rank of the last layer's activations against epoch, one line per group size.

    In plain words: mean over seeds and 95 % t interval; one panel per situation, on one scale.

    Source: Lubana et al., NeurIPS 2021, https://arxiv.org/abs/2106.05956.

    Arguments:
        table: columns group_size (channels, inf for LayerNorm), situation, seed, epoch, value
            (the stable rank).
        note: a short grey line at the bottom.

    Raises:
        ValueError: a column is missing, or there is nothing to draw.

    Example:
        >>> table = pd.DataFrame({"group_size": 1.0, "situation": "10 layers", "seed": 0,
        ...     "epoch": [0.0, 0.5], "value": [3.0, 5.0]})
        >>> axes = rank_training(table).axes[0]
        >>> axes.get_title(loc="left"), axes.texts[0].get_text()
        ('10 layers', 'InstanceNorm')
    """
    columns = ["group_size", "situation", "seed", "epoch", "value"]
    table = require(table, columns)
    measured = np.isfinite(table["value"])
    rows = require(table[measured], columns, name="table, with values given,")
    means = summarize(rows, ["situation", "group_size", "epoch"])
    colors = shades(sorted(means["group_size"].unique(), reverse=True), "flare")
    nets = sorted(set(means["situation"]))
    figure = picture(COLUMN if len(nets) == 1 else PAGE, 0.5 + 1.75 * -(-len(nets) // 2))
    for (axes,), net in zip(panels(figure, len(nets), sharey=True), nets, strict=True):
        header(axes, net)
        ends = []
        for index, (size, color) in enumerate(colors.items()):
            line = means[(means["situation"] == net) & (means["group_size"] == size)]
            if len(line):
                name = _ENDS.get(size, f"{size:g} channels")
                band(axes, "epoch", line, color, _SHAPES[index % len(_SHAPES)], name)
                ends.append((*line.iloc[-1][["epoch", "mean"]], name, color))
        end_labels(axes, ends)
        axes.set_xlabel("epoch")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        if axes.get_subplotspec().is_first_col():
            axes.set_ylabel("stable rank, last layer")
    lost = f" Not measured: {count([int((~measured).sum())], 'value')}." * (not measured.all())
    return finish(figure, evidence("Mean", "Band", means["n"]) + lost, note)


@style()
def tradeoff(table: pd.DataFrame, *, note: str = "") -> Picture:
    """Training accuracy against the number of channels in a group, early and at the end.

    In plain words: InstanceNorm is the left end, with one channel in a group, and LayerNorm the
    right end, with all of them. Mean over seeds and 95 % t interval, one line per net and batch
    size; an x and a number say how many of a point's runs diverged: its mean counts these as
    chance, and has no interval.

    Source: Lubana, Dick and Tanaka, "Beyond BatchNorm", NeurIPS 2021,
    https://arxiv.org/abs/2106.05956, on the choice of the group size.

    Arguments:
        table: columns net, batch_size, group_size (channels; inf is all of them), seed, early
            (mean training accuracy over the first epochs, in [0, 1]), final (training accuracy
            of the last epoch) and status; after a divergence chance counts.
        note: a short grey line at the bottom.

    Raises:
        ValueError: a column or an accuracy is missing, or there is nothing to draw.

    Example:
        >>> table = pd.DataFrame({"net": "10 layers", "batch_size": 128, "seed": 0,
        ...     "group_size": [1.0, float("inf")], "early": [0.6, 0.4], "final": [0.7, 0.9],
        ...     "status": "ok"})
        >>> [axes.lines[0].get_ydata().tolist() for axes in tradeoff(table).axes]
        [[0.6, 0.4], [0.7, 0.9]]
    """
    columns = ["net", "batch_size", "group_size", "seed", *_PANELS, "status"]
    rows = require(table, columns)
    if rows[list(_PANELS)].isna().any(axis=None):
        raise ValueError("table lacks an accuracy: after a divergence a run counts as chance")
    sizes = sorted(rows["group_size"].unique())
    whole = 2 * max([size for size in sizes if np.isfinite(size)], default=0.5)
    place = {size: min(size, whole) for size in sizes}
    names, diverged = {1: "1\nInstanceNorm", np.inf: "all\nLayerNorm"}, rows["status"] != "ok"
    figure = picture(PAGE, 2.5)
    for axes, column in zip(figure.subplots(1, 2, sharey=True), _PANELS, strict=True):
        header(axes, _PANELS[column])
        part = rows.assign(value=rows[column], group_size=rows["group_size"].map(place))
        means, ends = _by_settings(axes, part)
        axes.set_xscale("log", base=2)
        axes.set_xticks(list(place.values()), [names.get(size, f"{size:g}\n ") for size in sizes])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("channels in a group")
        axes.margins(y=0.12)
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    end_labels(axes, ends)
    axes.set_ylim(np.clip(axes.get_ylim(), -0.03, 1.03))  # as the data, not the interval
    figure.axes[0].set_ylabel("training accuracy")
    lost = "x: how many of the runs diverged; no interval there." if any(diverged) else ""
    return finish(figure, f"{evidence('Mean', 'Bar', means['n'])} {lost}", note)


@style()
def guide(table: pd.DataFrame, *, note: str = "") -> Picture:
    """Which normalizer, when: training accuracy minus BatchNorm's, per method and situation.

    In plain words: blue is better than BatchNorm in the same situation, red worse, in percentage
    points of mean training accuracy. Bold: the 95 % interval of the difference excludes zero.
    "fails" stands where the method hardly learns, a dash where it was not run. The darkest color
    is the largest difference among those that do not fail.

    Source: Lubana, Dick and Tanaka, "Beyond BatchNorm", NeurIPS 2021,
    https://arxiv.org/abs/2106.05956, the question which its summary answers.

    Arguments:
        table: columns method, situation (columns in the order in which they come, twelve fit; a
            comma breaks the line), effect, low, high (differences of accuracies in [0, 1]), n
            (seeds), fails (accuracy below twice chance); one row per cell.
        note: a short grey line at the bottom.

    Raises:
        ValueError: a column or all rows are missing, a method is unknown, or a cell occurs twice.

    Example:
        >>> table = pd.DataFrame({"method": ["layer", "none"], "situation": "batch 4",
        ...     "effect": [0.031, -0.6], "low": [0.02, -0.7], "high": [0.04, -0.5], "n": 3,
        ...     "fails": [False, True]})
        >>> [text.get_text() for text in guide(table).axes[0].texts]
        ['fails', '+3.1']
    """
    columns = ["method", "situation", "effect", "low", "high", "n", "fails"]
    rows, cell = require(table, columns), ["method", "situation"]
    if rows.duplicated(cell).any():
        where = " in ".join(rows.loc[rows.duplicated(cell), cell].iloc[0])
        raise ValueError(f"table has several rows for {where}: keep one per cell")
    methods, situations = methods_of(rows), rows["situation"].unique()
    effects = 100 * rows.pivot(index="method", columns="situation", values="effect")
    sound = 100 * rows.loc[~rows["fails"].astype(bool), "effect"].abs().max()
    many = len(situations) > 8
    turn, letters, align = (90, 24, "left") if many else (0, 84 // len(situations), "center")
    axes = picture(PAGE, 1.1 + 0.19 * len(methods) + 0.6 * many).subplots()
    axes.figure.get_layout_engine().set(h_pad=0.1 if many else 0.03)  # fonts vary with dpi
    _colors(axes, effects.loc[methods, situations], sound if sound > 0 else 1.0)
    found = {(row.method, row.situation): row for row in rows.itertuples()}
    for y, method in enumerate(methods):
        for x, situation in enumerate(situations):
            _write(axes, x, y, found.get((method, situation)))
    names = ["\n".join(fill(part, letters) for part in name.split(", ")) for name in situations]
    axes.set_xticks(np.arange(len(names)) + 0.5, names, fontsize=6, rotation=turn, ma=align)
    axes.set_yticks(np.arange(len(methods)) + 0.5, [LABELS[m] for m in methods], rotation=0)
    for text, method in zip(axes.get_yticklabels(), methods, strict=True):
        text.set_color(readable(COLORS[method]))
    seeds = count(rows["n"].astype(int), "seed")
    facts = f"Mean over {seeds}. Bold: the 95 % interval of the difference excludes 0."
    return finish(axes.figure, f"{facts} fails: below twice chance. \N{EN DASH}: not run.", note)


def _by_settings(
    axes: Axes, rows: pd.DataFrame
) -> tuple[pd.DataFrame, list[tuple[float, float, str, str]]]:
    """Draw one line per net and batch size, a little apart; return means and end labels."""
    means, ends = summarize(rows, ["net", "batch_size", "group_size"]), []
    nets, sizes = sorted(rows["net"].unique()), sorted(rows["batch_size"].unique())
    colors = shades(sizes, "crest")
    settings = list(means.groupby(["net", "batch_size"]))
    for index, ((net, size), line) in enumerate(settings):
        apart = 2.0 ** (min(0.12, 0.6 / len(settings)) * (index - (len(settings) - 1) / 2))
        name, color = f"{net}, batch {size:g}", colors[size]
        mine = rows[(rows["net"] == net) & (rows["batch_size"] == size)]
        lost = mine[mine["status"] != "ok"].groupby("group_size").size()
        line = line.assign(lost=line["group_size"].map(lost).fillna(0))
        line["group_size"] *= apart
        bad = line["lost"] > 0
        line.loc[bad, ["low", "high"]] = np.nan  # two kinds of runs, no t law
        points(axes, "group_size", line, color, _SHAPES[nets.index(net) % len(_SHAPES)], name)
        axes.lines[-1].set_markevery((~bad).to_numpy())
        ends.append((*line.iloc[-1][["group_size", "mean"]], name, color))
        crosses(axes, line["group_size"][bad], line["mean"][bad], color)
        for at in line[bad].itertuples():
            axes.annotate(
                f"{at.lost:g}", (at.group_size, at.mean), (0, -9 if index % 2 else 4),
                textcoords="offset points", ha="center", fontsize=6, color=readable(color),
            )  # fmt: skip
    return means, ends


def _colors(axes: Axes, effects: pd.DataFrame, limit: float) -> None:
    """Color the cells, and say at the right what a color means."""
    extend = "min" if (effects < -limit).any(axis=None) else "neither"
    label = "mean training accuracy\nminus BatchNorm's, points"
    heatmap(
        effects, ax=axes, cmap="RdBu", vmin=-limit, vmax=limit, linewidths=0.8, linecolor="white",
        mask=effects.isna(), cbar_kws={"label": label, "extend": extend, "pad": 0.02},
    )  # fmt: skip
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    axes.set(xlabel="", ylabel="")


def _write(axes: Axes, x: int, y: int, cell: tuple | None) -> None:
    """Write a cell's difference in letters that its color lets one read, bold if it is sure."""
    if cell is None or not (cell.fails or np.isfinite(cell.effect)):
        axes.text(x + 0.5, y + 0.5, "\N{EN DASH}", color=GREY, ha="center", va="center")
        return
    mesh, effect = axes.collections[0], 100 * cell.effect
    rgb = np.array(mesh.cmap(mesh.norm(effect)))[:3] if np.isfinite(effect) else np.ones(3)
    dark = np.dot([0.2126, 0.7152, 0.0722], rgb**2.2) < 0.18  # white letters contrast more
    text = f"{effect:+.1f}" if effect else "0"
    sure = not cell.fails and (cell.low > 0 or cell.high < 0)
    axes.text(
        x + 0.5, y + 0.5, "fails" if cell.fails else text.replace("-", "\N{MINUS SIGN}"),
        color="white" if dark else "#111111", fontsize=6, ha="center", va="center",
        fontweight="bold" if sure else "normal", fontstyle="italic" if cell.fails else "normal",
    )  # fmt: skip
