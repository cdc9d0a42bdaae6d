"""The explorer's figure of one image under attack, and what two networks take it for."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from normkit.plots.explorer_history import inches
from normkit.plots.marks import GREY, readable
from normkit.plots.style import PAGE, Picture, style
from normkit.plots.tables import require

__all__ = ["robustness"]

COLORS = ("#111111", "#EE6677")  # of the first network and of the second
_CLEAN = {"color": "#56B4E9", "linewidth": 1.5}
SHOWN = 12  # classes that have room


@style()
def robustness(
    table: pd.DataFrame,
    clean: np.ndarray,
    attacked: Mapping[str, np.ndarray],
    *,
    right: int | None = None,
    note: str = "",
) -> Picture:
    r"""A clean image, what an attack adds to it, and the probabilities of its classes.

    .. math:: x' = x + \delta, \qquad \|\delta\|_\infty \le \varepsilon

    In plain words: grey in the middle picture is a pixel that stays, black and white are the
    largest change; the factor by which the changes are multiplied stands above. A bar is the
    probability of a class on the attacked image, the short line that on the clean one. Of more
    than twelve classes those are shown that are likeliest anywhere, and the right one.

    Arguments:
        table: columns network, state ("clean" or "attacked"), class, probability; one network or
            two.
        clean: (H, W, C) in [0, 1], one channel or three.
        attacked: the attacked image by the network that was attacked, one or both.
        right: the class that is right, None where that is not known.
        note: a short grey line at the bottom.

    Raises:
        ValueError: a column is missing, or there is nothing to draw.

    Example:
        >>> table = pd.DataFrame({"network": "a", "state": ["clean", "clean", "attacked",
        ...     "attacked"], "class": [0, 1, 0, 1], "probability": [0.9, 0.1, 0.25, 0.75]})
        >>> figure = robustness(table, np.zeros((2, 2, 1)), {"a": np.full((2, 2, 1), 0.1)})
        >>> [float(bar.get_height()) for bar in figure.axes[-1].patches]
        [0.25, 0.75]
    """
    rows = require(table, ["network", "state", "class", "probability"])
    names = list(rows["network"].unique())
    figure = Picture(figsize=(PAGE, 1.75 if len(attacked) == 1 else 2.6))
    left, right_side = figure.add_gridspec(
        1, 2, width_ratios=(1.15, 1), wspace=0.22,
        **inches(figure, left=0.06, right=0.06, bottom=0.48, top=0.32),
    )  # fmt: skip
    images = left.subgridspec(len(attacked), 3, wspace=0.08, hspace=0.3)
    _image(figure.add_subplot(images[0, 0]), clean, "clean")
    for row, (name, image) in enumerate(attacked.items()):
        color = readable(COLORS[names.index(name)]) if len(attacked) > 1 else "#111111"
        change, factor = _magnified(image - clean)
        title = f"change \N{MULTIPLICATION SIGN} {factor:.3g}"
        _image(figure.add_subplot(images[row, 1]), change, title)
        _image(figure.add_subplot(images[row, 2]), image, "attacked", color)
    _bars(figure.add_subplot(right_side), rows, names, right)
    figure.legend(handles=_handles(names), loc="upper right", ncols=3)
    figure.text(0.01, 0.02, note, fontsize=6, color=GREY)
    return figure


def _magnified(change: np.ndarray) -> tuple[np.ndarray, float]:
    """The change about grey, as large as fits, and how many times too large that is."""
    largest = float(np.abs(change).max())
    factor = 0.5 / largest if largest > 0 else 1.0
    return 0.5 + factor * change, factor


def _image(axes: Axes, image: np.ndarray, title: str, color: str = "#111111") -> None:
    shown = np.clip(image, 0, 1)
    if shown.shape[2] not in (1, 3):
        shown = shown.mean(axis=2, keepdims=True)
    smooth = "nearest" if max(shown.shape) <= 64 else "antialiased"
    shown = shown[..., 0] if shown.shape[2] == 1 else shown
    axes.imshow(shown, cmap="gray", vmin=0, vmax=1, interpolation=smooth)
    axes.set(xticks=[], yticks=[])
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.set_title(title, fontsize=7, color=color)


def _bars(axes: Axes, rows: pd.DataFrame, names: Sequence[str], right: int | None) -> None:
    """Bars of the attacked image and short lines of the clean one, by class and network."""
    classes = _likeliest(rows, right)
    width = 0.8 / len(names)
    if right is not None:
        at = classes.index(right)
        axes.axvspan(at - 0.5, at + 0.5, color="#EDEDED", linewidth=0, zorder=0)
        axes.annotate(
            "right", (at, 1), (0, 2), xycoords=axes.get_xaxis_transform(),
            textcoords="offset points", ha="center", fontsize=6.5, color=GREY,
            annotation_clip=False,
        )  # fmt: skip
    for index, name in enumerate(names):
        x = np.arange(len(classes)) + width * (index - (len(names) - 1) / 2)
        mine = rows[rows["network"] == name].pivot(
            index="class", columns="state", values="probability"
        )
        heights = mine.reindex(classes)
        axes.bar(x, heights["attacked"], 0.92 * width, color=COLORS[index], label=name)
        ends = x - 0.4 * width, x + 0.4 * width
        axes.hlines(heights["clean"], *ends, zorder=3, **_CLEAN)
    axes.set_xticks(range(len(classes)), [str(number) for number in classes], fontsize=6)
    largest = float(rows["probability"].max())
    axes.set(xlim=(-0.6, len(classes) - 0.4), ylim=(0, 1 if largest > 0.4 else 1.2 * largest))
    axes.set(xlabel="class", ylabel="probability")
    axes.tick_params(axis="x", length=0)
    axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.3g}%")


def _likeliest(rows: pd.DataFrame, right: int | None) -> list[int]:
    """The classes that are shown, in order: all, or those that are likeliest anywhere."""
    most = rows.groupby("class")["probability"].max()
    if right is not None and len(most) > SHOWN:
        most[right] = 2.0  # stays whatever its probability is
    return sorted(most.nlargest(SHOWN).index) if len(most) > SHOWN else sorted(most.index)


def _handles(names: Sequence[str]) -> list[Patch | Line2D]:
    """What the bars and the short lines are."""
    paired = zip(names, COLORS, strict=False)
    bars = [Patch(color=color, label=_short(name)) for name, color in paired]
    return [*bars, Line2D([], [], label="on the clean image", **_CLEAN)]


def _short(name: str, length: int = 34) -> str:
    return name if len(name) <= length else f"{name[: length - 1]}\N{HORIZONTAL ELLIPSIS}"
