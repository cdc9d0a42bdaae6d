"""What holds for Auto-PGD with every loss: its ball, its traces, what it refuses."""

import functools

import pytest
import torch
from test_attacks import a_batch, a_linear_net, a_net, lengths, seeded
from test_attacks_adaptive import a_right_batch, sure
from torch import nn

from normkit.attacks import apgd, apgd_ensemble, robust_accuracy
from normkit.attacks.losses import LOSSES
from normkit.attacks.parts import random_point

ATTACKS = {loss: functools.partial(apgd, loss=loss) for loss in LOSSES}
ATTACKS["ensemble"] = apgd_ensemble
every_attack = pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)


@every_attack
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("epsilon", [0.0, 0.01, 5.0])
def test_adversarial_images_stay_in_the_ball_and_in_the_pixel_range(attack, norm, epsilon, dtype):
    model, (images, labels) = a_net(dtype).eval(), a_batch(dtype=dtype)
    found = attack(model, images, labels, epsilon=epsilon, steps=7, norm=norm, generator=seeded())
    assert found.shape == images.shape and found.dtype == dtype
    assert 0 <= found.min() and found.max() <= 1
    rounding = 4 * torch.finfo(dtype).eps * (30**0.5 if norm == "l2" else 1)
    longest = lengths(found.double() - images.double(), norm).max()
    assert longest <= epsilon + rounding, longest


@every_attack
def test_what_is_misclassified_to_begin_with_comes_back_as_it_is(attack):
    model, (images, labels) = a_net().eval(), a_batch(30)
    wrong = ~sure(model, images, labels)
    assert wrong.any() and not wrong.all(), "the test says nothing"
    found = attack(model, images, labels, epsilon=0.05, steps=5, generator=seeded())
    assert torch.equal(found[wrong], images[wrong])
    assert not torch.isclose(found[~wrong], images[~wrong]).flatten(1).all(dim=1).any()


@every_attack
def test_a_seeded_generator_decides_alone_and_advances_alike_for_every_model(attack):
    states = []
    for model in (
        a_net().eval(),
        lambda x: 0 * x.flatten(1)[:, :4],
        a_linear_net(classes=4).eval(),
    ):
        images, labels = a_batch()
        run = functools.partial(attack, model, images, labels, epsilon=0.1, steps=6, restarts=2)
        stream = seeded(5)
        torch.manual_seed(0)
        first = run(generator=stream)
        torch.manual_seed(1)
        assert torch.equal(run(generator=seeded(5)), first)
        states.append(stream.get_state())
    assert all(torch.equal(state, states[0]) for state in states)


def test_an_attack_leaves_model_input_grad_mode_and_random_numbers_as_it_found_them():
    model, (images, labels) = a_net(middle=nn.Dropout).eval(), a_batch()
    model[0].bias.requires_grad_(False)
    model(images).sum().backward()
    images.requires_grad_()

    def state():
        return (
            [m.training for m in model.modules()],
            torch.is_grad_enabled(),
            images.grad,
            [
                (p.requires_grad, None if p.grad is None else p.grad.tolist(), p.tolist())
                for p in model.parameters()
            ],
            images.tolist(),
            torch.get_rng_state().tolist(),
        )

    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            before = state()
            found = apgd_ensemble(model, images, labels, epsilon=0.1, steps=3, generator=seeded())
            assert state() == before
            assert not found.requires_grad


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_an_attack_finds_the_same_where_gradients_are_switched_off(mode):
    model = a_net().eval()
    expected = apgd_ensemble(model, *a_batch(), epsilon=0.1, steps=4, generator=seeded())
    with mode():
        found = apgd_ensemble(model, *a_batch(), epsilon=0.1, steps=4, generator=seeded())
    assert torch.equal(found, expected)


