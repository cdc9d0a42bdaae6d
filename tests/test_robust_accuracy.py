"""Accuracy under attack is what theory, and what others' networks, say it is."""

import functools
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from normkit.attacks import fgsm, pgd, robust_accuracy

SHARED = os.environ.get("NORMKIT_SHARED")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def a_batch(n):
    images = torch.rand(n, 2, 3, 5, generator=seeded(1), dtype=torch.float64)
    return images, torch.randint(2, (n,), generator=seeded(2))


def a_linear_net():
    torch.manual_seed(4)
    return nn.Sequential(nn.Flatten(), nn.Linear(30, 2)).double()


def test_robust_accuracy_of_a_linear_model_is_the_share_of_margins_above_epsilon():
    model, (images, _) = a_linear_net(), a_batch(101)
    images = 0.3 + 0.4 * images
    truth = model(images).argmax(dim=1)
    labels = torch.where(torch.rand(101, generator=seeded()) < 0.2, 1 - truth, truth)
    slope = (model[1].weight[0] - model[1].weight[1]).detach()
    logits = model(images).detach()
    margin = (logits[:, 0] - logits[:, 1]) * (1 - 2 * labels)
    for epsilon in (0.0, 0.01, 0.03, 0.1):
        attack = functools.partial(fgsm, epsilon=epsilon)
        expected = (margin > epsilon * slope.abs().sum()).double().mean()
        for batch_size in (1, 10, 500):
            found = robust_accuracy(model, images, labels, attack, batch_size)
            assert found == pytest.approx(expected.item(), abs=1e-12), (epsilon, batch_size)
    assert robust_accuracy(model, images, labels) == (truth == labels).double().mean()


def test_a_model_that_answers_nan_is_never_right():
    images, labels = a_batch(7)
    model = a_linear_net()
    nn.init.constant_(model[1].weight, float("nan"))
    attack = functools.partial(pgd, epsilon=0.1, step_size=0.1, steps=2, restarts=2)
    assert robust_accuracy(model, images, torch.zeros_like(labels), attack) == 0


def test_robust_accuracy_refuses_bytes_and_an_empty_batch():
    images, labels = a_batch(7)
    with pytest.raises(ValueError, match="uint8.*divide"):
        robust_accuracy(a_linear_net(), (255 * images).byte(), labels)
    with pytest.raises(ValueError, match="batch_size must.*0"):
        robust_accuracy(a_linear_net(), images, labels, batch_size=0)


@pytest.mark.skipif(SHARED is None, reason="NORMKIT_SHARED names no folder of published weights")
@pytest.mark.parametrize(("name", "mean", "std", "published"), [
    ("standard", (0.485, 0.456, 0.406), (0.225, 0.225, 0.225), (0.7610, 0.163, 0.0)),
    ("certified", (0.485, 0.456, 0.406), (0.225, 0.225, 0.225), (0.6162, 0.555, 0.268)),
    ("adversarial", (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010), (0.6975, 0.544, 0.141)),
])
def test_published_networks_resist_as_published(name, mean, std, published):
    net = nn.Sequential(nn.Conv2d(3, 16, 4, stride=2, padding=1), nn.ReLU(),
                        nn.Conv2d(16, 32, 4, stride=2, padding=1), nn.ReLU(), nn.Flatten(),
                        nn.Linear(2048, 100), nn.ReLU(), nn.Linear(100, 10))
    file = Path(SHARED, "weights", f"cifar10_small_cnn_{name}.safetensors")
    net.load_state_dict(load_file(file))
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (mean, std))
    with np.load(Path(SHARED, "data", "cifar10_1000x1000.npz")) as file:
        images = torch.from_numpy(file["x_test"][:200]).permute(0, 3, 1, 2) / 255
        labels = torch.from_numpy(file["y_test"][:200]).long()
    attacks = [None] + [functools.partial(pgd, epsilon=epsilon, step_size=epsilon / 6, steps=20,
                                          generator=seeded()) for epsilon in (2 / 255, 8 / 255)]
    found = [robust_accuracy(lambda x: net((x - mean) / std), images, labels, attack)
             for attack in attacks]
    for accuracy, p in zip(found, published, strict=True):
        assert abs(accuracy - p) < 3 * (p * (1 - p) / 200) ** 0.5 + 0.01, found  # sampling error
