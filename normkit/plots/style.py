"""One look for every figure: the style sheet, the color of each method, how a figure is saved."""

import os
import secrets
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from io import BytesIO
from pathlib import Path

import matplotlib
import matplotlib.style
import pandas as pd
from matplotlib.figure import Figure
from pandas.api.types import is_numeric_dtype

__all__ = ["COLORS", "COLUMN", "LABELS", "MARKERS", "NORMS", "PAGE", "Picture", "save", "style"]

COLUMN, PAGE = 3.25, 5.5  # inches: one column of a paper, and the whole width of its text
_INK, _SILVER, _ROSE, _INDIGO, _SKY = "#111111", "#BBBBBB", "#EE6677", "#332288", "#56B4E9"
_GREEN, _ORANGE, _PURPLE, _WINE, _SAND = "#117733", "#E69F00", "#AA4499", "#882255", "#DDCC77"

# Keys that share a color never share a figure; the order is the order of legends.
_METHODS = {
    "batch": (_INK, "o", "BatchNorm"),
    "none": (_SILVER, "X", "no normalization"),
    "layer": (_ROSE, "s", "LayerNorm"),
    "instance": (_INDIGO, "^", "InstanceNorm"),
    "group": (_SKY, "D", "GroupNorm"),
    "filter_response": (_PURPLE, "v", "FilterResponse"),
    "variance": (_SAND, "P", "VarianceNorm"),
    "mean_centering": (_GREEN, "<", "MeanCentering"),
    "evonorm_b0": (_WINE, "p", "EvoNorm-B0"),
    "evonorm_s0": (_ORANGE, "h", "EvoNorm-S0"),
    "conv": (_INK, "o", "convolution"),
    "weight_norm": (_ORANGE, "d", "WeightNorm"),
    "scaled_ws": (_GREEN, ">", "Scaled WS"),
    "weight_centering": (_SAND, "<", "WeightCentering"),
    "spectral_norm": (_SKY, "s", "SpectralNorm"),
    "oni": (_INDIGO, "^", "ONI"),
    "own": (_PURPLE, "v", "OWN"),
    "conv_norm": (_ROSE, "D", "ConvNorm"),
    "conv_norm_no_bn": (_INDIGO, "<", "ConvNorm, no BatchNorm"),
    "conv_norm_no_affine": (_SKY, "p", "ConvNorm, no affine filter"),
    "conv_norm_bare": (_PURPLE, "H", "ConvNorm, neither"),
    "conv_norm_released": (_ORANGE, ">", "ConvNorm, authors' code"),
    "conv_norm_spectral": (_GREEN, "h", "ConvNorm + SpectralNorm"),
    "operator_norm": (_SAND, "d", "SpectralNorm of the operator"),
    "plain": (_INK, "o", "plain"),
    "pgd": (_ROSE, "D", "PGD-AT"),
    "trades": (_INDIGO, "s", "TRADES"),
    "alp": (_ORANGE, "^", "ALP"),
    "weight_norm_batch": (_ORANGE, "d", "WeightNorm + BatchNorm"),
    "path_sgd": (_PURPLE, "v", "Path-SGD"),
    "enorm": (_ROSE, "s", "ENorm"),
    "enorm_batch": (_INDIGO, "^", "ENorm + BatchNorm"),
    "released_enorm": (_ORANGE, ">", "ENorm, authors' code"),
    "ocnn": (_WINE, "P", "OCNN"),
    "norm_decay": (_PURPLE, "v", "norm decay"),
    "l1": (_ROSE, "D", r"$\ell_1$, exact"),
    "linf": (_PURPLE, "v", r"$\ell_\infty$, exact"),
    "bracket": (_GREEN, "s", "spectral norm, bracket"),
    "power_method": (_SKY, "^", "power method"),
    "gram_iteration": (_ORANGE, "P", "Gram iteration"),
    "fft_svd": (_INK, "o", "FFT + SVD"),
    "exact": (_ROSE, "D", "exact"),
    "border_free": (_INDIGO, "s", "formula without borders"),
    "released": (_ORANGE, "^", "as in the authors' code"),
    "nd_l1": (_ROSE, "D", r"norm decay $\ell_1$"),
    "nd_linf": (_PURPLE, "v", r"norm decay $\ell_\infty$"),
    "nd_spectral": (_GREEN, "^", "norm decay spectral"),
    "svc": (_INDIGO, "s", "singular value clipping"),
    "wd": (_ORANGE, "P", "weight decay"),
    "standard": (_INK, "o", "standard"),
    "certified": (_GREEN, "s", "certified"),
    "adversarial": (_ROSE, "D", "adversarial"),
}
COLORS = {key: color for key, (color, _, _) in _METHODS.items()}
MARKERS = {key: marker for key, (_, marker, _) in _METHODS.items()}
LABELS = {key: label for key, (_, _, label) in _METHODS.items()}
NORMS = {
    "l1": r"$\ell_1$ norm",
    "linf": r"$\ell_\infty$ norm",
    "spectral": "spectral norm",
    "frobenius": "Frobenius norm",
    "stable_rank": "stable rank",
}
_ONE_AT_A_TIME = threading.RLock()  # matplotlib's settings belong to the whole process


