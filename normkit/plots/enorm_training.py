"""Figures of training with equi-normalization: batch size, asymmetry, auto-encoder, accuracies."""

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from normkit.plots.enorm_panels import averages, dots, lines, named_values, runs
from normkit.plots.marks import (
    band,
    evidence,
    finish,
    header,
    keys,
    panels,
    picture,
    shades,
    two_powers,
)
from normkit.plots.multiples import crosses
from normkit.plots.regularization_panels import value_ticks
from normkit.plots.style import COLORS, COLUMN, LABELS, MARKERS, PAGE, Picture, style
from normkit.plots.tables import diverged, methods_of, require, summarize

__all__ = ["asymmetry", "autoencoder", "batch", "levels"]

_SHAPES = "osD^vP"


@style()
def batch(table: pd.DataFrame, *, note: str = "") -> Picture:
    """Accuracy against batch size, one line per method.

    In plain words: mean over seeds and 95 % t interval; diverged runs are in no mean, an x and
    their number stand at the bottom.

    Source: Stock et al., ICLR 2019, https://arxiv.org/abs/1902.10416, on small batches.

    Arguments:
        table: columns method, batch_size, seed, accuracy (in [0, 1]; nan where the run diverged),
            status ("ok", or else the run diverged).
        note: a short grey line at the bottom.

    Raises:
        ValueError: a column is missing, there is nothing to draw, a method is unknown, or a run
            occurs twice.

    Example:
        >>> table = pd.DataFrame({"method": "enorm", "batch_size": [2, 64], "seed": 0,
        ...     "accuracy": [0.7, 0.8], "status": "ok"})
        >>> batch(table).axes[0].lines[0].get_ydata().tolist()
        [0.7, 0.8]
    """
    rows = runs(table, ["method", "batch_size"])
    names = {key: (LABELS[key], COLORS[key], MARKERS[key]) for key in methods_of(rows)}
    axes = picture(COLUMN, 2.3).subplots()
    means = lines(axes, rows, "method", "batch_size", names)
    two_powers(axes, dict.fromkeys(sorted(set(rows["batch_size"])), ""))
    axes.set(xlabel="batch size", ylabel="accuracy")
    return finish(axes.figure, f"{evidence('Mean', 'Bar', means['n'])} {diverged(rows)}", note)


@style()
def asymmetry(table: pd.DataFrame, *, note: str = "") -> Picture:
    """Accuracy of ENorm against its factor c, one line per depth.

        balanced: outgoing norm = c incoming norm, for every hidden unit

    In plain words: right of c = 1, the dotted line, later layers are the larger ones. The darker
    the line, the deeper the network. Mean over seeds and 95 % t interval; diverged runs are in no
    mean, an x and their number stand at the bottom.

    Source: Stock et al., ICLR 2019, https://arxiv.org/abs/1902.10416, on asymmetric scaling.

    Arguments:
        table: columns c, p (number of square hidden layers), seed, accuracy (in [0, 1]; nan where
            the run diverged), status ("ok", or else the run diverged).
        note: a short grey line at the bottom.

    Raises:
        ValueError: a column is missing, there is nothing to draw, or a run occurs twice.

    Example:
        >>> table = pd.DataFrame({"c": [1.0, 1.2], "p": 3, "seed": 0, "accuracy": [0.5, 0.6],
        ...     "status": "ok"})
        >>> axes = asymmetry(table).axes[0]
        >>> axes.lines[0].get_ydata().tolist(), axes.texts[0].get_text()
        ([0.5, 0.6], '$p$ = 3')
    """
    rows = runs(table, ["p", "c"]).assign(method="enorm")
    colors = shades(sorted(set(rows["p"])), "crest")
    names = {
        p: (f"$p$ = {p:g}", color, _SHAPES[index % len(_SHAPES)])
        for index, (p, color) in enumerate(colors.items())
    }
    axes = picture(COLUMN, 2.3).subplots()
    means = lines(axes, rows, "p", "c", names)
    axes.axvline(1, color="#888888", linestyle=":", linewidth=0.8, zorder=0)
    named_values(axes, rows["c"])
    axes.set(xlabel="factor $c$ between layers", ylabel="accuracy")
    return finish(axes.figure, f"{evidence('Mean', 'Bar', means['n'])} {diverged(rows)}", note)


