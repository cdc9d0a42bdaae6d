"""A stored run as its epochs went by: norms that grow or shrink, and accuracies beside them."""

from typing import Any, NamedTuple

import ipywidgets
import numpy as np
import pandas as pd
import traitlets

from normkit.plots.explorer_history import over_epochs
from normkit.plots.style import COLORS
from normkit.records import Store, StoreError

from .cache import Cache
from .panel import Panel, Shown
from .picture import marks_along_x
from .session import Session
from .sources import runs
from .work import Ticket

__all__ = ["HistoryPanel", "Tables", "watched_runs"]

EMPTY = (
    "No run in {root} kept its norms over epochs. Make some with ./run_all.sh, or one with: "
    "python -m normkit train adversary.kind=pgd evaluation.epsilon=0.1 evaluation.every=2"
)
NOTHING = [("none", "")]


class Tables(NamedTuple):
    """What a run kept: its configuration, its status, and two tables."""

    config: dict[str, Any]
    status: str
    history: pd.DataFrame
    norms: pd.DataFrame


def watched_runs(store: Store) -> pd.DataFrame:
    """The runs that measured their layers' norms at two epochs or more.

    Returns:
        Columns dataset, method, run, key, as `sources.runs` names them.

    Example:
        >>> len(watched_runs(Store("nowhere")))
        0
    """
    found = runs(store)
    kept = [_watched(store.open(key).config) for key in found["key"]]
    return found[np.array(kept, dtype=bool)].reset_index(drop=True)


