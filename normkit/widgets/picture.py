"""A picture in a notebook whose marks answer to the pointer and to the arrow keys."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import anywidget
import traitlets
from matplotlib.axes import Axes

from normkit.plots.style import Picture, style

__all__ = ["Mark", "PictureWidget", "marks_along_x"]


class Mark(NamedTuple):
    """A part of a picture that can be chosen.

    Arguments:
        name: what is chosen, unique in the picture.
        label: what the pointer shows over it.
        box: left, top, right and bottom as fractions of the picture, from its upper left corner.
    """

    name: str
    label: str
    box: tuple[float, float, float, float]


class PictureWidget(anywidget.AnyWidget):
    """The png of a figure; `chosen` is the name of the mark that a person clicked or stepped to.

    Example:
        >>> widget = PictureWidget()
        >>> widget.show(b"", 220, "nothing yet", [Mark("conv1", "conv1: 2.1", (0, 0, 0.5, 1))])
        >>> widget.marks[0]["label"]
        'conv1: 2.1'
    """

    _esm = Path(__file__).with_name("picture.js").read_text()
    _css = Path(__file__).with_name("picture.css").read_text()
    png = traitlets.Bytes(b"").tag(sync=True)
    width = traitlets.Int(600).tag(sync=True)
    alt = traitlets.Unicode("").tag(sync=True)
    marks = traitlets.List(traitlets.Dict()).tag(sync=True)
    chosen = traitlets.Unicode("").tag(sync=True)

    def show(self, png: bytes, width: int, alt: str, marks: Sequence[Mark] = ()) -> None:
        """Replace the picture, `width` pixels wide, and its marks; `alt` says it in words."""
        with self.hold_sync():
            self.png, self.width, self.alt = png, width, alt
            self.marks = [mark._asdict() for mark in marks]


def marks_along_x(
    figure: Picture, axes: Axes, places: Sequence[tuple[str, str, float]]
) -> list[Mark]:
    """Marks that stand side by side along the x axis, each as high as the axes.

    *In plain words:* a mark reaches halfway to its neighbors, so that something answers wherever
    the pointer is over the axes.

    Arguments:
        figure: complete; it is laid out here.
        axes: where they stand.
        places: name, label and x value of each, in the order of x.

    Example:
        >>> figure = Picture(figsize=(4, 2))
        >>> axes = figure.add_axes((0, 0, 1, 1), xlim=(0, 2))
        >>> [mark.box for mark in marks_along_x(figure, axes, [("a", "a", 0.5), ("b", "b", 1.5)])]
        [(0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)]
    """
    if figure.get_layout_engine() is not None:
        with style():
            figure.draw_without_rendering()
    width, height = figure.bbox.width, figure.bbox.height
    frame = axes.bbox
    at = [float(axes.transData.transform((x, axes.get_ylim()[0]))[0]) for _, _, x in places]
    edges = [frame.x0, *((a + b) / 2 for a, b in zip(at, at[1:], strict=False)), frame.x1]
    top, bottom = 1 - frame.y1 / height, 1 - frame.y0 / height
    return [
        Mark(name, label, (float(left / width), float(top), float(right / width), float(bottom)))
        for (name, label, _), left, right in zip(places, edges[:-1], edges[1:], strict=True)
    ]
