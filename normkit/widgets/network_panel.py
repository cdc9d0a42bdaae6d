"""The panel of a network: one norm of all its layers, beside those of another."""

from collections.abc import Mapping
from typing import Any

import ipywidgets
import numpy as np
import pandas as pd

from normkit.networks import Network
from normkit.plots import explorer_layers
from normkit.plots.style import Picture

from .layer_norms import network_norms
from .layer_shown import NORM_TITLES
from .panel import Panel, Shown
from .picture import Mark, marks_along_x
from .session import Session, layers_of
from .work import Ticket

__all__ = ["NORM_NAMES", "NetworkPanel"]

NORM_NAMES = {
    "linf (largest row sum)": "linf",
    "l1 (largest column sum)": "l1",
    "spectral": "spectral",
    "Frobenius": "frobenius",
    "stable rank": "stable_rank",
}
BOUNDARIES = {"as executed (zeros)": "zero", "circular (torus)": "circular"}
WHOLE = "the network"  # a layer that is all of it has no name
EXECUTED = ("l1", "linf")  # norms that are of the operator as executed, always


class NetworkPanel(Panel):
    """All layers of the session's networks as a dot chart; a click or an arrow key chooses one.

    Arguments:
        session: its first network, and its second beside it, are measured.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        controls = {
            "norm": ipywidgets.Dropdown(
                options=NORM_NAMES, value="spectral", description="Norm",
                tooltip="Which norm of each layer's linear map",
            ),
            "boundary": ipywidgets.Dropdown(
                options=BOUNDARIES, value="zero", description="Border",
                tooltip="What is outside the input; l1 and linf are always as executed",
            ),
            "scale": ipywidgets.ToggleButtons(
                options=["log", "linear"], description="Scale", tooltips=[
                    "Equal ratios are equally far apart", "The axis begins at zero",
                ], style={"button_width": "5em"},
            ),
        }  # fmt: skip
        super().__init__("network", controls)
        self.controls["norm"].observe(self._adapt, "value")
        session.observe(self._follow, ["first", "second", "layer"])
        self.picture.observe(self._chosen, "chosen")
        self.picture.chosen = session.layer

    def _adapt(self, change: object = None) -> None:
        self.controls["boundary"].disabled = self.controls["norm"].value in EXECUTED

    def _follow(self, change: Any) -> None:
        if change["name"] == "layer":
            self.picture.chosen = change["new"]
        if self._future is not None:
            self._changed()

    def _chosen(self, change: Any) -> None:
        if change["new"] in layers_of(self.session.first):
            self.session.layer = change["new"]

    def request(self) -> Mapping[str, Any]:
        """The values of the controls, and what the session has chosen."""
        session = self.session
        chosen = {"first": session.first, "second": session.second, "layer": session.layer}
        return {**super().request(), **chosen}

    def compute(
        self, ticket: Ticket, norm: str, boundary: str, scale: str, first: Network,
        second: Network | None, layer: str,
    ) -> Shown:  # fmt: skip
        """The chart of one norm; layers not measured before are measured one at a time."""
        table = network_norms(first, second, norm, boundary, ticket.each)
        if not np.isfinite(table["value"]).any():
            raise ValueError(f"no layer of {first.name} has this norm: {_lost(table)}")
        figure = explorer_layers.network(table, scale=scale, chosen=layer)
        return Shown(
            figure, table, _words(table, norm, layer), _code(first, norm, boundary),
            _marks(figure, table),
        )  # fmt: skip


def _lost(table: pd.DataFrame) -> str:
    lost = table[table["status"] != "ok"]
    said = [f"{row.layer or row.shape} ({row.status})" for row in lost.head(2).itertuples()]
    return "; ".join(said) + f" and {len(lost) - 2} more" * (len(lost) > 2)


def _number(row: Any) -> str:
    if row.status != "ok":
        return row.status
    if row.upper <= row.lower * 1.001:
        return f"{row.value:.4g}"
    return f"{row.value:.4g} [{row.lower:.4g}, {row.upper:.4g}]"


def _marks(figure: Picture, table: pd.DataFrame) -> list[Mark]:
    """One mark per layer of the first network; its label has the second's value too."""
    other = table[table["role"] == "second"].set_index("position")
    places = []
    for row in table[table["role"] == "first"].sort_values("position").itertuples():
        label = f"{row.layer or WHOLE}\n{row.shape}\n{_number(row)}"
        if row.position in other.index:
            beside = next(other.loc[[row.position]].itertuples())
            same = "" if beside.layer == row.layer else f" ({beside.layer})"
            label += f"\nsecond{same}: {_number(beside)}"
        places.append((row.layer, label, float(row.position)))
    return marks_along_x(figure, figure.axes[0], places)


def _words(table: pd.DataFrame, norm: str, layer: str) -> str:
    """What is to be seen: each network's range, what was not measured, the chosen layer."""
    name = NORM_TITLES[norm]
    said = []
    for _, part in table.groupby("role", sort=False):
        known = part[np.isfinite(part["value"])]
        if len(known):
            order = known.sort_values("value", kind="stable")
            low, high = order.iloc[0], order.iloc[-1]
            said.append(
                f"{name} of {len(known)} layers of {part['network'].iloc[0]}: median "
                f"{known['value'].median():.4g}, from {low['value']:.4g} "
                f"({low['layer'] or WHOLE}) to {high['value']:.4g} ({high['layer'] or WHOLE})."
            )
    if (table["status"] != "ok").any():
        said.append(f"Not measured: {_lost(table)}.")
    mine = table[(table["role"] == "first") & (table["layer"] == layer)]
    said += [
        f"Chosen: {row.layer or WHOLE}, {row.shape}, {_number(row)}." for row in mine.itertuples()
    ]
    return " ".join(said)


def _code(network: Network, norm: str, boundary: str) -> str:
    """Python that measures the first network, called model, again."""
    return (
        f"from normkit import norms; norms.layer_table(model, {network.input_size!r}, "
        f"norms=({norm!r},), boundary={boundary!r})"
    )
