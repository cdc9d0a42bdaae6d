"""What a configuration says of penalties, projections and measurements is done."""

import dataclasses
import math

import pytest
import torch

from normkit import norms, training
from normkit.records import Store
from normkit.training import Adversary, Evaluation, Penalty, Projection, TrainConfig

TINY = TrainConfig(subset=64, epochs=2, width=4, batch_size=32, norms=(), final_norms=("linf",))


def _train(**changes):
    return training.train(dataclasses.replace(TINY, **changes))


def test_norm_decay_lowers_the_norms_and_repeats_itself():
    plain = _train()
    decays = [_train(penalty=Penalty("norm_decay", "linf", 0.1)) for _ in range(2)]
    first, again = (run.tables["norms"] for run in decays)
    assert first.equals(again) and not decays[0].hooked
    weights = first.kind != "batch_norm"
    assert first[weights].value.sum() < plain.tables["norms"][weights].value.sum()


def test_a_projection_holds_its_bound_after_every_step():
    found = _train(projection=Projection("norms", norm="linf", bound=1.5, batch_norm=0.8))
    table = found.tables["norms"]
    assert (table[table.kind != "batch_norm"].value <= 1.5 * (1 + 1e-6)).all()
    for layer in found.model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            assert norms.linf_norm(layer, None) <= 0.8 * (1 + 1e-5)


def test_singular_values_are_clipped_every_so_many_steps():
    plain = _train(lr=1e-6, weight_decay=0.0)  # 4 steps that hardly move
    clipped, earlier = (
        _train(lr=1e-6, weight_decay=0.0, projection=Projection("singular_values", bound=0.5, every=every))
        for every in (4, 3)
    )  # fmt: skip
    low, before, high = (
        norms.spectral_norm(run.model.blocks[1].convolution1, (8, 8), boundary="circular").lower
        for run in (clipped, earlier, plain)
    )
    assert low < 0.9 * high and before < 0.9 * high
    assert not torch.equal(clipped.model.head.weight, plain.model.head.weight)


def test_a_run_with_a_named_method_is_stored_and_found(tmp_path):
    config = dataclasses.replace(
        TINY, penalty=Penalty("norm_decay"), projection=Projection(batch_norm=1.0)
    )
    store = Store(tmp_path)
    training.train(config).save(store)
    record = store.get(config)
    assert record.config["penalty"]["kind"] == "norm_decay"
    assert training.from_dict(record.config) == config
    assert store.get(dataclasses.replace(config, penalty=Penalty())) is None


def test_test_images_are_measured_once_beside_those_held_out():
    held = _train(validation=0.5, test_once=True, evaluation=Evaluation(epsilon=0.1, steps=2))
    history = held.tables["history"]
    assert history.test_accuracy.isna().tolist() == [True, False]
    task = training.prepare(held.config)
    assert len(task.images) == len(task.test_images) == 32 and len(task.final[0]) == 297
    with torch.no_grad():
        right = held.model(task.final[0] / 255).argmax(1) == task.final[1]
    assert math.isclose(history.test_accuracy.iloc[-1], right.double().mean())
    attack = held.config.evaluation
    robust = training.robust_accuracy(held.model, *task.final, attack)
    assert history.robust_accuracy.iloc[-1] == robust
    assert _train(validation=0.5).tables["history"].test_accuracy.isna().all()


@pytest.mark.parametrize(("every", "seen"), [(1, [1, 2, 3]), (2, [2, 3]), (0, [3])])
def test_accuracy_and_norms_are_measured_every_so_often_and_last(every, seen):
    changes = {"epochs": 3, "norms": ("l1",), "evaluation": Evaluation(clean_every=every)}
    tables = _train(**changes, norms_every=every or 9).tables
    assert tables["history"].dropna(subset="accuracy").epoch.tolist() == seen
    assert sorted(tables["norms"].query("norm == 'l1'").epoch.unique()) == seen


