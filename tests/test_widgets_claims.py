"""A claim is judged anew from the runs that the settings ask for, and from no others."""

import dataclasses
import threading

import numpy as np
import pandas as pd
import pytest
from torch import nn

from normkit import claims, papers, sweep
from normkit.networks import Network
from normkit.papers import beyond_batchnorm, norm_decay
from normkit.plots import explorer_claims
from normkit.records import Store
from normkit.training import TrainConfig
from normkit.widgets import Session, claim_runs, claim_verdicts
from normkit.widgets.claim_costs import estimate
from normkit.widgets.claim_panel import ClaimPanel
from normkit.widgets.claim_recipes import RECIPES
from normkit.widgets.claim_runs import Settings


@pytest.fixture
def places(tmp_path, monkeypatch):
    monkeypatch.setenv("NORMKIT_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("NORMKIT_FIGURES", str(tmp_path / "figures"))
    monkeypatch.setenv("NORMKIT_JOBS", "1")
    return tmp_path


@pytest.fixture
def in_this_process(monkeypatch):
    """Runs are made here, not in other processes, which take seconds to start."""

    class Pool:
        def __enter__(self):
            return None

        def __exit__(self, *error):
            return None

    monkeypatch.setattr(sweep, "process_pool", lambda workers: Pool())


def _panel(claim="ln.layers"):
    session = Session(first=Network("net", nn.Conv2d(1, 2, 3), (1, 8, 8)))
    panel = ClaimPanel(session, "smoke")
    panel.controls["claim"].value = claim
    return panel


def test_each_paper_has_two_claims_and_more_that_can_be_judged_anew():
    catalogue = {claim.id: claim.paper for claim in papers.CLAIMS}
    counts = pd.Series([catalogue[name] for name in RECIPES]).value_counts()
    assert set(counts.index) == set(catalogue.values()) and counts.min() >= 2, counts


@pytest.mark.parametrize("name", RECIPES)
def test_unchanged_settings_ask_for_the_runs_of_the_profile_and_no_others(name, places):
    choosing, judged = claim_runs.runs(name, profile="smoke")
    assert (choosing, judged) == claim_runs.runs(
        name, claim_runs.profile_settings(name, "smoke"), "smoke"
    )
    assert judged == list(dict.fromkeys(judged)) == RECIPES[name].judged("smoke", {})
    assert choosing == RECIPES[name].choosing("smoke")


@pytest.mark.parametrize("name", RECIPES)
def test_what_is_asked_for_is_what_changes(name, places):
    _, plain = claim_runs.runs(name, Settings(seeds=3), "smoke")
    width, epochs = 2 * plain[0].width, 3 * plain[0].epochs or None
    _, changed = claim_runs.runs(name, Settings(width, epochs, 0.5, 4), "smoke")
    models, seeds = len(plain) // 3, len({run.seed for run in changed})
    assert (len(changed), seeds) == (4 * models, 4)
    for before, after in zip(plain[:models], changed, strict=False):
        assert after.width == 2 * before.width and after.epochs == 3 * before.epochs
        assert after.lr == pytest.approx(before.lr / 2)
        same = {"width", "epochs", "lr", "groups", "warmup_epochs", "projection"}
        for field in {f.name for f in dataclasses.fields(TrainConfig)} - same:
            assert getattr(before, field) == getattr(after, field), field


def test_epochs_change_as_the_papers_own_function_changes_them(places):
    for profile, name, own in (
        ("quick", "ln.layers", norm_decay.adversarial_runs),
        ("quick", "ln.accuracy", norm_decay.regularized_runs),
    ):
        base = claim_runs.profile_settings(name, profile)
        settings = dataclasses.replace(base, epochs=base.epochs // 2)
        mine = claim_runs.runs(name, settings, profile)[1]
        assert set(mine) <= set(own(profile, epochs=base.epochs // 2))


def test_the_verdict_is_that_of_the_papers_functions(places, in_this_process):
    settings = Settings(seeds=3)
    assert claim_verdicts.rejudged("bb.variance", settings, "smoke") is None
    assert claim_runs.train("bb.variance", settings, "smoke") == 36
    found = claim_verdicts.rejudged("bb.variance", settings, "smoke")
    plan = beyond_batchnorm.depth_runs("smoke", seeds=[0, 1, 2])
    records = sweep.run(plan, store=Store(), progress=False)
    table = beyond_batchnorm.measures(records)
    expected = beyond_batchnorm.judge_variance(table, "smoke, seeds=3")
    assert found == expected and all(part.n == 3 for part in found.parts)


def test_learning_rates_are_chosen_before_anything_is_judged(places, in_this_process):
    said = []
    claim_runs.train("cn.standard", Settings(lr=0.5, seeds=3), "smoke", check=said.append)
    choosing, judged = claim_runs.runs("cn.standard", Settings(lr=0.5, seeds=3), "smoke")
    assert {run.validation for run in choosing} == {0.2} and len(choosing) == 2
    assert {run.lr for run in judged} == {0.05} and len(judged) == 6
    assert said[0].startswith("0 of 8 runs made") and said[-1].startswith("7 of 8 runs made")
    cost = claim_runs.cost("cn.standard", Settings(lr=0.5, seeds=3), "smoke")
    assert cost == (8, 8, 0.0)
    assert [p.n for p in claim_verdicts.rejudged("cn.standard", Settings(lr=0.5, seeds=3),
                                                 "smoke").parts] == [3]  # fmt: skip


def test_a_sweep_that_is_cancelled_keeps_what_it_made(places, in_this_process):
    class Enough(Exception):
        pass

    def check(words):
        if words.startswith("3 of"):
            raise Enough

    with pytest.raises(Enough):
        claim_runs.train("bb.variance", Settings(seeds=3), "smoke", check=check)
    cost = claim_runs.cost("bb.variance", Settings(seeds=3), "smoke")
    assert (cost.runs, cost.stored) == (36, 3)
    assert len(Store().keys()) == 3


def test_a_cost_is_read_off_the_run_that_is_most_like_it(places):
    run, store = TrainConfig(model="resnet8", epochs=2, subset=128), Store()
    history = {"history": pd.DataFrame({"epoch": [1, 2]})}
    for made, seconds in ((run, 7.0), (dataclasses.replace(run, convolution="conv_norm",
                                                           normalization="none"), 90.0)):  # fmt: skip
        store.put(made, tables=history, meta={"status": "ok", "seconds": seconds})
    assert estimate([dataclasses.replace(run, seed=4)], store) == pytest.approx(7.0)
    twice = dataclasses.replace(run, epochs=4, seed=4)
    assert estimate([twice, run], store) == pytest.approx(21.0, rel=0.1)  # and 64 probe images


def test_the_old_verdict_is_the_notebooks_to_the_last_part(places):
    claim = next(claim for claim in papers.CLAIMS if claim.id == "ln.layers")
    parts = [claims.above("a", [0.1, 0.2, 0.4]), claims.above("b", [-0.2, 0.1, 0.2])]
    old = claims.combine(claim, parts, profile="smoke")
    claims.write([old], places / "figures" / "smoke", papers.CLAIMS)
    found = claim_verdicts.before("ln.layers", "smoke")
    assert found.verdict == "not separable" and found.deciding.name == "b"
    table = claim_verdicts.comparison(found, None)
    assert table.effect[:2].tolist() == pytest.approx([p.effect for p in parts], rel=1e-5)
    assert table.state.tolist() == ["before"] * 2 + ["now"] * 2
    assert claim_verdicts.before("ln.density", "smoke") is None


def test_a_slider_trains_nothing_and_the_button_judges_anew(places, in_this_process):
    panel = _panel("en.batch")
    panel.controls["width"].value = 8
    shown = panel.wait()
    assert "24 runs, 0 of them stored" in shown.words and not Store().keys()
    assert not shown.table.decides.any()
    panel.controls["run"].click()
    shown = panel.wait()
    assert len(Store().keys()) == 24 and "24 runs made" in panel.progress.value
    widths = Store().table().groupby("validation").width.unique().map(list).to_dict()
    assert widths == {0.0: [8], 0.2: [16]}, "rates are chosen at the profile's size"
    now = shown.table[shown.table.state == "now"]
    assert (now.n == 3).all() and now.decides.sum() == 1
    told = claim_verdicts.rejudged("en.batch", Settings(8, 1, 1.0, 3), "smoke")
    assert told.verdict in shown.words and panel.stop.disabled
    scope = {}
    exec(shown.code.rpartition("; ")[0], scope)
    pd.testing.assert_frame_equal(eval(shown.code.rpartition("; ")[2], scope), shown.table)


def test_what_does_not_matter_to_a_claim_cannot_be_moved(places):
    panel = _panel("bb.variance")
    assert panel.controls["epochs"].disabled and panel.controls["lr"].disabled
    panel.controls["claim"].value = "ln.layers"
    assert not panel.controls["epochs"].disabled


def test_cancel_ends_after_the_run_in_progress(places, in_this_process, monkeypatch):
    started, go, real = threading.Event(), threading.Event(), sweep.run

    def slow(configs, **how):
        started.set()
        assert go.wait(30)
        return real(configs, **how)

    monkeypatch.setattr(sweep, "run", slow)
    panel = _panel("bb.variance")
    panel.wait()
    panel.controls["run"].click()
    assert started.wait(30)
    panel.controls["seeds"].value = 5  # the figure goes on beside the training
    assert "60 runs" in panel._future.result(30).words and not panel.stop.disabled
    panel.stop.click()
    go.set()
    shown = panel.wait()
    assert "stopped" in panel.progress.value and panel.stop.disabled
    assert len(Store().keys()) == 1 and "1 of them stored" in shown.words


def test_a_new_claim_brings_its_own_settings(places):
    panel = _panel("en.conv")
    assert (panel.controls["width"].value, panel.controls["epochs"].value) == (16, 1)
    panel.controls["claim"].value = "bb.tradeoff"
    assert panel.controls["width"].options == (8, 16, 32)
    assert claim_runs.statement("bb.tradeoff") in panel.claimed.value
    assert "bb.tradeoff was not judged" in panel.wait().words


def test_processes_of_their_own_make_runs_from_a_thread(places):
    panel = _panel("cn.standard")
    panel.controls["run"].click()
    shown = panel.wait()
    assert "8 runs made" in panel.progress.value and len(Store().keys()) == 8
    assert set(shown.table[shown.table.state == "now"].n) == {3}


def test_a_failure_is_one_sentence_in_the_panel(places, in_this_process, monkeypatch):
    def fails(config, root):
        raise RuntimeError("no room")

    monkeypatch.setattr("normkit.sweep.running.make", fails)
    panel = _panel("bb.variance")
    panel.controls["run"].click()
    panel.wait()
    assert "the first: no room" in panel.progress.value and "alert" in panel.progress.value
    assert "TrainConfig" not in panel.progress.value and "36 runs" in panel.state.value


def test_bad_settings_are_refused_by_name(places):
    with pytest.raises(ValueError, match="width is 0; it must be above 0"):
        Settings(width=0)
    with pytest.raises(ValueError, match="claim 'cn.gan' is not judged anew here; accepted: cn"):
        claim_runs.cost("cn.gan")
    with pytest.raises(ValueError, match="profile 'smok' is not known; nearest: 'smoke'"):
        claim_runs.cost("ln.layers", profile="smok")


def test_the_figure_has_a_row_for_each_part_and_both_verdicts():
    claim = claims.Claim("x", "y", "z")
    parts = [claims.above("gap", [0.3, 0.32, 0.29]), claims.flat("slope", [0.1, 0.2, 0.1], 0.3),
             claims.exact("error", [1e-3], 4e-3), claims.below("fall", [0.1, 0.3, -0.4])]  # fmt: skip
    old = claims.combine(claim, parts, profile="quick")
    new = claims.combine(claim, parts[:3], profile="quick, seeds=5")
    table = claim_verdicts.comparison(old, new)
    figure = explorer_claims.verdicts(table)
    left, right = figure.axes
    assert left.get_title(loc="left") == "Before: not separable"
    assert right.get_title(loc="left") == "Now: reproduced"
    drawn, kept = (
        dict(np.concatenate([line.get_xydata()[:, ::-1] for line in axes.lines[1:]]))
        for axes in figure.axes
    )
    assert [drawn[place] for place in range(4)] == [part.effect for part in parts]
    assert sorted(kept) == [0, 1, 2] and left.get_xlim() == right.get_xlim()
    with pytest.raises(ValueError, match="verdict"):
        explorer_claims.verdicts(table.assign(verdict="maybe"))
