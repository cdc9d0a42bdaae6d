"""Strengths are chosen on images held out, and judged on test images."""

import dataclasses
import os

import numpy as np
import pandas as pd
import pytest
import torch

from normkit import attacks, papers, training
from normkit.papers import norm_decay
from normkit.papers.norm_decay import networks, regularization

FAMILIES = {"nd_l1": (0.01, 0.1), "nd_linf": (0.01, 0.1), "svc": (2.0, 0.1), "wd": (0.01, 0.1)}


def _runs(gain=0.05, rise=0.0, best="weak", seeds=3) -> pd.DataFrame:
    """Two strengths of each method; at the weak one test accuracy is `gain` above plain's."""
    rows = []
    for seed in range(seeds):
        noise = 0.002 * seed
        base = {"net": "a", "projected": False, "seed": seed, "train": 1.0, "status": "ok"}
        plain = {"method": "plain", "strength": 0.0, "validation": 0.8, "clean": 0.8}
        rows.append(base | plain | {"robust": 0.3})
        for method, pair in FAMILIES.items():
            for strength, name in zip(pair, ("weak", "strong"), strict=True):
                row = {"method": method, "strength": strength}
                row["validation"] = 0.9 if name == best else 0.7
                row["clean"] = 0.8 + noise + (gain if name == "weak" else -0.3)
                rows.append(base | row | {"robust": 0.3 + rise + noise})
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("case", "verdict"),
    [
        ({}, "reproduced"),
        ({"best": "strong"}, "contradicted"),  # what is good on test images is not chosen
        ({"gain": -0.05}, "contradicted"),
        ({"gain": -0.002}, "not separable"),
        ({"rise": 0.1}, "contradicted"),
        ({"rise": 0.048}, "not separable"),
        ({"seeds": 2}, "not run"),
    ],
)
def test_accuracy_is_judged_at_the_strength_chosen_on_images_held_out(case, verdict):
    judged = norm_decay.judge_accuracy(norm_decay.chosen_strengths(_runs(**case)), "quick")
    assert judged.verdict == verdict, judged
    assert sum("clean" in part.name for part in judged.parts) == 2
    assert sum("robust" in part.name for part in judged.parts) == 4


def test_robust_accuracy_is_judged_at_the_largest_strength_that_keeps_the_accuracy():
    table = _runs(rise=0.1)
    found = norm_decay.judge_accuracy(norm_decay.chosen_strengths(table), "quick")
    robust = [part.name for part in found.parts if "robust" in part.name]
    assert [name.rpartition(" ")[2] for name in robust] == ["0.01", "0.01", "2", "0.01"]
    collapsed = table.strength.isin([0.1, 2.0]) & (table.method != "plain")
    table.loc[collapsed | (table.method == "wd"), "validation"] = 0.5
    found = norm_decay.judge_accuracy(norm_decay.chosen_strengths(table), "quick")
    lost = [part for part in found.parts if "no strength keeps" in part.name]
    assert [part.verdict for part in lost] == ["not run", "not run"]  # svc and wd


def test_a_strength_at_which_a_run_diverged_is_not_chosen():
    table = _runs()
    lost = (table.strength == 0.01) & (table.seed == 0)
    table.loc[lost, ["validation", "clean", "robust"]] = np.nan
    chosen = norm_decay.chosen_strengths(table)
    assert set(chosen[chosen.chosen & chosen.method.isin(["wd"])].strength) == {0.1}


def test_the_weakest_of_equal_strengths_is_chosen():
    table = _runs().assign(validation=0.5)
    chosen = norm_decay.chosen_strengths(table).query("chosen")
    assert set(chosen[chosen.method == "svc"].strength) == {2.0}


