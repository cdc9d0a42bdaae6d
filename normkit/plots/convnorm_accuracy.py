"""Figures of the accuracies that ConvNorm reaches: clean, attacked, without its parts."""

import pandas as pd

from normkit.plots.convnorm_panels import (
    changes,
    dot_panel,
    paired,
    scored,
)
from normkit.plots.enorm_panels import averages
from normkit.plots.marks import evidence, finish, header, picture
from normkit.plots.style import COLUMN, LABELS, PAGE, Picture, style
from normkit.plots.tables import choose, diverged, methods_of, require

__all__ = ["ablation", "blackbox", "robust", "standard"]

_SOURCES = ["here", "paper"]


@style()
def standard(table: pd.DataFrame, *, note: str = "") -> Picture:
    """Clean accuracies, one row per method and one panel per data set.

    In plain words: a small dot is a seed; the mark is their mean, the bar its 95 % t interval.
    Published values are open marks, in a row of panels of their own; each panel has its own
    range. Diverged runs are in no mean: an x and their number stand at the left.

    Source: Liu et al., "Convolutional Normalization", NeurIPS 2021,
    https://arxiv.org/abs/2103.00673, the tables of clean accuracies.

    Arguments:
        table: columns dataset (panels in the order in which they come), method, seed, accuracy
            (in [0, 1]; nan where the run diverged), source ("here" or "paper"); a column status
            is heeded, if there is one.
        note: a short grey line at the bottom.

    Raises:
        ValueError: a column is missing, there is nothing to draw, a source or a method is
            unknown, or a run occurs twice.

    Example:
        >>> table = pd.DataFrame({"dataset": "CIFAR-10", "method": "conv_norm", "seed": [0, 1],
        ...     "accuracy": [0.5, 0.75], "source": "here"})
        >>> [line.get_xdata().tolist() for line in standard(table).axes[0].lines]
        [[0.5, 0.75], [0.625]]
    """
    return _by_source(table, "dataset", note)


@style()
def robust(table: pd.DataFrame, *, note: str = "") -> Picture:
    """Accuracies under attack of adversarially trained networks, one panel per attack.

    In plain words: a small dot is a seed; the mark is their mean, the bar its 95 % t interval.
    Below, with open marks, the published values, of other networks and images; each panel has
    its own range. Diverged runs are in no mean: an x and their number stand at the left.

    Source: Liu et al., NeurIPS 2021, https://arxiv.org/abs/2103.00673, the results of free
    adversarial training, and the notebook `check_result` of the released code.

    Arguments:
        table: columns source ("here" or "paper"), attack (panels in the order in which they
            come), method, seed, accuracy (in [0, 1]; nan where the run diverged); a column
            status is heeded, if there is one.
        note: a short grey line at the bottom.

    Raises:
        ValueError: a column is missing, there is nothing to draw, a source or a method is
            unknown, or a run occurs twice.

    Example:
        >>> table = pd.DataFrame({"source": ["here", "paper"], "attack": "FGSM", "seed": 6,
        ...     "method": "conv_norm", "accuracy": [0.25, 0.5]})
        >>> figure = robust(table)
        >>> [axes.lines[-1].get_markerfacecolor() for axes in figure.axes]
        ['#EE6677', 'white']
    """
    return _by_source(table, "attack", note)


def _by_source(table: pd.DataFrame, column: str, note: str) -> Picture:
    """Draw a panel per value of a column, and a row of panels per source."""
    for source in require(table, ["source"])["source"].unique():
        choose("source", source, _SOURCES)
    rows = scored(table, ["source", column, "method"])
    means = averages(rows, ["source", column, "method"])
    groups = list(dict.fromkeys(table[column]))
    sources = [source for source in _SOURCES if source in set(rows["source"])]
    shown = [methods_of(rows[rows["source"] == source]) for source in sources]
    height = 0.35 + sum(0.6 + 0.19 * len(methods) for methods in shown)
    figure = picture(COLUMN if len(groups) == 1 else PAGE, height)
    grid = figure.subplots(
        len(sources), len(groups), squeeze=False, sharey="row",
        height_ratios=[1 + len(methods) for methods in shown],
    )  # fmt: skip
    for source, line, methods in zip(sources, grid, shown, strict=True):
        for axes, group in zip(line, groups, strict=True):
            mine, mean = (t[(t["source"] == source) & (t[column] == group)] for t in (rows, means))
            dot_panel(axes, mine, mean, methods, paper=source == "paper")
            header(axes, str(group), source if "paper" in sources else "")
    facts = f"Dot: one seed. {evidence('Mean', 'Bar', means['n'])} {diverged(rows)}"
    return finish(figure, facts, note)


