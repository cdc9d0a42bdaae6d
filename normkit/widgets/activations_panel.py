"""The panel that shows what images and gradients look like at each layer of a network."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import ipywidgets
import pandas as pd

from normkit.layers import NORMALIZATIONS
from normkit.networks import Network
from normkit.plots import explorer_activations as plots
from normkit.plots.style import LABELS
from normkit.training import TrainConfig

from .activations import FORWARD, GROUPED, initial_config, measure_initial, measure_layers
from .activations_shown import initial_code, network_code, show
from .cache import Cache, weights_key
from .images import test_images
from .panel import Panel, Shown
from .session import Session, layers_of
from .work import Ticket

__all__ = ["ActivationsPanel"]

SOURCES = {"the networks": "networks", "at initialization": "initial"}
INITIAL = ("normalization", "groups", "depth", "width")
WIDE = {"description_width": "7em"}
REMEMBERED = 4  # normalizations that were looked at before the current one
Kind = tuple[str, int | None]  # a normalization and its groups


class ActivationsPanel(Panel):
    """Variance, stable rank, similarity and gradients by layer, trained or at initialization.

    Example:
        >>> from normkit.models import build
        >>> net = build("uniform", depth=3, width=4, in_channels=1, input_size=(8, 8))
        >>> network = Network("mine", net, (1, 8, 8), 10, "digits")
        >>> panel = ActivationsPanel(Session(first=network))
        >>> panel.refresh().result(60).table.position.tolist()
        [1, 2, 3]
    """

    def __init__(self, session: Session) -> None:
        self.session, self._tables, self._looked = session, Cache(size=256), list[Kind]()
        controls = _controls()
        controls["width"].observe(self._offer_groups, "value")
        for name in ("source", "normalization"):
            controls[name].observe(self._reveal, "value")
        rows = [["source", "measure", "images"], ["normalization", "groups"], ["depth", "width"]]
        super().__init__("activations", controls, rows)
        self._reveal()
        self.picture.observe(self._choose, "chosen")
        session.observe(self._changed, ["first", "second"])

    def request(self) -> Mapping[str, Any]:
        values = dict(super().request())
        now = (values["normalization"], values.pop("groups"))
        values["kind"] = kind = now if now[0] in GROUPED else (now[0], None)
        before = [other for other in self._looked if other != kind]
        values["before"] = tuple(before[-REMEMBERED:])
        return values | {"first": self.session.first, "second": self.session.second}

    def compute(self, ticket: Ticket, **values: Any) -> Shown:
        values["gradient"] = values["measure"] not in FORWARD
        if values["source"] == "networks":
            return self._networks(ticket, values)
        return self._initial(ticket, values)

    def _networks(self, ticket: Ticket, values: Mapping[str, Any]) -> Shown:
        networks = [values["first"], *([values["second"]] if values["second"] else [])]
        names, tables, notes = _apart([network.name for network in networks]), [], []
        options = {"count": values["images"], "gradient": values["gradient"]}
        for name, method, network in zip(names, ("plain", "pgd"), networks, strict=False):
            ticket.check(f"{name}: images through the network")
            key = (weights_key(network.model), *network[2:], *options.values())
            table, images = self._tables.get(key, partial(_measured, network, **options))
            tables.append(table.assign(line=name, method=method))
            notes.append(images)
        note = "; ".join(dict.fromkeys(notes)) + ", in evaluation mode."
        code = network_code(networks[0], values)
        return show(tables, values["measure"], legend=True, note=note, code=code)

    def _initial(self, ticket: Ticket, values: Mapping[str, Any]) -> Shown:
        kind, tables = values["kind"], []
        kinds = [other for other in values["before"] if values["width"] % (other[1] or 1) == 0]
        for each in [kind, *kinds]:
            ticket.check(f"{_name(each)}: images through a new stack")
            config = _config(each, values)
            table = self._tables.get(config, partial(measure_initial, config))
            tables.append(
                table.assign(line=_name(each), method=each[0] if each == kind else "")
            )
        self._looked = [*(other for other in self._looked if other != kind), kind]
        note = (
            f"{values['images']} training images of digits; batch statistics; a stack of "
            f"{values['depth']} convolutions of width {values['width']}, seed 0, the same for all."
        )
        code = initial_code(_config(kind, values), values["measure"])
        return show(tables, values["measure"], legend=False, note=note, code=code)

    def _reveal(self, change: object = None) -> None:
        initial = self.controls["source"].value == "initial"
        for name in INITIAL:
            self.controls[name].layout.display = "" if initial else "none"
        self.controls["groups"].disabled = self.controls["normalization"].value not in GROUPED

    def _offer_groups(self, change: Mapping[str, Any]) -> None:
        groups, width = self.controls["groups"], change["new"]
        value = min(groups.value, width)
        with groups.hold_trait_notifications():
            groups.options = _group_options(width)
            groups.value = value

    def _choose(self, change: Mapping[str, Any]) -> None:
        name = change["new"].partition(" #")[0]
        if self.controls["source"].value == "networks" and name in layers_of(self.session.first):
            self.session.layer = name


def _controls() -> dict[str, ipywidgets.Widget]:
    measures = [(label, key) for key, label in plots.MEASURES.items()]
    return {
        "source": ipywidgets.Dropdown(
            options=list(SOURCES.items()), description="Look at", style=WIDE,
            tooltip="The chosen networks, or a plain stack that was only initialized",
        ),
        "measure": ipywidgets.Dropdown(
            options=measures, value="stable_rank", description="Measure", style=WIDE,
            tooltip="What is measured at each layer",
        ),
        "images": ipywidgets.IntSlider(
            32, 8, 256, 8, description="Images", continuous_update=False, style=WIDE,
            tooltip="How many images are in the batch",
        ),
        **_initial_controls(),
    }  # fmt: skip


def _initial_controls() -> dict[str, ipywidgets.Widget]:
    normalizations = [(LABELS[key], key) for key in NORMALIZATIONS]
    return {
        "normalization": ipywidgets.Dropdown(
            options=normalizations, value="group", description="Normalization", style=WIDE,
            tooltip="What stands behind each convolution of the stack",
        ),
        "groups": ipywidgets.SelectionSlider(
            options=_group_options(16), value=4, description="Groups", style=WIDE,
            tooltip="Of GroupNorm and EvoNorm-S0: from one group a channel to one group in all",
        ),
        "depth": ipywidgets.IntSlider(
            20, 4, 40, 2, description="Depth", tooltip="Convolutions in the stack", style=WIDE,
        ),
        "width": ipywidgets.SelectionSlider(
            options=(4, 8, 16, 32), value=16, description="Width", style=WIDE,
            tooltip="Channels of each convolution",
        ),
    }  # fmt: skip


def _group_options(width: int) -> list[tuple[str, int]]:
    """Powers of two, from InstanceNorm to LayerNorm.

    Example:
        >>> _group_options(4)
        [('4 (as InstanceNorm)', 4), ('2', 2), ('1 (as LayerNorm)', 1)]
    """
    ends = {width: f"{width} (as InstanceNorm)", 1: "1 (as LayerNorm)"}
    counts = [2**power for power in range(width.bit_length() - 1, -1, -1)]
    return [(ends.get(count, str(count)), count) for count in counts]


def _name(kind: Kind) -> str:
    key, groups = kind
    return LABELS[key] if groups is None else f"{LABELS[key]}, G = {groups}"


def _apart(names: list[str]) -> list[str]:
    """Names that differ, where two networks have the same one."""
    if len(set(names)) == len(names):
        return names
    return [f"{name} ({place})" for name, place in zip(names, ("first", "second"), strict=True)]


def _measured(network: Network, count: int, gradient: bool) -> tuple[pd.DataFrame, str]:
    table = measure_layers(network, count, gradient=gradient)
    return table, test_images(network, count)[2]


def _config(kind: Kind, values: Mapping[str, Any]) -> TrainConfig:
    sizes = {"depth": values["depth"], "width": values["width"], "count": values["images"]}
    return initial_config(*kind, **sizes, gradient=values["gradient"])
