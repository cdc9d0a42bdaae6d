"""How measured layers are shown: the figure with its marks, a sentence, and a line of code."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from normkit.networks import Network
from normkit.plots import explorer_activations as plots
from normkit.plots.style import Picture
from normkit.training import TrainConfig

from .panel import Shown
from .picture import Mark, marks_along_x

__all__ = ["initial_code", "network_code", "show", "words_of"]

WORDS = {
    "activation_variance": "the activation variance",
    "stable_rank": "the stable rank",
    "cosine_similarity": "the similarity of images",
    "gradient_norm": "the gradient norm",
}


def show(
    tables: Sequence[pd.DataFrame], measure: str, *, legend: bool, note: str, code: str
) -> Shown:
    """The picture of some networks' tables, the first of which is what is looked at."""
    table = pd.concat(tables, ignore_index=True)
    table = table[table.measure == measure].reset_index(drop=True)
    figure = plots.by_layer(table, measure=measure, legend=legend, note=note)
    first = table[table.line == table.line.iloc[0]]
    return Shown(figure, table, words_of(table, measure), code, _marks(figure, first))


def words_of(table: pd.DataFrame, measure: str) -> str:
    """From where to where a measure goes, of each line in color.

    Example:
        >>> table = pd.DataFrame({"line": "mine", "method": "plain", "value": [4.0, 1.0]})
        >>> words_of(table, "stable_rank")
        'From the first to the last of 2 layers the stable rank goes from 4 to 1 (mine).'
    """
    said = []
    for name, line in table[table.method != ""].groupby("line", sort=False):
        first, last = line.value.iloc[0], line.value.iloc[-1]
        goes = f"{first:.3g} to {last:.3g}{_factor(measure, first, last)} ({name})"
        said.append((len(line), goes))
    count = " and ".join(dict.fromkeys(str(layers) for layers, _ in said))
    goes = " and from ".join(words for _, words in said)
    return f"From the first to the last of {count} layers {WORDS[measure]} goes from {goes}."


def _factor(measure: str, first: float, last: float) -> str:
    if measure not in ("activation_variance", "gradient_norm") or not (first > 0 and last > 0):
        return ""
    ratio = last / first
    if not math.isfinite(ratio) or not ratio:
        return ""
    return f", {ratio:.3g} times" if ratio >= 1 else f", 1 / {1 / ratio:.3g}"


def _marks(figure: Picture, line: pd.DataFrame) -> list[Mark]:
    """A mark for each layer of the line; a layer that ran again has a number behind its name."""
    again = line.groupby("layer").cumcount() + 1
    places = [
        (f"{row.layer} #{number}" if number > 1 else row.layer, row, row.position)
        for row, number in zip(line.itertuples(), again, strict=True)
    ]
    labeled = [(name, f"{name}: {row.value:.3g}", x) for name, row, x in places]
    return marks_along_x(figure, figure.axes[0], labeled)


def network_code(network: Network, values: Mapping[str, Any]) -> str:
    """Python that measures `model`, the network's module."""
    made = f"Network({network.name!r}, model, *{tuple(network[2:])!r})"
    gradient = f", gradient={values['gradient']}"
    return (
        "from normkit.widgets import Network; "
        "from normkit.widgets.activations import measure_layers; "
        f"table = measure_layers({made}, {values['images']}{gradient})"
        f".query('measure == \"{values['measure']}\"')"
    )


def initial_code(config: TrainConfig, measure: str) -> str:
    """Python that initializes the stack and probes it."""
    names = ("model", "normalization", "groups", "depth", "width", "epochs", "norms")
    names += ("final_norms", "augment", "probe_images")
    fields = ", ".join(f"{name}={getattr(config, name)!r}" for name in names)
    return (
        "from normkit.training import TrainConfig, train; "
        f'table = train(TrainConfig({fields}, probes=("{measure}",))).tables["probes"]'
    )
