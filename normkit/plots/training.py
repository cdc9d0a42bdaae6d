"""Figures of training: curves, and accuracy under attack."""

import pandas as pd
from matplotlib.ticker import MaxNLocator, PercentFormatter

from normkit.plots.marks import (
    band,
    end_labels,
    evidence,
    finish,
    keys,
    picture,
    points,
)
from normkit.plots.style import COLORS, COLUMN, LABELS, MARKERS, PAGE, Picture, style
from normkit.plots.tables import methods_of, require, summarize

__all__ = ["curves", "robustness"]


@style()
def curves(history: pd.DataFrame, *, note: str = "") -> Picture:
    """Accuracy and loss against epoch, one line per method.

    In plain words: mean over seeds and 95 % t interval; accuracy on test images is solid, on
    training images (as the run saw them, attacked ones where it trains on those) dotted.

    Arguments:
        history: columns method, seed, epoch, train_loss, train_accuracy and accuracy, the
            accuracies in [0, 1].
        note: a short grey line at the bottom.

    Raises:
        ValueError: a column is missing, or there is nothing to draw.

    Example:
        >>> history = pd.DataFrame({"method": "plain", "seed": 0, "epoch": [1, 2],
        ...     "train_loss": [2.0, 1.0], "train_accuracy": [0.2, 0.6], "accuracy": [0.3, 0.7]})
        >>> [line.get_ydata().tolist() for line in curves(history).axes[0].lines]
        [[0.3, 0.7], [0.2, 0.6]]
    """
    columns = ["method", "seed", "epoch", "train_loss", "train_accuracy", "accuracy"]
    history = require(history, columns, name="history")
    figure = picture(PAGE, 2.3)
    left, right = figure.subplots(1, 2)
    seeds: list[int] = []
    for method in methods_of(history):
        part = history[history["method"] == method]
        for axes, column, dotted in [
            (left, "accuracy", False),
            (left, "train_accuracy", True),
            (right, "train_loss", True),
        ]:
            means = summarize(part.assign(value=part[column]), ["epoch"])
            seeds += means["n"].tolist()
            marker = "" if dotted else MARKERS[method]
            band(axes, "epoch", means, COLORS[method], marker, method)
            axes.lines[-1].set_linestyle(":" if dotted else "-")
    for axes in (left, right):
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    left.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    left.set_ylabel("accuracy")
    right.set(ylabel="training loss", yscale="log")
    keys(figure, methods_of(history))
    averaged = evidence("Mean", "Band", seeds)
    return finish(figure, f"Solid: test. Dotted: training. {averaged}", note)


@style()
def robustness(table: pd.DataFrame, *, note: str = "") -> Picture:
    """Accuracy of attacked images against the attack's radius, one line per method.

    Arguments:
        table: columns method, seed, epsilon (images in [0, 1]) and robust (in [0, 1]).
        note: a short grey line at the bottom.

    Raises:
        ValueError: a column is missing, or there is nothing to draw.

    Example:
        >>> table = pd.DataFrame({"method": "plain", "seed": 0, "epsilon": [0.0, 0.1],
        ...     "robust": [0.9, 0.2]})
        >>> robustness(table).axes[0].lines[0].get_ydata().tolist()
        [0.9, 0.2]
    """
    table = require(table, ["method", "seed", "epsilon", "robust"])
    means = summarize(table.assign(value=table["robust"]), ["method", "epsilon"])
    figure = picture(COLUMN, 2.1)
    axes, ends = figure.subplots(), []
    for method in methods_of(table):
        line = means[means["method"] == method]
        points(axes, "epsilon", line, COLORS[method], MARKERS[method], method)
        end = line.iloc[-1][["epsilon", "mean"]]
        ends.append((*end, LABELS[method], COLORS[method]))
    axes.set(xlabel=r"radius $\varepsilon$ ($\ell_\infty$, images in [0, 1])", ylim=(-0.03, 1.03))
    axes.set_ylabel("accuracy under attack")
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    end_labels(axes, ends)
    return finish(figure, evidence("Mean", "Bar", means["n"]), note)
