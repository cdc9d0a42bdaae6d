"""Attacks find what can be known in closed form, stay in their ball, and leave no trace."""

import functools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from normkit.attacks import fgsm, pgd


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def a_batch(n=7, shape=(2, 3, 5), classes=4, dtype=torch.float64):
    images = torch.rand(n, *shape, generator=seeded(1), dtype=dtype)
    return images, torch.randint(classes, (n,), generator=seeded(2))


def a_net(dtype=torch.float64, middle=nn.Tanh):
    torch.manual_seed(3)
    convolution, linear = nn.Conv2d(2, 6, 3), nn.Linear(18, 4)
    return nn.Sequential(convolution, middle(), nn.Flatten(), linear).to(dtype)


def a_linear_net(pixels=30, classes=2):
    torch.manual_seed(4)
    return nn.Sequential(nn.Flatten(), nn.Linear(pixels, classes)).double()


def lengths(offset, norm):
    order = {"linf": float("inf"), "l2": 2}[norm]
    return torch.linalg.vector_norm(offset.flatten(1), order, dim=1)


def margins(model, images, labels):
    """How far the logit of the label is above the other, of two."""
    logits = model(images)
    return (logits.gather(1, labels[:, None]) - logits.gather(1, 1 - labels[:, None]))[:, 0]


def test_fgsm_is_one_pgd_step_without_random_start():
    model, (images, labels) = a_net(), a_batch()
    step = pgd(model, images, labels, epsilon=0.1, step_size=0.1, steps=1, random_start=False)
    assert torch.equal(fgsm(model, images, labels, epsilon=0.1), step)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("random_start", [True, False])
def test_pgd_reaches_the_optimum_of_a_linear_model(norm, random_start):
    model, (images, labels) = a_linear_net(), a_batch(classes=2)
    images = 0.3 + 0.4 * images  # far enough from 0 and 1
    weight = model[1].weight.detach()
    downhill = (weight[1 - labels] - weight[labels]).view_as(images)
    unit = downhill / lengths(downhill, "l2").view(-1, 1, 1, 1)
    best = images + 0.2 * (downhill.sign() if norm == "linf" else unit)
    found = pgd(model, images, labels, epsilon=0.2, step_size=0.05, steps=200, norm=norm,
                random_start=random_start, generator=seeded())
    torch.testing.assert_close(found, best, rtol=0, atol=1e-8)


