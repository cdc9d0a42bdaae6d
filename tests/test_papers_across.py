"""All methods on one network: what differs between runs, what is measured, and how it is ranked."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import normkit
from normkit import attacks, norms, sweep, training
from normkit.papers import across_papers, convnorm
from normkit.records import Store
from normkit.sweep.cost import trained_on
from normkit.workbook import times
from normkit.workbook.notebook import find

GRID = across_papers.SETTINGS["quick"]
PLANS = across_papers.grid_runs("quick", {})


def differences(one, other):
    pairs = zip(dataclasses.asdict(one).items(), dataclasses.asdict(other).values(), strict=True)
    return {name for (name, a), b in pairs if a != b}


@pytest.mark.parametrize("profile", ["smoke", "quick", "cifar10", "paper"])
def test_every_method_is_another_run_on_one_net_and_schedule(profile):
    plans = across_papers.grid_runs(profile, {})
    for plan in plans.values():
        assert len(set(plan.values())) == len(plan) and len(plan) % 19 == 0
        shared = ("dataset", "model", "width", "epochs", "schedule", "batch_size", "subset")
        for name in shared:
            assert len({getattr(run, name) for run in plan.values()}) == 1, name


@pytest.mark.parametrize("profile", ["smoke", "quick", "cifar10", "paper"])
def test_clipping_acts_within_every_run(profile):
    plans = [across_papers.choosing_runs(profile), *across_papers.grid_runs(profile, {}).values()]
    for plan in plans:
        for run in plan.values():
            images = trained_on(run)[0] * (1 - run.validation)
            assert run.projection.every <= run.epochs * math.ceil(images / run.batch_size)


def test_a_method_changes_what_it_is_and_no_more():
    base = PLANS["clean"]["batch", 5]
    expected = {
        "layer": {"normalization"},
        "group": {"normalization", "groups"},
        "filter_response": {"normalization", "warmup_epochs"},
        "nd_l1": {"penalty"},
        "svc": {"projection"},
        "wd": {"weight_decay"},
        "pgd": {"adversary"},
        "enorm": {"normalization", "bias", "projection"},
    }
    for method, fields in expected.items():
        assert differences(base, PLANS["clean"][method, 5]) == fields, method
    assert differences(PLANS["clean"]["none", 5], PLANS["clean"]["enorm", 5]) == {"projection"}


def test_runs_of_the_notebook_on_convnorm_are_the_same_runs():
    theirs = set(convnorm.choosing_runs("quick"))
    mine = across_papers.choosing_runs("quick")
    shared = {method for method in across_papers.METHODS if method in convnorm.METHODS}
    assert shared == {"none", "batch", "spectral_norm", "oni", "ocnn", "conv_norm"}
    assert all((run in theirs) == (method in shared) for (method, _), run in mine.items())


def test_a_variant_differs_from_its_run_by_the_switch_alone():
    variants = across_papers.variant_runs("quick", PLANS)
    switches = {"conv_norm": "convolution_options", "oni": "convolution_options"}
    switches |= {"group": "variant", "evonorm_s0": "variant", "enorm": "projection"}
    for (name, seed), run in variants.items():
        if name in switches:
            assert differences(PLANS["clean"][name, seed], run) == {switches[name]}
        elif name == "noise":
            assert differences(PLANS["noise"]["batch", seed], run) == {"label_noise_variant"}
        else:
            other = variants["free_paper" if name == "free_released" else "free_released", seed]
            assert differences(other, run) == {"adversary"}


def table(values, measure="clean"):
    rows = [(m, seed, measure, v) for seed, by in enumerate(values) for m, v in by.items()]
    return pd.DataFrame(rows, columns=["method", "seed", "measure", "value"])


@pytest.mark.parametrize(
    ("measure", "values", "first"),
    [
        ("clean", {"batch": 0.9, "none": 0.8}, "batch"),
        ("spectral", {"batch": 3.0, "none": 2.0}, "none"),
        ("gradient_ratio", {"batch": 0.2, "none": 3.0}, "none"),
        ("energy", {"batch": float("nan"), "none": 1e6}, "none"),
    ],
)
def test_first_is_the_best_the_smallest_or_the_nearest_to_one(measure, values, first):
    ranks = across_papers.ranks(table([values] * 3, measure)).set_index("method")["rank"]
    assert ranks[first] == 1 and ranks.max() == 2


def test_a_rank_has_the_t_interval_over_seeds_within_the_ranks_there_are():
    values = [{"a": 3.0, "b": 2.0, "c": 1.0}, {"a": 3.0, "b": 1.0, "c": 2.0},
              {"a": 1.0, "b": 3.0, "c": 2.0}]  # fmt: skip
    found = across_papers.ranks(table(values)).set_index("method")
    assert found["rank"].round(6).to_dict() == {"a": pytest.approx(5 / 3), "b": 2, "c": pytest.approx(7 / 3)}
    assert (found.low >= 1).all() and (found.high <= 3).all() and (found.n == 3).all()


def test_correlations_see_order_alone_and_leave_out_whom_they_are_told():
    draw = np.random.default_rng(0)
    robust = draw.uniform(size=12)
    rows = []
    for index, value in enumerate(robust):
        seen = {"robust": value, "l1": np.exp(-9 * value), "linf": draw.uniform(), "clean": 0.9}
        rows += [(f"m{index}", 0, name, number) for name, number in seen.items()]
    rows += [("odd", 0, "robust", 2.0), ("odd", 0, "l1", 100.0)]
    made = pd.DataFrame(rows, columns=["method", "seed", "measure", "value"])
    alone = across_papers.correlations(made, leave_out=["odd"]).set_index("measure")
    assert alone.effect.l1 == pytest.approx(-1) and alone.low.l1 == pytest.approx(-1)
    assert alone.low.linf < alone.effect.linf < alone.high.linf and alone.n.l1 == 12
    mixed = across_papers.correlations(made).set_index("measure")
    assert -1 < mixed.effect.l1 < 0


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A BatchNorm and a ConvNorm network of one epoch, and what is measured of them."""
    patch = pytest.MonkeyPatch()
    patch.setenv("NORMKIT_RUNS", str(tmp_path_factory.mktemp("runs")))
    plan = across_papers.grid_runs("smoke", {})["clean"]
    runs = [plan["batch", 5], plan["conv_norm", 5]]
    records = sweep.run(runs, store=Store(), progress=False)
    seen = across_papers.measured("smoke", records).tables()["measures"]
    yield records, seen.set_index(["key", "measure"]).value
    patch.undo()


