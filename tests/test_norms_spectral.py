"""Brackets of spectral norms against dense matrices and SVDs, where they are hard to hold."""

import random

import pytest
import torch
from dense import ROUNDING, circular_matrix, operator_matrix
from torch import nn

from normkit.norms import singular_values, spectral_norm
from normkit.norms.davidson import random_starts, ritz_vector
from normkit.norms.elimination import _covered, candidates
from normkit.norms.hermitian import gram, indefinite, lanczos, ritz_rows
from normkit.norms.interpolation import Gram
from normkit.norms.maps import convolution_map
from normkit.norms.symbols import symbol_of


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
            for channel in range(min(weight.shape[:2])):
                weight.flatten(2)[channel, channel, -1] = 1.5
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


def test_brackets_of_trained_like_layers_hold_where_whole_neighborhoods_are_discarded():
    torch.manual_seed(0)
    for size, kernel, decay in [((32, 32), 3, 0.5), ((31, 20), 3, 2.0), ((64,), 5, 1.0)]:
        layer = (nn.Conv1d, nn.Conv2d)[len(size) - 1](30, 40, kernel, dtype=torch.float64)
        weight = layer.weight.detach()
        layer.weight.data = weight + decay * weight.mean(
            tuple(range(2, weight.dim())), keepdim=True
        )
        sigma = singular_values(layer, size).max().item()
        lower, upper = spectral_norm(layer, size, boundary="circular", rtol=1e-6)
        assert lower <= sigma * (1 + ROUNDING), size
        assert sigma <= upper <= lower * (1 + 1e-6), size


@pytest.mark.parametrize("grid, kernel", [((32, 32), 3), ((24, 33), 3), ((40, 40), 5), ((64,), 7)])
def test_a_discarded_neighborhood_never_holds_the_largest_norm(grid, kernel):
    torch.manual_seed(0)
    taps = torch.randn(24, 24, *(kernel,) * len(grid), dtype=torch.float64)
    fade = torch.randn(24, 24, *(1,) * len(grid), dtype=torch.float64)
    for strength in (0.0, 0.5, 2.0):
        linear = convolution_map(taps + strength * fade, grid, boundary="circular")
        values = Gram(symbol_of(linear, grid).reduced(), torch.float64)
        largest = torch.linalg.eigvalsh(values.at(torch.arange(len(values.frequencies))))[:, -1]
        level = largest.max().item()
        covered = _covered(values, torch.zeros(len(largest)), level, 0.0)
        assert not covered[largest >= level * (1 - 1e-9)].any(), (grid, strength)
        assert covered.any() or strength < 2, grid


@pytest.mark.parametrize("dilation, size", [((1, 1), (9, 8)), ((2, 3), (12, 9)), ((4, 1), (6, 2))])
def test_interpolated_gram_matrices_are_those_of_the_symbol(dilation, size):
    torch.manual_seed(0)
    weight = torch.randn(4, 6, 3, 2, dtype=torch.float64)
    linear = convolution_map(weight, size, dilation=dilation, boundary="circular")
    symbol = symbol_of(linear, size).reduced()
    values = Gram(symbol, torch.float64)
    blocks = torch.cat(list(symbol.at(values.frequencies, torch.float64)))[:, 0]
    wanted = blocks @ blocks.mH
    found = values.at(torch.arange(len(wanted)))
    assert (found - wanted).abs().max() <= 1e-13 * wanted.abs().max()
    rows = torch.randn(2, 4, dtype=torch.complex128)
    quotients = torch.einsum("ri,fij,rj->rf", rows, wanted, rows.conj()).real
    assert torch.allclose(values.quotients(rows), quotients, rtol=1e-12)
    assert values.error(1.0) < 1e-7


def test_a_lanczos_that_has_broken_down_does_not_fake_an_answer():
    torch.manual_seed(0)
    q = torch.linalg.qr(torch.randn(40, 40, dtype=torch.complex128))[0]
    spectrum = torch.cat([torch.ones(37), torch.tensor([2.0, 3.0, 5.0])]).double()
    matrix = ((q * spectrum) @ q.mH)[None]
    for start in (q[:, -1], q[:, -2], q[:, 0], q[:, 0] + q[:, -2]):
        for dtype in (torch.complex64, torch.complex128):
            unit = start.conj()[None].to(dtype)
            quotients, rows = lanczos(matrix.to(dtype), unit, 12)
            true = (rows @ matrix[0].to(dtype) @ rows.mH).real.item()
            assert quotients.item() == pytest.approx(true, rel=1e-6)
            assert quotients.item() <= 5 * (1 + 1e-6)
            values, _ = ritz_rows(matrix.to(dtype), unit, 12, 4)
            assert values.max() <= 5 * (1 + 1e-5), "noise became a direction"


