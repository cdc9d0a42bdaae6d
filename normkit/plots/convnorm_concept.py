"""A diagram of what ConvNorm does: a kernel, its spectrum, the inverse, and an image between."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import FuncNorm, LogNorm, Normalize
from matplotlib.ticker import MaxNLocator, NullLocator
from seaborn import color_palette

from normkit.plots.marks import GREY, finish, header, picture
from normkit.plots.regularization_panels import once
from normkit.plots.style import PAGE, Picture, style
from normkit.plots.tables import choose, require

__all__ = ["concept"]

_PANELS = {
    "kernel": ("kernel $a$", "taps of one channel"),
    "spectrum": (r"spectrum $\sqrt{S}$", "gain of a frequency"),
    "filter_spectrum": (r"inverse $S^{-1/2}$", "one over that gain"),
    "product": ("both together", ""),
    "image": ("image $x$", "what comes in"),
    "convolved": ("convolved $z$", "some detail is louder"),
    "filter": ("filter $v$", "the inverse, in space"),
    "normalized": (r"normalized $\hat z$", "all detail alike"),
}
_FREQUENCIES = ["spectrum", "filter_spectrum", "product"]
_OUTPUTS = ["convolved", "normalized"]
_SIGNS = [
    ("kernel", "DFT", "→"), ("spectrum", "", "×"), ("filter_spectrum", "", "="),
    ("image", r"$\ast\, a$", "→"), ("convolved", "", r"$\ast$"), ("filter", "", "="),
]  # fmt: skip
_GAIN = "blend:#0B4F22,#117733,#7FB78E,#FFFFFF,#F3CF80,#E69F00,#A36400"
_SIGN = "blend:#221659,#332288,#A39BCB,#FFFFFF,#F7B6BD,#EE6677,#B2303F"
_GREYS = "blend:#111111,#FFFFFF"
_AT = {"xycoords": "axes fraction", "textcoords": "offset points"}


@style()
def concept(table: pd.DataFrame, *, note: str = "") -> Picture:
    r"""What ConvNorm does to one channel: to frequencies above, to an image below.

    .. math:: z = \sum_j a_j * x_j, \qquad \hat z = v * z, \quad v = F^{-1}(S^{-1/2}), \quad
        \sqrt{S} \cdot S^{-1/2} = 1

    In plain words: kernels amplify some frequencies of what they see and damp others; ConvNorm
    divides by that gain, so that all frequencies pass alike. The gains are colored on one
    logarithmic scale, on which white is 1, and both outputs on one scale, on which it is 0.

    Source: Liu et al., "Convolutional Normalization", NeurIPS 2021,
    https://arxiv.org/abs/2103.00673, the definition of the layer.
    Deviation: the figure is ours.

    Arguments:
        table: columns panel, row, column, value; the panels are kernel (taps, k x k) and, n x n
            each, spectrum (the root of S), filter_spectrum, product, filter, image, convolved
            and normalized. Frequency 0 and the filter's tap (0, 0) stand at row 0, column 0 of
            the table, and in the middle of the figure.
        note: a short grey line at the bottom.

    Raises:
        ValueError: a column or a panel is missing, a value is missing or occurs twice, or a gain
            is not positive.

    Example:
        >>> names = "kernel spectrum filter_spectrum product filter image convolved normalized"
        >>> table = pd.DataFrame({"panel": names.split(), "row": 0, "column": 0, "value": 1.0})
        >>> [text.get_text() for text in concept(table).axes[3].texts]
        ['1 at all frequencies', '1']
    """
    grids = _grids(table)
    figure = picture(PAGE, 3.75)
    tiles = dict(zip(_PANELS, figure.subplots(2, 4).ravel(), strict=True))
    scales = _scales(grids)
    for name, word, sign in _SIGNS:
        _operator(tiles[name], word, sign)
    for name, axes in tiles.items():
        title, line = _PANELS[name]
        header(axes, title, line or _closeness(grids["product"]))
        _tile(axes, name, grids[name], *scales[name])
    _taps(tiles["kernel"], grids["kernel"])
    tiles["product"].text(0, 0, "1", fontsize=20, color="#DDDDDD", ha="center", va="center")
    for name, shared, label in (
        ("product", _FREQUENCIES, "gain"), ("normalized", _OUTPUTS, "output"),
    ):  # fmt: skip
        _colorbar(tiles[name], label, np.concatenate([grids[key].ravel() for key in shared]))
    _lead_down(tiles["filter"], "inverse DFT")
    facts = "Kernel: first input channel; spectrum: all of them together. Kernel and filter: "
    facts += "white is 0, each on its own scale, square-rooted for the filter, whose tap (0, 0) "
    return finish(figure, f"{facts}is in the middle.", note)


def _grids(table: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return each panel's values as a matrix; what has a middle is shifted there."""
    rows = require(table, ["panel", "row", "column", "value"])
    for name in rows["panel"].unique():
        choose("panel", name, _PANELS)
    rows, grids = once(rows, ["panel", "row", "column"], name="table"), {}
    for name in _PANELS:
        which = f"table, panel {name!r},"
        part = require(rows[rows["panel"] == name], ["value"], name=which)
        grid = part.pivot(index="row", columns="column", values="value").to_numpy(dtype=float)
        if not np.isfinite(grid).all():
            raise ValueError(f"{which} lacks a value: it needs one for each row and column")
        if name in _FREQUENCIES and grid.min() <= 0:
            raise ValueError(f"{which} has the gain {grid.min():g}: gains must be positive")
        grids[name] = np.fft.fftshift(grid) if name in [*_FREQUENCIES, "filter"] else grid
    return grids


