"""A run is a function of its configuration; its losses are those of their papers."""

import dataclasses
import threading

import pytest
import torch
import torch.nn.functional as F

from normkit import training
from normkit.records import Store
from normkit.training import Adversary, Evaluation, TrainConfig

TINY = TrainConfig(epochs=2, subset=64, width=4, batch_size=32, norms=(), final_norms=())
ATTACKED = dataclasses.replace(
    TINY,
    adversary=Adversary("pgd", 0.1, 0.05, 2),
    evaluation=Evaluation(epsilon=0.1, step_size=0.05, steps=2, images=16),
)


def _same(first, second) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("config", [TINY, ATTACKED], ids=["plain", "pgd"])
def test_a_run_depends_on_its_configuration_alone(config):
    first = training.train(config)
    torch.manual_seed(123)
    torch.set_num_threads(2)
    square = torch.ones(500, 500)
    noise = threading.Thread(target=lambda: [square @ square for _ in range(50)])
    noise.start()
    second = training.train(config)
    noise.join()
    assert _same(first.model, second.model)
    timeless = [run.tables["history"].drop(columns="seconds") for run in (first, second)]
    assert timeless[0].equals(timeless[1])
    assert torch.get_num_threads() == 2, "the caller's threads are given back"


def test_the_callers_random_numbers_are_left_alone():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    training.train(TINY)
    assert torch.equal(torch.rand(3), expected)


def test_another_seed_is_another_run():
    other = training.train(dataclasses.replace(TINY, seed=1))
    assert not _same(training.train(TINY).model, other.model)


def test_methods_of_one_seed_see_the_same_start_and_the_same_batches():
    plain = training.train(dataclasses.replace(TINY, epochs=1, lr=1e-12))
    attacked = training.train(dataclasses.replace(ATTACKED, epochs=1, lr=1e-12))
    for a, b in zip(plain.model.parameters(), attacked.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=0)


PROBES = ("activation_variance", "cosine_similarity", "stable_rank", "gradient_norm")


@pytest.mark.parametrize("probe_on", ["fixed", "training"])
@pytest.mark.parametrize("normalization", ["batch", "evonorm_b0", "filter_response"])
@pytest.mark.parametrize("probe_every", [0, 1])
def test_probing_changes_no_weight(probe_every, normalization, probe_on):
    bare = dataclasses.replace(TINY, normalization=normalization)
    watched = dataclasses.replace(
        bare, probes=PROBES, probe_every=probe_every, probe_on=probe_on, probe_images=8
    )
    run, other = training.train(watched), training.train(bare)
    assert _same(run.model, other.model)
    same = [name for name in run.tables["history"] if name != "seconds"]
    assert run.tables["history"][same].equals(other.tables["history"][same])
    table = run.tables["probes"]
    assert sorted(table.step.unique()) == ([0, 1, 2, 3] if probe_every else [0])
    assert set(table.measure) == set(PROBES)
    assert table.value.notna().all() and not table[["step", "layer", "measure"]].duplicated().any()


def test_probes_on_the_batch_at_hand_measure_that_batch():
    whole = dataclasses.replace(
        TINY, batch_size=10**4, augment="none", epochs=1, probes=PROBES, probe_images=10**4
    )
    fixed, training_batch = (
        training.train(dataclasses.replace(whole, probe_on=probe_on)).tables["probes"]
        for probe_on in ("fixed", "training")
    )
    keys = ["layer", "measure"]
    both = fixed.merge(training_batch, on=keys, suffixes=("", "_other"))
    assert len(both) == len(fixed) == len(training_batch)
    torch.testing.assert_close(
        torch.tensor(both.value.values), torch.tensor(both.value_other.values), rtol=1e-3, atol=1e-5
    )


def test_no_epoch_only_initializes():
    run = training.train(dataclasses.replace(TINY, epochs=0, probes=("stable_rank",)))
    assert len(run.tables["history"]) == 0 and len(run.tables["probes"]) > 0


