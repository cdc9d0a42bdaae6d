"""The attack without gradients estimates true slopes and finds known optima; attacks transfer."""

import functools
import itertools

import pytest
import torch
from test_attacks import a_batch, a_linear_net, a_net, margins, seeded
from torch import nn

from normkit.attacks import fgsm, pgd, robust_accuracy, spsa, transfer_accuracy
from normkit.attacks.losses import margin
from normkit.attacks.spsa import ROWS, slope


def a_right_batch(model, n=40, dtype=torch.float64):
    """Images of moderate grey under the labels that the model gives them."""
    images = 0.3 + 0.4 * a_batch(n, dtype=dtype)[0]
    with torch.no_grad():
        return images, model(images).argmax(1)


def an_even_net(images):
    """A linear model of two classes that takes half of the images for each."""
    net = a_linear_net().eval()
    with torch.no_grad():
        logits = net(images)
        net[1].bias[0] -= (logits[:, 0] - logits[:, 1]).median()
    return net


def every_sign(pixels):
    return torch.tensor(list(itertools.product((-1, 1), repeat=pixels)), dtype=torch.int8)


def true_slope(loss, model, x, labels):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(loss(model(x), labels).sum(), x)[0]


def test_over_all_directions_the_estimate_is_the_slope_of_a_quadratic_loss():
    torch.manual_seed(0)
    curved, x = torch.randn(4, 5, 5, dtype=torch.float64), torch.rand(6, 5, dtype=torch.float64)
    labels = torch.arange(6) % 4

    def model(x):
        return torch.einsum("ni,cij,nj->nc", x, curved, x)

    def loss(logits, labels):
        return logits.gather(1, labels[:, None])[:, 0]

    found = slope(model, loss, 0.3, x, labels, every_sign(5))
    torch.testing.assert_close(found, true_slope(loss, model, x, labels))


def test_the_estimate_is_the_same_in_chunks_of_any_size():
    net, (images, labels) = a_net().eval(), a_batch(60)
    signs = 2 * torch.randint(2, (300, *images.shape[1:]), generator=seeded()) - 1
    rows = []

    def model(x):
        rows.append(len(x))
        return net(x)

    with torch.no_grad():
        whole = slope(model, margin, 0.01, images, labels, signs)
        last = slope(net, margin, 0.01, images[59:], labels[59:], signs)
    assert max(rows) <= ROWS and sum(rows) == 2 * 300 * 60
    torch.testing.assert_close(whole[59:], last, rtol=0, atol=1e-9)


def test_the_squared_error_of_an_estimate_is_pixels_over_samples():
    net, (images, labels) = a_linear_net(), a_batch(2, classes=2)
    exact = true_slope(margin, net, images, labels)
    samples, errors = 64, []
    for seed in range(30):
        signs = torch.randint(2, (samples, 2, 3, 5), generator=seeded(seed)) * 2 - 1
        with torch.no_grad():
            found = slope(net, margin, 0.01, images, labels, signs)
        errors.append(((found - exact).square().sum() / exact.square().sum()).item())
    # 29 / 64 on average; 30 draws of a sum of 29 nearly independent squares scatter by 5 %.
    assert sum(errors) / 30 == pytest.approx(29 / samples, rel=0.25)


def test_it_reaches_the_optimum_of_a_linear_model():
    model = an_even_net(0.3 + 0.4 * a_batch(40)[0])
    images, labels = a_right_batch(model)
    weight = model[1].weight.detach()
    best = images + 0.02 * (weight[1 - labels] - weight[labels]).view_as(images).sign()
    resists = margins(model, best, labels) > 0
    assert 0.2 < resists.double().mean() < 0.8, "the test says nothing"
    found = spsa(model, images, labels, epsilon=0.02, steps=40, generator=seeded())
    start = margins(model, images, labels)
    fallen, most = (start - margins(model, x, labels) for x in (found, best))
    assert (fallen[resists] > 0.95 * most[resists]).all(), fallen / most
    assert (margins(model, found, labels)[resists] > 0).all(), "further than possible"
    assert (margins(model, found, labels)[~resists] < 0).double().mean() > 0.9  # but near 0


