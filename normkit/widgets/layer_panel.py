"""The panel of one layer: its singular values, channels, kernels, and how its norms grow."""

from collections.abc import Mapping
from typing import Any

import ipywidgets
import torch

from normkit.networks import Network

from . import layer_views as views
from .cache import weights_key
from .layer_norms import kind_of, sizes_of
from .layer_shown import SHOW, VIEWS, Asked, refusal
from .network_panel import NORM_NAMES
from .panel import Panel, Shown
from .session import Session, layers_of
from .work import Ticket

__all__ = ["LayerPanel"]

_, SORTED, _, KERNELS, GROWTH = VIEWS


class LayerPanel(Panel):
    """One layer of the session's first network, in five views, on a map of any side.

    Arguments:
        session: its layer is shown, and is set by the panel's own choice.
    """

    def __init__(self, session: Session) -> None:
        self.session, self._setting = session, False
        wide = {"width": "24em"}
        controls = {
            "view": ipywidgets.Dropdown(
                options=VIEWS, description="View", layout=wide,
                tooltip="What is shown of the layer",
            ),
            "layer": ipywidgets.Dropdown(
                description="Layer", tooltip="Which layer of the first network", layout=wide
            ),
            "side": ipywidgets.IntSlider(
                8, 1, 64, description="Input size", style={"description_width": "initial"},
                tooltip="Side of the map that the layer reads, in pixels",
            ),
            "norm": ipywidgets.Dropdown(
                options=NORM_NAMES, value="spectral", description="Norm", disabled=True,
                tooltip="Which norm, in the view of the input size",
            ),
        }  # fmt: skip
        super().__init__("layer", controls, [["view", "layer"], ["side", "norm"]])
        self.controls["view"].observe(self._adapt, "value")
        self.controls["layer"].observe(self._pick, "value")
        session.observe(self._renew, "first")
        session.observe(self._follow, "layer")
        self._renew()

    def _adapt(self, change: object = None) -> None:
        self.controls["norm"].disabled = self.controls["view"].value != GROWTH
        layer = layers_of(self.session.first).get(self.controls["layer"].value)
        if layer is None:  # compute says it
            return
        kind = kind_of(layer)
        none = self.controls["view"].value == KERNELS or kind in ("linear", "batch_norm")
        self.controls["side"].disabled = none

    def _renew(self, change: object = None) -> None:
        """Offer the layers of a new network; the layer of the same name stays chosen."""
        names = list(layers_of(self.session.first))
        chosen = self.session.layer if self.session.layer in names else (names or [""])[0]
        self._setting = True
        try:
            dropdown = self.controls["layer"]
            dropdown.options = [(name or "the network", name) for name in names]
            dropdown.value = chosen if names else None
        finally:
            self._setting = False
        self._resize()
        self.session.layer = chosen
        self._again()

    def _resize(self) -> None:
        """Give the slider the sides of the chosen layer, and its own side as value."""
        name, slider = self.controls["layer"].value, self.controls["side"]
        if name is None:
            return
        try:
            own = sizes_of(self.session.first).get(name, ())
        except ValueError:  # compute says it
            own = ()
        low, high = views.sides(layers_of(self.session.first)[name], own)
        self._setting = True
        try:
            slider.min, slider.max = min(low, slider.min), max(high, slider.max)
            slider.value = own[0] if own else low
            slider.min, slider.max = low, high
        finally:
            self._setting = False
        self._adapt()

    def _pick(self, change: Any) -> None:
        if not self._setting and change["new"] is not None:
            self.session.layer = change["new"]

    def _follow(self, change: Any) -> None:
        if change["new"] not in layers_of(self.session.first):
            return
        self._setting = True
        try:
            self.controls["layer"].value = change["new"]
        finally:
            self._setting = False
        self._resize()
        self._again()

    def _again(self) -> None:
        if self._future is not None:
            self._changed()

    def _changed(self, change: Any = None) -> None:
        if not self._setting and (change is None or change["owner"] is not self.controls["layer"]):
            super()._changed(change)

    def request(self) -> Mapping[str, Any]:
        """The values of the controls, and the session's first network."""
        return {**super().request(), "first": self.session.first}

    def compute(
        self, ticket: Ticket, view: str, layer: str | None, side: int, norm: str, first: Network
    ) -> Shown:
        """One view of one layer; where it does not apply, the sorted values, and it says so."""
        known = layers_of(first)
        if layer is None or layer not in known:
            raise ValueError(f"{first.name} holds no layer with a linear map that is known")
        module, own = known[layer], sizes_of(first).get(layer)
        if own is None:
            raise ValueError(f"layer {layer!r} is never called, so its input size is unknown")
        size, key = views.fitting(module, own, side), weights_key(module)
        asked = Asked(layer, module, key, own, size, side, norm, ticket)
        ticket.check(f"{asked.title}: {view}")
        why = refusal(view, module, own)
        try:
            with torch.no_grad():
                shown = SHOW[SORTED if why else view](asked)
        except (ValueError, TypeError) as error:
            raise ValueError(f"layer {layer or first.name!r}: {error}") from error
        said = f"{view!r} does not apply, {why}; here are its singular values. " if why else ""
        return shown._replace(words=said + shown.words)
