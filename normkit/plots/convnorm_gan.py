"""Figures of generative networks with ConvNorm: their scores while they train, their images."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from normkit.plots.marks import (
    GREY,
    band,
    count,
    evidence,
    finish,
    header,
    keys,
    picture,
    readable,
)
from normkit.plots.multiples import crosses
from normkit.plots.regularization_panels import once, value_ticks
from normkit.plots.style import COLORS, COLUMN, LABELS, MARKERS, PAGE, Picture, style
from normkit.plots.tables import choose, diverged, methods_of, require, summarize

__all__ = ["gan", "samples"]

_SCORES = {
    "frechet": ("Fréchet distance (log scale)", "lower is better"),
    "inception": ("inception score", "higher is better"),
}
_LOG = ["frechet"]
_IMAGE = ["method", "index", "channel", "row", "column"]
_REAL = "real"


@style()
def gan(
    table: pd.DataFrame, *, floor: float | None = None, ceiling: float | None = None,
    note: str = "",
) -> Picture:  # fmt: skip
    """Fréchet distance and inception score of generated images against training step.

    In plain words: the distance is on a logarithmic axis: its means are geometric; those of the
    score are not. Mean over seeds and 95 % t interval. A run whose distance is no number at the
    end diverged: it ends where it did, with an x.

    Source: Liu et al., "Convolutional Normalization", NeurIPS 2021,
    https://arxiv.org/abs/2103.00673, the table of GANs.

    Arguments:
        table: columns method, seed, step, frechet, inception.
        floor: the distance between real images and others that are real.
        ceiling: the score of real images.
        note: a short grey line at the bottom.

    Raises:
        ValueError: a column is missing, there is nothing to draw, a method is unknown, or a step
            of a run occurs twice.

    Example:
        >>> table = pd.DataFrame({"method": "conv_norm", "seed": 0, "step": [1, 2],
        ...     "frechet": [80.0, 40.0], "inception": [2.0, 3.0]})
        >>> [axes.lines[0].get_ydata().round(9).tolist() for axes in gan(table, floor=5).axes]
        [[80.0, 40.0], [2.0, 3.0]]
    """
    rows = require(table, ["method", "seed", "step", *_SCORES])
    rows, methods, seeds = rows.sort_values(["method", "seed", "step"]), methods_of(rows), []
    last = rows.groupby(["method", "seed"], as_index=False).tail(1)
    last = last.assign(status=np.where(np.isfinite(last["frechet"]), "ok", "diverged"))
    lost = last.loc[last["status"] != "ok", ["method", "seed"]]
    figure = picture(PAGE, 2.5)
    limits = (floor, ceiling)
    for axes, score, limit in zip(figure.subplots(1, 2), _SCORES, limits, strict=True):
        seeds += _score(axes, rows, score, lost)["n"].tolist()
        _limit(axes, limit)
        if score in _LOG:
            value_ticks(axes)
    keys(figure, methods, rows=-(-len(methods) // 4))
    facts = evidence("Mean (of the distance: geometric)", "Band", seeds)
    return finish(figure, f"{facts} {diverged(last)}", note)


def _score(axes: Axes, rows: pd.DataFrame, score: str, lost: pd.DataFrame) -> pd.DataFrame:
    """Draw a score against training step, and where runs were lost; return the means."""
    log, (label, better) = score in _LOG, _SCORES[score]
    good = rows[np.isfinite(rows[score]) & ((rows[score] > 0) | (not log))]
    good = require(good.assign(value=good[score]), [score], name=f"table, of {score} given,")
    means = summarize(good, ["method", "step"], log=log)
    for method in methods_of(rows):
        line, color = means[means["method"] == method], COLORS[method]
        if len(line):
            band(axes, "step", line, color, MARKERS[method], method)
            ends = good.merge(lost[lost["method"] == method]).groupby("seed").tail(1)
            crosses(axes, ends["step"], ends["value"], color)
    header(axes, "", better)
    axes.set(xlabel="training step", ylabel=label, yscale="log" if log else "linear")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
    return means


def _limit(axes: Axes, value: float | None) -> None:
    """Draw what real images reach, if it is given."""
    if value is None:
        return
    axes.axhline(value, color=GREY, linestyle="--", linewidth=0.7, zorder=0, label="real images")
    axes.annotate(
        f"real images: {value:.3g}", (0.98, value), (0, 2), color=GREY, fontsize=6, ha="right",
        xycoords=axes.get_yaxis_transform(), textcoords="offset points",
    )  # fmt: skip


@style()
def samples(table: pd.DataFrame, *, note: str = "") -> Picture:
    """Sheets of generated images, one per method.

    In plain words: all images of the table are shown, by index; whoever made it says how they
    were chosen.

    Source: Liu et al., NeurIPS 2021, https://arxiv.org/abs/2103.00673, the generated images.

    Arguments:
        table: columns method (or "real", for images of the data set), index (of the image), row,
            column, channel (1 or 3 of them), value (in [0, 1]).
        note: a short grey line at the bottom.

    Raises:
        ValueError: a column or a pixel is missing, there is nothing to draw, a method is unknown,
            a value is not in [0, 1], a pixel occurs twice, or there are 2 or more than 3 channels.

    Example:
        >>> table = pd.DataFrame({"method": "conv_norm", "index": [0, 1, 2, 3], "row": 0,
        ...     "column": 0, "channel": 0, "value": [0.0, 0.25, 0.5, 0.75]})
        >>> samples(table).axes[0].images[0].get_array().tolist()
        [[0.0, 1.0, 0.25], [1.0, 1.0, 1.0], [0.5, 1.0, 0.75]]
    """
    rows = require(table, [*_IMAGE, "value"]).sort_values(_IMAGE)
    found = {choose("method", key, [*LABELS, _REAL]) for key in rows["method"].unique()}
    rows = once(rows, _IMAGE, name="table")
    bad = rows.loc[~rows["value"].between(0, 1), "value"]
    if len(bad):
        raise ValueError(f"value is {bad.iloc[0]:g}: values of images must be in [0, 1]")
    methods = [key for key in [_REAL, *LABELS] if key in found]
    images = {key: _images(rows[rows["method"] == key], key) for key in methods}
    sheets = {key: _sheet(stack) for key, stack in images.items()}
    down = -(-len(methods) // 4)
    across = -(-len(methods) // down)
    width = COLUMN if across == 1 else PAGE
    tall = max(sheet.shape[0] / sheet.shape[1] for sheet in sheets.values())
    figure = picture(width, 0.22 + down * (0.4 + (width / across - 0.1) * tall))
    grid = figure.subplots(down, across, squeeze=False).ravel()
    for axes, (method, sheet) in zip(grid, sheets.items(), strict=False):
        axes.imshow(sheet, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        color = readable(COLORS.get(method, "#111111"))
        header(axes, LABELS.get(method, "real images"), color=color)
        number, _, height, across_pixels = images[method].shape
        axes.set_xlabel(f"{count([number], 'image')}, {height} × {across_pixels} pixels")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    for spare in grid[len(sheets) :]:
        spare.remove()
    return finish(figure, note)


def _images(rows: pd.DataFrame, method: str) -> np.ndarray:
    """Return the images of sorted rows, (N, C, H, W)."""
    shape = [rows[key].nunique() for key in ("index", "channel", "row", "column")]
    if shape[1] not in (1, 3):
        raise ValueError(f"table has {shape[1]} channels of {method!r}: images have 1 or 3")
    if np.prod(shape) != len(rows):
        raise ValueError(
            f"table lacks pixels of {method!r}: it has {len(rows)} of {np.prod(shape)}"
        )
    return rows["value"].to_numpy(dtype=float).reshape(shape)


def _sheet(images: np.ndarray) -> np.ndarray:
    """Return the images in a square of rows, a white pixel between them, as imshow takes them."""
    number, channels, height, width = images.shape
    across = int(np.ceil(np.sqrt(number)))
    down = -(-number // across)
    sheet = np.ones((down * (height + 1) - 1, across * (width + 1) - 1, channels))
    for index, image in enumerate(images):
        top, left = (index // across) * (height + 1), (index % across) * (width + 1)
        sheet[top : top + height, left : left + width] = image.transpose(1, 2, 0)
    return sheet[..., 0] if channels == 1 else sheet
