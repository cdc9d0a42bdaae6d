"""Brackets of spectral norms against dense matrices and SVDs, where they are hard to hold."""

import random

import pytest
import torch
from dense import circular_matrix, operator_matrix
from torch import nn

from normkit.norms import singular_values, spectral_norm
from normkit.norms.elimination import Gram
from normkit.norms.hermitian import gram, indefinite, lanczos
from normkit.norms.lanczos import random_starts, ritz_vector
from normkit.norms.maps import convolution_map
from normkit.norms.symbols import symbol_of

ROUNDING = 1e-12


def fill(rng, weight):
    """Weights of every kind that has fooled an iteration, in place; the name of the kind."""
    kind = rng.choice(
        ("normal", "normal", "rank_one", "positive", "huge", "tiny", "repeated", "zero", "delta")
    )
    with torch.no_grad():
        weight.normal_()
        if kind == "rank_one":
            weight.copy_(weight[:, :1].sum(1, keepdim=True) * weight[:1].sum(0, keepdim=True))
        elif kind == "positive":
            weight.abs_()
        elif kind in ("huge", "tiny"):
            weight.mul_(1e30 if kind == "huge" else 1e-30)
        elif kind == "repeated":
            nn.init.zeros_(weight)
            taps = weight.flatten(2)
            for channel in range(min(weight.shape[:2])):
                taps[channel, channel, -1] = 1.5
        elif kind == "zero":
            weight.zero_()
        elif kind == "delta":
            weight.mul_(1e-3).flatten()[rng.randrange(weight.numel())] = 1.0
    return kind


def random_layer(rng, wide):
    """A convolution of random geometry and weights, and a spatial input size it runs on."""
    dims = rng.choice((1, 2, 2, 2, 3))
    groups = rng.choice((1, 1, 1, 2, 3))
    most = {1: 40, 2: 26, 3: 4}[dims] if wide else {1: 6, 2: 4, 3: 2}[dims]
    channels = [groups * rng.randint(1, max(1, most // groups)) for _ in range(2)]

    def draw(low, high):
        return tuple(rng.randint(low, high) for _ in range(dims))

    stride, kernel = draw(1, rng.choice((1, 2, 3))), draw(1, 4)
    size = draw(2, {1: 20, 2: 6, 3: 3}[dims])
    options = {"stride": stride, "groups": groups, "dilation": draw(1, rng.choice((1, 2)))}
    options["padding_mode"] = rng.choice(("zeros", "zeros", "zeros", "circular", "reflect"))
    options["padding"] = tuple(rng.randint(0, k) for k in kernel)
    dtype = rng.choice((torch.float32, torch.float64))
    make = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
    layer = make(*channels, kernel, bias=False, dtype=dtype, **options)
    return layer, size, fill(rng, layer.weight)


def relative(layer, matrix):
    """The largest singular value, and what rounding in the weights' type may hide of it."""
    sigma = torch.linalg.matrix_norm(matrix, 2).item()
    return sigma, sigma * ROUNDING


@pytest.mark.parametrize("seed", range(6))
def test_circular_brackets_hold_the_norm_and_are_as_narrow_as_asked(seed):
    rng = random.Random(seed)
    torch.manual_seed(seed)
    for case in range(100):
        layer, size, kind = random_layer(rng, wide=case % 2)
        size = tuple(s * -(-n // s) for n, s in zip(size, layer.stride, strict=True))
        rtol, rigorous = rng.choice((1e-3, 1e-5, 1e-6)), rng.random() < 0.3
        values = singular_values(layer, size)
        sigma = values.max().item()
        lower, upper = spectral_norm(
            layer, size, boundary="circular", rtol=rtol, rigorous=rigorous
        )
        slack = 0.0 if rigorous else sigma * ROUNDING
        assert lower - slack <= sigma <= upper + slack, (layer, size, kind)
        assert upper <= lower * (1 + rtol) + sigma * ROUNDING, (layer, size, kind, rigorous)
        if case % 10 == 0 and values.numel() < 2000:
            dense = torch.linalg.matrix_norm(circular_matrix(layer, size), 2).item()
            assert sigma == pytest.approx(dense, rel=1e-10, abs=0), (layer, size, kind)


@pytest.mark.parametrize("seed", range(6))
def test_executed_brackets_hold_the_norm_and_converge(seed):
    rng = random.Random(100 + seed)
    torch.manual_seed(seed)
    cases = 0
    while cases < 70:
        layer, size, kind = random_layer(rng, wide=cases % 2)
        rtol, rigorous = rng.choice((1e-3, 1e-5, 1e-6)), rng.random() < 0.3
        try:
            matrix = operator_matrix(layer.double(), (layer.in_channels, *size))
        except RuntimeError:
            continue
        cases += 1
        sigma = torch.linalg.matrix_norm(matrix, 2).item()
        lower, upper = spectral_norm(layer, size, rtol=rtol, rigorous=rigorous)
        slack = 0.0 if rigorous else sigma * ROUNDING
        assert lower - slack <= sigma <= upper + slack, (layer, size, kind, rigorous)
        assert sigma <= lower * (1 + rtol) + sigma * ROUNDING, (layer, size, kind, rtol)