@every_attack
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_gradient_of_zero_or_nan_moves_nothing_and_spoils_no_other_image(attack, norm):
    net = a_net().eval()
    images, labels = a_right_batch(net)

    def model(x):  # no image leaves: the epsilon is small
        assert len(x) == len(images)
        slope_nan = (0 * x[1:2].sum()).sqrt()
        return torch.cat([net(x[:1].detach()), net(x[1:2]) + slope_nan, net(x[2:])])

    def split(x):  # the same batches, since another size may be rounded otherwise
        return torch.cat([net(x[:1]), net(x[1:2]), net(x[2:])])

    settings = {"epsilon": 1e-3, "steps": 30, "norm": norm}
    if attack is not ATTACKS["ce"] and attack is not ATTACKS["dlr"]:
        settings["targets"] = 1
    found = attack(model, images, labels, **settings, generator=seeded())
    clean = attack(split, images, labels, **settings, generator=seeded())
    assert torch.equal(found[2:], clean[2:])
    starts = random_point(images, 1e-3, norm, seeded())
    for i in (0, 1):  # to rounding, by the way into the ball
        assert any(torch.allclose(found[i], x[i], 0, 1e-15) for x in (images, starts)), i


def test_a_model_that_answers_nan_or_the_same_for_all_moves_nothing():
    images, labels = a_batch()
    for factor in (0.0, float("nan")):
        found = apgd(lambda x, f=factor: f * x.flatten(1), images, labels, epsilon=0.1, steps=3)
        assert torch.equal(found, images)


@every_attack
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": torch.full((7, 2, 3, 5), 200, dtype=torch.uint8)}, r"uint8.*divide bytes"),
        ({"labels": torch.zeros(7)}, "labels must be integers.*float32"),
        ({"epsilon": -0.1}, "epsilon must.*-0.1"),
        ({"steps": 0}, "steps must.*0"),
        ({"restarts": 0}, "restarts must.*0"),
        ({"norm": "l_inf"}, "norm must.*'l_inf'.*'linf'"),
        ({"model": a_net(torch.float32)}, r"model must.*model.eval\(\).*training"),
    ],
)
def test_bad_input_is_named(attack, change, message):
    images, labels = a_batch(dtype=torch.float32)
    arguments = {"model": a_net(torch.float32).eval(), "images": images, "labels": labels}
    with pytest.raises(ValueError, match=message):
        attack(**{"epsilon": 0.1, "steps": 2} | arguments | change)


@pytest.mark.parametrize(
    ("classes", "settings", "message"),
    [
        (4, {"loss": "target"}, "loss must.*'target', nearest is 'targeted'"),
        (2, {"loss": "dlr"}, "'dlr' needs logits of at least 3 classes; found 2"),
        (3, {"loss": "targeted"}, "'targeted' needs logits of at least 4 classes; found 3"),
        (4, {"loss": "targeted", "targets": 4}, "targets must be at most 3.*found 4"),
        (4, {"loss": "targeted", "targets": 0}, "targets must.*0"),
        (4, {"targets": 2}, "targets=2 goes with loss='targeted'; found loss='ce'"),
    ],
)
def test_too_few_classes_are_named(classes, settings, message):
    images, labels = a_batch(classes=2)
    with pytest.raises(ValueError, match=message):
        apgd(a_linear_net(classes=classes).eval(), images, labels, epsilon=0.1, **settings)


def test_robust_accuracy_falls_with_every_attack_that_is_added():
    model = a_net().eval()
    images, labels = a_right_batch(model, 300)
    found = [
        robust_accuracy(model, images, labels, attack)
        for attack in (
            None,
            functools.partial(apgd, epsilon=0.04, steps=10, generator=seeded()),
            functools.partial(apgd_ensemble, epsilon=0.04, steps=10, generator=seeded()),
        )
    ]
    assert found == sorted(found, reverse=True) and found[0] > found[1] > 0, found


@pytest.mark.parametrize("loss", ["ce", "dlr", "targeted"])
def test_logits_of_lower_precision_are_taken_up(loss):
    torch.manual_seed(0)
    net = torch.nn.Linear(6, 5).eval()
    images, labels = torch.rand(8, 6), torch.arange(8) % 5
    found = apgd(
        lambda x: net(x).bfloat16(), images, labels, epsilon=0.2, steps=4, loss=loss,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert found.dtype == images.dtype and (found - images).abs().max() <= 0.2 + 1e-6


def test_a_label_that_is_no_class_is_refused():
    net = torch.nn.Linear(6, 5).eval()
    with pytest.raises(ValueError, match="labels must be in 0 to 4.*found 0 to 7"):
        apgd(net, torch.rand(8, 6), torch.arange(8), epsilon=0.1)
