"""What ENorm's experiments need of the trainer: reconstruction, Path-SGD, balancing, new nets."""

import dataclasses
import itertools
import math

import pytest
import torch
from torch import nn

from normkit import data, training
from normkit.penalties import PathSGD
from normkit.projections import ENorm
from normkit.records import Store
from normkit.training import Adversary, Evaluation, Penalty, Projection, TrainConfig

TINY = TrainConfig(
    dataset="noisy_digits", subset=96, epochs=3, batch_size=32, norms=(), final_norms=("linf",)
)
MLP = dataclasses.replace(TINY, model="mlp", width=16, depth=3, normalization="none", lr=0.05)
CODE = dataclasses.replace(
    TINY, model="autoencoder", objective="reconstruction", width=64, normalization="none"
)


def _train(config, **changes):
    return training.train(dataclasses.replace(config, **changes))


def test_a_reconstruction_lowers_the_error_per_pixel_and_counts_no_accuracy():
    run = _train(CODE, epochs=12, subset=None, optimizer="adam", lr=3e-3)
    history = run.tables["history"]
    assert run.status == "ok" and history.loss.notna().all()
    assert history.loss.iloc[-1] < 0.8 * history.loss.iloc[0], history.loss.tolist()
    for name in ("train_accuracy", "accuracy", "test_accuracy", "robust_accuracy"):
        assert history[name].isna().all(), name
    images = data.to_float(training.prepare(run.config).test_images)
    with torch.no_grad():
        errors = (run.model(images) - images).square()
    assert errors.shape == images.shape
    assert math.isclose(history.loss.iloc[-1], errors.double().mean(), rel_tol=1e-5)


@pytest.mark.parametrize(("every", "seen"), [(1, [1, 2, 3]), (2, [2, 3]), (0, [3])])
def test_the_loss_of_a_reconstruction_is_measured_as_often_as_accuracy(every, seen):
    history = _train(CODE, evaluation=Evaluation(clean_every=every)).tables["history"]
    assert history.dropna(subset="loss").epoch.tolist() == seen
    plain = _train(MLP, evaluation=Evaluation(clean_every=every)).tables["history"]
    assert plain.dropna(subset="accuracy").epoch.tolist() == seen and plain.loss.isna().all()


def test_the_first_training_loss_is_the_squared_error_of_the_augmented_images():
    config = dataclasses.replace(CODE, epochs=1, batch_size=96, standardize=True)
    run, task = training.train(config), training.prepare(config)
    order = torch.cat(data.batches(96, 96, training.generator(0, "order")))
    shifted = data.AUGMENTATIONS["shift"](task.images[order], training.generator(0, "augment"))
    images = data.to_float(shifted)
    with torch.no_grad():
        loss = (training.build_model(config, task.form)(images) - images).square().mean()
    assert math.isclose(run.tables["history"].train_loss[0], loss, rel_tol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"adversary": Adversary("pgd")}, "'reconstruction' .* leave out adversary.kind 'pgd'"),
        ({"evaluation": Evaluation(epsilon=0.1)}, "'reconstruction' .* evaluation.epsilon 0.1"),
        ({"label_noise": 0.2}, "'reconstruction' .* leave out label_noise 0.2"),
        ({"probes": ("stable_rank",)}, "'reconstruction' .* leave out probes stable_rank"),
        ({"validation": 0.5, "test_once": True}, "'reconstruction' .* leave out test_once True"),
        ({"model": "mlp"}, "'reconstruction' needs a net that gives images, and model 'mlp' does"),
        ({"objective": "classification"}, "needs a net that gives logits, and model 'autoencod"),
        ({"objective": "regression"}, "objective 'regression' is not known"),
    ],
)
def test_what_a_reconstruction_cannot_have_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CODE, **changes)


@pytest.mark.parametrize("model", [{}, {"model": "fully_conv", "width": 4, "depth": None}])
def test_a_run_under_path_sgd_learns_and_is_a_function_of_its_configuration(model):
    changes = model | {"penalty": Penalty("path_sgd"), "epochs": 5, "lr": 0.01}
    first, again = (_train(MLP, **changes) for _ in range(2))
    plain = _train(MLP, **changes | {"penalty": Penalty()})
    losses = [run.tables["history"].train_loss.tolist() for run in (first, again, plain)]
    assert losses[0] == losses[1] != losses[2] and first.status == "ok" and not first.hooked
    assert losses[0][-1] < losses[0][0]


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_path_sgd_in_a_run_divides_the_weight_decay_as_well(decay):
    config = dataclasses.replace(
        MLP, epochs=1, batch_size=96, momentum=0.0, schedule="constant", augment="none",
        weight_decay=decay, penalty=Penalty("path_sgd"),
    )  # fmt: skip
    task = training.prepare(config)
    model = training.build_model(config, task.form)
    order = torch.cat(data.batches(96, 96, training.generator(0, "order")))
    logits = model(data.to_float(task.images[order]))
    nn.functional.cross_entropy(logits, task.labels[order]).backward()
    PathSGD(model, input_size=(1, 9, 9), weight_decay=decay, relative=True).step()
    torch.optim.SGD(model.parameters(), lr=config.lr).step()
    found = training.train(config).model
    for name, parameter in found.named_parameters():
        torch.testing.assert_close(parameter, model.get_parameter(name), msg=name)


