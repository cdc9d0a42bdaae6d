"""The panels over epochs and of the lab: what a store holds is shown, what it lacks is trained."""

import dataclasses
import threading

import numpy as np
import pytest

from normkit.records import Store
from normkit.training import (
    Adversary,
    Evaluation,
    Penalty,
    TrainConfig,
    from_settings,
    train,
)
from normkit.widgets import lab_runs
from normkit.widgets.history_panel import HistoryPanel, watched_runs
from normkit.widgets.lab_panel import LabPanel
from normkit.widgets.lab_runs import KNOBS, dots, settings
from normkit.widgets.work import Dropped

SMALL = TrainConfig(subset=64, epochs=3, width=4, norms=("l1", "linf"), final_norms=("spectral",))
RUNS = [
    SMALL,
    dataclasses.replace(SMALL, seed=1),
    dataclasses.replace(
        SMALL, epochs=4, norms_every=2, adversary=Adversary("pgd", steps=1),
        evaluation=Evaluation(epsilon=0.1, steps=1, every=2, images=20),
    ),
    dataclasses.replace(SMALL, epochs=1),
    dataclasses.replace(SMALL, norms=()),
    dataclasses.replace(SMALL, normalization="none", lr=1e9, batch_size=8),
]  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    made = Store(tmp_path_factory.mktemp("runs"))
    for config in RUNS:
        train(config).save(made)
    return made


@pytest.fixture
def history(store):
    made = HistoryPanel(None, store)
    assert made.refresh().result(60) is not None, made.state.value
    return made


def test_only_runs_whose_norms_were_watched_are_offered(store):
    watched = {store.key(config) for config in (*RUNS[:3], RUNS[5])}
    assert set(watched_runs(store)["key"]) == watched


def test_the_epoch_slider_shows_the_norms_of_its_epoch(history, store):
    for epoch in (3, 1, 2):
        history.controls["norm"].value = "linf"
        history.controls["epoch"].value = epoch
        shown = history.wait()
        rows = store.open(history.controls["run"].value).table("norms")
        rows = rows[(rows.norm == "linf") & (rows.epoch == epoch)]
        drawn = [line.get_ydata() for line in shown.figure.axes[0].lines[1:]]
        assert sorted(np.concatenate(drawn)) == sorted(rows.value)
        assert shown.words.startswith(f"Epoch {epoch} of 3")
        assert [mark.name for mark in shown.marks] == list(rows.layer)


def test_a_norm_kept_only_at_the_end_is_not_offered(history):
    assert [name for name, _ in history.controls["norm"].options] == ["l1", "linf"]


def test_another_method_brings_its_own_epochs_and_accuracies(history, store):
    history.controls["method"].value = "BatchNorm, PGD-AT"
    history.controls["epoch"].value = 4
    shown = history.wait()
    assert [epoch for _, epoch in history.controls["epoch"].options] == [2, 4]
    last = store.get(RUNS[2]).table("history").iloc[-1]
    assert f"under attack {last.robust_accuracy:.3f}" in shown.words
    scope = {}
    exec(shown.code, scope)
    assert set(scope["table"].epoch) == {4} and set(scope["table"].norm) == {"l1"}


def test_play_moves_the_epoch(history):
    history.play.value = 2
    assert history.controls["epoch"].value == 3
    assert history.wait().words.startswith("Epoch 3")


def test_a_run_without_a_norm_is_said_to_have_ended(history):
    history.controls["method"].value = "no normalization"
    history.wait()
    assert "ended before its norms were measured: diverged at step" in history.state.value


def test_an_empty_store_says_how_to_make_runs(tmp_path):
    panel = HistoryPanel(None, Store(tmp_path))
    assert panel.refresh().result(60) is None
    assert "./run_all.sh" in panel.state.value and "normkit train" in panel.state.value
    command = panel.state.value.split("normkit train ")[1].split("<")[0]
    config = from_settings(command.split())
    train(dataclasses.replace(config, epochs=2, subset=64, width=4)).save(panel.store)
    panel.controls["again"].click()
    assert panel.wait().words.startswith("Epoch 1 of 2")


