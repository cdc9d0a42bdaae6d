"""Measures give the numbers of their definitions, wherever that is hard."""

import math

import pytest
import torch
import torch.nn.functional as F

from normkit import probes
from normkit.probes import PROBES


def definition(name, x):
    """The measures as they are written down, in float64; a dead image is orthogonal to all."""
    x = x.double()
    n = len(x)
    if name == "gradient_norm":
        return math.sqrt(sum(v * v for v in x.flatten().tolist()))
    if name in ("activation_variance", "activation_std"):
        channels = x.transpose(0, 1).flatten(1)
        variances = (channels - channels.mean(dim=1, keepdim=True)).square().mean(dim=1)
        return (variances if name == "activation_variance" else variances.sqrt()).mean().item()
    rows = x.flatten(1)
    cosines = F.normalize(rows, dim=1, eps=1e-300) @ F.normalize(rows, dim=1, eps=1e-300).T
    cosines.fill_diagonal_(1)
    if name == "cosine_similarity":
        return ((cosines.sum() - n) / (n * (n - 1))).item()
    return n / torch.linalg.eigvalsh(cosines)[-1].item()


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def hard_cases(n, d):
    """Activations that a shortcut to the largest eigenvalue could get wrong."""
    x, template = draw(n, d), draw(1, d, seed=1)
    dead = x.relu()
    dead[::3] = 0
    blocks = torch.zeros(n, d)  # two nearly equal eigenvalues, invariant apart
    blocks[: n // 2, : d // 2] = draw(n // 2, d // 2).abs()
    blocks[n // 2:, d // 2:] = draw(n - n // 2, d - d // 2, seed=2).abs()
    opposed = blocks.clone()  # the larger eigenvalue where the vector of ones cannot see it
    opposed[: n // 4 * 2, : d // 2] = template[:, : d // 2]
    opposed[: n // 4 * 2: 2] *= -1
    centers = draw(10, d).relu() * (torch.arange(d) % 10 == torch.arange(10)[:, None])
    return {
        "relu": x.relu(), "signed": x, "sparse": (x - 2).relu(), "dead": dead, "blocks": blocks,
        "correlated": x / 10 + template, "orthogonal to ones": torch.cat([x, -x]),
        "identical": template.expand(n, d), "gelu": F.gelu(x + template / 2),
        "clusters": centers[torch.arange(n) % 10] + x.relu() / 30,
        "opposed": opposed, "vanishing": x.relu() * 1e-25, "exploding": x.relu() * 1e25,
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(7, 3, 5, 4), (5, 6), (9, 2, 3), (2, 1, 1, 7), (70, 3, 9, 5)])
@pytest.mark.parametrize("name", PROBES)
def test_a_measure_is_its_definition(name, shape, dtype):
    for x in (draw(*shape), draw(*shape).relu() + 0.1, draw(*shape) * 1e-3 - 2):
        x = x.to(dtype)
        before = x.clone()
        assert PROBES[name](x) == pytest.approx(definition(name, x), rel=1e-5, abs=1e-7)
        assert torch.equal(x, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(128, 700), (61, 90), (150, 64), (200, 31)])
def test_stable_rank_and_cosine_are_exact_where_a_shortcut_could_fail(shape, dtype):
    for case, x in hard_cases(*shape).items():
        x = x.to(dtype)
        rank, cosine = probes.stable_rank(x), probes.cosine_similarity(x)
        assert rank == pytest.approx(definition("stable_rank", x), rel=1e-5), case
        assert cosine == pytest.approx(definition("cosine_similarity", x), abs=1e-6), case


@pytest.mark.parametrize("n", [2, 5, 64, 130])
def test_stable_rank_is_bounded_by_the_mean_cosine(n):
    for case, x in hard_cases(n, 200).items():
        rank, cosine, n = probes.stable_rank(x), probes.cosine_similarity(x), len(x)
        bound = n / (1 + (n - 1) * cosine)
        assert 1 - 1e-6 <= rank <= min(n, bound) * (1 + 1e-5), (case, rank, bound)


@pytest.mark.parametrize("name", ["activation_variance", "activation_std"])
def test_a_mean_far_above_the_deviation_costs_no_digits(name):
    x = (draw(40, 3, 6, 7) / 100 + torch.tensor([1e3, -30.0, 0.0]).view(3, 1, 1))
    assert PROBES[name](x) == pytest.approx(definition(name, x), rel=1e-5)


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e20, 1e30])
@pytest.mark.parametrize("name", PROBES)
def test_float32_signals_neither_overflow_nor_vanish(name, scale):
    x = draw(6, 4, 3, 3).relu() * scale
    assert PROBES[name](x) == pytest.approx(definition(name, x), rel=1e-5)


def test_a_dead_image_is_orthogonal_to_every_other():
    x = torch.tensor([[3.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    assert probes.cosine_similarity(x) == pytest.approx(2 / 12)
    assert probes.stable_rank(x) == pytest.approx(4 / 2)
    for n in (4, 100):
        dead = torch.zeros(n, 100)
        assert probes.cosine_similarity(dead) == 0 and probes.stable_rank(dead) == n


def test_one_image_has_no_pairs():
    assert math.isnan(probes.cosine_similarity(torch.ones(1, 3)))
    assert probes.stable_rank(torch.ones(1, 3)) == pytest.approx(1)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", PROBES)
def test_a_diverged_signal_is_measured_as_not_finite(name, bad):
    for n in (5, 90):
        x = draw(n, 2, 7, 7)
        x[1, 0, 2] = bad
        assert not math.isfinite(PROBES[name](x)), n


@pytest.mark.parametrize("name", PROBES)
def test_half_precision_and_autocast_are_measured_in_float32(name):
    x = draw(90, 3, 6, 6).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert PROBES[name](x) == pytest.approx(definition(name, x), rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("name", PROBES)
@pytest.mark.parametrize("x", [torch.ones(()), torch.ones(0, 3), torch.ones(2, 3).long()])
def test_what_cannot_be_measured_is_named(name, x):
    with pytest.raises(ValueError, match=r"x must be floating point of shape \(N, ...\)"):
        PROBES[name](x)