def _history(falls=(1.0, 0.9, 0.5), batch_norm=(1.0, 1.1, 2.0), projected=0.1) -> pd.DataFrame:
    rows = []
    for seed in range(3):
        for method, norm in (("nd_l1", "l1"), ("nd_linf", "linf")):
            for strength, fall, scale in zip((0.0, 0.01, 0.1), falls, batch_norm, strict=True):
                name = method if strength else "plain"
                for epoch in (1, 2):
                    for kind, value in (("conv", fall), ("linear", fall), ("batch_norm", scale)):
                        for held, factor in ((False, 1.0), (True, projected)):
                            if held and not strength:
                                continue
                            wiggle = 1 + 0.01 * seed * (strength > 0)
                            scaled = factor * (value * wiggle if epoch == 2 else 1.0)
                            run = ("a", name, strength, held, seed)
                            rows.append((*run, epoch, kind, kind, norm, scaled))
    columns = ["net", "method", "strength", "projected", "seed", "epoch", "layer", "kind", "norm"]
    return pd.DataFrame(rows, columns=[*columns, "value"]).drop_duplicates(columns)


@pytest.mark.parametrize(
    ("case", "verdict"),
    [
        ({}, "reproduced"),
        ({"falls": (1.0, 0.5, 0.9)}, "contradicted"),
        ({"falls": (1.0, 0.99, 0.5)}, "not separable"),
        ({"batch_norm": (1.0, 1.0, 0.5)}, "contradicted"),
        ({"projected": 100.0}, "reproduced"),  # runs that project BatchNorm take no part
    ],
)
def test_curves_are_judged_from_each_strength_to_the_next(case, verdict):
    judged = norm_decay.judge_curves(_history(**case), "quick")
    assert judged.verdict == verdict, judged
    assert len(judged.parts) == 2 * (2 + 1) and {part.n for part in judged.parts} == {3}


def test_runs_that_diverged_leave_their_steps_unjudged():
    table = _history()
    for lost in ([0.1], [0.01], [0.01, 0.1], [0.0]):
        gone = table.assign(value=table.value.mask(table.strength.isin(lost)))
        judged = norm_decay.judge_curves(gone, "quick")
        assert judged.verdict == "not run" and len(judged.parts) == 6, lost


@pytest.mark.parametrize("profile", papers.PROFILES)
def test_every_profile_pairs_each_strength_with_a_plain_run(profile):
    runs = norm_decay.regularized_runs(profile)
    setting = regularization.REGULARIZATION[profile]
    counts = len(setting.betas), len(setting.weight_decays), len(setting.bounds)
    if profile != "smoke":
        assert counts == (5, 5, 5) and len(setting.seeds) >= 3
    if profile == "paper":
        assert {run.model for run in runs} == {"vgg11", "resnet18", "senet18", "regnetx_200mf"}
    each = 1 + 2 * counts[0] + counts[1] + counts[2] + len(setting.projected)
    assert len(set(runs)) == len(runs) == each * len(setting.seeds) * len(setting.nets)
    assert all(run.validation and run.test_once for run in runs)
    plain = [
        dataclasses.replace(
            run, penalty=training.Penalty(), projection=training.Projection(), weight_decay=0.0
        )
        for run in runs
    ]
    assert set(plain) <= set(runs)


def test_records_tell_method_and_strength(tmp_path):
    from normkit import sweep
    from normkit.records import Store

    runs = norm_decay.regularized_runs("smoke")
    found = sweep.run(runs[:2] + runs[5:6] + runs[-1:], store=Store(tmp_path), progress=False)
    table = norm_decay.regularized(found)
    assert table.method.tolist() == ["plain", "nd_l1", "svc", "nd_linf"]
    assert table.strength.tolist() == [0.0, 1e-3, 1.0, 1e-2]
    assert table.projected.tolist() == [False, False, False, True]
    assert table[["validation", "clean", "robust"]].notna().all(axis=None)
    held = norm_decay.norm_history(found).query("projected and kind == 'batch_norm'")
    assert (held.value <= 1 + 1e-6).all() and len(held)


def test_equal_images_of_different_classes_have_no_robust_classifier(monkeypatch):
    slopes = norm_decay.slopes("smoke")
    images, labels = torch.zeros(4, 1, 2, 2, dtype=torch.float64), torch.arange(4)
    monkeypatch.setattr(type(slopes), "_images", lambda self: (images, labels))
    with pytest.raises(ValueError, match="are equal and of different classes"):
        slopes.tables()


