"""Requests that overtake each other, are cancelled or fail leave a panel that is at rest."""

import dataclasses
import threading

import pandas as pd
import pytest
import torch
from threadpoolctl import threadpool_info
from torch import nn

from normkit import widgets
from normkit.plots.style import Picture
from normkit.records import Store
from normkit.records.files import MANIFEST
from normkit.training import TrainConfig, train
from normkit.widgets import Network, Panel, Session, Shown, lab_runs
from normkit.widgets.history_panel import HistoryPanel
from normkit.widgets.lab_panel import LabPanel
from normkit.widgets.layer_panel import LayerPanel
from normkit.widgets.layer_shown import VIEWS
from normkit.widgets.work import Worker, one_thread


def pools() -> list[int]:
    return [torch.get_num_threads(), *(pool["num_threads"] for pool in threadpool_info())]


def test_threads_are_given_back_whichever_block_ends_last():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        before = pools()
        first, second = one_thread(), one_thread()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        second.__exit__(None, None, None)
        assert pools() == before
    finally:
        torch.set_num_threads(threads)


def test_a_worker_is_busy_until_what_it_is_asked_for_is_done_or_dropped():
    worker, begun, go = Worker(), threading.Event(), threading.Event()

    def work(ticket):
        begun.set()
        go.wait(30)
        return worker.busy("me")

    future = worker.submit("me", work)
    assert begun.wait(30) and worker.busy("me") and not worker.busy("other")
    assert worker.cancel("me") and not worker.busy("me")
    waiting = worker.submit("me", lambda ticket: worker.busy("me"))
    assert worker.busy("me")
    go.set()
    assert future.result(30) is True and waiting.result(30) is True
    assert not worker.busy("me") and not worker.cancel("me")


def test_a_failure_after_the_work_reaches_the_future_and_not_the_thread():
    worker = Worker()
    with pytest.raises(ZeroDivisionError):
        worker.submit("me", lambda ticket: 1, after=lambda: 1 / 0).result(30)
    assert worker.submit("me", lambda ticket: 2).result(30) == 2


class Slow(Panel):
    """Waits until it may go on, then shows, or fails."""

    def __init__(self, fails: bool) -> None:
        self.begun, self.go, self.fails = threading.Event(), threading.Event(), fails
        super().__init__("slow", {})

    def compute(self, ticket, **values):
        self.begun.set()
        self.go.wait(30)
        if self.fails:
            raise ValueError("too late")
        return Shown(Picture(figsize=(1, 1)), pd.DataFrame(), "there", "")


@pytest.mark.parametrize("fails", [False, True])
def test_a_panel_that_was_cancelled_says_so_and_can_be_asked_again(fails):
    panel = Slow(fails)
    panel.refresh()
    assert panel.begun.wait(30) and not panel.stop.disabled
    panel.cancel()
    assert panel.stop.disabled
    panel.go.set()
    assert panel.wait(30) is None
    assert "Cancelled" in panel.state.value and panel.stop.disabled
    panel.refresh()
    panel.wait(30)
    assert ("too late" if fails else "there") in panel.state.value and panel.stop.disabled


def test_a_path_that_names_no_file_is_one_sentence():
    panel = Slow(False)
    panel.go.set()
    panel.refresh().result(30)
    panel.path.value = ""
    panel.save.click()
    assert "alert" in panel.state.value


def test_only_the_panel_that_is_seen_computes():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3))
    explorer = widgets.explore(model, input_size=(1, 8, 8), panels=["network", "layer"])
    chart, single = explorer.panels["network"], explorer.panels["layer"]
    chart.wait()
    drawn = chart.shown
    explorer.tabs.selected_index = 1
    single.controls["layer"].value = "2"
    assert single.wait().words.startswith("2: Conv2d")
    assert chart.wait() is drawn and "Chosen: 0" in chart.shown.words
    explorer.tabs.selected_index = 0
    assert "Chosen: 2" in chart.wait().words


def test_a_second_press_of_train_does_not_begin_anew(tmp_path, monkeypatch):
    base = dataclasses.replace(lab_runs.BASE, subset=64, width=4, epochs=2)
    monkeypatch.setattr(lab_runs, "BASE", base)
    panel = LabPanel(None, Store(tmp_path))
    reached, go = threading.Event(), threading.Event()

    def hold(change):
        if "epoch 1 of 2" in change.new:
            reached.set()
            go.wait(30)

    panel.state.observe(hold, "value")
    first = panel.train()
    assert reached.wait(60)
    assert panel.train() is first and not panel.stop.disabled
    go.set()
    assert first.result(60).status == "ok"
    panel.wait()
    assert panel.stop.disabled


def test_a_damaged_record_is_named_and_not_called_missing(tmp_path):
    store = Store(tmp_path)
    record = train(TrainConfig(epochs=2, subset=64, width=4, final_norms=())).save(store)
    (tmp_path / record.key / MANIFEST).write_text("{")
    panel = HistoryPanel(None, store)
    assert panel.refresh().result(60) is None
    assert record.key in panel.state.value and "No run" not in panel.state.value


def test_the_code_of_a_long_spectrum_gives_the_values_that_are_shown():
    network = Network("mine", nn.Sequential(nn.Conv2d(96, 96, 3, padding=1)), (96, 64, 64))
    panel = LayerPanel(Session(first=network, layer="0"))
    panel.controls["view"].value = VIEWS[1]
    shown = panel.refresh().result(60)
    assert set(shown.table["which"]) == {"largest of each frequency"}
    assert "(64, 64))[:, 0].sort(descending=True)" in shown.code