def test_pgd_reaches_the_optimum_of_a_linear_model_at_the_border_of_the_pixel_range():
    model, (images, labels) = a_linear_net(), a_batch(classes=2)
    images = images.round()
    weight = model[1].weight.detach()
    downhill = (weight[1 - labels] - weight[labels]).view_as(images)
    found = pgd(model, images, labels, epsilon=0.2, step_size=0.05, steps=9, generator=seeded())
    torch.testing.assert_close(found, (images + 0.2 * downhill.sign()).clamp(0, 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("epsilon", [0.0, 0.01, 0.7, 5.0])
def test_adversarial_images_stay_in_the_ball_and_in_the_pixel_range(norm, epsilon, dtype):
    model, (images, labels) = a_net(dtype), a_batch(dtype=dtype)
    found = pgd(model, images, labels, epsilon=epsilon, step_size=0.6 * epsilon, steps=3,
                norm=norm, restarts=2, generator=seeded())
    assert found.shape == images.shape and found.dtype == dtype
    assert 0 <= found.min() and found.max() <= 1
    rounding = 4 * torch.finfo(dtype).eps * (30**0.5 if norm == "l2" else 1)
    longest = lengths(found.double() - images.double(), norm).max()
    assert longest <= epsilon + rounding, longest


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_random_starts_are_uniform_in_the_ball(norm):
    images = torch.full((4000, 1, 1, 3), 0.5, dtype=torch.float64)
    model = nn.Sequential(nn.Flatten(), nn.Identity())
    labels = torch.zeros(4000, dtype=torch.long)
    found = pgd(model, images, labels, epsilon=0.25, step_size=0.0, steps=1, norm=norm,
                generator=seeded())
    offset = (found - images).flatten(1)
    share = (lengths(offset, norm) / 0.25) ** 3  # of the ball's volume: uniform on [0, 1]
    quantiles = share.quantile(torch.linspace(0.1, 0.9, 9, dtype=torch.float64))
    # Four standard errors of an empirical quantile, and of a mean.
    assert (quantiles - torch.linspace(0.1, 0.9, 9)).abs().max() < 4 * 0.5 / 4000**0.5
    assert offset.mean(dim=0).abs().max() < 4 * 0.25 / 3**0.5 / 4000**0.5


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_an_image_is_attacked_alike_in_every_batch(norm):
    model, (images, labels) = a_net(), a_batch()
    attack = functools.partial(pgd, model, epsilon=0.2, step_size=0.03, steps=6, norm=norm,
                               random_start=False)
    alone = torch.cat([attack(images[i:i + 1], labels[i:i + 1]) for i in range(len(images))])
    torch.testing.assert_close(attack(images, labels), alone, rtol=0, atol=1e-12)


def test_an_attack_leaves_model_input_grad_mode_and_random_numbers_as_it_found_them():
    model, (images, labels) = a_net(middle=nn.Dropout), a_batch()
    model.train()
    model[1].eval()
    model[0].bias.requires_grad_(False)
    model(images).sum().backward()
    images.requires_grad_()

    def state():
        return ([m.training for m in model.modules()], torch.is_grad_enabled(), images.grad,
                [(p.requires_grad, None if p.grad is None else p.grad.tolist(), p.tolist())
                 for p in model.parameters()], images.tolist(), torch.get_rng_state().tolist())

    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            before = state()
            found = pgd(model, images, labels, epsilon=0.1, step_size=0.05, steps=2, restarts=2,
                        norm="l2", generator=seeded())
            assert state() == before
            assert not found.requires_grad


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_an_attack_finds_the_same_where_gradients_are_switched_off(mode):
    model, settings = a_net(), {"epsilon": 0.1, "step_size": 0.03, "steps": 4, "restarts": 2}
    expected = pgd(model, *a_batch(), **settings, generator=seeded())
    with mode():
        found = pgd(model, *a_batch(), **settings, generator=seeded())
    assert torch.equal(found, expected)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("factor", [0.0, float("nan")])
def test_nothing_moves_where_the_gradient_is_zero_or_nan(norm, factor):
    images, labels = a_batch()
    found = pgd(lambda x: factor * x.flatten(1), images, labels, epsilon=0.1, step_size=0.1,
                steps=2, norm=norm, random_start=False)
    torch.testing.assert_close(found, images)


def test_l2_steps_do_not_shorten_when_the_loss_is_tiny():
    model, (images, labels) = a_net(torch.float32), a_batch(dtype=torch.float32)

    def attack(scale):
        return pgd(model, images, labels, epsilon=0.3, step_size=0.1, steps=3, norm="l2",
                   random_start=False,
                   loss=lambda logits: scale * F.cross_entropy(logits, labels, reduction="none"))

    torch.testing.assert_close(attack(1e-30), attack(1.0), rtol=0, atol=1e-5)


def test_restarts_keep_the_misclassified_and_then_the_highest_loss():
    model, (images, labels) = a_linear_net(), a_batch(n=60, classes=2)
    labels = model(images).argmax(dim=1)
    for sign in (1, -1):  # -1: the highest loss is what is classified best
        def loss(logits):
            return sign * F.cross_entropy(logits, labels, reduction="none")

        attack = functools.partial(pgd, model, images, labels, epsilon=0.5, step_size=0.0,
                                   steps=1, loss=loss)
        stream = seeded()
        starts = torch.stack([attack(generator=stream) for _ in range(4)])
        found = attack(generator=seeded(), restarts=4)
        wrong = torch.stack([margins(model, x, labels) < 0 for x in starts])
        losses = torch.stack([loss(model(x)) for x in starts])
        rank = torch.where(wrong, losses + 1e6, losses).argmax(dim=0)
        assert wrong.any(dim=0).any() and not wrong.all(dim=0).all(), "the test says nothing"
        assert torch.equal(found, starts[rank, torch.arange(60)])


def test_a_seeded_generator_decides_alone():
    model, (images, labels) = a_net(), a_batch()
    attack = functools.partial(pgd, model, images, labels, epsilon=0.1, step_size=0.03, steps=2)
    torch.manual_seed(0)
    first = attack(generator=seeded(5))
    torch.manual_seed(1)
    assert torch.equal(attack(generator=seeded(5)), first)
    assert not torch.equal(attack(generator=seeded(6)), first)


def test_the_loss_of_trades_is_climbed_from_a_random_start():
    model, (images, labels) = a_net(), a_batch()
    clean = model(images).detach().softmax(dim=1)

    def divergence(logits):
        return F.kl_div(logits.log_softmax(dim=1), clean, reduction="none").sum(dim=1)

    attack = functools.partial(pgd, model, images, labels, epsilon=0.1, loss=divergence)
    start = attack(step_size=0.0, steps=1, generator=seeded())
    found = attack(step_size=0.03, steps=8, generator=seeded())
    assert (divergence(model(found)) > 2 * divergence(model(start))).all()


@pytest.mark.parametrize(("change", "message"), [
    ({"images": torch.full((7, 2, 3, 5), 200, dtype=torch.uint8)}, r"uint8 in \[200, 200\].*255"),
    ({"images": torch.full((7, 2, 3, 5), 128.0)}, r"images must.*\[128, 128\]: divide.*255"),
    ({"images": torch.full((7, 2, 3, 5), -0.1)}, r"images must.*\[-0.1, -0.1\]"),
    ({"images": torch.full((7, 2, 3, 5), float("nan"))}, "images must.*NaN"),
    ({"images": torch.zeros(0, 2, 3, 5)}, r"images must.*\(0, 2, 3, 5\)"),
    ({"labels": torch.zeros(6, dtype=torch.long)}, r"labels must.*\(7,\).*\(6,\)"),
    ({"labels": torch.zeros(7)}, "labels must be integers.*float32"),
    ({"epsilon": -0.1}, "epsilon must.*-0.1"),
    ({"epsilon": float("nan")}, "epsilon must.*nan"),
    ({"step_size": -1.0}, "step_size must.*-1.0"),
    ({"steps": 0}, "steps must.*0"),
    ({"steps": 2.5}, "steps must.*2.5"),
    ({"restarts": 0}, "restarts must.*0"),
    ({"restarts": 2, "random_start": False}, "restarts=2.*random_start"),
    ({"norm": "l_inf"}, "norm must.*'l_inf'.*'linf'"),
    ({"loss": lambda logits: logits.mean()}, r"loss must.*\(7,\).*\(\)"),
])
def test_bad_input_is_named(change, message):
    images, labels = a_batch(dtype=torch.float32)
    arguments = {"images": images, "labels": labels, "epsilon": 0.1, "step_size": 0.1,
                 "steps": 2} | change
    with pytest.raises(ValueError, match=message):
        pgd(a_net(torch.float32), **arguments)