@pytest.mark.parametrize(
    ("changes", "bound"),
    [
        ({}, None),
        ({"bias": True, "momentum": 0.0}, None),
        ({"normalization": "batch"}, None),
        ({"normalization": "batch"}, 1.0),
    ],
)
def test_a_run_under_enorm_trains_another_network_and_repeats_itself(changes, bound):
    method = Projection("enorm", c=1.1, batch_norm=bound)
    plain = _train(MLP, **changes)
    balanced, again = (_train(MLP, **changes, projection=method) for _ in range(2))
    assert balanced.status == "ok" and not balanced.hooked
    head = balanced.model.head.weight
    assert torch.equal(head, again.model.head.weight) and not head.equal(plain.model.head.weight)
    if bound:
        table = balanced.tables["norms"].query("kind == 'batch_norm'")
        assert len(table) and (table.value <= bound * (1 + 1e-6)).all()


def test_balancing_in_a_run_ends_at_a_network_whose_layers_are_alike():
    plain = _train(MLP, epochs=1)
    balanced = _train(MLP, epochs=1, projection=Projection("enorm", cycles=30))
    for run, alike in ((plain, False), (balanced, True)):
        linear = [part for part in run.model.modules() if isinstance(part, nn.Linear)]
        for first, second in itertools.pairwise(linear):
            entering, leaving = first.weight.norm(dim=1), second.weight.norm(dim=0)
            assert torch.allclose(entering, leaving, rtol=1e-3) == alike


def test_enorm_in_a_run_is_the_method_itself_with_all_its_options(monkeypatch):
    seen = []

    class Seen(ENorm):
        def __init__(self, model, optimizer=None, **options):
            seen.append((optimizer, options))
            super().__init__(model, optimizer, **options)

    monkeypatch.setattr("normkit.projections.ENorm", Seen)
    chosen = Projection("enorm", c=1.5, p=1.0, cycles=2, every=3, biases="ignore",
                        through_batch_norm="ignore", variant="paper")  # fmt: skip
    run = _train(MLP, projection=chosen)
    assert run.status == "ok" and isinstance(seen[0][0], torch.optim.SGD)
    options = {"c": 1.5, "p": 1.0, "cycles": 2, "every": 3, "biases": "ignore"}
    assert seen[0][1] == options | {"batch_norm": "ignore", "variant": "paper"}


@pytest.mark.parametrize("lr", [1e19, 1e30])
@pytest.mark.parametrize(
    "method", [{"penalty": Penalty("path_sgd")}, {"projection": Projection("enorm")}]
)
def test_a_run_that_diverges_under_these_methods_says_at_which_step(method, lr):
    run = _train(MLP, lr=lr, schedule="constant", epochs=4, **method)
    assert run.status.startswith("diverged at step"), run.status


@pytest.mark.parametrize("model", ["mlp", "autoencoder", "fully_conv", "small_cnn"])
def test_weight_norm_makes_the_hidden_linear_layers_too(model):
    config = dataclasses.replace(
        TINY, model=model, width=16, convolution="weight_norm", epochs=1,
        objective="reconstruction" if model == "autoencoder" else "classification",
        image_size=18 if model == "small_cnn" else None,
    )  # fmt: skip
    run = training.train(config)
    plain = [name for name, part in run.model.named_modules() if type(part) in (nn.Linear, nn.Conv2d)]
    assert plain == ([] if model == "fully_conv" else ["head"]) and run.status == "ok"
    if model in ("mlp", "autoencoder"):
        with pytest.raises(ValueError, match=f"{model} has no convolutions"):
            _train(config, convolution="scaled_ws")


def test_runs_of_all_these_kinds_are_stored_found_and_restored(tmp_path):
    store = Store(tmp_path)
    configs = [
        dataclasses.replace(CODE, convolution="weight_norm"),
        dataclasses.replace(MLP, penalty=Penalty("path_sgd")),
        dataclasses.replace(MLP, projection=Projection("enorm", c=1.2, cycles=2)),
        dataclasses.replace(TINY, model="fully_conv_released", width=4, normalization="batch"),
        dataclasses.replace(TINY, width=4, shortcut="all_conv1x1"),
    ]
    assert len({store.key(config) for config in configs}) == len(configs)
    for config in configs:
        assert training.from_dict(dataclasses.asdict(config)) == config
        run = training.train(config)
        run.save(store)
        record = store.get(config)
        assert training.from_dict(record.config) == config
        x = torch.rand(3, 1, 9, 9)
        assert torch.equal(training.restore(record)(x), run.model(x))


def test_the_new_fields_can_be_set_from_text():
    texts = ["projection.kind=enorm", "projection.c=6/5", "projection.p=1", "projection.cycles=3"]
    texts += ["projection.biases=ignore", "projection.through_batch_norm=ignore"]
    texts += ["projection.variant=released", "penalty.kind=path_sgd", "dataset=noisy_digits"]
    config = training.from_settings([*texts, "model=autoencoder", "objective=reconstruction"])
    assert config.projection == Projection("enorm", c=1.2, p=1.0, cycles=3, biases="ignore",
                                           through_batch_norm="ignore", variant="released")  # fmt: skip
    assert (config.objective, config.dataset) == ("reconstruction", "noisy_digits")


def test_a_run_whose_path_norm_overflows_has_diverged():
    config = TrainConfig(
        model="mlp", width=16, depth=20, normalization="none", initialization="he_all",
        penalty=Penalty("path_sgd"), lr=1e8, momentum=0.0, schedule="constant", epochs=3,
        subset=200, batch_size=20, norms=(), final_norms=(),
    )  # fmt: skip
    assert training.train(config).status.startswith("diverged at step")
