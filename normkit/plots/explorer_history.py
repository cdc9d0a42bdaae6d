"""The explorer's figure of a run as its epochs went by.

A person moves a slider and waits for it, so the layout is fixed: one that fits itself to its
text takes as long as all the rest of the drawing.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator, PercentFormatter

from normkit.plots.marks import GREY, layer_ticks, readable
from normkit.plots.norm_panels import short_name
from normkit.plots.regularization_panels import value_ticks
from normkit.plots.style import COLORS, NORMS, PAGE, Picture, style
from normkit.plots.tables import choose, require

__all__ = ["inches", "over_epochs"]

BACKGROUND = "#D9D9D9"
BATCH = "batch_norm"
NAMED = 24  # layers whose names have room
CURVES = {
    "accuracy": ("-", "test"),
    "train_accuracy": (":", "training"),
    "robust_accuracy": ("--", "attacked"),
}
LOSSES = {"loss": ("-", "test"), "train_loss": (":", "training")}


@style()
def over_epochs(
    norms: pd.DataFrame,
    history: pd.DataFrame,
    *,
    epoch: int,
    norm: str,
    method: str = "plain",
    note: str = "",
) -> Picture:
    """Layer norms at one epoch before those of all others, and where that epoch is in the run.

    In plain words: a dot is a layer's norm, filled for the epoch that is looked at, grey for all
    others; BatchNorm layers are open. At the right accuracy and loss, the epoch marked.

    Arguments:
        norms: columns layer, kind, epoch, value; layers in depth order.
        history: columns epoch, train_loss, train_accuracy, loss, accuracy, robust_accuracy, the
            accuracies in [0, 1], NaN where they were not measured.
        epoch: one of the norms' epochs.
        norm: a key of `NORMS`: whose values stand in `norms`.
        method: whose color is used.
        note: a short grey line at the bottom.

    Raises:
        ValueError: a column is missing, there is nothing to draw, or no norm at that epoch.

    Example:
        >>> norms = pd.DataFrame({"layer": "stem", "kind": "conv", "epoch": [1, 2],
        ...     "value": [2.0, 3.0]})
        >>> history = pd.DataFrame({"epoch": [1, 2], "train_loss": [2.0, 1.0], "loss": np.nan,
        ...     "accuracy": [0.5, 0.7], "train_accuracy": [0.4, 0.6], "robust_accuracy": np.nan})
        >>> figure = over_epochs(norms, history, epoch=2, norm="l1")
        >>> [line.get_ydata().tolist() for line in figure.axes[0].lines]
        [[2.0, 3.0], [3.0]]
    """
    choose("norm", norm, NORMS)
    rows = require(norms, ["layer", "kind", "epoch", "value"], name="norms")
    columns = ["epoch", "train_loss", "loss", *CURVES]
    history = require(history, columns, name="history")
    if epoch not in set(rows["epoch"]):
        raise ValueError(f"epoch is {epoch}; norms were kept at {sorted(set(rows['epoch']))}")
    judged = bool(history[list(CURVES)].notna().to_numpy().any())
    figure, left, right = _frame(1 + judged)
    color = COLORS[method]
    _layers(left, rows, epoch, color)
    left.set_ylabel(f"{NORMS[norm]} (log scale)")
    if judged:
        _curves(right[0], history, CURVES, epoch, color)
        right[0].yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        right[0].tick_params(labelbottom=False)
        right[0].set(ylabel="accuracy")
    _curves(right[-1], history, LOSSES, epoch, color)
    right[-1].set(xlabel="epoch", ylabel="loss")
    figure.legend(handles=_dots(rows, epoch, color), loc="upper left", ncols=3)
    figure.text(0.01, 0.02, note, fontsize=6, color=GREY)
    return figure


def _frame(rows: int) -> tuple[Picture, Axes, list[Axes]]:
    """A figure with a wide panel at its left and one or two small ones at its right."""
    figure = Picture(figsize=(PAGE, 2.6))
    grid = figure.add_gridspec(
        rows, 2, width_ratios=(1.75, 1), wspace=0.26, hspace=0.16,
        **inches(figure, left=0.5, right=0.58, bottom=0.78, top=0.24),
    )  # fmt: skip
    left = figure.add_subplot(grid[:, 0])
    return figure, left, [figure.add_subplot(grid[row, 1]) for row in range(rows)]


def inches(
    figure: Picture, *, left: float, right: float, bottom: float, top: float
) -> dict[str, float]:
    """Margins in inches as the fractions that a grid takes.

    Example:
        >>> inches(Picture(figsize=(4, 2)), left=1, right=1, bottom=0.5, top=0)
        {'left': 0.25, 'right': 0.75, 'bottom': 0.25, 'top': 1.0}
    """
    width, height = map(float, figure.get_size_inches())
    across, up = {"left": left / width, "right": 1 - right / width}, bottom / height
    return across | {"bottom": up, "top": 1 - top / height}


def _layers(axes: Axes, rows: pd.DataFrame, epoch: int, color: str) -> None:
    """A column of grey dots per layer, one an epoch, and the dot of the one looked at."""
    names = list(dict.fromkeys(rows["layer"]))
    x = rows["layer"].map({name: index for index, name in enumerate(names)})
    dots = {"linestyle": "", "marker": "o"}
    axes.set_yscale("log")
    axes.plot(x, rows["value"], color=BACKGROUND, markersize=2.6, markeredgewidth=0, **dots)
    now, batch = rows["epoch"] == epoch, rows["kind"] == BATCH
    for chosen, face in ((now & ~batch, color), (now & batch, "white")):
        if chosen.any():
            axes.plot(
                x[chosen], rows["value"][chosen], markersize=4.2, markerfacecolor=face,
                markeredgecolor=color, markeredgewidth=0.9, zorder=3, **dots,
            )  # fmt: skip
    value_ticks(axes)
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_xlim(-0.6, len(names) - 0.4)
    named = [name for name in names if name not in set(rows["layer"][rows["kind"] == BATCH])]
    if len(named) > NAMED:
        layer_ticks(axes, range(len(names)))
        axes.set_xlabel("layer, first to last")
        return
    places = [names.index(name) for name in named]
    axes.set_xticks(places, [short_name(name, 18) for name in named], fontsize=6)
    for label in axes.get_xticklabels():
        label.set(rotation=45, ha="right", rotation_mode="anchor", va="center")


def _curves(
    axes: Axes, history: pd.DataFrame, shown: Mapping[str, tuple[str, str]], epoch: int, color: str
) -> None:
    """A line per column that has numbers, named at its end, and a dot where the epoch is."""
    axes.axvline(epoch, color=GREY, linewidth=0.6, zorder=0)
    ends = []
    for column, (line, name) in shown.items():
        part = history[["epoch", column]].dropna()
        if part.empty:
            continue
        marker = "s" if len(part) == 1 else ""
        axes.plot(
            part["epoch"], part[column], color=color, linestyle=line, marker=marker,
            markersize=2.6, linewidth=1, label=name,
        )  # fmt: skip
        ends.append((*part.iloc[-1], name, color))
        now = part[part["epoch"] == epoch]
        if len(now):
            axes.plot(
                now["epoch"], now[column], linestyle="", marker="o", color=color, zorder=3,
                markeredgecolor="white", markeredgewidth=0.5, label=f"{name} now",
            )  # fmt: skip
    axes.set_xlim(history["epoch"].min() - 0.3, history["epoch"].max() + 0.3)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    low, high = axes.dataLim.intervaly
    axes.set_ylim((-0.03, 1.03) if "accuracy" in shown else (min(0, low), 1.05 * high))
    axes.yaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
    _names(axes, ends)


def _names(axes: Axes, ends: list[tuple[float, float, str, str]]) -> None:
    """Names at the right of lines, from the lowest up, moved apart as far as legible."""
    points = axes.figure.dpi / 72
    least = -np.inf
    for x, y, text, color in sorted(ends, key=lambda end: end[1]):
        place = axes.transData.transform((x, y))[1] / points
        least = max(place, least + 7.6)
        axes.annotate(
            text, (x, y), (6, least - place), textcoords="offset points", va="center",
            color=readable(color), fontsize=6.5, annotation_clip=False,
        )  # fmt: skip


def _dots(rows: pd.DataFrame, epoch: int, color: str) -> list[Line2D]:
    kinds = set(rows["kind"])
    marks = [(color, color, 4.2, f"layer at epoch {epoch}")] if kinds - {BATCH} else []
    marks += [("white", color, 4.2, "BatchNorm")] if BATCH in kinds else []
    marks.append((BACKGROUND, BACKGROUND, 2.6, "at the other epochs"))
    return [
        Line2D(
            [], [], linestyle="", marker="o", markerfacecolor=face, markeredgecolor=edge,
            markersize=size, label=label,
        )  # fmt: skip
        for face, edge, size, label in marks
    ]
