"""Figures of training under many normalizers: a small multiple each, that method in color."""

import textwrap
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from normkit.plots.marks import (
    band,
    count,
    end_labels,
    evidence,
    finish,
    layer_ticks,
    picture,
    readable,
    shades,
)
from normkit.plots.multiples import BACKGROUND, crosses, label_gaps, multiples
from normkit.plots.style import COLORS, LABELS, MARKERS, PAGE, Picture, style
from normkit.plots.tables import diverged, methods_of, require, summarize

__all__ = ["curves", "profiles", "speed"]

_MEASURES = {
    "activation_variance": "activation\nvariance",
    "stable_rank": "stable rank",
    "cosine_similarity": "mean cosine\nsimilarity",
    "gradient_norm": "gradient norm /\nlast layer's",
}
_LOG = ["activation_variance", "gradient_norm"]
_MOST = 5


@style()
def curves(history: pd.DataFrame, *, note: str = "") -> Picture:
    """Training accuracy against epoch, one panel per method, the other methods behind it.

    In plain words: mean over seeds and 95 % t interval, over the runs that reached the epoch. A
    run that diverged ends where it diverged, with an x.

    Source: Lubana, Dick and Tanaka, "Beyond BatchNorm", NeurIPS 2021,
    https://arxiv.org/abs/2106.05956, the figures of training curves.

    Arguments:
        history: columns net, method, seed, epoch, train_accuracy (in [0, 1]) and status ("ok" or
            "diverged at step N"), one row per finished epoch; a run that finished none has one
            row, of epoch 0, whose accuracy (chance; 0 if it is missing) is where its x stands.
        note: a short grey line at the bottom.

    Raises:
        ValueError: a column is missing, there are several nets, or a method is unknown.

    Example:
        >>> history = pd.DataFrame({"net": "10 layers", "method": "batch", "seed": 0,
        ...     "epoch": [1, 2], "train_accuracy": [0.4, 0.8], "status": "ok"})
        >>> curves(history).axes[0].lines[0].get_ydata().tolist()
        [0.4, 0.8]
    """
    columns = ["net", "method", "seed", "epoch", "train_accuracy", "status"]
    rows = require(history, columns, name="history")
    rows = rows.assign(value=rows["train_accuracy"]).sort_values(["epoch", "seed"])
    net, *others = rows["net"].unique()
    if others:
        raise ValueError(
            f"history has several nets, {', '.join([net, *others])}: keep one of them"
        )
    means, methods = summarize(rows, ["method", "epoch"]), methods_of(rows)
    means = means[means["epoch"] > 0]
    last = rows.groupby(["method", "seed"], as_index=False).tail(1)
    panels = multiples(str(net), methods, xlabel="epoch", ylabel="training accuracy")
    for method, axes in panels.items():
        for _, line in means[means["method"] != method].groupby("method"):
            axes.plot(line["epoch"], line["mean"], color=BACKGROUND, linewidth=0.6, zorder=0)
        line = means[means["method"] == method]
        band(axes, "epoch", line, COLORS[method], MARKERS[method], method)
        ends = last[(last["method"] == method) & (last["status"] != "ok")]
        crosses(axes, ends["epoch"], ends["value"].fillna(0), COLORS[method])
    axes.set_ylim(-0.03, 1.03)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True, steps=[1, 2, 5, 10]))
    facts = evidence("Mean", "Band", means["n"]) if len(means) else "No run finished an epoch."
    facts = f"Grey: the other methods. {facts} {diverged(last)}"
    return label_gaps(finish(axes.figure, facts, note))


@style()
def speed(table: pd.DataFrame, *, correlation: Mapping[str, float], note: str = "") -> Picture:
    """Speed of training against cosine similarity at initialization, one panel per method.

    In plain words: a dot is a run; to the right, networks whose last layer hardly tells images
    apart before training; upwards, networks that train fast. All other methods' runs are grey.

    Source: Lubana, Dick and Tanaka, "Beyond BatchNorm", NeurIPS 2021,
    https://arxiv.org/abs/2106.05956, the figure on similarity and training accuracy.

    Arguments:
        table: columns net, batch_size, lr, method, seed, cosine, speed (mean training accuracy
            over the epochs, in [0, 1]; after a divergence chance counts) and status.
        correlation: effect, low, high and n (seeds) of the rank correlation; low and high are nan
            where there is no interval.
        note: a short grey line at the bottom.

    Raises:
        ValueError: a column is missing, no similarity is a number, or a method is unknown.

    Example:
        >>> table = pd.DataFrame({"method": ["batch", "layer"], "seed": 0, "net": "cfg_10",
        ...     "batch_size": 128, "lr": 1.0, "cosine": [0.2, 0.9], "speed": [0.8, 0.4],
        ...     "status": "ok"})
        >>> found = {"effect": -1.0, "low": -1.0, "high": -0.9, "n": 3}
        >>> speed(table, correlation=found).get_suptitle()
        'Spearman correlation -1.00 [-1.00, -0.90], 3 seeds'
    """
    columns = ["net", "batch_size", "lr", "method", "seed", "cosine", "speed", "status"]
    rows = require(table, columns).sort_values(columns)
    measured = np.isfinite(rows["cosine"])
    methods, unmeasured = methods_of(rows), int((~measured).sum())
    rows = require(rows[measured], columns, name="table, with a similarity given,")
    effect, low, high = (correlation[key] for key in ("effect", "low", "high"))
    interval = f" [{low:.2f}, {high:.2f}]" if np.isfinite([low, high]).all() else ""
    seeds = count([int(correlation["n"])], "seed")
    title = f"Spearman correlation {effect:.2f}{interval}, {seeds}"
    panels = multiples(title, methods, xlabel="cosine similarity", ylabel="training accuracy")
    for method, axes in panels.items():
        mine, color = rows["method"] == method, COLORS[method]
        sound, dots = mine & (rows["status"] == "ok"), {"linestyle": "", "markeredgewidth": 0}
        axes.plot(*_xy(rows[~mine]), marker="o", color=BACKGROUND, markersize=1.4, **dots)
        dots |= {"marker": MARKERS[method], "markersize": 2.6, "label": method}
        axes.plot(*_xy(rows[sound]), color=color, **dots)
        crosses(axes, *_xy(rows[mine & ~sound]), color)
    axes.set_ylim(-0.03, 1.03)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    said = f"Mark: one of {len(rows)} runs; similarity in the last layer before training, "
    said += f"accuracy as its mean over the epochs. Grey: the other methods. {diverged(rows)}"
    lost = f"No similarity, not drawn: {count([unmeasured], 'run')}." if unmeasured else ""
    return label_gaps(finish(axes.figure, f"{said} {lost}", note))


