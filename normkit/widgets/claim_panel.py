"""Does this claim survive my settings? Its runs are made anew, and it is judged beside before."""

import contextlib
import html
import textwrap
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

import ipywidgets

from normkit.claims import Verdict
from normkit.plots import explorer_claims
from normkit.records import Store

from . import claim_runs, claim_verdicts
from .cache import Cache
from .claim_recipes import RECIPES
from .claim_runs import Cost, Settings
from .panel import Panel, Shown
from .session import Session
from .work import Dropped, Ticket, Worker

__all__ = ["ClaimPanel"]

TRAINER = Worker()  # another thread than that of figures, which go on while runs are made
RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
KEPT = Cache(size=64)


class ClaimPanel(Panel):
    """A claim, the settings of its runs, what they cost, and the verdicts before and now.

    *In plain words:* moving a slider trains nothing: it says what the runs would cost, and shows
    the verdict if they are all there. Run makes those that are missing; Cancel ends that after
    the runs in progress, and what is finished is kept.

    Arguments:
        session: what the explorer's panels share; a claim needs nothing of it.
        profile: whose runs are changed.

    Example:
        >>> from normkit.networks import Network
        >>> from torch import nn
        >>> net = Network("mine", nn.Conv2d(1, 2, 3), (1, 8, 8))
        >>> panel = ClaimPanel(Session(first=net), "smoke")
        >>> panel.controls["claim"].value, panel.controls["width"].value
        ('cn.standard', 4)
    """

    def __init__(self, session: Session, profile: str = "quick") -> None:
        self.session, self.profile = session, profile
        self.progress = ipywidgets.HTML("", layout={"min_height": "1.6em"})
        self.claimed = ipywidgets.HTML("")
        self._sweep: Future | None = None
        self._resetting = False
        super().__init__("claim", _controls(), [["claim", "run"], ["width", "epochs"],
                                                ["lr", "seeds"]])  # fmt: skip
        first, *rest = self.widget.children
        self.widget.children = (first, self.claimed, *rest[:2], self.progress, *rest[2:])
        self.controls["run"].on_click(lambda _: self.run())
        self._reset()

    def _reset(self) -> None:
        """Put the controls to the profile's own settings of the chosen claim."""
        controls, name = self.controls, self.controls["claim"].value
        recipe, base = RECIPES[name], claim_runs.profile_settings(name, self.profile)
        self._resetting = True
        try:
            widths = dict.fromkeys(max(1, round(base.width * f)) for f in recipe.widths)
            controls["width"].options = list(widths)
            controls["width"].value = base.width
            controls["epochs"].max = max(4, 4 * (base.epochs or 1))
            controls["epochs"].value = base.epochs or 1
            controls["lr"].value = 1.0
            controls["seeds"].value = max(3, base.seeds)
        finally:
            self._resetting = False
        for field in ("epochs", "lr"):
            controls[field].disabled = not recipe.trained
        self.claimed.value = html.escape(claim_runs.statement(name))

    def _changed(self, change: object = None) -> None:
        if self._resetting:
            return
        if isinstance(change, Mapping) and change["owner"] is self.controls["claim"]:
            self._reset()
        super()._changed(change)

    def compute(self, ticket: Ticket, **values: Any) -> Shown:
        """Both verdicts, as far as their runs are in the store, and what the others cost."""
        name, settings = _asked(values)
        cost = claim_runs.cost(name, settings, self.profile)
        ticket.check()
        old, new = claim_verdicts.before(name, self.profile), None
        if cost.stored == cost.runs:
            key = (name, settings, self.profile, str(Store().root))
            new = KEPT.get(key, lambda: claim_verdicts.rejudged(name, settings, self.profile))
        table = claim_verdicts.comparison(old, new)
        ticket.check()
        modules = "from normkit.widgets.claim_runs import Settings; "
        modules += "from normkit.widgets.claim_verdicts import compared; "
        code = f"{modules}compared({name!r}, {settings!r}, {self.profile!r})"
        return Shown(explorer_claims.verdicts(table), table, _words(name, old, new, cost), code)

    def run(self) -> Future:
        """Make the runs that are missing in the background, then judge; what the button does."""
        name, settings = _asked(self.request())
        self._tell("starting")
        self._sweep = TRAINER.submit(
            self, lambda ticket: self._train(ticket, name, settings), self._tell, self._settle
        )
        self._settle()
        return self._sweep

    def busy(self) -> bool:
        return super().busy() or TRAINER.busy(self)

    def _train(self, ticket: Ticket, name: str, settings: Settings) -> None:
        try:
            made = claim_runs.train(name, settings, self.profile, check=ticket.check)
            self._tell(f"{made} runs made" if made else "")
        except Dropped:
            self._tell("stopped; the finished runs are kept")
        except Exception as error:  # shown in the panel: one sentence, whatever it was
            words = " ".join(str(error).partition(" (TrainConfig(")[0].split())
            self._tell(f"{type(error).__name__}: {words}", "alert")
        self._changed()

    def cancel(self) -> None:
        """End what is computed, and the training after the runs in progress."""
        if TRAINER.busy(self):
            self._tell("stopping after the runs in progress")
            if not TRAINER.cancel(self):
                self._tell("stopped; the finished runs are kept")
        super().cancel()

    def wait(self, timeout: float = 60) -> Shown | None:
        """What is shown when the runs and the work that was asked for last are done."""
        if self._sweep is not None:
            with contextlib.suppress(Dropped):
                self._sweep.result(timeout)
        return super().wait(timeout)

    def _tell(self, words: str, role: str = "status") -> None:
        said = html.escape(f"Training: {words}." if words else "")
        color = ' style="color:#B00020"' if role == "alert" else ""
        self.progress.value = f'<span role="{role}"{color}>{said}</span>'