def test_apgd_is_no_weaker_than_pgd_with_as_many_steps():
    run = _train(epochs=10, subset=300, width=8)
    task = training.prepare(run.config)
    pgd = Evaluation("pgd", epsilon=0.1, step_size=0.05, steps=5)
    apgd = Evaluation("apgd", epsilon=0.1, steps=5, targets=2)
    strong, weak = (training.robust_accuracy(run.model, *task.final, e) for e in (apgd, pgd))
    assert strong <= weak + 0.02, (strong, weak)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda: Penalty("norm_deca"), "penalty.kind 'norm_deca' is not known; nearest: 'norm_decay'"),
        (lambda: Penalty(norm="l2"), "penalty.norm 'l2' is not known"),
        (lambda: Penalty(beta=-1.0), "penalty.beta is -1.0; it must not be negative"),
        (lambda: Penalty(beta=math.nan), "penalty.beta is nan"),
        (lambda: Penalty(memory=1.0), "penalty.memory is 1.0; it must be below 1"),
        (lambda: Penalty(include=("convs",)), "penalty.include 'convs' is not known; nearest: 'conv'"),
        (lambda: Projection("clip"), "projection.kind 'clip' is not known"),
        (lambda: Projection(bound=0.0), "projection.bound is 0.0; it must be above 0"),
        (lambda: Projection(batch_norm=-1.0), "projection.batch_norm is -1.0"),
        (lambda: Projection(every=0), "projection.every is 0"),
        (lambda: Projection("e_norm"), "projection.kind 'e_norm' is not known; nearest: 'enorm'"),
        (lambda: Projection(c=0.0), "projection.c is 0.0; it must be above 0"),
        (lambda: Projection(p=0.5), "projection.p is 0.5; it must be at least 1"),
        (lambda: Projection(p=math.inf), "projection.p is inf; it must be above 0 and finite"),
        (lambda: Projection(cycles=0), "projection.cycles is 0"),
        (lambda: Projection(biases="scale"), "projection.biases 'scale' is not known; nearest: 're"),
        (lambda: Projection(through_batch_norm="no"), "projection.through_batch_norm 'no' is not"),
        (lambda: Projection(variant="code"), "projection.variant 'code' is not known"),
        (lambda: Penalty("pathsgd"), "penalty.kind 'pathsgd' is not known; nearest: 'path_sgd'"),
        (lambda: _train(penalty=Penalty("path_sgd")), "Path-SGD has no meaning for this model"),
        (lambda: _train(projection=Projection("enorm", every=5)), "would never act"),
        (lambda: Evaluation("auto"), "evaluation.attack 'auto' is not known"),
        (lambda: dataclasses.replace(TINY, test_once=True), "test_once needs images held out"),
        (lambda: dataclasses.replace(TINY, warmup_epochs=3.0), "the warm-up must fit into the run"),
        (lambda: Projection(bound=math.inf), "projection.bound is inf; it must be above 0 and finite"),
        (lambda: Penalty(beta=math.inf), "penalty.beta is inf"),
        (lambda: _train(projection=Projection("norms", every=5)), "would never act"),
        (lambda: _train(projection=Projection(batch_norm=1.0), normalization="none"), "BatchNorm"),
        (lambda: _train(projection=Projection("norms"), convolution="weight_norm"), "stem"),
        (lambda: _train(evaluation=Evaluation("apgd", epsilon=0.1, targets=10)), "at most 9"),
        (lambda: training.prepare(dataclasses.replace(TINY, subset=1)), "1 training image"),
    ],
)  # fmt: skip
def test_bad_settings_are_refused_by_name(change, message):
    with pytest.raises(ValueError, match=message):
        change()


@pytest.mark.parametrize(
    "method",
    [
        {"penalty": Penalty("norm_decay", "l1")},
        {"penalty": Penalty("norm_decay", "spectral")},
        {"penalty": Penalty("norm_decay", include=("conv", "batch_norm"))},
        {"projection": Projection("norms", bound=1e6)},
        {"projection": Projection("singular_values", bound=1e6)},
        {"projection": Projection(batch_norm=1e6)},
    ],
)
@pytest.mark.parametrize("lr", [1e19, 1e30])
def test_a_run_that_diverges_under_a_method_says_at_which_step(method, lr):
    run = _train(lr=lr, schedule="constant", epochs=4, **method)
    assert run.status.startswith("diverged at step"), run.status


def test_statistics_estimated_afresh_are_those_of_the_training_images():
    stale, fresh = (_train(lr=0.5, fresh_statistics=f) for f in (False, True))
    assert torch.equal(stale.model.head.weight, fresh.model.head.weight)
    assert all(layer.momentum == 0.1 for layer in fresh.model.modules() if hasattr(layer, "momentum"))
    images = training.prepare(fresh.config).images / 255
    with torch.no_grad():
        seen = [fresh.model.stem.convolution(part) for part in images.split(32)]
    mean = torch.stack([x.mean((0, 2, 3)) for x in seen]).mean(0)
    var = torch.stack([x.var((0, 2, 3)) for x in seen]).mean(0)
    layer, old = fresh.model.stem.normalization, stale.model.stem.normalization
    torch.testing.assert_close((layer.running_mean, layer.running_var), (mean, var))
    assert not torch.allclose(old.running_var, var)


def test_fresh_statistics_meet_the_bound_on_batch_norm():
    run = _train(lr=0.5, fresh_statistics=True, projection=Projection(batch_norm=0.5))
    table = run.tables["norms"]
    assert (table[table.kind == "batch_norm"].value <= 0.5 * (1 + 1e-6)).all()


def test_a_method_and_an_adversary_may_act_together():
    run = _train(penalty=Penalty("norm_decay"), adversary=Adversary("pgd", steps=1))
    assert run.status == "ok"
