"""Auto-PGD judges networks as its authors' code does, and more strictly than PGD."""

import functools
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from normkit import data, models
from normkit.attacks import apgd, apgd_ensemble, pgd, robust_accuracy

SHARED = os.environ.get("NORMKIT_SHARED")
needs_weights = pytest.mark.skipif(
    SHARED is None, reason="NORMKIT_SHARED names no folder of published weights"
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def trained(adversarial):
    """A small net trained on digits for a second or two, and the test images."""
    digits = data.load("digits")
    images, labels = data.to_float(digits.train_images), digits.train_labels.long()
    torch.manual_seed(0)
    net = models.build("resnet8", width=4, in_channels=1, input_size=(8, 8))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    for epoch in range(6):
        for chosen in torch.randperm(len(images), generator=seeded(epoch)).split(128):
            x, y = images[chosen], labels[chosen]
            if adversarial:
                net.eval()
                x = pgd(net, x, y, epsilon=0.1, step_size=0.1, steps=2, generator=seeded(epoch))
                net.train()
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            optimizer.step()
    return net.eval(), data.to_float(digits.test_images), digits.test_labels.long()


@pytest.fixture(scope="module", params=["plain", "adversarial"])
def digits_net(request):
    return trained(request.param == "adversarial")


def published(name, count):
    file = Path(SHARED, "weights", f"cifar10_small_cnn_{name}.safetensors")
    mean, std = {
        "standard": ((0.485, 0.456, 0.406), (0.225, 0.225, 0.225)),
        "certified": ((0.485, 0.456, 0.406), (0.225, 0.225, 0.225)),
        "adversarial": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    }[name]
    net = models.from_state_dict(load_file(file), input_size=(32, 32), mean=mean, std=std)
    with np.load(Path(SHARED, "data", "cifar10_1000x1000.npz")) as file:
        images = torch.from_numpy(file["x_test"][:count]).permute(0, 3, 1, 2) / 255
        return net.eval(), images.contiguous(), torch.from_numpy(file["y_test"][:count]).long()


def by_the_authors(loss, norm, epsilon, steps):
    """Their attack, as a function of model, images and labels."""
    reference = pytest.importorskip(
        "pyautoattack.autopgd_base", reason="pyautoattack is not installed"
    )
    options = {"n_iter": steps, "norm": {"linf": "Linf", "l2": "L2"}[norm], "eps": epsilon}

    def attack(model, images, labels):
        if loss == "targeted":
            made = reference.APGDAttack_targeted(model, **options)
        else:
            made = reference.APGDAttack(model, loss=loss, **options)
        before = torch.get_rng_state()
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # it warns of gradients that are zero
            found = made.perturb(images, labels)  # seeds torch's own generator
        torch.set_rng_state(before)
        return found

    return attack


def agree(model, images, labels, loss, norm, epsilon, steps):
    ours = functools.partial(
        apgd, epsilon=epsilon, steps=steps, loss=loss, norm=norm, generator=seeded()
    )
    theirs = by_the_authors(loss, norm, epsilon, steps)
    n = len(images)
    a, b = (robust_accuracy(model, images, labels, attack, n) for attack in (ours, theirs))
    # On the same images only the random starts differ, for which .02 is twice what was seen in 42
    # cases; the 95 % interval of one accuracy of .5 is .057 wide to either side at n = 297.
    assert abs(a - b) <= 0.02, f"{a:.4f} here, {b:.4f} by the authors' code, n = {n}"
    return a


@pytest.mark.parametrize("loss", ["ce", "dlr", "targeted"])
@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.08), ("l2", 0.4)])
def test_digits_resist_as_under_the_authors_code(digits_net, loss, norm, epsilon):
    found = agree(*digits_net, loss, norm, epsilon, steps=20)
    assert 0.05 < found < 0.95, "the test says nothing"


@needs_weights
@pytest.mark.parametrize(("loss", "steps"), [("ce", 100), ("targeted", 20)])
@pytest.mark.parametrize(("name", "epsilon"), [("standard", 1 / 255), ("adversarial", 2 / 255)])
def test_published_networks_resist_as_under_the_authors_code(name, epsilon, loss, steps):
    agree(*published(name, 150), loss, "linf", epsilon, steps)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_climb_is_higher_than_that_of_pgd_with_as_many_gradients(digits_net, norm):
    net, images, labels = digits_net
    epsilon, steps = {"linf": 0.08, "l2": 0.4}[norm], 40
    settings = {"epsilon": epsilon, "steps": steps, "norm": norm}
    adaptive = apgd(net, images, labels, **settings, generator=seeded())
    for step_size in (2.5 * epsilon / steps, epsilon / 4):
        plain = pgd(net, images, labels, **settings, step_size=step_size, generator=seeded())
        with torch.no_grad():
            logits = torch.stack([net(x) for x in (adaptive, plain)])
        resist = (logits.argmax(dim=2) == labels).all(dim=0)  # where both had all their steps
        loss = [F.cross_entropy(z[resist], labels[resist]) for z in logits]
        right = (logits.argmax(dim=2) == labels).float().mean(dim=1)
        assert right[0] <= right[1] and loss[0] >= loss[1], (right, loss)


@needs_weights
@pytest.mark.parametrize(
    ("name", "epsilon"), [("standard", 2 / 255), ("certified", 8 / 255), ("adversarial", 8 / 255)]
)
def test_the_ensemble_breaks_more_published_networks_than_pgd(name, epsilon):
    net, images, labels = published(name, 100)
    plain = functools.partial(
        pgd, epsilon=epsilon, step_size=epsilon / 6, steps=20, generator=seeded()
    )
    both = functools.partial(apgd_ensemble, epsilon=epsilon, steps=20, generator=seeded())
    found = [robust_accuracy(net, images, labels, attack) for attack in (plain, both)]
    assert found[1] <= found[0], found
