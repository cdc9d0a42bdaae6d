"""What every panel of the explorer is: controls, one line of state, a picture, and its export."""

import contextlib
import html
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import ipywidgets
import pandas as pd

from normkit import plots
from normkit.plots.style import Picture

from .picture import Mark, PictureWidget
from .work import Dropped, Ticket, Worker

__all__ = ["Panel", "Shown", "png", "sentence"]

DPI = 110  # pixels an inch, as notebooks show figures
WORKER = Worker()  # one for all panels: figures are drawn one after the other


class Shown(NamedTuple):
    """What a panel shows for one state of its controls.

    Arguments:
        figure: the picture.
        table: the numbers in it.
        words: what is to be seen, in one sentence.
        code: Python that makes the same without a panel.
        marks: parts of the picture that answer.
    """

    figure: Picture
    table: pd.DataFrame
    words: str
    code: str
    marks: Sequence[Mark] = ()


def png(figure: Picture) -> tuple[bytes, int]:
    """A figure's png, and how many pixels wide a notebook shows it.

    Example:
        >>> png(Picture(figsize=(2, 1)))[1]
        220
    """
    with plots.style(), BytesIO() as buffer:
        figure.savefig(buffer, format="png")
        return buffer.getvalue(), round(DPI * figure.get_size_inches()[0])


def sentence(error: Exception) -> str:
    """An error in one line: its own words, after its kind where these were not meant for people.

    Example:
        >>> sentence(ValueError("no such layer")), sentence(KeyError("conv1"))
        ('no such layer', "KeyError: 'conv1'")
    """
    words = " ".join(str(error).split()) or "no more is known"
    told = isinstance(error, ValueError | OSError)
    return words if told else f"{type(error).__name__}: {words}"


def _button(name: str, words: str, act: Callable[[], None]) -> ipywidgets.Button:
    made = ipywidgets.Button(
        description=name, tooltip=words, disabled=True, layout={"flex": "0 0 6em"}
    )
    made.on_click(lambda _: act())
    return made


class Panel:
    """Controls over one picture; a child says what is computed, everything else is here.

    A change of any control asks for a new picture, which a thread in the background makes: the
    controls stay alive, and of many changes only the last is computed. An error becomes one
    sentence above the picture, which stays.

    Arguments:
        name: the file name of exports.
        controls: by name; what `compute` gets as values under these names.
        rows: how the controls stand, as names; all in one row by default.
    """

    def __init__(
        self,
        name: str,
        controls: Mapping[str, ipywidgets.Widget],
        rows: Sequence[Sequence[str]] | None = None,
    ) -> None:
        self.name, self.controls = name, dict(controls)
        self.shown: Shown | None = None
        self.picture = PictureWidget()
        self.state = ipywidgets.HTML("", layout={"min_height": "1.6em"})
        self.stop = _button("Cancel", "Stop what is being computed", self.cancel)
        self.active = True  # whether anybody sees it; hidden, it waits until it is opened
        self._stale = True
        self._settling = threading.Lock()
        self._future: Future | None = None
        self._code = ipywidgets.HTML("")
        self.path = ipywidgets.Text(
            f"exports/{name}", description="Save as", continuous_update=False,
            tooltip="Path of the pdf, png and csv, without an ending",
        )  # fmt: skip
        words = "Write the picture as pdf and png, its numbers as csv"
        self.save = _button("Save", words, self._export)
        for control in self._valued().values():
            control.observe(self._changed, "value")
        self.widget = self._layout(rows)

    def _layout(self, rows: Sequence[Sequence[str]] | None) -> ipywidgets.VBox:
        wrap = {"flex_flow": "row wrap"}
        lines = [
            ipywidgets.HBox([self.controls[name] for name in row], layout=wrap)
            for row in (rows if rows is not None else [list(self.controls)])
        ]
        status = ipywidgets.HBox([self.stop, self.state])
        export = ipywidgets.HBox([self.path, self.save, self._code], layout=wrap)
        return ipywidgets.VBox([*lines, status, self.picture, export])

    def request(self) -> Mapping[str, Any]:
        """What `compute` is asked for: the values of the controls; a child may add to them."""
        return {name: control.value for name, control in self._valued().items()}

    def _valued(self) -> dict[str, ipywidgets.Widget]:
        """The controls that have a value; a button has none."""
        return {
            name: control
            for name, control in self.controls.items()
            if "value" in control.traits() and not isinstance(control, ipywidgets.Button)
        }

    def compute(self, ticket: Ticket, **values: Any) -> Shown:
        """The picture of one state of the controls; runs in the background.

        *In plain words:* long work goes through `ticket.each` or calls `ticket.check`, so that it
        can say how far it is and end when it is overtaken. A ValueError is shown as its sentence.
        """
        raise NotImplementedError

    def _changed(self, change: object = None) -> None:
        self._stale = True
        if self.active:
            self.refresh()

    def open(self) -> None:
        """Be seen from now on: what has changed in the meantime is computed."""
        self.active = True
        if self._stale:
            self.refresh()

    def close(self) -> None:
        """Not be seen: nothing is computed until it is opened again."""
        self.active = False

    def refresh(self) -> Future:
        """Ask for a new picture; the future ends when it is there, was overtaken or failed."""
        self._stale = False
        values = self.request()
        future = WORKER.submit(
            self, lambda ticket: self._do(ticket, values), self._say, self._settle
        )
        self._future = future
        self._settle()
        return future

    def busy(self) -> bool:
        """Whether there is anything to cancel."""
        return WORKER.busy(self)

    def _settle(self) -> None:
        """Let Cancel be pressed while there is anything to cancel; called when that changes."""
        with self._settling:
            self.stop.disabled = not self.busy()

    def _do(self, ticket: Ticket, values: Mapping[str, Any]) -> Shown | None:
        try:
            shown = self.compute(ticket, **values)
            ticket.check()
            self._show(shown)
            return shown
        except Dropped:
            self._end()
            raise
        except Exception as error:  # shown in the panel: one sentence, whatever it was
            ticket.check()
            self._fail(error)
            return None

    def _show(self, shown: Shown) -> None:
        data, width = png(shown.figure)
        self.shown = shown
        self.picture.show(data, width, shown.words, shown.marks)
        self._say(shown.words)
        self._code.value = f"<code>{html.escape(shown.code)}</code>"
        self.save.disabled = False

    def _say(self, words: str) -> None:
        self.state.value = f"<span>{html.escape(words)}</span>"

    def _fail(self, error: Exception) -> None:
        words = html.escape(sentence(error))
        self.state.value = f'<span role="alert" style="color:#B00020">{words}</span>'

    def cancel(self) -> None:
        """End what is being computed; the picture that is there stays."""
        WORKER.cancel(self)
        self._settle()
        self._end()

    def _end(self) -> None:
        """Say that nothing comes; again by the work itself, whose last words may be later."""
        if not self.busy():
            self._say("Cancelled; the picture is of before.")

    def wait(self, timeout: float = 600) -> Shown | None:
        """What is shown when the work that was asked for last is done, or was cancelled."""
        while (future := self._future) is not None:
            with contextlib.suppress(Dropped):
                future.result(timeout)
            if future is self._future:
                break
        return self.shown

    def _export(self) -> None:
        if self.shown is None:
            return
        try:
            files = plots.save(self.shown.figure, self.shown.table, Path(self.path.value))
        except Exception as error:  # shown in the panel: one sentence, whatever it was
            self._fail(error)
        else:
            self._say("Saved " + ", ".join(str(file) for file in files))
