"""A small lab: a knob is turned, a network of a few seconds is trained, its dot is drawn."""

import dataclasses
import time
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

import ipywidgets
import numpy as np
import pandas as pd

from normkit.plots.explorer_lab import lab
from normkit.records import Record, Store
from normkit.training import TrainConfig, train

from .cache import Cache
from .lab_runs import KNOBS, Knob, dots, settings
from .panel import Panel, Shown
from .picture import Mark, marks_along_x
from .session import Session
from .work import Dropped, Ticket, Worker

__all__ = ["LabPanel"]

TRAINER = Worker()  # not the one that draws: pictures follow the controls while it trains


class LabPanel(Panel):
    """A knob, a button that trains, and the dots of all runs that differ in the knob.

    *In plain words:* the controls move a line, the button trains what the line stands at; several
    presses stand in a row, and Cancel ends them all. Finished runs are stored, so that asking
    again is instant.

    Arguments:
        session: of the explorer; what is trained does not depend on it.
        store: where runs are kept; None is the default store.
    """

    def __init__(self, session: Session | None = None, store: Store | None = None) -> None:
        self.store = Store() if store is None else store
        self._cache = Cache(20_000)
        self._asked: dict[TrainConfig, Future] = {}
        self._here: set[str] = set()
        first = next(iter(KNOBS.values()))
        controls = {
            "knob": ipywidgets.Dropdown(
                options=list(KNOBS), description="Knob", tooltip="The setting that is varied"
            ),
            "value": ipywidgets.SelectionSlider(
                options=list(first.values.items()), value=first.start, description="Value",
                tooltip="What is trained next", layout={"width": "26em"}, continuous_update=True,
            ),
            "seed": ipywidgets.BoundedIntText(
                0, 0, 999, description="Seed", tooltip="Another seed, another run",
                layout={"width": "10em"},
            ),
            "train": ipywidgets.Button(
                description="Train", tooltip="Train this network now, or find it in the store",
                button_style="primary", layout={"width": "6em"},
            ),
        }  # fmt: skip
        controls["knob"].observe(self._turn, "value")  # before the base: values go with the knob
        controls["train"].on_click(lambda _: self.train())
        super().__init__("lab", controls, [["knob", "value", "seed", "train"]])
        self.picture.observe(self._choose, "chosen")

    def _turn(self, change: Any) -> None:
        knob, slider = KNOBS[change.new], self.controls["value"]
        slider.options = list(knob.values.items())
        slider.value = knob.start

    def _choose(self, change: Any) -> None:
        values = KNOBS[self.controls["knob"].value].values
        if change.new in values:
            self.controls["value"].value = values[change.new]

    def train(self) -> Future:
        """Train what the controls say, after what waits; the future of its record."""
        values = self.request()
        config, words = _config(**values), _title(**values)
        if not TRAINER.busy((self, config)):
            future = TRAINER.submit(
                (self, config), lambda ticket: self._train(ticket, config, words), self._say,
                self._settle,
            )  # fmt: skip
            left = {other: made for other, made in self._asked.items() if not made.done()}
            self._asked = {**left, config: future}
        self._settle()
        return self._asked[config]

    def _training(self) -> int:
        """How many runs are trained or wait for it."""
        return sum(TRAINER.busy((self, config)) for config in tuple(self._asked))

    def busy(self) -> bool:
        return super().busy() or self._training() > 0

    def _train(self, ticket: Ticket, config: TrainConfig, words: str) -> Record | None:
        try:
            record = self.store.get(config) or self._run(ticket, config, words)
        except Dropped:
            raise
        except Exception as error:  # shown in the panel: one sentence, whatever it was
            self._fail(error)
            return None
        self._here.add(record.key)
        self._changed()
        return record

    def _run(self, ticket: Ticket, config: TrainConfig, words: str) -> Record:
        ticket.check(f"{words}: epoch 0 of {config.epochs}")
        config.dependencies()  # what the run depends on is what there is before it, not after
        first: list[float] = []  # when the first epoch had ended

        def report(row: Mapping[str, Any]) -> None:
            done, now = row["epoch"], time.monotonic()
            first.append(now)
            said = f"{words}: epoch {done} of {config.epochs}, accuracy {row['accuracy']:.3f}"
            if done > 1:
                left = (now - first[0]) / (done - 1) * (config.epochs - done)
                said += f", {left:.0f} s left"
            waiting = self._training() - 1
            ticket.check(said + f"; {waiting} more to train" * (waiting > 0))

        return train(config, on_epoch=report).save(self.store)

    def cancel(self) -> None:
        """End what is trained and forget what waits; finished runs stay."""
        for config in tuple(self._asked):
            TRAINER.cancel((self, config))
        super().cancel()

    def compute(self, ticket: Ticket, *, knob: str, value: float, seed: int) -> Shown:
        """The dots that are there, and where the next one would be; trains nothing."""
        chosen = KNOBS[knob]
        table = dots(self.store, chosen, self._cache, ticket.check)
        table["made"] = np.where(table["key"].isin(self._here), "here", "stored")
        config = _config(knob, value, seed)
        note = f"digits, {config.model} of width {config.width}, {config.epochs} epochs; "
        attack = config.evaluation
        note += f"attacked: PGD-{attack.steps} within {attack.epsilon * 255:g}/255. Line: medians."
        ticks = {text.removesuffix("/255"): at for text, at in chosen.values.items()}
        label = knob + " (in 1/255)" * (ticks != chosen.values)
        figure = lab(
            table, next_value=value, ticks=ticks, scale=chosen.scale, label=label, note=note
        )
        code = "from normkit.training import from_settings, train; "
        code += f"table = train(from_settings({settings(config)})).tables['history'].tail(1)"
        words = _words(table, knob, value, seed)
        places = [
            (text, _answer(table, text, at), at) for text, at in sorted(
                chosen.values.items(), key=lambda item: item[1]
            )
        ]  # fmt: skip
        marks: list[Mark] = marks_along_x(figure, figure.axes[0], places)
        return Shown(figure, table, words, code, marks)