def test_a_run_that_diverges_says_at_which_step():
    run = training.train(dataclasses.replace(TINY, lr=1e30, normalization="none", epochs=5))
    assert run.status.startswith("diverged at step "), run.status
    assert len(run.tables["history"]) < 5


def test_layer_norms_are_kept_for_every_epoch_and_once_more_at_the_end():
    config = dataclasses.replace(TINY, norms=("l1",), final_norms=("linf",))
    table = training.train(config).tables["norms"]
    assert set(zip(table.epoch, table.norm, strict=True)) == {(1, "l1"), (2, "l1"), (2, "linf")}
    assert (table.status == "ok").all(), table[table.status != "ok"]


def test_weights_that_are_stored_and_restored_give_the_same_logits(tmp_path):
    config = dataclasses.replace(TINY, standardize=True, normalization="group", groups=2)
    run = training.train(config)
    store = Store(tmp_path)
    run.save(store)
    images = torch.rand(5, 1, 8, 8)
    restored = training.restore(store.get(config))
    assert torch.equal(restored(images), run.model(images))


def test_hooks_act_after_backward_and_after_the_step():
    seen = []

    def hook(name):
        def make(model, optimizer):
            weight = next(model.parameters())
            return lambda: seen.append((name, weight.grad is not None, weight.detach().clone()))

        return make

    training.train(dataclasses.replace(TINY, epochs=1), penalty=hook("p"), projection=hook("q"))
    assert [name for name, _, _ in seen] == ["p", "q", "p", "q"]
    assert all(has_gradient for _, has_gradient, _ in seen)
    assert not torch.equal(seen[0][2], seen[1][2]), "the step lies between the two"


def test_a_validation_split_takes_images_from_training_only():
    config = dataclasses.replace(TINY, subset=None, validation=0.2)
    task, whole = (
        training.prepare(config),
        training.prepare(dataclasses.replace(config, validation=0)),
    )
    assert len(task.images) + len(task.test_images) == len(whole.images)
    held = {image.numpy().tobytes() for image in task.test_images}
    kept = {image.numpy().tobytes() for image in task.images}
    assert held.isdisjoint(kept)


class _Linear(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.map = torch.nn.Linear(12, 3).double()

    def forward(self, images):
        return self.map(images.flatten(1))


@pytest.mark.parametrize("kind", ["pgd", "trades", "alp"])
def test_adversarial_losses_are_their_definitions(kind):
    torch.manual_seed(0)
    model, images = _Linear(), torch.rand(6, 3, 2, 2, dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    adversary = Adversary(kind, epsilon=1e-9, step_size=1e-9, steps=1, beta=0.5)
    loss, _ = training.attack_loss(model, images, labels, adversary, training.generator(0, "x"))
    clean = F.cross_entropy(model(images), labels)
    torch.testing.assert_close(loss, clean, atol=1e-6, rtol=0)  # no radius: no second term
    strong = dataclasses.replace(adversary, epsilon=0.3, step_size=0.3, steps=3)
    loss, _ = training.attack_loss(model, images, labels, strong, training.generator(0, "x"))
    assert loss > clean
    assert model.training


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [1, 1, 1, 1, 1]),
        ("linear", [1, 0.75, 0.5, 0.25, 0]),
        ("one_cycle", [0.01, 1, 2 / 3, 1 / 3, 0]),
        ("step", [1, 1, 0.1, 0.01, 0.01]),
    ],
)
def test_schedules_are_their_definitions(schedule, expected):
    config = TrainConfig(schedule=schedule, epochs=8, milestones=(0.5, 0.75))
    found = [training.learning_rate(config, epoch) for epoch in (0, 2, 4, 6, 8)]
    assert found == pytest.approx(expected)