@contextmanager
def style() -> Iterator[None]:
    """Draw under normkit's style sheet, whatever the user's own settings are, then restore them.

    Works as a context manager and as a decorator. The sheet starts from matplotlib's defaults and
    uses the font that matplotlib ships, so that a figure's bytes do not depend on the machine.
    Of several threads one at a time draws: the others wait.

    Example:
        >>> with style():
        ...     matplotlib.rcParams["pdf.fonttype"], matplotlib.rcParams["font.size"]
        (42, 7.0)
    """
    sheet = Path(__file__).with_name("normkit.mplstyle")
    with _ONE_AT_A_TIME, matplotlib.style.context(sheet, after_reset=True):
        yield


class Picture(Figure):
    """A Figure that a notebook shows once, sharply, when it is the last expression of a cell.

    It belongs to no pyplot session: nothing has to be closed, nothing is shown a second time, and
    it looks the same whichever pyplot backend is active.

    Example:
        >>> data, metadata = Picture(figsize=(2, 1))._repr_mimebundle_()
        >>> list(data), metadata["image/png"]["width"]
        (['image/png'], 220)
    """

    def _repr_mimebundle_(
        self, include: object = None, exclude: object = None
    ) -> tuple[dict[str, str], dict[str, dict[str, int]]]:
        width, height = (round(110 * inches) for inches in self.get_size_inches())
        data = b64encode(_render(self, "png", {"Software": None})).decode()
        return {"image/png": data}, {"image/png": {"width": width, "height": height}}


def save(
    figure: Figure, table: pd.DataFrame, path: str | Path, *, configuration: str = ""
) -> list[Path]:
    """Write a figure as `path`.pdf and `path`.png and the table that it draws as `path`.csv.

    In plain words: each file appears whole or not at all, and saving twice gives the same bytes:
    there are no dates in them, and the rows of the csv are sorted, floats with every digit that
    matters. The pdf and the png carry the configuration and the versions that drew them.

    Arguments:
        figure: any matplotlib Figure; its size in inches is its size on the page.
        table: what the figure shows, one row per run, layer and measure.
        path: the three files' common path; an ending .pdf, .png or .csv is ignored.
        configuration: the hash of the configuration that made the numbers.

    Returns:
        The paths of the pdf, the png and the csv.

    Raises:
        OSError: the folder cannot be made or written; said before anything is drawn.

    Example:
        >>> import tempfile
        >>> table = pd.DataFrame({"value": [0.1]})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     first = [p.read_bytes() for p in save(Picture(), table, f"{folder}/a")]
        ...     first == [p.read_bytes() for p in save(Picture(), table, f"{folder}/a")]
        True
    """
    path = Path(path)
    path = path.with_suffix("") if path.suffix in {".pdf", ".png", ".csv"} else path
    with _writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path.with_name(path.name + ".pdf"), None)
    creator = f"normkit {version('normkit')}"
    producer = f"matplotlib {matplotlib.__version__}"
    pdf = {"Title": path.name, "Creator": creator, "Producer": producer, "CreationDate": None}
    png = {"Title": path.name, "Software": f"{creator}, {producer}"}
    if configuration:
        pdf["Keywords"], png["Configuration"] = f"configuration {configuration}", configuration
    contents = {
        ".pdf": _render(figure, "pdf", pdf),
        ".png": _render(figure, "png", png),
        ".csv": _sorted(table).to_csv(index=False, lineterminator="\n").encode(),
    }
    with _writing(path.parent):
        return [_replace(path.with_name(path.name + end), data) for end, data in contents.items()]


def _render(figure: Figure, kind: str, metadata: dict[str, str | None]) -> bytes:
    with style(), BytesIO() as buffer:
        if figure.get_layout_engine() is not None:  # laying out again would move it by a rounding
            figure.get_layout_engine().execute(figure)
            figure.set_layout_engine("none")
        figure.savefig(buffer, format=kind, metadata=metadata)
        return buffer.getvalue()


def _sorted(table: pd.DataFrame) -> pd.DataFrame:
    return table.sort_values(
        list(table.columns),
        key=lambda column: column if is_numeric_dtype(column) else column.astype(str),
        kind="stable",
    )


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise OSError(
            f"cannot write figures to {folder} ({reason}): give a folder that can be written"
        ) from error


def _replace(path: Path, data: bytes | None) -> Path:
    """Put `data` at `path` in one step; None only tries whether that would work."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        temporary.write_bytes(data or b"")
        if data is not None:
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
