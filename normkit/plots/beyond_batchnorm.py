"""Figures of "Beyond BatchNorm": what normalization does to a network before it is trained."""

import pandas as pd
from matplotlib.axes import Axes

from normkit.plots.marks import (
    band,
    end_labels,
    evidence,
    finish,
    header,
    layer_ticks,
    picture,
    points,
    shades,
    two_powers,
)
from normkit.plots.style import COLORS, COLUMN, LABELS, MARKERS, PAGE, Picture, style
from normkit.plots.tables import methods_of, require, summarize

__all__ = ["cosine", "gradient", "rank", "variance"]

_RUN = ["groups", "depth", "seed"]
_SIZES = [*_RUN, "width", "position", "value"]
_SHAPES = "osD^vP"


@style()
def variance(table: pd.DataFrame, *, note: str = "") -> Picture:
    """Activation variance against the residual block at initialization, one line per method.

    In plain words: geometric mean over seeds, with its 95 % t interval as a band; a panel without
    SkipInit and one with it, on one scale.

    Source: Lubana, Dick and Tanaka, "Beyond BatchNorm", NeurIPS 2021,
    https://arxiv.org/abs/2106.05956, the figure on activation variance.

    Arguments:
        table: columns method, skip_init, seed, position (the block), measure
            ("activation_variance"), value.
        note: a short grey line at the bottom.

    Raises:
        ValueError: a column is missing, there is nothing to draw, or a method is unknown.

    Example:
        >>> table = pd.DataFrame([
        ...     {"method": "none", "skip_init": False, "seed": seed, "position": block,
        ...      "measure": "activation_variance", "value": 2.0**block}
        ...     for seed in (0, 1) for block in (1, 2, 3)])
        >>> variance(table).axes[0].lines[0].get_ydata().round(6).tolist()
        [2.0, 4.0, 8.0]
    """
    columns = ["method", "skip_init", "seed", "position", "value"]
    rows = require(table, columns, measure="activation_variance")
    means = summarize(rows, ["skip_init", "method", "position"], log=True)
    kinds = sorted(means["skip_init"].unique())
    figure = picture(COLUMN if len(kinds) == 1 else PAGE, 2.4)
    panels = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    for axes, kind in zip(panels, kinds, strict=True):
        header(axes, "with SkipInit" if kind else "without SkipInit")
        ends, part = [], means[means["skip_init"] == kind]
        for method in methods_of(part):
            line = part[part["method"] == method]
            band(axes, "position", line, COLORS[method], MARKERS[method], method)
            end = line.iloc[-1][["position", "mean"]]
            ends.append((*end, LABELS[method], COLORS[method]))
        layer_ticks(axes, part["position"])
        axes.set(xlabel="residual block, at initialization", yscale="log")
        end_labels(axes, ends)
    panels[0].set_ylabel("activation variance")
    return finish(figure, evidence("Geometric mean", "Band", means["n"]), note)


@style()
def rank(table: pd.DataFrame, *, note: str = "") -> Picture:
    """Stable rank of the last layer's activations against the number of groups, per depth.

    In plain words: mean over seeds and 95 % t interval; the last layer is the one with the
    largest position of its run. One panel per width.

    Source: Lubana, Dick and Tanaka, NeurIPS 2021, https://arxiv.org/abs/2106.05956, the figure
    on the rank of activations.

    Arguments:
        table: columns groups, depth, width, seed, position, measure ("stable_rank"), value.
        note: a short grey line at the bottom.

    Raises:
        ValueError: a column is missing, or there is nothing to draw.

    Example:
        >>> table = pd.DataFrame([
        ...     {"groups": groups, "depth": 10, "width": 4, "seed": 0, "position": layer,
        ...      "measure": "stable_rank", "value": groups / layer}
        ...     for groups in (1, 2, 4) for layer in (1, 2)])
        >>> rank(table).axes[0].lines[0].get_ydata().tolist()
        [0.5, 1.0, 2.0]
    """
    rows = _grouped(table, "stable_rank")
    last = rows.groupby(["width", *_RUN])["position"].transform("max") == rows["position"]
    means = summarize(rows[last], ["width", "depth", "groups"])
    widths = sorted(set(means["width"]))
    colors = shades(sorted(set(means["depth"])), "crest")
    figure = picture(COLUMN if len(widths) == 1 else PAGE, 2.3)
    panels = figure.subplots(1, len(widths), sharey=True, squeeze=False)[0]
    for axes, width in zip(panels, widths, strict=True):
        header(axes, f"width {width:g}")
        part = means[means["width"] == width]
        _against_groups(axes, part, colors, _names(part))
    panels[0].set_ylabel("stable rank, last layer")
    return finish(figure, evidence("Mean", "Bar", means["n"]), note)


