"""The norms of a layer against the dense matrix of its operator."""

import random

import pytest
import torch
from dense import CONVOLUTIONS, ROUNDING, TRANSPOSED, circular_matrix, operator_matrix
from torch import nn

from normkit.norms import (
    frobenius_norm,
    l1_norm,
    linf_norm,
    singular_values,
    spectral_norm,
    stable_rank,
)


def random_layer(rng, *, transposed=False, most=7):
    """A convolution of random geometry in float64, and a spatial input size."""
    dims = rng.choice((1, 2, 2, 2, 3))
    groups = rng.choice((1, 1, 2, 3))
    channels = [groups * rng.randint(1, 3) for _ in range(2)]

    def draw(low, high):
        return tuple(rng.randint(low, high) for _ in range(dims))

    kernel, stride, dilation, padding = draw(1, 4), draw(1, 3), draw(1, 2), draw(0, 3)
    options = {"padding_mode": rng.choice(("zeros", "zeros", "circular", "reflect", "replicate"))}
    if transposed:
        extra = [rng.randint(0, max(pair) - 1) for pair in zip(stride, dilation, strict=True)]
        options = {"output_padding": tuple(extra)}
    elif rng.random() < 0.2:
        padding, stride, kernel = "same", (1,) * dims, tuple(2 * (k // 2) + 1 for k in kernel)
    make = (TRANSPOSED if transposed else CONVOLUTIONS)[dims - 1]
    options |= {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    size = draw(1, most if dims < 3 else 4)
    return make(*channels, kernel, dtype=torch.float64, **options), size


def measurable(seed, count, **options):
    """Layers that run on their input, with their dense matrix; those that do not are refused."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    while count:
        layer, size = random_layer(rng, **options)
        try:
            matrix = operator_matrix(layer, (layer.in_channels, *size))
        except RuntimeError:
            with pytest.raises(ValueError, match="input_size"):
                l1_norm(layer, size)
            continue
        count -= 1
        yield layer, size, matrix


@pytest.mark.parametrize("transposed", [False, True])
def test_brackets_hold_the_norm_of_the_dense_matrix(transposed):
    for layer, size, matrix in measurable(10, 60, transposed=transposed):
        sigma = torch.linalg.matrix_norm(matrix, 2).item()
        lower, upper = spectral_norm(layer, size)
        slack = ROUNDING * (1 + sigma)
        assert lower - slack <= sigma <= upper + slack, (layer, size)
        assert sigma <= lower * (1 + 1e-5) + slack, (layer, size)
        lower, upper = spectral_norm(layer, size, rigorous=True)
        assert lower <= sigma <= upper, (layer, size)


def test_brackets_hold_and_converge_where_no_dense_matrix_is_used():
    rng = random.Random(0)
    torch.manual_seed(0)
    for case in range(24):
        groups, stride = rng.choice((1, 1, 2, 8)), rng.choice((1, 1, 2))
        mode = rng.choice(("zeros", "zeros", "circular", "reflect"))
        layer = nn.Conv2d(8, 16, 3, stride, 2, groups=groups, padding_mode=mode).double()
        if case % 2:
            nn.init.dirac_(layer.weight, groups)
            layer.weight.data += 1e-2 * torch.randn_like(layer.weight)
        size = (rng.randint(6, 7), 7)
        sigma = torch.linalg.matrix_norm(operator_matrix(layer, (8, *size)), 2).item()
        for rigorous in (False, True):
            lower, upper = spectral_norm(layer, size, rtol=1e-4, rigorous=rigorous)
            assert sigma * (1 - 1e-4) <= lower <= sigma * (1 + ROUNDING), (layer, size)
            assert sigma <= upper <= 2 * sigma, (layer, size)


def test_taps_that_cancel_on_the_torus_of_the_input_do_not_fool_the_upper_end():
    torch.manual_seed(0)
    layer = nn.Conv2d(72, 72, 3, padding=1, dtype=torch.float64)
    layer.weight.data -= layer.weight.data.flip(2, 3)
    sigma = torch.linalg.matrix_norm(operator_matrix(layer, (72, 2, 2)), 2).item()
    lower, upper = spectral_norm(layer, (2, 2), rigorous=True)
    assert spectral_norm(layer, (2, 2), boundary="circular").upper < 1e-12
    assert lower < sigma < upper


def test_two_nearly_equal_singular_values_do_not_hide_one_another():
    torch.manual_seed(0)
    for gap in (1e-3, 1e-4, 3e-5):
        one = nn.Conv2d(8, 8, 3, padding=1, dtype=torch.float64)
        two = nn.Conv2d(16, 16, 3, padding=1, groups=2, dtype=torch.float64)
        two.weight.data = torch.cat([one.weight.data, (1 + gap) * one.weight.data])
        sigma = (1 + gap) * torch.linalg.matrix_norm(operator_matrix(one, (8, 6, 7)), 2).item()
        lower = spectral_norm(two, (6, 7)).lower
        assert sigma * (1 - 1e-5) <= lower <= sigma * (1 + ROUNDING), gap


@pytest.mark.parametrize("seed", range(2))
def test_circular_norms_equal_the_dense_circulant(seed):
    rng = random.Random(seed)
    torch.manual_seed(seed)
    for _ in range(40):
        layer, size = random_layer(rng, most=6)
        size = tuple(s * -(-n // s) for n, s in zip(size, layer.stride, strict=True))
        matrix = circular_matrix(layer, size)
        wanted = torch.linalg.svdvals(matrix)
        found = singular_values(layer, size)
        assert (found.diff(dim=1) <= 0).all()
        found = found.flatten().sort(descending=True).values
        assert torch.allclose(found, wanted, rtol=0, atol=1e-12 * wanted[0]), (layer, size)
        lower, upper = spectral_norm(layer, size, boundary="circular", rtol=1e-4, rigorous=True)
        assert lower <= wanted[0] <= upper, (layer, size)
        lower, upper = spectral_norm(layer, size, boundary="circular", rtol=1e-4)
        assert upper <= lower * (1 + 1e-4), (layer, size)
        frobenius = frobenius_norm(layer, size, "circular").item()
        assert frobenius == pytest.approx(matrix.norm().item(), rel=ROUNDING), (layer, size)
        low, high = stable_rank(layer, size, boundary="circular", rtol=1e-4)
        rank = (matrix.norm() / wanted[0]).item() ** 2
        assert low * (1 - ROUNDING) <= rank <= high * (1 + ROUNDING), (layer, size)


def test_singular_values_as_executed_equal_the_dense_matrix():
    for layer, size, matrix in measurable(20, 30):
        values = singular_values(layer, size, boundary="zero")[0]
        assert torch.allclose(values, torch.linalg.svdvals(matrix), atol=ROUNDING), (layer, size)


def test_singular_values_of_a_fully_connected_layer_are_those_of_its_weight():
    layer = nn.Linear(7, 5, dtype=torch.float64)
    wanted = torch.linalg.svdvals(layer.weight.detach())[None]
    for boundary in ("zero", "circular"):
        assert torch.allclose(singular_values(layer, None, boundary=boundary), wanted)


def test_a_large_fully_connected_layer_is_bracketed_without_solving_it():
    torch.manual_seed(0)
    layer = nn.Linear(600, 700, dtype=torch.float64)
    sigma = torch.linalg.matrix_norm(layer.weight, 2).item()
    lower, upper = spectral_norm(layer, None)
    assert lower <= sigma * (1 + ROUNDING)
    assert sigma <= upper <= lower * (1 + 1e-5)


def test_batch_norm_is_the_diagonal_of_its_evaluation():
    torch.manual_seed(0)
    layer = nn.BatchNorm2d(5, dtype=torch.float64)
    layer(torch.randn(8, 5, 4, 3, dtype=torch.float64))
    nn.init.normal_(layer.weight)
    scale = (layer.weight / (layer.running_var + layer.eps).sqrt()).abs().max().item()
    for size in (None, (4, 3)):
        assert l1_norm(layer, size).item() == pytest.approx(scale, rel=ROUNDING)
        assert linf_norm(layer, size).item() == pytest.approx(scale, rel=ROUNDING)
        assert spectral_norm(layer, size) == pytest.approx((scale, scale), rel=ROUNDING)
    layer.eval()
    matrix = operator_matrix(layer, (5, 4, 3))
    assert frobenius_norm(layer, (4, 3)).item() == pytest.approx(matrix.norm().item())


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_norms_are_homogeneous_over_the_range_of_float32(scale):
    torch.manual_seed(0)
    layer, other = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
    other.weight.data = layer.weight.data * scale
    for boundary in ("zero", "circular"):
        wanted = spectral_norm(layer, (8, 8), boundary=boundary)
        found = spectral_norm(other, (8, 8), boundary=boundary)
        assert found == pytest.approx([scale * end for end in wanted], rel=1e-5)


@pytest.mark.parametrize("layer", [nn.Conv2d(3, 4, 3), nn.Linear(3, 4), nn.BatchNorm2d(4)])
def test_zero_weights_have_norm_zero(layer):
    nn.init.zeros_(layer.weight)
    size = (5, 6)
    assert l1_norm(layer, size) == linf_norm(layer, size) == frobenius_norm(layer, size) == 0
    assert spectral_norm(layer, size) == stable_rank(layer, size) == (0.0, 0.0)
    assert not singular_values(layer, size).any()


def test_measuring_leaves_the_global_generator_alone_and_repeats_exactly():
    layer = nn.Conv2d(16, 16, 3, padding=1)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    assert spectral_norm(layer, (8, 8)) == spectral_norm(layer, (8, 8))
    assert torch.equal(state, torch.get_rng_state())
    with torch.inference_mode():
        assert spectral_norm(layer, (8, 8)).lower > 0