@style()
def blackbox(table: pd.DataFrame, *, note: str = "") -> Picture:
    """Accuracies under attacks that see no gradient of the network, one panel per attack.

    In plain words: a transferred attack was made on the network that its panel names. A small
    dot is a seed; the mark is their mean, the bar its 95 % t interval; each panel has its own
    range. Diverged runs are in no mean: an x and their number stand at the left.

    Source: Liu et al., NeurIPS 2021, https://arxiv.org/abs/2103.00673, on attacks without
    gradients.

    Arguments:
        table: columns attack ("SPSA", "transfer"), source (the method whose network made the
            images, "" if the attacked one did), method, seed, accuracy (in [0, 1]; nan where the
            run diverged); a column status is heeded, if there is one.
        note: a short grey line at the bottom.

    Raises:
        ValueError: a column is missing, there is nothing to draw, a method or a source is
            unknown, or a run occurs twice.

    Example:
        >>> table = pd.DataFrame({"attack": "transfer", "source": "batch", "seed": [0, 1],
        ...     "method": "conv_norm", "accuracy": [0.5, 0.75]})
        >>> axes = blackbox(table).axes[0]
        >>> axes.get_title(loc="left"), axes.texts[0].get_text()
        ('transfer', 'made on BatchNorm')
    """
    for source in require(table, ["attack", "source"])["source"].unique():
        choose("source", source, ["", *LABELS])
    rows = scored(table, ["attack", "source", "method"])
    means, methods = averages(rows, ["attack", "source", "method"]), methods_of(rows)
    order = [(a, s) for a in dict.fromkeys(table["attack"]) for s in ["", *LABELS]]
    groups = dict(list(rows.groupby(["attack", "source"])))
    groups = {key: groups[key] for key in order if key in groups}
    down = -(-len(groups) // 3)
    across = -(-len(groups) // down)
    figure = picture(COLUMN if across == 1 else PAGE, 0.4 + down * (0.62 + 0.19 * len(methods)))
    grid = figure.subplots(down, across, squeeze=False, sharey=True).ravel()
    for axes, ((attack, source), part) in zip(grid, groups.items(), strict=False):
        mean = means[(means["attack"] == attack) & (means["source"] == source)]
        dot_panel(axes, part, mean, methods)
        header(axes, str(attack), f"made on {LABELS[source]}" if source else "made on itself")
    for spare in grid[len(groups) :]:
        spare.remove()
    facts = f"Dot: one seed. {evidence('Mean', 'Bar', means['n'])} {diverged(rows)}"
    return finish(figure, facts, note)


@style()
def ablation(table: pd.DataFrame, *, note: str = "") -> Picture:
    """Accuracy of ConvNorm with and without its parts, and the differences from all of it.

        change = accuracy(method) - accuracy(ConvNorm), with the same seed

    In plain words: a small dot is a seed; the mark is their mean, the bar its 95 % t interval.
    A part that helps has its row, at the right, left of 0. Diverged runs are in no mean: an x
    and their number stand at the left.

    Source: Liu et al., NeurIPS 2021, https://arxiv.org/abs/2103.00673, the ablation.

    Arguments:
        table: columns method ("conv_norm" among them), seed, accuracy (in [0, 1]; nan where the
            run diverged); a column status is heeded, if there is one.
        note: a short grey line at the bottom.

    Raises:
        ValueError: a column is missing, there is nothing to draw, a method is unknown, a run
            occurs twice, or there is no run of ConvNorm, or of nothing else.

    Example:
        >>> table = pd.DataFrame({"method": ["conv_norm", "conv_norm_bare"], "seed": 0,
        ...     "accuracy": [0.75, 0.5]})
        >>> ablation(table).axes[1].lines[-1].get_xdata().tolist()
        [-25.0]
    """
    rows = scored(table, ["method"])
    means, methods = averages(rows, ["method"]), methods_of(rows)
    others = [key for key in methods if key != "conv_norm"]
    parts = [paired(rows, [], key, "conv_norm").assign(method=key) for key in others]
    if not parts:
        raise ValueError(f"table has the method {methods[0]} alone: it needs one to compare with")
    figure = picture(PAGE, 0.75 + 0.2 * len(methods))
    left, right = figure.subplots(1, 2, sharey=True)
    dot_panel(left, rows, means, methods)
    seeds = changes(right, pd.concat(parts), methods)["n"]
    right.set_xlabel("minus ConvNorm, points")
    facts = f"Dot: one seed. {evidence('Mean', 'Bar', [*means['n'], *seeds])} {diverged(rows)}"
    return finish(figure, facts, note)
