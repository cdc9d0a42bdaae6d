"""Small multiples: one panel per method, that method in color, all the others in grey."""

import pandas as pd
from matplotlib.axes import Axes

from normkit.plots.marks import header, picture, readable
from normkit.plots.style import COLORS, LABELS, PAGE, Picture

__all__ = ["BACKGROUND", "crosses", "label_gaps", "multiples"]

BACKGROUND = "#DEDEDE"


def multiples(title: str, methods: list[str], *, xlabel: str, ylabel: str) -> dict[str, Axes]:
    """Return a panel per method, on one scale and four across at most, of a new figure.

    Example:
        >>> panels = multiples("10 layers", ["batch", "group"], xlabel="epoch", ylabel="accuracy")
        >>> [(axes.get_xlabel(), axes.get_ylabel()) for axes in panels.values()]
        [('epoch', 'accuracy'), ('epoch', '')]
    """
    down = -(-len(methods) // 4)
    figure = picture(PAGE, 0.75 + 1.1 * down)
    figure.suptitle(title, x=0.01, ha="left", fontsize=9, fontweight="bold", color="#111111")
    grid = figure.subplots(down, -(-len(methods) // down), squeeze=False, sharex=True, sharey=True)
    for axes in grid[:, 0]:
        axes.set_ylabel(ylabel)
    for axes in grid[-1]:
        axes.set_xlabel(xlabel)
    for spare in grid.ravel()[len(methods) :]:
        spare.remove()
    panels = dict(zip(methods, grid.ravel(), strict=False))
    for method, axes in panels.items():
        header(axes, LABELS[method], color=readable(COLORS[method]))
    return panels


def label_gaps(figure: Picture) -> Picture:
    """Label the x axis of panels that have an empty cell below them, and return the figure.

    In plain words: to be called when the layout is fixed, so that the labels stand in the empty
    cell and push no row away.
    """
    across = figure.axes[0].get_subplotspec().get_gridspec().ncols
    for axes in figure.axes[-across:]:
        axes.tick_params(labelbottom=True)
        axes.set_xlabel(figure.axes[-1].get_xlabel())
    return figure


def crosses(axes: Axes, x: pd.Series, y: pd.Series, color: str) -> None:
    """Mark runs that diverged, if there are any."""
    if len(x):  # without points the unclipped line would have an extent that breaks the layout
        axes.plot(
            x, y, linestyle="", marker="x", color=readable(color), markersize=4.5,
            markeredgewidth=1, label="diverged", clip_on=False, zorder=4,
        )  # fmt: skip
