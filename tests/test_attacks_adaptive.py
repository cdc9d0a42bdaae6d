"""Auto-PGD takes the steps of its paper, for each image on its own."""

import functools
from fractions import Fraction

import pytest
import torch
from test_attacks import a_batch, a_linear_net, a_net, lengths, margins, seeded

from normkit.attacks import apgd, apgd_ensemble
from normkit.attacks.climb import Found, checkpoints, climb_all
from normkit.attacks.losses import LOSSES
from normkit.attacks.parts import random_point


def a_right_batch(model, n=12, **options):
    """Images that the model classifies correctly."""
    images, _ = a_batch(n, **options)
    return images, model(images).argmax(dim=1)


def sure(model, images, labels):
    return model(images).argmax(dim=1) == labels


def test_checkpoints_are_those_of_the_paper():
    assert checkpoints(100) == [0, 22, 41, 57, 70, 80, 87, 93, 99]
    for steps in range(1, 300):
        shares = [Fraction(0), Fraction(22, 100)]
        while shares[-1] < 1:
            width = shares[-1] - shares[-2] - Fraction(3, 100)
            shares.append(shares[-1] + max(width, Fraction(6, 100)))
        expected = {-int(-share * steps // 1) for share in shares}
        assert checkpoints(steps) == sorted(after for after in expected if after < steps), steps


@pytest.mark.parametrize(("norm", "steps"), [("linf", 1), ("linf", 100), ("l2", 100)])
def test_the_worst_point_of_a_linear_model_is_reached(norm, steps):
    model = a_linear_net().eval()
    images, labels = a_right_batch(model, 60)
    images = 0.3 + 0.4 * images  # far enough from 0 and 1
    labels = model(images).argmax(dim=1)
    weight = model[1].weight.detach()
    downhill = (weight[1 - labels] - weight[labels]).view_as(images)
    unit = downhill / lengths(downhill, "l2").view(-1, 1, 1, 1)
    step = downhill.sign() if norm == "linf" else unit
    needed = margins(model, images, labels) / (downhill * step).flatten(1).sum(dim=1)
    epsilon = min(needed.median(), 0.3 / step.abs().max()).item()
    worst = images + epsilon * step
    resists = margins(model, worst, labels) > 0
    assert resists.any() and not resists.all(), "the test says nothing"
    found = apgd(
        model, images, labels, epsilon=epsilon, norm=norm, steps=steps, generator=seeded()
    )
    assert torch.equal(sure(model, found, labels), resists)
    torch.testing.assert_close(found[resists], worst[resists], rtol=0, atol=1e-8)


def by_the_book(f, start, image, epsilon, steps):
    """Algorithm 1 of the paper for one image: its points, and which conditions halved the step."""

    def into_the_ball(x):
        return (x - image).clamp(-epsilon, epsilon).add(image).clamp(0, 1)

    def slope(x):
        with torch.enable_grad():
            x = x.clone().requires_grad_()
            return torch.autograd.grad(f(x), x)[0]

    points, x, before, step, checked = [start], start, start, 2 * epsilon, 0
    values, best, halved, mark, fired = [f(start)], start, False, f(start), []
    for k in range(steps):
        if k in checkpoints(steps)[1:]:
            rises = sum(values[i + 1] > values[i] for i in range(checked, k))
            slow, stuck = rises < 0.75 * (k - checked), not halved and f(best) == mark
            fired += [(bool(slow), bool(stuck))]
            halved, mark, checked = slow or stuck, f(best), k
            if halved:
                step, x, values[-1] = step / 2, best, f(best)
        z = into_the_ball(x + step * slope(x).sign())
        ahead = z if k == 0 else into_the_ball(x + 0.75 * (z - x) + 0.25 * (x - before))
        before, x = x, ahead
        points.append(x)
        values.append(f(x))
        best = x if f(x) > f(best) else best
    return points, fired


def test_points_are_those_of_the_algorithm_in_the_paper():
    waves = 10 * torch.randn(3, 5, generator=seeded(), dtype=torch.float64)
    images, fired = torch.rand(60, 3, generator=seeded(1), dtype=torch.float64), []
    for image in images.split(1):
        start, seen = random_point(image, 0.1, "linf", seeded()), []

        def f(x, start=start):  # waves, and a spike where the climb starts
            spike = (-1e4 * (x - start).square().sum(dim=-1)).exp()
            return (x @ waves).sin().sum(dim=-1) / 20 + spike

        def model(x, f=f, seen=seen):  # the cross-entropy rises with f, and no image is fooled
            seen.append(x.detach().clone())
            return torch.stack([2 - f(x), torch.zeros(len(x))], dim=1)

        apgd(model, image, torch.tensor([0]), epsilon=0.1, steps=36, generator=seeded())
        points, reasons = by_the_book(f, start, image, 0.1, 36)
        fired += reasons
        torch.testing.assert_close(torch.cat(seen[1:]), torch.cat(points), rtol=0, atol=1e-9)
    kinds = {(True, True), (True, False), (False, True), (False, False)}
    assert set(fired) == kinds, "the test says nothing"


def test_a_narrow_peak_is_found_by_halving_the_step():
    peak = torch.tensor([0.437, 0.561, 0.5], dtype=torch.float64)

    def model(x):  # classified as 0 everywhere, least surely at the peak
        return torch.stack([(x - peak).square().sum(dim=1) + 1, torch.zeros(len(x))], dim=1)

    images, labels = torch.full((1, 3), 0.5, dtype=torch.float64), torch.tensor([0])
    found = apgd(model, images, labels, epsilon=0.1, generator=seeded())
    # Steps of .2, halved at most 8 times by the last check: down to .2 / 256.
    assert (found - peak).abs().max() < 0.2 / 256, found


@pytest.mark.parametrize("loss", ["ce", "dlr"])
def test_an_image_gets_its_first_misclassified_point_or_else_that_of_highest_loss(loss):
    net, seen = a_net().eval(), []

    def model(x):
        seen.append((x.detach().clone(), torch.is_grad_enabled()))
        return net(x)

    images, labels = a_right_batch(net)
    fooled = 0
    for image, label in zip(images.split(1), labels.split(1), strict=True):
        seen.clear()
        found = apgd(model, image, label, epsilon=0.03, steps=15, loss=loss, generator=seeded())
        points = torch.cat([x for x, _ in seen])
        wrong = ~sure(net, points, label)
        expected = LOSSES[loss](net(points), label.expand(len(points)), None).argmax()
        if wrong.any():
            fooled += 1
            expected = wrong.int().argmax()
        assert torch.equal(found[0], points[expected])
        assert wrong.any() or sum(climbs for _, climbs in seen) == 15
        assert not wrong[: len(seen) - 1].any(), "a fooled image stayed"
    assert 0 < fooled < len(images), "the test says nothing"


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_an_image_is_attacked_alike_in_every_batch(loss, norm):
    model, n, runs = a_net().eval(), 9, 6
    images, labels = a_right_batch(model, n)
    reach = torch.linspace(0.02, 1, n).view(
        -1, 1, 1, 1
    )  # far ones are fooled at once, by many runs
    offsets = 2 * torch.rand(runs, *images.shape, generator=seeded()) - 1
    starts = (images + reach * offsets).clamp(0, 1)
    rivals = torch.stack([(labels + 1 + run % 3) % 4 for run in range(runs)])

    def climbed(some):
        goal, clean = LOSSES[loss], model(images[some]).detach()
        low = goal(clean, labels[some], rivals[0, some])
        found = Found.of_clean(images[some], low, torch.ones_like(low).bool(), runs)
        climb_all(
            model, goal, images[some], labels[some], rivals[:, some], starts[:, some],
            found, 0.07 if norm == "linf" else 0.3, 30, norm,
        )  # fmt: skip
        return found

    with torch.no_grad():
        together = climbed(slice(n))
        alone = [climbed(slice(i, i + 1)) for i in range(n)]
    assert torch.equal(together.run, torch.cat([found.run for found in alone]))
    assert together.fooled.any() and not together.fooled.all(), "the test says nothing"
    torch.testing.assert_close(together.images, torch.cat([found.images for found in alone]))


@pytest.mark.parametrize("loss", LOSSES)
def test_restarts_change_nothing_for_images_that_the_first_start_fools(loss):
    model = a_net().eval()
    images, labels = a_right_batch(model, 100)
    attack = functools.partial(apgd, model, images, labels, epsilon=0.06, steps=4, loss=loss)
    once, often = attack(generator=seeded()), attack(generator=seeded(), restarts=4)
    fooled, more = ~sure(model, once, labels), ~sure(model, often, labels)
    assert fooled.any() and not fooled.all(), "the test says nothing"
    assert torch.equal(once[fooled], often[fooled])
    assert (more >= fooled).all()


def test_an_image_that_its_last_point_fools_is_not_attacked_again():
    net, climbs = a_linear_net().eval(), []

    def model(x):
        climbs.extend(torch.is_grad_enabled() for _ in x)
        return net(x)

    images, labels = a_right_batch(net, 20)
    apgd(model, images, labels, epsilon=1.0, steps=1, restarts=3, generator=seeded())
    assert sum(climbs) == len(images)


def test_the_ensemble_adds_targets_to_what_cross_entropy_leaves():
    net = a_net().eval()

    def model(x):  # so sure that cross-entropy mostly has no gradient in float32
        return 30_000 * net(x)

    net.float()
    images, labels = a_right_batch(net, 100, dtype=torch.float32)
    attack = {"epsilon": 0.06, "steps": 10}
    plain = apgd(model, images, labels, **attack, generator=seeded())
    both = apgd_ensemble(model, images, labels, **attack, generator=seeded())
    left, resists = sure(model, plain, labels), sure(model, both, labels)
    assert resists.any() and (left & ~resists).sum() > 10, "the test says nothing"
    assert torch.equal(both[~left | resists], plain[~left | resists])


@pytest.mark.parametrize("loss", ["dlr", "targeted"])
def test_ratios_of_logits_do_not_see_their_scale(loss):
    net = a_net().eval()
    images, labels = a_right_batch(net)
    attack = functools.partial(apgd, epsilon=0.05, steps=20, loss=loss)
    small, large = (
        attack(lambda x, s=scale: s * net(x), images, labels, generator=seeded())
        for scale in (1.0, 1024.0)
    )
    torch.testing.assert_close(small, large, rtol=0, atol=1e-12)