def test_steps_are_those_of_adam_on_the_estimates():
    torch.manual_seed(5)
    weight = torch.randn(3, 2, dtype=torch.float64)
    images, labels = torch.full((1, 3), 0.5, dtype=torch.float64), torch.tensor([0])
    found = spsa(lambda x: x @ weight + torch.tensor([50.0, 0.0]), images, labels, epsilon=0.3,
                 steps=4, samples=3, lr=0.02, generator=seeded(2), loss=lambda z, _: -z[:, 0])
    stream = torch.Generator().manual_seed(torch.randint(2**62, (), generator=seeded(2)).item())
    first, second, x = torch.zeros(3), torch.zeros(3), images[0].clone()
    for step in range(1, 5):
        signs = 2 * torch.randint(2, (3, 3), generator=stream, dtype=torch.int8).double() - 1
        gradient = (signs * (signs @ -weight[:, :1])).mean(0)
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        ahead = first / (1 - 0.9**step) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
        x = (x + 0.02 * ahead).clamp(0.2, 0.8)
    torch.testing.assert_close(found[0], x, rtol=0, atol=1e-9)


def test_a_model_without_any_gradient_is_fooled():
    net = an_even_net(0.3 + 0.4 * a_batch(40)[0])
    images, labels = a_right_batch(net)

    def rounding(x):
        return net((32 * x).round() / 32)

    def outside(x):  # of torch, where no gradient is
        return torch.from_numpy(rounding(x).numpy().copy())

    settings = {"epsilon": 0.08, "steps": 20}
    blind = pgd(rounding, images, labels, **settings, step_size=0.01, random_start=False)
    assert torch.equal(blind, images)
    found = spsa(outside, images, labels, **settings, perturbation=0.05, generator=seeded())
    assert (rounding(found).argmax(1) == labels).double().mean() < 0.1
    assert not spsa(net, images.requires_grad_(), labels, epsilon=0.1, steps=1).requires_grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("epsilon", [0.0, 0.01, 5.0])
def test_adversarial_images_stay_in_the_ball_and_in_the_pixel_range(epsilon, dtype):
    model, (images, labels) = a_net(dtype).eval(), a_batch(dtype=dtype)
    found = spsa(model, images, labels, epsilon=epsilon, steps=3, samples=9, lr=0.2,
                 perturbation=0.1, generator=seeded())  # fmt: skip
    assert found.shape == images.shape and found.dtype == dtype
    assert 0 <= found.min() and found.max() <= 1
    longest = (found.double() - images.double()).abs().max()
    assert longest <= epsilon + 4 * torch.finfo(dtype).eps, longest


def test_an_image_is_attacked_alike_in_every_batch():
    model = a_net().eval()
    images, labels = a_right_batch(model, 9)
    labels[3] = 1 - labels[3]  # leaves at once
    attack = functools.partial(spsa, model, epsilon=0.05, steps=6, samples=20)
    alone = [attack(images[i : i + 1], labels[i : i + 1], generator=seeded()) for i in range(9)]
    found = attack(images, labels, generator=seeded())
    torch.testing.assert_close(found, torch.cat(alone), rtol=0, atol=1e-7)
    assert torch.equal(found[3], images[3]) and not torch.equal(found[2], images[2])


def test_a_seeded_generator_decides_alone_and_advances_alike_for_every_model():
    images, labels = a_batch()
    states = []
    for model in (a_net().eval(), lambda x: 0 * x.flatten(1)[:, :4]):
        attack = functools.partial(spsa, model, images, labels, epsilon=0.1, steps=3, samples=8)
        stream = seeded(5)
        torch.manual_seed(0)
        first = attack(generator=stream)
        torch.manual_seed(1)
        assert torch.equal(attack(generator=seeded(5)), first)
        states.append(stream.get_state())
    assert torch.equal(*states)


