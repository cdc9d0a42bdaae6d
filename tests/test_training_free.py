"""Free adversarial training is its algorithm, written out once more, on every batch."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from normkit import data, training
from normkit.training import Adversary, Penalty, Projection, TrainConfig

FREE = Adversary("free", epsilon=0.1, step_size=0.06, repeats=3)
TINY = TrainConfig(
    epochs=2, subset=80, width=4, batch_size=32, augment="none", momentum=0.0, weight_decay=0.0,
    adversary=FREE, norms=(), final_norms=(),
)  # fmt: skip


def _config(variant="paper", repeats=3, **changes):
    free = dataclasses.replace(FREE, variant=variant, repeats=repeats)
    return dataclasses.replace(TINY, adversary=free, **changes)


def _weights(model):
    return torch.cat([tensor.flatten() for tensor in model.state_dict().values()])


def _by_hand(config):
    """The algorithm, with no code of the trainer: the model, and each epoch's accuracy."""
    task, free = training.prepare(config), config.adversary
    model = training.build_model(config, task.form)
    order, accuracies = training.generator(config.seed, "order"), []
    kept = torch.zeros(config.batch_size, 1, 8, 8)
    for epoch in range(config.epochs):
        batches, hits = data.batches(len(task.images), config.batch_size, order), []
        for k, chosen in enumerate(batches):
            lr = config.lr * training.learning_rate(config, epoch + k / len(batches))
            n, x, y = len(chosen), data.to_float(task.images[chosen]), task.labels[chosen]
            if free.variant == "released":
                kept = torch.zeros_like(kept)
            for _ in range(free.repeats):
                delta = kept[:n].clone().requires_grad_()
                logits = model((x + delta).clamp(0, 1))
                wanted = [delta, *model.parameters()]
                slope, *gradients = torch.autograd.grad(F.cross_entropy(logits, y), wanted)
                for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                    parameter.data -= lr * gradient
                moved = kept[:n] + free.step_size * slope.sign()
                kept = torch.cat([moved.clamp(-free.epsilon, free.epsilon), kept[n:]])
                hits.append((logits.argmax(1) == y).sum().item())
        accuracies.append(sum(hits) / free.repeats / sum(map(len, batches)))
    return model, accuracies


@pytest.mark.parametrize("variant", ["paper", "released"])
@pytest.mark.parametrize("repeats", [1, 3])
@pytest.mark.parametrize("subset", [64, 80])  # two whole batches; a smaller one at the end
def test_a_run_is_the_algorithm_written_out(variant, repeats, subset):
    config = _config(variant, repeats, subset=subset)
    run, (expected, accuracies) = training.train(config), _by_hand(config)
    # Rounding turns the sign of a gradient near zero; the two variants are 0.05 to 0.17 apart.
    torch.testing.assert_close(_weights(run.model), _weights(expected), rtol=0, atol=1e-3)
    assert run.tables["history"].train_accuracy.tolist() == pytest.approx(accuracies, abs=1e-12)
    assert run.status == "ok"


def test_a_perturbation_that_is_carried_over_makes_another_run_than_one_that_is_reset():
    paper, released, plain = (
        _weights(training.train(config).model)
        for config in (
            _config("paper", 1),
            _config("released", 1),
            dataclasses.replace(TINY, adversary=Adversary()),
        )
    )
    assert not torch.allclose(paper, released, atol=1e-4)
    # Reset before its only update, the perturbation is always zero.
    assert torch.equal(released, plain)


def test_the_second_batch_meets_what_the_first_one_left():
    views, perturbation = [], torch.zeros(4, 3)
    for images in (torch.full((4, 3), 0.5), torch.full((2, 3), 0.95)):
        for view in training.objective.replays(images, perturbation, FREE):
            views.append(view - images)
            (view * torch.tensor([1.0, -1.0, 0.0])).sum().backward()
    found = torch.stack([view[0].detach() for view in views])
    first, second = [[0, 0, 0], [0.06, -0.06, 0], [0.1, -0.1, 0]], [0.05, -0.1, 0]
    expected = torch.tensor([*first, second, second, second])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(perturbation, torch.tensor([[0.1, -0.1, 0.0]]).repeat(4, 1))


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_a_free_run_repeats_itself_under_momentum_augmentation_and_methods(variant):
    config = _config(
        variant, momentum=0.9, augment="shift", penalty=Penalty("norm_decay"),
        projection=Projection("norms", norm="linf", bound=1.5), final_norms=("linf",),
    )  # fmt: skip
    first, again = training.train(config), training.train(config)
    assert torch.equal(_weights(first.model), _weights(again.model))
    table = first.tables["norms"]
    assert (table[table.kind != "batch_norm"].value <= 1.5 * (1 + 1e-6)).all()


def test_methods_act_at_every_update_and_the_network_learns_in_training_mode():
    seen = []

    def hook(model, optimizer):
        return lambda: seen.append((model.training, optimizer.param_groups[0]["lr"]))

    run = training.train(_config(schedule="linear", epochs=1), penalty=hook, projection=hook)
    assert len(seen) == 3 * 3 * 2 and all(mode for mode, _ in seen)
    assert [lr for _, lr in seen] == pytest.approx([0.1] * 6 + [0.2 / 3] * 6 + [0.1 / 3] * 6)
    updates = run.model.stem.normalization.num_batches_tracked
    assert updates == 3 * 3


def test_probes_see_a_batch_once_and_change_no_weight():
    probed = _config(probes=("stable_rank",), probe_every=1, probe_images=8)
    run, bare = training.train(probed), training.train(_config())
    assert sorted(run.tables["probes"].step.unique()) == list(range(2 * 3))
    assert torch.equal(_weights(run.model), _weights(bare.model))


def test_a_free_run_that_diverges_names_the_batch():
    def spoil(model, optimizer):
        calls = iter(range(100))
        return lambda: next(model.parameters()).data.fill_(float("nan" if next(calls) == 4 else 0))

    assert training.train(_config(), projection=spoil).status == "diverged at step 1"


def test_a_network_that_trained_free_resists_more_than_a_plain_one():
    base = TrainConfig(
        epochs=4, subset=600, width=8, norms=(), final_norms=(),
        evaluation=training.Evaluation(epsilon=0.1, step_size=0.04, steps=5),
    )  # fmt: skip
    free = dataclasses.replace(base, adversary=Adversary("free", 0.1, 0.1))
    histories = [training.train(config).tables["history"] for config in (free, base)]
    robust = [history.robust_accuracy.iloc[-1] for history in histories]
    assert robust[0] > robust[1] + 0.1, robust


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "fre"}, "adversary.kind 'fre' is not known; nearest: 'free'"),
        ({"repeats": 0}, "adversary.repeats is 0; it must be above 0"),
        ({"variant": "release"}, "adversary.variant 'release' is not known; nearest: 'released'"),
    ],
)
def test_bad_settings_are_named(values, message):
    with pytest.raises(ValueError, match=message):
        Adversary(**values)


def test_probes_on_the_batch_at_hand_are_refused():
    with pytest.raises(ValueError, match="needs plain training steps, not adversary.kind 'free'"):
        dataclasses.replace(TINY, probe_on="training")


def test_every_field_of_the_adversary_can_be_set_from_text():
    texts = ["adversary.kind=free", "adversary.repeats=8", "adversary.variant=released"]
    expected = Adversary("free", repeats=8, variant="released")
    assert training.from_settings(texts).adversary == expected