def test_warm_up_rises_to_the_peak():
    config = TrainConfig(schedule="constant", epochs=8, warmup_epochs=2)
    rates = [training.learning_rate(config, epoch) for epoch in (0, 1, 2, 3)]
    assert rates == sorted(rates) and rates[0] < 0.01 and rates[-1] == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dataset": "digit"}, "dataset 'digit' is not known; nearest: 'digits'"),
        ({"model": "resnet19"}, "nearest: 'resnet18'"),
        ({"normalization": "bach"}, "nearest: 'batch'"),
        ({"convolution": "cnv"}, "nearest: 'conv'"),
        ({"optimizer": "sdg"}, "nearest: 'sgd'"),
        ({"schedule": "one-cycle"}, "nearest: 'one_cycle'"),
        ({"augment": "flips"}, "nearest: 'flip'"),
        ({"norms": ("l2",)}, "nearest: 'l1'"),
        ({"probes": ("rank",)}, "nearest: 'stable_rank'"),
        ({"epochs": -1}, "epochs is -1"),
        ({"lr": 0.0}, "lr is 0.0; it must be above 0"),
        ({"validation": 1.0}, "must be in"),
        ({"groups": 4}, "groups"),
        ({"normalization": "group", "groups": 4, "group_size": 2}, "not both"),
        ({"variant": "releas"}, "nearest: 'released'"),
        ({"variant": "released"}, "released"),
        ({"probe_on": "train"}, "nearest: 'training'"),
        ({"probe_on": "training", "epochs": 0}, "needs plain training steps, not .* 0 epochs"),
        (
            {"probe_on": "training", "adversary": training.Adversary("pgd")},
            "needs plain training steps, not adversary.kind 'pgd'",
        ),
        ({"device": "tpu"}, "device"),
    ],
)
def test_a_value_that_is_not_accepted_is_one_sentence(values, message):
    with pytest.raises((ValueError, RuntimeError), match=message):
        TrainConfig(**values)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("epoch=3", "setting 'epoch' is not known; nearest: 'epochs'"),
        ("adversary.epsiln=1", "nearest: 'adversary.epsilon'"),
        ("epochs", "has no value"),
        ("epochs=three", "epochs is 'three'; it must be a whole number"),
        ("lr=1/0", "lr is '1/0'; it must be a number or fraction"),
        ("skip_init=maybe", "it must be true or false"),
    ],
)
def test_a_setting_that_cannot_be_read_is_one_sentence(setting, message):
    with pytest.raises(ValueError, match=message):
        training.from_settings([setting])


def test_every_field_can_be_set_from_text():
    texts = {
        "dataset": "cifar10", "image_size": "16", "subset": "none", "groups": "8", "seed": "3",
        "normalization": "group", "milestones": "1/2,3/4", "adversary.kind": "pgd",
        "adversary.epsilon": "8/255", "skip_init": "true", "norms": "l1", "probes": "stable_rank",
    }  # fmt: skip
    config = training.from_settings(f"{name}={text}" for name, text in texts.items())
    assert config.milestones == (0.5, 0.75) and config.adversary.epsilon == 8 / 255
    assert config.subset is None and config.norms == ("l1",)
    assert training.from_dict(dataclasses.asdict(config)) == config
    assert {name.split(".")[0] for name in training.field_names()} == {
        field.name for field in dataclasses.fields(TrainConfig)
    }


def test_a_run_with_a_hook_of_its_own_is_never_stored_as_a_plain_one(tmp_path):
    run = training.train(dataclasses.replace(TINY, epochs=1), penalty=lambda *_: lambda: None)
    with pytest.raises(ValueError, match="of your own is not stored"):
        run.save(Store(tmp_path))


def test_weights_that_are_no_numbers_after_the_last_update_count_as_diverged():
    def spoil(model, optimizer):
        return lambda: next(model.parameters()).data.fill_(float("nan"))

    config = dataclasses.replace(TINY, epochs=1, batch_size=64)
    assert training.train(config, projection=spoil).status == "diverged at step 1"


@pytest.mark.parametrize(
    "values",
    [{"epochs": 2.5}, {"milestones": 3}, {"nesterov": "no"}, {"evaluation": None},
     {"probes": ["stable_rank"]}, {"lr": "0.1"}, {"seed": True}],
)  # fmt: skip
def test_a_value_of_another_type_is_one_sentence(values):
    with pytest.raises(TypeError, match=f"TrainConfig.{next(iter(values))} is"):
        TrainConfig(**values)