def _scales(grids: dict[str, np.ndarray]) -> dict[str, tuple[str, Normalize]]:
    """Return colors and a scale per panel; the gains share one, and so do the outputs."""
    gains = np.concatenate([np.log(grids[name]).ravel() for name in _FREQUENCIES])
    most = float(np.clip(1.01 * np.exp(np.abs(gains).max()), 2, 10))
    outputs = np.concatenate([grids[name].ravel() for name in _OUTPUTS])
    limit = float(np.quantile(np.abs(outputs), 0.995)) or 1.0
    tap, own = (float(np.abs(grids[name]).max()) or 1.0 for name in ("kernel", "filter"))
    root = (lambda x: np.sign(x) * np.sqrt(np.abs(x)), lambda x: np.sign(x) * x**2)
    return {
        **{name: (_GAIN, LogNorm(1 / most, most)) for name in _FREQUENCIES},
        **{name: (_SIGN, Normalize(-limit, limit)) for name in _OUTPUTS},
        "kernel": (_SIGN, Normalize(-tap, tap)),
        "filter": (_SIGN, FuncNorm(root, -own, own)),
        "image": (_GREYS, Normalize(grids["image"].min(), grids["image"].max())),
    }


def _tile(axes: Axes, name: str, grid: np.ndarray, palette: str, scale: Normalize) -> None:
    """Draw a matrix as a framed square, with what its sides measure."""
    rows, columns = grid.shape
    left, top, across, down = 0, 0, 1, 1
    if name in _FREQUENCIES:
        left, top, across, down = -(columns // 2), -(rows // 2), columns, rows
    ends = [(left - 0.5) / across, (left + columns - 0.5) / across]
    ends += [(top + rows - 0.5) / down, (top - 0.5) / down]
    axes.imshow(
        grid, cmap=color_palette(palette, as_cmap=True), norm=scale, extent=ends, aspect="auto",
        interpolation="nearest",
    )  # fmt: skip
    axes.set_box_aspect(1)
    axes.spines[:].set(visible=True, linewidth=0.5, color="#BBBBBB")
    axes.set(xticks=[], yticks=[], xlabel=f"{columns} pixels")
    if name == "kernel":
        axes.set_xlabel(f"{rows} × {columns} taps")
    if name in _FREQUENCIES:
        axes.set_xticks([-0.25, 0, 0.25], ["\N{MINUS SIGN}¼", "0", "¼"])
        axes.set(xlabel="cycles per pixel", xlim=ends[:2])


def _taps(axes: Axes, grid: np.ndarray) -> None:
    """Write the taps into their cells, if there is room."""
    if max(grid.shape) > 3:
        return
    image = axes.images[0]
    for (row, column), tap in np.ndenumerate(grid):
        rgb = np.array(image.cmap(image.norm(tap)))[:3]
        dark = np.dot([0.2126, 0.7152, 0.0722], rgb**2.2) < 0.3  # white letters contrast more
        axes.text(
            column, row, f"{round(tap, 2) + 0:.2f}".replace("-", "\N{MINUS SIGN}"), fontsize=5.5,
            ha="center", va="center", color="white" if dark else "#111111",
        )  # fmt: skip


def _closeness(product: np.ndarray) -> str:
    """Say how far the product is off 1 at most."""
    off = np.abs(product - 1).max()
    return f"1, to within {off:.0e}" if off else "1 at all frequencies"


def _operator(axes: Axes, word: str, sign: str) -> None:
    """Write what happens between a tile and the next: a sign, and a word over it."""
    at = {"ha": "center", **_AT}
    axes.annotate(sign, (1, 0.5), (11, 0), fontsize=12, color="#111111", va="center", **at)
    if word:
        axes.annotate(word, (1, 0.5), (11, 8), fontsize=6.5, color=GREY, **at)


def _lead_down(axes: Axes, word: str) -> None:
    """Point from the tile above to this one, between its title and that tile."""
    axes.annotate("↓", (0.5, 1), (0, 33), fontsize=12, ha="center", va="center", **_AT)
    axes.annotate(word, (0.5, 1), (8, 30.5), fontsize=6.5, color=GREY, **_AT)


def _colorbar(axes: Axes, label: str, values: np.ndarray) -> None:
    """Put a color bar beside a tile, as high as it, pointed if values are beyond its ends."""
    image = axes.images[0]
    beyond = (values < image.norm.vmin).any() or (values > image.norm.vmax).any()
    place = axes.inset_axes([1.1, 0, 0.07, 1])
    bar = axes.figure.colorbar(image, cax=place, extend="both" if beyond else "neither")
    bar.outline.set_linewidth(0.4)
    bar.set_label(label, labelpad=2)
    if isinstance(image.norm, LogNorm):
        ticks = [0.1, 0.2, 0.5, 1, 2, 5, 10]
        ticks = [tick for tick in ticks if image.norm.vmin <= tick <= image.norm.vmax]
        bar.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
        place.yaxis.set_minor_locator(NullLocator())
    else:
        bar.locator = MaxNLocator(4, symmetric=True)
        bar.update_ticks()