def test_it_leaves_model_input_and_random_numbers_as_it_found_them():
    model = nn.Sequential(nn.BatchNorm2d(2), a_net(torch.float32, nn.Dropout)).eval()
    images, labels = a_batch(dtype=torch.float32)

    def state():
        weights = [t.tolist() for t in model.state_dict().values()]
        return weights, images.tolist(), labels.tolist(), torch.get_rng_state().tolist()

    before = state()
    found = spsa(model, images, labels, epsilon=0.1, steps=2, samples=8, generator=seeded())
    assert state() == before and all(p.grad is None for p in model.parameters())
    with torch.inference_mode():
        again = spsa(model, images, labels, epsilon=0.1, steps=2, samples=8, generator=seeded())
    assert torch.equal(found, again)


def test_answers_that_are_no_numbers_away_from_the_image_move_nothing():
    images, labels = torch.full((2, 3), 0.5), torch.tensor([0, 0])

    def model(x):
        return x + torch.tensor([1.0, 0.0, 0.0]) + torch.where(x[:, :1] == 0.5, 0.0, torch.nan)

    found = spsa(model, images, labels, epsilon=0.1, steps=3, samples=8, generator=seeded())
    assert torch.equal(found, images)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": torch.full((7, 2, 3, 5), 1.5)}, r"images must.*1.5\]: divide"),
        ({"labels": torch.full((7,), 9)}, "labels must be in 0 to 3.*found 9 to 9"),
        ({"model": a_net(torch.float32)}, "model must be in evaluation mode"),
        ({"epsilon": -0.1}, "epsilon must.*-0.1"),
        ({"steps": 0}, "steps must.*0"),
        ({"samples": 1.5}, "samples must be a whole number.*1.5"),
        ({"perturbation": 0.0}, "perturbation must be finite and > 0.*0.0"),
        ({"lr": float("nan")}, "lr must be finite and > 0.*nan"),
        ({"loss": lambda logits, _: logits.mean()}, r"loss must.*each image.*found shape \(\)"),
        ({"model": lambda x: x.flatten(1)[:, :1]}, "at least 2 classes; found 1"),
    ],
)
def test_bad_input_is_named(change, message):
    images, labels = a_batch(dtype=torch.float32, classes=1)  # no image is classified rightly
    given = {"model": a_net(torch.float32).eval(), "images": images, "labels": labels}
    with pytest.raises(ValueError, match=message):
        spsa(**{"epsilon": 0.1, "steps": 2, "samples": 4} | given | change)


def test_images_normalized_outside_of_the_model_are_refused_with_the_way_out():
    net, (images, labels) = a_net().eval(), a_batch()
    normalized = (images - 0.5) / 0.25
    for attack in (
        functools.partial(fgsm, epsilon=0.1),
        functools.partial(pgd, epsilon=0.1, step_size=0.1, steps=1),
        functools.partial(spsa, epsilon=0.1, steps=1),
    ):
        with pytest.raises(ValueError, match="make normalization the model's first layer"):
            attack(net, normalized, labels)
    with pytest.raises(ValueError, match="make normalization the model's first layer"):
        robust_accuracy(net, normalized, labels)
    inside = fgsm(lambda x: net((x - 0.5) / 0.25), images, labels, epsilon=0.1)
    assert (inside - images).abs().max() <= 0.1 + 1e-12


def test_an_attack_transfers_as_far_as_two_linear_models_share_their_weights():
    target, source = an_even_net(0.3 + 0.4 * a_batch(101)[0]), a_linear_net()
    torch.manual_seed(6)
    with torch.no_grad():
        source[1].weight += 0.1 * torch.randn_like(source[1].weight)
    images, labels = a_right_batch(target, 101)
    step = 0.02 * (source[1].weight[1] - source[1].weight[0]).detach().sign().view(2, 3, 5)
    moved = images + step * (1 - 2 * labels).view(-1, 1, 1, 1)
    expected = (target(moved).argmax(1) == labels).double().mean().item()
    attack = functools.partial(fgsm, epsilon=0.02)
    for batch_size in (10, 500):
        found = transfer_accuracy(source, target, images, labels, attack, batch_size)
        assert found == pytest.approx(expected, abs=1e-12)
    own = robust_accuracy(target, images, labels, attack)
    assert own < expected < 1 and own == transfer_accuracy(target, target, images, labels, attack)