def _config(knob: str, value: float, seed: int) -> TrainConfig:
    return dataclasses.replace(KNOBS[knob].set(value), seed=seed)


def _text(knob: Knob, value: float) -> str:
    return next((text for text, number in knob.values.items() if number == value), f"{value:g}")


def _title(knob: str, value: float, seed: int) -> str:
    return f"{knob} {_text(KNOBS[knob], value)}, seed {seed}"


def _answer(table: pd.DataFrame, text: str, value: float) -> str:
    """What the pointer says over a value: how many runs, and their medians."""
    runs = table[table["value"] == value]
    if runs.empty:
        return f"{text}: not trained"
    middle = runs[["accuracy", "robust_accuracy", "norm"]].median()
    said = f"{text}: accuracy {middle.accuracy:.3f}, attacked {middle.robust_accuracy:.3f}"
    return f"{said}, norm {middle.norm:.3g} ({len(runs)} run{'s' * (len(runs) > 1)})"


def _words(table: pd.DataFrame, knob: str, value: float, seed: int) -> str:
    """What the run at the controls gave, or that it is not there yet."""
    title = _title(knob, value, seed)
    title = title[0].upper() + title[1:]
    here = int((table["made"] == "here").sum())
    count = f"{len(table)} run{'s' * (len(table) != 1)} drawn, {here} of this session."
    mine = table[(table["value"] == value) & (table["seed"] == seed)]
    if mine.empty:
        return f"{title} is not trained: Train does that in a few seconds; {count}"
    row = mine.iloc[-1]
    if row.status != "ok":
        return f"{title}: {row.status}; {count}"
    found = f"accuracy {row.accuracy:.3f}, {row.robust_accuracy:.3f} attacked"
    return f"{title}: {found}, median linf norm {row.norm:.3g}; {count}"