@style()
def profiles(table: pd.DataFrame, *, note: str = "") -> Picture:
    """Measures against layer as training goes on: a row per measure, a column per method.

    In plain words: one line per measured step, the later the darker. Variance and gradient norm
    have logarithmic axes and geometric means; a gradient norm is divided by that of the last
    layer, in the same run at the same step.

    Source: Lubana, Dick and Tanaka, "Beyond BatchNorm", NeurIPS 2021,
    https://arxiv.org/abs/2106.05956, the figures of variance, rank, similarity and gradients.

    Arguments:
        table: columns method (five at most), seed, position (the layer), step, measure (any of
            "activation_variance", "stable_rank", "cosine_similarity", "gradient_norm"), value.
        note: a short grey line at the bottom.

    Raises:
        ValueError: a column is missing, there is nothing to draw, or there are too many methods.

    Example:
        >>> table = pd.DataFrame({"method": "batch", "seed": 0, "position": [1, 2], "step": 0,
        ...     "measure": "gradient_norm", "value": [6.0, 3.0]})
        >>> profiles(table).axes[0].lines[0].get_ydata().round(6).tolist()
        [2.0, 1.0]
    """
    rows, unmeasured = _measured(table)
    names = [name for name in _MEASURES if name in set(rows["measure"])]
    methods, colors = methods_of(rows), shades(sorted(rows["step"].unique()), "crest")
    if len(methods) > _MOST:
        raise ValueError(f"table has {len(methods)} methods: {_MOST} at most fit side by side")
    figure, seeds = picture(PAGE, 0.75 + 1.15 * len(names)), []
    panels = figure.subplots(len(names), len(methods), squeeze=False, sharex=True, sharey="row")
    for line, name in zip(panels, names, strict=True):
        part = rows[rows["measure"] == name]
        means = summarize(part, ["method", "step", "position"], log=name in _LOG)
        seeds += means["n"].tolist()
        for axes, method in zip(line, methods, strict=True):
            ends = _by_steps(axes, means[means["method"] == method], colors)
        end_labels(axes, ends)
        line[0].set(ylabel=_MEASURES[name], yscale="log" if name in _LOG else "linear")
    size = 8 if len(methods) < _MOST else 6.5
    for axes, method in zip(panels[0], methods, strict=True):
        title = textwrap.fill(LABELS[method], 15)
        axes.set_title(title, pad=4, fontsize=size, color=readable(COLORS[method]))
    for axes in panels[-1]:
        layer_ticks(axes, rows["position"])
        axes.set_xlabel("layer")
    lost = f"Not measured: {count([unmeasured], 'value')}." if unmeasured else ""
    said = evidence("Mean (geometric on log axes)", "Band (start and end)", seeds)
    return finish(figure, f"{said} {lost}", note)


def _xy(rows: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    return rows["cosine"], rows["speed"]


def _measured(table: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Return what can be drawn, gradients relative to the last layer, and how much cannot."""
    run, columns = ["method", "seed", "step"], ["position", "measure", "value"]
    rows = require(table, [*run, *columns])
    rows = require(
        rows[rows["measure"].isin(_MEASURES)], columns, name="table, of known measures,"
    )
    rows = rows.sort_values("position", kind="stable")
    gradients = rows["measure"] == "gradient_norm"
    last = rows[gradients].groupby(run)["value"].transform(lambda values: values.iloc[-1])
    rows.loc[gradients, "value"] /= last
    log = rows["measure"].isin(_LOG)
    sound = np.isfinite(rows["value"]) & ((rows["value"] > 0) | ~log)
    return require(rows[sound], columns, name="table, with values given,"), int((~sound).sum())


def _by_steps(
    axes: Axes, means: pd.DataFrame, colors: dict[float, str]
) -> list[tuple[float, float, str, str]]:
    """Draw one line per step, a band for the first and the last; return the labels of these."""
    steps, ends = [step for step in colors if step in set(means["step"])], []
    names = {max(colors): "end", min(colors): "start"}
    for step in steps:
        line = means[means["step"] == step]
        axes.plot(
            line["position"], line["mean"], color=colors[step], linewidth=1, label=f"{step:g}"
        )
        if step in (steps[0], steps[-1]):
            low, high = line["low"], line["high"]
            axes.fill_between(
                line["position"], low, high, color=colors[step], alpha=0.2, linewidth=0
            )
            at = line.iloc[-1][["position", "mean"]]
            ends.append((*at, names.get(step, f"step {step:g}"), colors[step]))
    return ends