def test_a_converged_start_leaves_the_iteration_at_once_and_fresh_starts_find_the_rest():
    torch.manual_seed(0)
    matrix = torch.diag(torch.cat([torch.linspace(0, 1, 300), torch.tensor([1.5])])).double()
    start = random_starts(301, matrix)
    start[:2] = torch.eye(301, dtype=torch.float64)[298:300]
    x = ritz_vector(lambda x: x @ matrix, start, 1e-8)[0]
    assert (x @ matrix @ x).item() == pytest.approx(1.5, rel=1e-8)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex64, torch.complex128])
def test_factorizations_tell_definite_from_indefinite_matrices(dtype):
    torch.manual_seed(0)
    for size in (3, 23, 24, 70):
        blocks = torch.randn(5, size, size + 9, dtype=dtype)
        products = gram(blocks)
        assert torch.allclose(products, blocks @ blocks.mH, rtol=1e-4)
        assert torch.allclose(gram(blocks.mT), products, rtol=1e-4)
        top = torch.linalg.eigvalsh(products)[:, -1]
        share = torch.tensor([0.9, 0.999, 1.001, 1.1, 2.0])
        shifted = (share * top).to(dtype)[:, None, None] * torch.eye(size, dtype=dtype) - products
        assert indefinite(shifted).tolist() == [True, True, False, False, False], size


def test_float32_elimination_keeps_the_frequency_of_the_largest_norm():
    torch.manual_seed(0)
    for channels in (5, 40):
        weight = torch.randn(channels, channels + 3, 3, 3)
        symbol = symbol_of(convolution_map(weight, (16, 18), boundary="circular"), (16, 18))
        values = Gram(symbol.reduced(), torch.float32)
        frequencies, rows, level = candidates(values, 0.0)
        blocks = torch.cat(list(symbol.at(values.frequencies, torch.float64)))[:, 0]
        norms = torch.linalg.matrix_norm(blocks, 2) ** 2
        assert values.frequencies[norms.argmax()].tolist() in frequencies.tolist()
        assert level <= norms.max() * (1 + 1e-5)
        assert len(rows) == len(frequencies)


def test_norms_at_the_ends_of_the_range_of_a_type_and_of_groups_far_apart():
    torch.manual_seed(0)
    layer = nn.Conv2d(8, 8, 3, bias=False)
    wanted = spectral_norm(layer, (6, 6), boundary="circular").lower
    for dtype, scale in [(torch.float32, 2.0**131), (torch.float32, 2.0**-120)]:
        other = nn.Conv2d(8, 8, 3, bias=False, dtype=dtype)
        other.weight.data = (layer.weight.data.double() * scale).to(dtype)
        found = spectral_norm(other, (6, 6), boundary="circular")
        assert found.lower == pytest.approx(wanted * scale, rel=1e-4), scale
    apart = nn.Conv2d(16, 16, 3, groups=2, bias=False).double()
    apart.weight.data[:8] *= 1e-161
    lower, upper = spectral_norm(apart, (9, 9), boundary="circular")
    assert lower <= singular_values(apart, (9, 9)).max() * (1 + ROUNDING) <= upper * (1 + 1e-9)


def test_rigorous_brackets_count_the_rounding_of_taps_that_fold_together():
    layer = nn.Conv1d(1, 1, 5, bias=False).double()
    layer.weight.data[:] = torch.tensor([1.0, 0.0, 1e-17, 0.0, -1.0])
    lower, upper = spectral_norm(layer, (2,), boundary="circular", rigorous=True)
    assert lower <= 1e-17 <= upper


def test_many_channels_on_a_tiny_map():
    torch.manual_seed(0)
    cases = [(nn.Conv1d(736, 736, 2), (3,)), *((nn.Conv2d(50, 60, 3), (4, 4)) for _ in range(20))]
    for layer, size in cases:
        sigma = singular_values(layer, size).max().item()
        lower, upper = spectral_norm(layer, size, boundary="circular", rtol=1e-4)
        assert lower <= sigma * (1 + 1e-9) and sigma <= upper, layer


def test_double_layers_are_measured_in_inference_mode():
    with torch.inference_mode():
        layer = nn.Conv2d(2, 2, 3).double()
        assert spectral_norm(layer, (5, 5)).lower > 0
        assert spectral_norm(layer, (12, 12)).lower > 0
        assert singular_values(layer, (5, 5), boundary="zero").max() > 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("boundary", ["zero", "circular"])
def test_a_cuda_device_gives_the_same_brackets(boundary):
    torch.manual_seed(0)
    layer = nn.Conv2d(40, 48, 3, padding=1)
    wanted = spectral_norm(layer, (24, 24), boundary=boundary)
    found = spectral_norm(layer.cuda(), (24, 24), boundary=boundary)
    assert found == pytest.approx(wanted, rel=2e-5)
