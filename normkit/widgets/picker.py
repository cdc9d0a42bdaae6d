"""Which network is looked at, and which one is compared with it: chosen from five sources."""

import contextlib
import html
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from typing import Any

import ipywidgets
import pandas as pd

from normkit import networks
from normkit.records import Store

from . import picker_parts as parts
from .panel import WORKER, sentence
from .session import Session
from .sources import CARRIED, Measured, carried, measured, recorded, runs
from .work import Dropped, Ticket

__all__ = ["Picker", "Slot"]

Found = Measured | str | None
SOURCES = {
    "given": "the model given to explore()",
    "carried": "carried with normkit",
    "run": "a run in the store",
    "classifier": "torchvision, random weights",
    "file": "a checkpoint file",
}
NEEDS = {
    "carried": ("carried",),
    "run": ("method", "dataset", "run", "reload"),
    "classifier": ("classifier", "classifier_size"),
    "file": ("path", "size", "mean", "std", "normalization", "architecture"),
}


class Slot:
    """The choice of one network: a source, what it needs, and a line that says what is there.

    Arguments:
        session: where the network goes.
        trait: `first` or `second`; the second may be none.
    """

    def __init__(self, session: Session, trait: str) -> None:
        self.session, self.trait = session, trait
        self.given = getattr(session, trait) if session.trait_has_value(trait) else None
        self.runs: pd.DataFrame | None = None
        self.controls = parts.controls("Network" if trait == "first" else "Compare with")
        self.state = ipywidgets.HTML("", layout={"min_height": "1.6em"})
        self._future: Future | None = None
        self._quiet = threading.Event()
        self._row = ipywidgets.HBox(layout={"flex_flow": "row wrap"})
        self._begin()
        for name, control in self.controls.items():
            if name == "reload":
                control.on_click(lambda _: self._look())
            else:
                control.observe(self._changed, "value")
        self.widget = ipywidgets.VBox([self._row, self.state])

    def _begin(self) -> None:
        """Show where the network of the session comes from, or load the first carried one."""
        ours = {carried(name).name: name for name in CARRIED} if self.given else {}
        mine = self.given is not None and self.given.name in ours
        own = self.given is not None and not mine
        options = [(words, name) for name, words in SOURCES.items() if name != "given" or own]
        if self.trait == "second":
            options.insert(0, ("none", "none"))
        usual = "carried" if mine or self.trait == "first" else "none"
        self.controls["source"].options = options
        self.controls["source"].value = "given" if own else usual
        if mine:
            self.controls["carried"].value = ours[self.given.name]
        self._show_needs()
        if self.trait == "first" and self.given is None:
            self.request()
        elif self.given is not None:
            known = measured(ours[self.given.name]).words if mine else ""
            self._say(parts.line(Measured(self.given, known)))

    def _show_needs(self) -> None:
        names = ("source", *NEEDS.get(self.controls["source"].value, ()))
        self._row.children = [self.controls[name] for name in names]

    def _changed(self, change: Mapping[str, Any]) -> None:
        if self._quiet.is_set():
            return
        changed, source = change["owner"], self.controls["source"]
        if changed is source:
            self._show_needs()
            if source.value == "run" and self.runs is None:
                self._look()
                return
        for name in ("method", "dataset"):
            if changed is self.controls[name]:
                self._narrow(name)
        self.request()

    def _look(self) -> None:
        """Look into the store, in the background, and load the run that is then chosen."""
        self._submit(f"Looking into {Store().root} ...", self._listed)

    def request(self) -> None:
        """Load in the background what the controls say."""
        values = {n: c.value for n, c in self.controls.items() if n != "reload"}
        self._submit("Loading ...", lambda ticket: self._find(values))

    def _submit(self, words: str, find: Callable[[Ticket], Found]) -> None:
        self._say(words)
        self._future = WORKER.submit(self, lambda ticket: self._do(ticket, find))

    def _do(self, ticket: Ticket, find: Callable[[Ticket], Found]) -> None:
        try:
            found = find(ticket)
            if isinstance(found, Measured):
                found = found._replace(network=parts.checked(found.network))
            ticket.check()
            self._take(found)
        except Dropped:
            raise
        except Exception as error:  # shown as one sentence, whatever it was; the network stays
            self._fail(error)

    def _take(self, found: Found) -> None:
        if isinstance(found, str):
            self._say(found)
            return
        network = found.network if found else None
        with self.session.hold_trait_notifications():
            setattr(self.session, self.trait, network)
            if self.trait == "first":
                self.session.layer = parts.first_layer(network)
        self._say(parts.line(found) if found else "")

    def _find(self, values: Mapping[str, Any]) -> Found:
        """The chosen network; words where something is missing; None where none is wanted."""
        source = values["source"]
        if source in ("classifier", "file") and not self.controls["classifier"].options:
            with self._silent():
                parts.zoo(self.controls)
            values = {**values, "classifier": self.controls["classifier"].value}
        if source == "given":
            return Measured(self.given, "")
        if source == "carried":
            return measured(values["carried"])
        if source == "run":
            return recorded(Store(), values["run"]) if values["run"] else parts.empty(Store())
        if source == "classifier":
            size = parts.size_of(values["classifier_size"])
            return Measured(networks.load_classifier(values["classifier"], size), "")
        if source == "file":
            return parts.opened(values)
        return None

    def _listed(self, ticket: Ticket) -> Found:
        found = runs(Store())
        ticket.check()
        self.runs = found
        self._narrow("")
        return self._find({"source": "run", "run": self.controls["run"].value})

    def _narrow(self, after: str) -> None:
        """Offer the methods, and the data sets and runs that the choices before them leave."""
        left = self.runs
        with self._silent():
            for name in ("method", "dataset"):
                control = self.controls[name]
                if after in ("", "method") and name != after:
                    parts.offer(control, list(dict.fromkeys(left[name])))
                left = left[left[name] == control.value]
            parts.offer(self.controls["run"], list(zip(left.run, left.key, strict=True)))

    @contextlib.contextmanager
    def _silent(self) -> Iterator[None]:
        self._quiet.set()
        try:
            yield
        finally:
            self._quiet.clear()

    def wait(self, timeout: float = 60) -> None:
        """Return when what was asked for last is there, or its error is."""
        while (future := self._future) is not None:
            with contextlib.suppress(Dropped):
                future.result(timeout)
            if future is self._future:
                return

    def _say(self, words: str) -> None:
        self.state.value = f'<div style="line-height:1.4">{html.escape(words)}</div>'

    def _fail(self, error: Exception) -> None:
        look, words = "line-height:1.4;color:#B00020", html.escape(sentence(error))
        self.state.value = f'<div role="alert" style="{look}">{words}</div>'


class Picker:
    """Chooses the two networks of a session; a network that cannot be had leaves the old one.

    Arguments:
        session: what it holds already is offered as the model given to `explore`.

    Example:
        >>> session = Session()
        >>> picker = Picker(session)
        >>> picker.wait()
        >>> session.first.name, session.layer, session.second
        ('plain', 'stem.convolution', None)
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.first, self.second = Slot(session, "first"), Slot(session, "second")
        self.widget = ipywidgets.VBox([self.first.widget, self.second.widget])

    def wait(self, timeout: float = 60) -> None:
        """Return when the networks that were asked for last are there."""
        self.first.wait(timeout)
        self.second.wait(timeout)