def test_what_is_measured_is_what_the_parts_measure(trained):
    records, seen = trained
    for record in records:
        found, model = seen[record.key], training.restore(record).eval()
        assert set(found.index) == set(across_papers.MEASURES)
        rows = norms.layer_table(model, (1, 8, 8), norms=("linf",))
        rows = rows[rows.kind != "batch_norm"]
        assert found["linf"] == pytest.approx(np.exp(np.log(rows.value).mean()), rel=1e-5)
        layers = [part for part in model.modules() if isinstance(part, nn.Conv2d | nn.Linear)]
        energy = sum(layer.weight.square().sum().item() for layer in layers)
        assert found["energy"] == pytest.approx(energy, rel=1e-5)
        assert 1 <= found["stable_rank"] <= 64 and -1 <= found["cosine"] <= 1


def test_who_is_only_attacked_has_a_robust_accuracy_alone(trained):
    records, seen = trained
    found = across_papers.measured("smoke", records[:1], records[1:]).tables()["measures"]
    other = found[found.key == records[1].key]
    assert other.measure.tolist() == ["robust"]
    assert other.value.item() == seen[records[1].key, "robust"]


def test_a_step_costs_batchnorms_time_where_the_step_is_batchnorms():
    times = across_papers.StepCost("smoke", rounds=1).tables()["times"].set_index("method")
    assert set(times.index) == set(across_papers.METHODS) and times.ratio.batch == 1
    assert (times.seconds > 0).all()
    assert times.ratio.pgd > 1.5  # two more passes forward and back


@pytest.mark.parametrize("profile", across_papers.SETTINGS)
def test_singular_values_are_clipped_while_the_step_is_timed(profile):
    run = across_papers.StepCost(profile).configs()["svc"]
    steps = run.epochs * run.subset // run.batch_size
    assert run.projection.bound and 1 < run.projection.every <= steps // run.epochs


def test_robust_accuracy_is_that_of_the_attack_on_the_same_starts(trained):
    records, seen = trained
    task = training.prepare(training.from_dict(records[0].config))
    images = task.test_images[:32].float() / 255
    for record in records:
        attack = {"epsilon": 0.05, "step_size": 0.00625, "steps": 20}
        start = training.generator(0, "evaluation")
        model, labels = training.restore(record).eval(), task.test_labels[:32]
        moved = attacks.pgd(model, images, labels, generator=start, **attack)
        with torch.no_grad():
            right = (model(moved).argmax(1) == labels).double().mean().item()
        assert seen[record.key, "robust"] == pytest.approx(right)


def test_what_is_timed_is_taken_by_a_process_of_its_own_and_found_by_the_notebook(tmp_path):
    told = {"NORMKIT_RUNS": str(tmp_path), "OMP_NUM_THREADS": "1"}
    books = find(Path(normkit.__file__).parent.parent)
    calls = {call for call in times.TIMED for book in books for cell in book.code.values()
             if f"{call}(" in cell}  # fmt: skip
    assert calls == set(times.TIMED)
    mine, heard = [book for book in books if book.topic == "across_papers"], []
    times.take(mine, "smoke", told, heard.append)
    assert heard
    assert Store(tmp_path / "measurements").get(across_papers.step_cost("smoke")) is not None