@pytest.fixture
def lab(tmp_path, monkeypatch):
    monkeypatch.setattr(
        lab_runs, "BASE", dataclasses.replace(lab_runs.BASE, subset=64, width=4, epochs=2)
    )
    made = LabPanel(None, Store(tmp_path))
    assert made.refresh().result(60) is not None, made.state.value
    return made


def test_sliders_train_nothing_and_the_button_does(lab):
    lab.controls["value"].value = 0.001
    assert lab.wait().table.empty and not lab.store.keys()
    record = lab.train().result(60)
    shown = lab.wait()
    assert lab.store.keys() == [record.key] and record.config["penalty"]["beta"] == 0.001
    last = record.table("history").iloc[-1]
    assert shown.table.accuracy.tolist() == [last.accuracy]
    assert shown.table.made.tolist() == ["here"] and f"{last.accuracy:.3f}" in shown.words


def test_asking_again_trains_nothing(lab):
    first = lab.train().result(60)
    again = lab.train().result(60)
    assert again.meta == first.meta and len(lab.store.keys()) == 1


def test_stored_runs_are_drawn_if_they_differ_in_the_knob_only(lab):
    run = KNOBS["norm decay beta"].set(0.02)
    for config in (run, dataclasses.replace(run, seed=7), dataclasses.replace(run, lr=0.2)):
        train(config).save(lab.store)
    lab.controls["seed"].value = 7
    shown = lab.wait()
    assert sorted(shown.table.seed) == [0, 7] and set(shown.table.value) == {0.02}
    assert set(shown.table.made) == {"stored"}


def test_cancel_ends_a_training_at_its_next_epoch(lab):
    lab.controls["value"].value = 0.1
    reached, go = threading.Event(), threading.Event()

    def hold(change):
        if "epoch 1 of 2" in change.new:
            reached.set()
            go.wait(30)

    lab.state.observe(hold, "value")
    running = lab.train()
    lab.controls["value"].value = 0.01
    waiting = lab.train()
    assert reached.wait(60) and not lab.stop.disabled
    lab.cancel()
    go.set()
    for future in (running, waiting):
        with pytest.raises(Dropped):
            future.result(60)
    assert not lab.store.keys() and lab.stop.disabled
    assert lab.train().result(60).status == "ok", "another press trains again"


@pytest.mark.parametrize("name", KNOBS)
def test_every_value_of_a_knob_is_a_run_that_tells_its_value(name):
    knob = KNOBS[name]
    assert knob.start in knob.values.values()
    for value in knob.values.values():
        config = dataclasses.replace(knob.set(value), seed=5)
        assert knob.of(config) == value
        assert knob.of(dataclasses.replace(config, lr=0.3)) is None
        assert from_settings(settings(config)) == config


def test_a_knob_turned_offers_its_values(lab):
    for name, knob in KNOBS.items():
        lab.controls["knob"].value = name
        assert lab.controls["value"].value == knob.start
        shown = lab.wait()
        assert shown.words.lower().startswith(name.lower())
        lab.picture.chosen = shown.marks[0].name
        assert lab.controls["value"].value == min(knob.values.values())


def test_a_run_that_diverges_is_a_dot_that_says_so(tmp_path):
    knob = KNOBS["norm decay beta"]
    run = knob.set(0.5)
    lost = dataclasses.replace(train(dataclasses.replace(run, epochs=0)), config=run)
    dataclasses.replace(lost, status="diverged at step 3").save(Store(tmp_path))
    table = dots(Store(tmp_path), knob)
    assert table.status.tolist() == ["diverged at step 3"] and table.accuracy.isna().all()
    shown = LabPanel(None, Store(tmp_path)).refresh().result(60)
    assert "diverged" in [line.get_label() for line in shown.figure.axes[0].lines]


def test_a_store_that_cannot_be_written_is_one_sentence(lab, tmp_path):
    (tmp_path / "file").write_text("")
    panel = LabPanel(None, Store(tmp_path / "file"))
    assert panel.train().result(60) is None
    assert "cannot be written" in panel.state.value and 'role="alert"' in panel.state.value


def test_norm_decay_is_found_as_stored_by_others():
    knob = KNOBS["norm decay beta"]
    assert knob.of(TrainConfig()) is None, "another number of epochs"
    plain = dataclasses.replace(lab_runs.BASE, penalty=Penalty("norm_decay", "l1", 0.01))
    assert knob.of(plain) is None, "another norm"