def _controls() -> dict[str, ipywidgets.Widget]:
    wide = {"style": {"description_width": "7em"}, "layout": {"width": "27em"}}
    names = [(textwrap.shorten(f"{n}: {claim_runs.statement(n)}", 90, placeholder=" …"), n)
             for n in RECIPES]  # fmt: skip
    return {
        "claim": ipywidgets.Dropdown(
            options=names, description="Claim", tooltip="What is judged",
            style={"description_width": "6em"}, layout={"width": "46em"},
        ),
        "run": ipywidgets.Button(
            description="Run", tooltip="Make the runs that are missing, then judge again",
            button_style="primary", layout={"width": "6em"},
        ),
        "width": ipywidgets.SelectionSlider(
            options=[1], description="Width", tooltip="Channels or units of the first run's "
            "network; those of the others change in proportion", **wide,
        ),
        "epochs": ipywidgets.IntSlider(
            1, 1, 4, description="Epochs", tooltip="Passes over the images in the first run; "
            "those of the others change in proportion", **wide,
        ),
        "lr": ipywidgets.SelectionSlider(
            options=[(f"× {rate:g}", rate) for rate in RATES], value=1.0,
            description="Learning rate", tooltip="Factor on every run's learning rate", **wide,
        ),
        "seeds": ipywidgets.IntSlider(
            3, 3, 10, description="Seeds", tooltip="Repetitions; intervals shrink with them",
            **wide,
        ),
    }  # fmt: skip


def _asked(values: Mapping[str, Any]) -> tuple[str, Settings]:
    name = values["claim"]
    epochs = values["epochs"] if RECIPES[name].trained else None
    return name, Settings(values["width"], epochs, values["lr"], values["seeds"])


def _words(name: str, old: Verdict | None, new: Verdict | None, cost: Cost) -> str:
    was = old.verdict if old else "not judged"
    if new is None:
        return f"{name} was {was}. With these settings: {cost}; Run makes them and judges again."
    part = new.deciding
    change = "stays" if was == new.verdict else f"was {was}, and is now"
    numbers = f"{part.effect:.3g} [{part.low:.3g}, {part.high:.3g}], n = {part.n}"
    return f"{name} {change} {new.verdict} ({part.name}: {numbers}), from {cost.runs} runs."
