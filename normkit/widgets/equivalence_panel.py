"""The panel that balances a network cycle by cycle while what it computes stays the same."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import ipywidgets
import pandas as pd

from normkit.networks import Network
from normkit.plots import explorer_equivalence as plots

from .cache import Cache, weights_key
from .equivalence import Cycles
from .panel import Panel, Shown
from .picture import marks_along_x
from .session import Session, layers_of
from .work import Ticket

__all__ = ["EquivalencePanel"]

LAST = 30
FACTORS = (0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.4, 2.0)
POWERS = (1.0, 1.5, 2.0, 3.0, 4.0)


class EquivalencePanel(Panel):
    """Cycles of ENorm: the norms of layers move, the energy falls, the outputs stay.

    Example:
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> panel = EquivalencePanel(Session(first=Network("mine", net, (1, 8, 8))))
        >>> panel.controls["cycles"].value = 2
        >>> panel.refresh().result(60).table.query("measure == 'energy'").cycle.tolist()
        [0, 1, 2]
    """

    def __init__(self, session: Session) -> None:
        self.session, self._states = session, Cache(size=3)
        rows = [["cycles", "p", "c"]]
        super().__init__("equivalence", _controls(), rows)
        self.picture.observe(self._choose, "chosen")
        session.observe(self._changed, ["first"])

    def request(self) -> Mapping[str, Any]:
        return {**super().request(), "network": self.session.first}

    def compute(self, ticket: Ticket, **values: Any) -> Shown:
        network, count = values["network"], values["cycles"]
        options = {"p": values["p"], "c": values["c"]}
        ticket.check("ENorm looks for the units of the network")
        key = (weights_key(network.model), *network[2:], *options.values())
        cycles = self._states.get(key, partial(Cycles, network, **options))
        cycles.reach(count, ticket.check)
        table = cycles.table(count)
        note = _note(**options)
        figure = plots.balance(table, cycle=count, p=values["p"], last=LAST, note=note)
        marks = marks_along_x(figure, figure.axes[0], _places(table))
        return Shown(figure, table, words_of(cycles, count), code_of(count, **options), marks)

    def _choose(self, change: Mapping[str, Any]) -> None:
        if change["new"] in layers_of(self.session.first):
            self.session.layer = change["new"]


def _controls() -> dict[str, ipywidgets.Widget]:
    return {
        "cycles": ipywidgets.IntSlider(
            5, 0, LAST, description="ENorm cycles", style={"description_width": "7em"},
            tooltip="How often each hidden unit is rescaled, first layer to last",
        ),
        "p": ipywidgets.Dropdown(
            options=[(f"{p:g}", p) for p in POWERS], value=2.0, description="p",
            tooltip="Of the norm that is made small", layout={"width": "12em"},
            style={"description_width": "2em"},
        ),
        "c": ipywidgets.SelectionSlider(
            options=[(f"{c:g}", c) for c in FACTORS], value=1.0, description="c",
            tooltip="How many times its incoming norm a unit's outgoing norm becomes; "
            "1 treats all layers alike", style={"description_width": "2em"},
        ),
    }  # fmt: skip


def _note(p: float, c: float) -> str:
    weighted = f", in a chain the k-th layer's times {c:g}^(-{p:g} k)" if c != 1 else ""
    return f"Energy: the sum of the weights to the power {p:g}{weighted}."


def _places(table: pd.DataFrame) -> list[tuple[str, str, float]]:
    """Name, label and place of each layer."""
    norms = table[table.measure == "norm"].groupby("layer", sort=False).value
    pairs = zip(norms.first().items(), norms.last(), strict=True)
    return [
        (name, f"{name}: {before:.4g} to {now:.4g}", place)
        for place, ((name, before), now) in enumerate(pairs, start=1)
    ]


def words_of(cycles: Cycles, count: int) -> str:
    """How far the energy fell, and how little the outputs changed."""
    before, now = cycles.seen[0].energy, cycles.seen[count].energy
    if not count:
        return f"Before the first cycle the energy is {before:.4g}."
    done = f"After {count} cycle{'s' * (count > 1)} the energy is {now:.4g}, "
    change = f"{now / before:.1%} of {before:.4g}" if before else f"before {before:.4g}"
    found = cycles.seen[count].difference
    same = (
        f"the outputs differ by {cycles.share(count):.0e} of their largest ({found:.1e})"
        if found
        else "the outputs are the same, bit for bit"
    )
    return f"{done}{change}; {same}, on {cycles.images}."


def code_of(count: int, *, p: float, c: float) -> str:
    """Python that balances a copy of `model`, a module."""
    cycles = f", cycles={count}" if count else ""
    step = "enorm.step(); " if count else ""
    return (
        "from copy import deepcopy; from normkit.projections import ENorm; "
        f"enorm = ENorm(deepcopy(model), p={p:g}, c={c:g}{cycles}); {step}energy = enorm.energy()"
    )