@style()
def cosine(table: pd.DataFrame, *, note: str = "") -> Picture:
    """Mean cosine similarity of two images' activations against layer, one line per group number.

    In plain words: mean over seeds, with its 95 % t interval as a band; one panel per depth. A
    cosine of 1 means that the network no longer tells images apart.

    Source: Lubana, Dick and Tanaka, NeurIPS 2021, https://arxiv.org/abs/2106.05956, the figure
    on the similarity of activations.

    Arguments:
        table: columns groups, depth, width, seed, position, measure ("cosine_similarity"), value.
        note: a short grey line at the bottom.

    Raises:
        ValueError: a column is missing, or there is nothing to draw.

    Example:
        >>> table = pd.DataFrame([
        ...     {"groups": groups, "depth": 10, "width": 4, "seed": 0, "position": layer,
        ...      "measure": "cosine_similarity", "value": layer / (2 + groups)}
        ...     for groups in (1, 4) for layer in (1, 2)])
        >>> [text.get_text() for text in cosine(table).axes[0].texts]
        ['LayerNorm, G = 1', 'InstanceNorm, G = 4']
    """
    rows = _grouped(table, "cosine_similarity")
    means = summarize(rows, ["depth", "groups", "position"])
    depths, names = sorted(set(means["depth"])), _names(rows)
    figure = picture(COLUMN if len(depths) == 1 else PAGE, 2.2)
    panels = figure.subplots(1, len(depths), sharey=True, squeeze=False)[0]
    for axes, depth in zip(panels, depths, strict=True):
        header(axes, f"{depth:g} layers")
        ends = _by_groups(axes, means[means["depth"] == depth], names)
    end_labels(axes, ends)
    panels[0].set_ylabel("mean cosine similarity")
    return finish(figure, evidence("Mean", "Band", means["n"]), note)


@style()
def gradient(table: pd.DataFrame, *, note: str = "") -> Picture:
    """Gradient norm per layer relative to the last layer, and first over last against groups.

    In plain words: geometric means over seeds of ratios within a run, with 95 % t intervals; one
    panel of layers per depth. A ratio far above 1: the gradient explodes on its way back.

    Source: Lubana, Dick and Tanaka, NeurIPS 2021, https://arxiv.org/abs/2106.05956, the figure
    on gradient explosion.

    Arguments:
        table: columns groups, depth, width, seed, position, measure ("gradient_norm"), value.
        note: a short grey line at the bottom.

    Raises:
        ValueError: a column is missing, or there is nothing to draw.

    Example:
        >>> table = pd.DataFrame([
        ...     {"groups": groups, "depth": 10, "width": 4, "seed": 0, "position": layer,
        ...      "measure": "gradient_norm", "value": groups ** (3.0 - layer)}
        ...     for groups in (1, 2, 4) for layer in (1, 2, 3)])
        >>> gradient(table).axes[-1].lines[0].get_ydata().round(6).tolist()
        [1.0, 4.0, 16.0]
    """
    rows = _grouped(table, "gradient_norm").sort_values("position")
    rows["value"] /= rows.groupby(_RUN)["value"].transform("last")
    means = summarize(rows, ["depth", "groups", "position"], log=True)
    first = means.groupby(["depth", "groups"], as_index=False).first()
    depths, names = sorted(set(means["depth"])), _names(rows)
    across = 2 if len(depths) % 2 else 3
    down = -(-(len(depths) + 1) // across)
    figure = picture(PAGE, 0.45 + 1.75 * down)
    panels = figure.subplots(down, across, sharey=True, squeeze=False).ravel()
    for axes, depth in zip(panels, depths, strict=False):
        header(axes, f"{depth:g} layers")
        ends = _by_groups(axes, means[means["depth"] == depth], dict.fromkeys(names, ""), 0)
        end_labels(axes, ends)
        axes.set(xlabel="layer, last to first", yscale="log")
        axes.invert_xaxis()
    for axes in panels[::across]:
        axes.set_ylabel("gradient norm / last layer's")
    header(panels[-1], "first / last layer")
    _against_groups(panels[-1], first, shades(depths, "crest"), names)
    panels[-1].set(yscale="log")
    panels[-1].axhline(1, color="#888888", linewidth=0.6, zorder=0)
    return finish(figure, evidence("Geometric mean", "Band and bar", means["n"]), note)


def _by_groups(
    axes: Axes, means: pd.DataFrame, names: dict[float, str], end: int = -1
) -> list[tuple[float, float, str, str]]:
    """Draw one line per number of groups; return the end, name and color of each."""
    colors, ends = shades(list(names), "flare"), []
    layer_ticks(axes, means["position"])
    axes.set_xlabel("layer")
    for index, (groups, norm) in enumerate(names.items()):
        line = means[means["groups"] == groups]
        if len(line):
            name = f"{norm}, G = {groups:g}" if norm else f"G = {groups:g}"
            band(axes, "position", line, colors[groups], _SHAPES[index % len(_SHAPES)], name)
            x, y = line.iloc[end][["position", "mean"]]
            ends.append((x, y, name, colors[groups]))
    return ends


def _against_groups(
    axes: Axes, means: pd.DataFrame, colors: dict[float, str], names: dict[float, str]
) -> None:
    """Draw one line per depth against the number of groups, a little apart from one another."""
    ends = []
    for index, (depth, color) in enumerate(colors.items()):
        line = means[means["depth"] == depth]
        apart = 2.0 ** (0.07 * (index - (len(colors) - 1) / 2))
        line = line.assign(groups=line["groups"] * apart)
        if len(line):
            points(axes, "groups", line, color, _SHAPES[index % len(_SHAPES)], f"{depth:g} layers")
            ends.append((*line.iloc[-1][["groups", "mean"]], f"{depth:g} layers", color))
    end_labels(axes, ends)
    two_powers(axes, names)
    axes.set_xlabel("groups G")


def _grouped(table: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Return the rows of a measure that have a number of groups."""
    rows = require(table, _SIZES, measure=measure)
    return require(rows[rows["groups"].notna()].copy(), _SIZES, name="table, with groups given,")


def _names(table: pd.DataFrame) -> dict[float, str]:
    """Return which normalization each number of groups is, if it has a name; fewest first."""
    whole = table.loc[table["groups"] == table["width"], "groups"]
    called = dict.fromkeys(whole, "InstanceNorm") | {1: "LayerNorm"}
    return {groups: called.get(groups, "") for groups in sorted(set(table["groups"]))}
