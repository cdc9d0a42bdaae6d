"""One line in any notebook: the layers, activations and robustness of a network, to be moved."""

import contextlib
from base64 import b64encode
from collections.abc import Callable, Sequence
from pathlib import Path

import ipywidgets
from torch import nn

from normkit import networks
from normkit.networks import Network
from normkit.records import Record, Store

from .activations_panel import ActivationsPanel
from .claim_panel import ClaimPanel
from .equivalence_panel import EquivalencePanel
from .history_panel import HistoryPanel
from .lab_panel import LabPanel
from .layer_panel import LayerPanel
from .live import network_of, tried
from .network_panel import NetworkPanel
from .panel import Panel
from .picker import Picker
from .robustness_panel import RobustnessPanel
from .session import Session, layers_of
from .sources import CARRIED, carried

__all__ = ["PANELS", "Explorer", "explore"]

PANELS: dict[str, tuple[str, Callable[[Session], Panel]]] = {
    "network": ("Network", NetworkPanel),
    "layer": ("Layer", LayerPanel),
    "activations": ("Activations", ActivationsPanel),
    "equivalence": ("Equivalence", EquivalencePanel),
    "robustness": ("Robustness", RobustnessPanel),
    "history": ("Over epochs", HistoryPanel),
    "lab": ("Lab", LabPanel),
    "claims": ("Claims", ClaimPanel),
}
WAIT = 60  # seconds, at most, that showing it waits for the picture that stands in its place
Pickable = nn.Module | Network | Record | str | Path


class Explorer(ipywidgets.VBox):
    """Panels on one network or two, in tabs; only the one that is seen computes.

    Where a notebook is executed without a browser, or read on the web, its first picture stands
    in its place.

    Arguments:
        session: the networks.
        names: of `PANELS`, in the order of the tabs.
        pick: whether other networks can be chosen.
    """

    def __init__(self, session: Session, names: Sequence[str], *, pick: bool = True) -> None:
        self.session = session
        self.panels = {name: PANELS[name][1](session) for name in names}
        for panel in self.panels.values():
            panel.close()
        self.picker = Picker(session) if pick else None
        shown = [panel.widget for panel in self.panels.values()]
        titles = [PANELS[name][0] for name in names]
        self.tabs = ipywidgets.Tab(shown, titles=titles, selected_index=0)
        self.tabs.observe(lambda _: self._turn(), "selected_index")
        body = self.tabs if len(names) > 1 else shown[0]
        super().__init__([*([self.picker.widget] if self.picker else []), body])
        self._turn()

    @property
    def panel(self) -> Panel:
        """The one that is seen."""
        return list(self.panels.values())[self.tabs.selected_index or 0]

    def _turn(self) -> None:
        for panel in self.panels.values():
            if panel is not self.panel:
                panel.close()
        self.panel.open()

    def _repr_mimebundle_(
        self, include: object = None, exclude: object = None
    ) -> dict[str, str]:
        bundle = super()._repr_mimebundle_(include=include, exclude=exclude)
        with contextlib.suppress(TimeoutError):  # long work goes on under the controls
            self.panel.wait(WAIT)
        if self.panel.picture.png:
            bundle["image/png"] = b64encode(self.panel.picture.png).decode()
        return bundle


def explore(
    model: Pickable | None = None,
    compare: Pickable | None = None,
    *,
    input_size: tuple[int, ...] | None = None,
    panels: Sequence[str] = tuple(PANELS),
    pick: bool | None = None,
) -> Explorer:
    """Controls around a network: its norms, layer by layer, its activations, its robustness.

    Arguments:
        model: a module, which is looked at and never changed; a record; the path of a checkpoint,
            the beginning of a record's key or a classifier of torchvision; or one of the nets that
            normkit carries, which is the default.
        compare: another one, to stand beside it.
        input_size: (C, H, W) of an image, for a network that does not tell it.
        panels: which ones, by name: network, layer, activations, equivalence, robustness,
            history, lab, claims.
        pick: whether other networks can be chosen; by default with more than one panel.

    Raises:
        TypeError: a model that is none of these.
        ValueError: an unknown panel, a network that cannot be found or cannot take the images.

    Example:
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        >>> explorer = explore(net, input_size=(1, 8, 8), panels=["network"])
        >>> explorer.panel.wait().table.layer.unique().tolist()
        ['1']
    """
    unknown = [name for name in panels if name not in PANELS]
    if unknown or not panels:
        raise ValueError(f"panels is {list(panels)}: give some of {', '.join(PANELS)}")
    first = _network(next(iter(CARRIED)) if model is None else model, input_size)
    second = None if compare is None else _network(compare, input_size)
    session = Session(first=first, second=second, layer=next(iter(layers_of(first)), ""))
    return Explorer(session, panels, pick=len(panels) > 1 if pick is None else pick)


def _network(chosen: Pickable, input_size: tuple[int, ...] | None) -> Network:
    if isinstance(chosen, Network):
        return chosen
    if isinstance(chosen, Record):
        return tried(networks.load_record(chosen))
    if not isinstance(chosen, str | Path):
        return network_of(chosen, input_size)
    if chosen in CARRIED:
        return carried(chosen)
    return tried(networks.load(str(chosen), store=Store(), size=input_size))