def _watched(config: dict[str, Any]) -> bool:
    due = -(-config["epochs"] // config["norms_every"])
    return bool(config["norms"]) and due > 1


class HistoryPanel(Panel):
    """An epoch slider over a run of the store.

    *In plain words:* the runs are listed when the panel is first opened, and again on demand.

    Arguments:
        session: of the explorer; what is shown does not depend on it.
        store: where the runs are; None is the default store.
    """

    def __init__(self, session: Session | None = None, store: Store | None = None) -> None:
        self.store = Store() if store is None else store
        self._found: pd.DataFrame | None = None
        self._lost = ""  # why the runs, or one of them, cannot be read
        self._filling, self._cache = False, Cache(8)
        play = ipywidgets.Play(0, 0, 1, interval=500, tooltip="Let the epochs go by")
        controls = self._controls(play)
        self.play = play
        traitlets.link((controls["epoch"], "index"), (play, "value"))
        controls["again"].on_click(lambda _: self._list())
        rows = [["dataset", "method", "run", "again"], ["norm", "epoch", "play"]]
        super().__init__("history", controls, rows)

    @staticmethod
    def _controls(play: ipywidgets.Play) -> dict[str, ipywidgets.Widget]:
        wide, dropdown = {"width": "26em"}, ipywidgets.Dropdown
        return {
            "dataset": dropdown(
                options=NOTHING, description="Data set", tooltip="What the runs were trained on"
            ),
            "method": dropdown(options=NOTHING, description="Method", tooltip="How they trained"),
            "run": dropdown(
                options=NOTHING, description="Run", layout=wide,
                tooltip="The seed, and what else tells the run from others of this method",
            ),
            "again": ipywidgets.Button(
                description="Look again", tooltip="List the runs of the store anew"
            ),
            "norm": dropdown(options=NOTHING, description="Norm", tooltip="Of every layer"),
            "epoch": ipywidgets.SelectionSlider(
                options=[("none", 0)], description="Epoch", layout=wide, continuous_update=True,
                tooltip="The epoch after which the norms were measured",
            ),
            "play": ipywidgets.HBox([play]),
        }  # fmt: skip

    def refresh(self) -> Any:
        """List the runs if that was not done, then ask for a picture."""
        if self._found is None:
            self._fill("list")
        return super().refresh()

    def _list(self) -> None:
        self._found = None
        self.refresh()

    def _changed(self, change: Any = None) -> None:
        if self._filling:
            return
        name = next((n for n, c in self.controls.items() if change and c is change.owner), "")
        if name in ("dataset", "method", "run"):
            self._fill(name)
        super()._changed(change)

    def _fill(self, changed: str) -> None:
        """Let the controls after the one that was changed offer what there is."""
        self._filling, self._lost = True, ""
        try:
            if changed == "list":
                self._found = watched_runs(self.store)
                self._offer("dataset", [(name, name) for name in self._found["dataset"].unique()])
            found = self._found[self._found["dataset"] == self.controls["dataset"].value]
            if changed in ("list", "dataset"):
                self._offer("method", [(name, name) for name in found["method"].unique()])
            found = found[found["method"] == self.controls["method"].value]
            if changed != "run":
                self._offer("run", list(zip(found["run"], found["key"], strict=True)))
            self._measured()
        except StoreError as error:
            self._lost = str(error)
        finally:
            self._filling = False

    def _measured(self) -> None:
        """Offer the norms and epochs of the run that is chosen."""
        key = self.controls["run"].value
        rows = self._tables(key).norms if key else pd.DataFrame({"norm": [], "epoch": []})
        counts = rows.groupby("norm", sort=False)["epoch"].nunique()
        self._offer("norm", [(name, name) for name in counts.index[counts == counts.max()]])
        epochs = sorted(int(epoch) for epoch in rows["epoch"].unique()) or [0]
        slider = self.controls["epoch"]
        slider.index = 0
        self.play.max = len(epochs) - 1
        slider.options = [(str(epoch), epoch) for epoch in epochs]

    def _offer(self, name: str, options: list[tuple[str, str]]) -> None:
        """Change what a control offers; it keeps its value where it still can."""
        control = self.controls[name]
        kept = control.value
        control.options = options or NOTHING
        if kept in [value for _, value in options]:
            control.value = kept

    def _tables(self, key: str) -> Tables:
        def read() -> Tables:
            record = self.store.open(key)
            tables = (record.table(name) for name in ("history", "norms"))
            return Tables(record.config, record.status, *tables)

        return self._cache.get(key, read)

    def request(self) -> dict[str, Any]:
        """The values of the controls, and what kept them from being filled."""
        return {**super().request(), "lost": self._lost}

    def compute(
        self, ticket: Ticket, *, dataset: str, method: str, run: str, norm: str, epoch: int,
        lost: str = "",
    ) -> Shown:  # fmt: skip
        """The picture of one epoch of a run."""
        if lost:
            raise ValueError(lost)
        if not run:
            raise ValueError(EMPTY.format(root=self.store.root))
        found = self._tables(run)
        if found.norms.empty or not norm:
            raise ValueError(f"This run ended before its norms were measured: {found.status}.")
        table = found.norms[found.norms["norm"] == norm]
        colored = _color_key(found.config)
        note = f"{dataset}, {found.config['model']}, {method}; record {run}; {found.status}."
        figure = over_epochs(
            table, found.history, epoch=epoch, norm=norm, method=colored, note=note
        )
        now = table[table["epoch"] == epoch].reset_index(drop=True)
        last = table[table["epoch"] == table["epoch"].max()].set_index("layer")["value"]
        places = [
            (row.layer, f"{row.layer}: {row.value:.4g}, last {last[row.layer]:.4g}", row.Index)
            for row in now.itertuples()
        ]
        marks = marks_along_x(figure, figure.axes[0], places)
        root = "" if self.store.root == Store().root else repr(str(self.store.root))
        code = (
            f"from normkit.records import Store; table = Store({root})"
            f".open({run!r}).table('norms').query(\"norm == {norm!r} and epoch == {epoch}\")"
        )
        return Shown(figure, table, _words(found, table, epoch), code, marks)


def _color_key(config: dict[str, Any]) -> str:
    """The method whose color a run has: what acts on it, else its layers."""
    decay = "svc" if config["projection"]["kind"] == "singular_values" else "plain"
    keys = [
        config["projection"]["kind"],
        f"nd_{config['penalty']['norm']}" if config["penalty"]["kind"] == "norm_decay" else decay,
        config["penalty"]["kind"],
        {"free": "adversarial"}.get(config["adversary"]["kind"], config["adversary"]["kind"]),
        config["convolution"],
        config["normalization"],
    ]
    return next((k for k in keys if k in COLORS and k not in ("none", "conv", "plain")), "plain")


def _words(found: Tables, table: pd.DataFrame, epoch: int) -> str:
    """Norms and accuracies at the epoch, and what the norms are at the end."""
    weights = table[table["kind"] != "batch_norm"]
    middle = weights.groupby("epoch")["value"].median()
    words = f"Epoch {epoch} of {found.config['epochs']}: the median {table['norm'].iloc[0]} norm "
    words += f"of {weights['layer'].nunique()} layers is {middle[epoch]:.4g}"
    words += "" if epoch == middle.index[-1] else f" and at the end {middle.iloc[-1]:.4g}"
    names = {"accuracy": "accuracy", "robust_accuracy": "under attack", "train_loss": "loss"}
    row = found.history[found.history["epoch"] == epoch]
    for column, name in names.items():
        value = float(row[column].iloc[0]) if len(row) else np.nan
        words += f"; {name} {value:.3f}" if np.isfinite(value) else ""
    return words + ("." if found.status == "ok" else f"; the run {found.status}.")
