"""The scores of generated images: against closed forms, other code, and what they must not see."""

import importlib.util
import math

import numpy as np
import pytest
import scipy.linalg
import torch

from normkit import training
from normkit.training import GanConfig


def _sample(rows, columns, seed):
    stream = torch.Generator().manual_seed(seed)
    mixed = torch.randn(columns, columns, generator=stream, dtype=torch.float64)
    return torch.randn(rows, columns, generator=stream, dtype=torch.float64) @ mixed + seed


@pytest.mark.parametrize("rows", [(40, 60), (3, 5)], ids=["more rows than features", "fewer"])
def test_the_frechet_distance_is_that_of_the_matrix_root(rows):
    a, b = _sample(rows[0], 6, 1), _sample(rows[1], 6, 2)
    root = scipy.linalg.sqrtm(np.cov(a.T.numpy()) @ np.cov(b.T.numpy()))
    expected = (a.mean(0) - b.mean(0)).square().sum() + a.var(0).sum() + b.var(0).sum()
    expected = expected.item() - 2 * np.trace(root).real
    found = training.frechet_distance(a, b)
    assert math.isclose(found, expected, rel_tol=1e-6), (found, expected)  # sqrtm, if singular


def test_of_uncorrelated_features_it_is_the_distance_of_means_and_deviations():
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 3).double()
    deviation = math.sqrt(8 / 7)  # of a column of signs, unbiased
    means, scales = torch.tensor([[0.0, 1, 2], [3, 1, -1]]), torch.tensor([[1.0, 2, 3], [2, 2, 9]])
    a, b = (signs * scale + mean for mean, scale in zip(means, scales, strict=True))
    expected = (means[0] - means[1]).square().sum()
    expected += (deviation * (scales[0] - scales[1])).square().sum()
    assert math.isclose(training.frechet_distance(a, b), expected.item(), rel_tol=1e-6)


def test_it_is_symmetric_blind_to_rotations_and_zero_of_a_sample_with_itself():
    a, b = _sample(30, 5, 3), _sample(20, 5, 4)
    rotation = torch.linalg.qr(_sample(5, 5, 5)).Q
    found = training.frechet_distance(a, b)
    for other in ((b, a), (a @ rotation, b @ rotation), (a + 9, b + 9), (a.flip(0), b)):
        assert math.isclose(training.frechet_distance(*other), found, rel_tol=1e-10)
    assert training.frechet_distance(a, a) < 1e-10 * found
    assert math.isclose(training.frechet_distance(2 * a, 2 * b), 4 * found, rel_tol=1e-10)


def test_the_inception_score_counts_classes():
    one_hot, uniform = torch.eye(7).repeat(3, 1), torch.full((9, 7), 1 / 7)
    assert math.isclose(training.inception_score(one_hot), 7, rel_tol=1e-12)
    assert math.isclose(training.inception_score(uniform), 1, rel_tol=1e-12)
    assert math.isclose(training.inception_score(one_hot[:1]), 1, rel_tol=1e-12)
    assert math.isclose(training.inception_score(torch.eye(7)[[0, 3]]), 2, rel_tol=1e-12)
    halves = torch.tensor([[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]])
    assert math.isclose(training.inception_score(halves), 2, rel_tol=1e-12)
    for seed in range(5):
        mixed = _sample(20, 7, seed).softmax(1)
        assert 1 < training.inception_score(mixed) < 7


@pytest.mark.parametrize(
    ("score", "given", "message"),
    [
        ("frechet_distance", (torch.ones(1, 3), torch.ones(4, 3)), r"features_a .* \(1, 3\)"),
        ("frechet_distance", (torch.ones(4, 3), torch.full((4, 3), math.nan)), "features_b .*Fal"),
        ("frechet_distance", (torch.ones(4, 3), torch.ones(4, 2)), "has 3 features, features_b 2"),
        ("inception_score", (torch.ones(4),), r"shape \(4,\)"),
        ("inception_score", (torch.ones(4, 2),), "differs from 1 by 1"),
        ("inception_score", (torch.tensor([[-0.5, 1.5]]),), "the smallest is -0.5"),
        ("fidelity", (torch.ones(4, 3, 8, 8),) * 2, "images must be uint8"),
        ("fidelity", (torch.ones(4, 1, 8, 8).byte(),) * 2, "3 channels, found 1"),
    ],
)
def test_scores_refuse_what_they_cannot_take(score, given, message):
    with pytest.raises(ValueError, match=message):
        getattr(training, score)(*given)


@pytest.mark.skipif(importlib.util.find_spec("torch_fidelity") is not None, reason="is installed")
def test_without_its_package_fidelity_says_how_to_install_it():
    images = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    with pytest.raises(ImportError, match=r"pip install -e '\.\[gan\]'"):
        training.fidelity(images, images)


def test_images_like_the_real_ones_are_nearer_than_noise():
    config = GanConfig(classifier_width=4, classifier_epochs=5).classifier()
    judge, task = training.scorer(config), training.prepare(config)
    near, far = (
        judge(images)["frechet"]
        for images in (task.images / 255, torch.rand(300, 1, 8, 8, generator=torch.Generator()))
    )
    assert math.isclose(near, judge.limits["floor"], rel_tol=1e-6) and 20 * near < far
    assert judge(task.test_images / 255)["frechet"] < 1e-6 * far