@style()
def autoencoder(table: pd.DataFrame, *, note: str = "") -> Picture:
    """Loss of an auto-encoder, and its energy, against epoch, one line per method.

    In plain words: the loss on test images is solid, on training images dotted. The axes are
    logarithmic: geometric mean over seeds and its 95 % t interval. A run whose loss is no number
    at the end diverged: it ends where it did, with an x.

    Source: Stock et al., ICLR 2019, https://arxiv.org/abs/1902.10416, the auto-encoder.

    Arguments:
        table: columns method, seed, epoch, train_loss, loss (test), energy.
        note: a short grey line at the bottom.

    Raises:
        ValueError: a column is missing, there is nothing to draw, a method is unknown, or an
            epoch of a run occurs twice.

    Example:
        >>> table = pd.DataFrame({"method": "enorm", "seed": 0, "epoch": [1, 2],
        ...     "train_loss": [2.0, 1.0], "loss": [2.5, 1.5], "energy": [9.0, 8.0]})
        >>> [line.get_ydata().round(9).tolist() for line in autoencoder(table).axes[0].lines]
        [[2.5, 1.5], [2.0, 1.0]]
    """
    rows = require(table, ["method", "seed", "epoch", "train_loss", "loss", "energy"])
    rows, figure, seeds = rows.sort_values(["method", "seed", "epoch"]), picture(PAGE, 2.3), []
    left, right = figure.subplots(1, 2)
    alive = np.isfinite(rows["loss"]) & (rows["loss"] > 0)
    for method in methods_of(rows):
        for axes, name in [(left, "loss"), (left, "train_loss"), (right, "energy")]:
            part = rows[(rows["method"] == method) & np.isfinite(rows[name]) & (rows[name] > 0)]
            means = summarize(part.assign(value=part[name]), ["epoch"], log=True)
            seeds += means["n"].tolist()
            dotted = name == "train_loss"
            band(axes, "epoch", means, COLORS[method], "" if dotted else MARKERS[method], method)
            axes.lines[-1].set_linestyle(":" if dotted else "-")
    last = rows.groupby(["method", "seed"], as_index=False).tail(1)
    last = last.assign(status=np.where(np.isfinite(last["loss"]), "ok", "diverged"))
    for bad in last[last["status"] != "ok"].itertuples():
        method = bad.method
        run = rows[alive & (rows["method"] == method) & (rows["seed"] == bad.seed)].tail(1)
        crosses(left, run["epoch"], run["loss"], COLORS[method])
    for axes, label in ((left, "loss"), (right, "energy")):
        axes.set(xlabel="epoch", ylabel=label, yscale="log")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        value_ticks(axes)
    keys(figure, methods_of(rows))
    facts = f"Solid: test. Dotted: training. {evidence('Geometric mean', 'Band', seeds)}"
    return finish(figure, f"{facts} {diverged(last)}", note)


@style()
def levels(table: pd.DataFrame, *, note: str = "") -> Picture:
    """Final accuracies, one row per method and one panel per network.

    In plain words: a small dot is a seed; the mark is their mean, the bar its 95 % t interval.
    Diverged runs are in no mean: an x and their number stand at the left.

    Source: Stock et al., ICLR 2019, https://arxiv.org/abs/1902.10416, the tables of accuracies.

    Arguments:
        table: columns net (panels in the order in which they come), method, seed, accuracy (in
            [0, 1]; nan where the run diverged), status ("ok", or else the run diverged).
        note: a short grey line at the bottom.

    Raises:
        ValueError: a column is missing, there is nothing to draw, a method is unknown, or a run
            occurs twice.

    Example:
        >>> table = pd.DataFrame({"net": "small", "method": "enorm", "seed": [0, 1],
        ...     "accuracy": [0.5, 0.75], "status": "ok"})
        >>> [line.get_xdata().tolist() for line in levels(table).axes[0].lines]
        [[0.5, 0.75], [0.625]]
    """
    nets = list(dict.fromkeys(require(table, ["net"])["net"]))
    rows = runs(table, ["net", "method"])
    means, methods = averages(rows, ["net", "method"]), methods_of(rows)
    down = -(-len(nets) // 2)
    figure = picture(COLUMN if len(nets) == 1 else PAGE, 0.6 + down * (0.4 + 0.2 * len(methods)))
    for (axes,), net in zip(panels(figure, len(nets), sharey=True), nets, strict=True):
        header(axes, str(net))
        dots(axes, rows[rows["net"] == net], means[means["net"] == net], methods)
        axes.set_xlabel("accuracy")
    facts = f"Dot: one seed. {evidence('Mean', 'Bar', means['n'])} {diverged(rows)}"
    return finish(figure, facts, note)