def test_the_nearest_class_does_not_depend_on_the_slope_and_its_steepness_is_it():
    torch.manual_seed(0)
    images, labels = torch.rand(30, 1, 3, 3, dtype=torch.float64), torch.arange(30) % 3
    distance, first, second = norm_decay.separation(images, labels)
    pairs = (images.flatten(1)[:, None] - images.flatten(1)).abs().amax(2)
    pairs[labels[:, None] == labels] = torch.inf
    assert distance == pairs.min() == pairs[first, second]
    for slope in (1.0, 1e5):
        model = norm_decay.NearestClass(images, labels, slope)
        assert torch.equal(model(images).argmax(1), labels)
        attacked = attacks.pgd(
            model, images, labels, epsilon=0.499 * distance, step_size=0.1, steps=10
        )
        assert torch.equal(model(attacked).argmax(1), labels)
        half = (images[first] + images[second])[None] / 2
        step = 0.25 * (images[second] - images[first])[None]
        rise = model(half + step)[0, labels[second]] - model(half)[0, labels[second]]
        torch.testing.assert_close(rise, torch.tensor(slope * distance / 4).double())
    with torch.no_grad():  # logits move by at most slope times the step
        shifts = 0.1 * (2 * torch.rand_like(images) - 1)
        moved = (model(images + shifts) - model(images)).abs().amax(1)
    assert (moved <= 1e5 * shifts.flatten(1).abs().amax(1) * (1 + 1e-9)).all()


@pytest.mark.parametrize(
    ("column", "value", "verdict"),
    [(None, 0, "reproduced"), ("accuracy", 0.999, "contradicted"),
     ("robust", 0.99, "contradicted"), ("measured_slope", 9.0, "contradicted"),
     ("control", 1.0, "not separable")],
)  # fmt: skip
def test_slopes_are_judged_exactly(column, value, verdict):
    table = pd.DataFrame({"slope": [1.0, 10.0, 100.0], "images": 5, "attacked": 3,
                          "accuracy": 1.0, "robust": 1.0, "control": 0.1,
                          "measured_slope": [1.0, 10.0, 100.0]})  # fmt: skip
    if column:
        table.loc[1, column] = value
    assert norm_decay.judge_lipschitz(table, "quick").verdict == verdict


def test_the_kept_table_says_what_the_networks_are():
    found = norm_decay.committed()
    assert set(found["accuracy"].network) == set(found["norms"].network) == set(networks.NETWORKS)
    assert (found["norms"].status == "ok").all() and len(found["norms"]) == 3 * 4 * 3
    sigma = found["norms"].query("norm == 'spectral'").groupby("network").value.apply(list)
    published = {
        "standard": [7.36, 5.81, 3.91, 3.09],
        "certified": [2.23, 2.26, 1.54, 2.17],
        "adversarial": [1.19, 5.83, 28.5, 3.21],
    }
    for name, values in published.items():
        assert np.allclose(sigma[name], values, rtol=2e-3), (name, sigma[name])


@pytest.mark.skipif(
    networks.weights_folder() is None or not os.environ.get("NORMKIT_DATA"),
    reason="NORMKIT_WEIGHTS and NORMKIT_DATA name no folders with the weights and CIFAR-10",
)
def test_networks_measured_here_are_those_of_the_kept_table():
    kept, found = norm_decay.committed(), norm_decay.Networks().tables()
    both = found["accuracy"].merge(kept["accuracy"], on=["network", "attack", "radius", "images"])
    assert len(both) == len(kept["accuracy"]) == 9
    clean = both[both.attack == "none"]
    assert (clean.accuracy_x == clean.accuracy_y).all(), clean
    assert (both.accuracy_x - both.accuracy_y).abs().max() <= 0.01
    here, there = found["norms"].value.to_numpy(), kept["norms"].value.to_numpy()
    assert np.allclose(here, there, rtol=1e-5)


def test_networks_without_their_weights_say_where_they_are_looked_for(monkeypatch, tmp_path):
    monkeypatch.setenv("NORMKIT_WEIGHTS", str(tmp_path))
    assert norm_decay.weights_folder() is None
    with pytest.raises(FileNotFoundError, match="NORMKIT_WEIGHTS names no folder"):
        norm_decay.Networks().dependencies()
