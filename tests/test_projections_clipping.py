"""Clipped singular values against explicit circulant matrices and plain transforms."""

import copy
import itertools
import math

import pytest
import torch
from dense import CONVOLUTIONS, ROUNDING, TRANSPOSED, circular_matrix
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations

from normkit import models
from normkit.norms import singular_values, spectral_norm
from normkit.norms.inputs import input_sizes, weighted_layers
from normkit.projections import clip_singular_values_


def torus_of(layer, size):
    """The size rounded up to a multiple of the stride that holds the kernel."""
    geometry = zip(size, layer.kernel_size, layer.stride, layer.dilation, strict=True)
    return tuple(s * math.ceil(max(n, d * (k - 1) + 1) / s) for n, k, s, d in geometry)


def dense_clip(matrix, bound):
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    return (u * s.clamp(max=bound)) @ v


def taps_of(matrix, layer, size):
    """The kernel of a circulant matrix: what its outputs at the origin read at the taps."""
    groups, (outputs, inputs) = layer.groups, layer.weight.shape[:2]
    coarse = [n // s for n, s in zip(size, layer.stride, strict=True)]
    rows = matrix.view(outputs, math.prod(coarse), groups * inputs, *size)[:, 0]
    taps = [[t * d for t in range(k)] for k, d in zip(layer.kernel_size, layer.dilation)]
    kernel = torch.stack([rows[(..., *place)] for place in itertools.product(*taps)], -1)
    parts = [part.narrow(1, g * inputs, inputs) for g, part in enumerate(kernel.chunk(groups))]
    return torch.cat(parts).view_as(layer.weight)


@st.composite
def convolutions(draw):
    dims, groups = draw(st.sampled_from((1, 1, 2, 2, 3))), draw(st.integers(1, 2))
    each = st.tuples(*[st.integers(1, 3 if dims < 3 else 2)] * dims)
    options = {"groups": groups, "stride": draw(each), "dilation": draw(each)}
    options["padding"] = tuple(n - 1 for n in draw(each))
    channels = [groups * draw(st.integers(1, 3)) for _ in range(2)]
    torch.manual_seed(draw(st.integers(0, 2**20)))
    layer = CONVOLUTIONS[dims - 1](*channels, draw(each), **options).double()
    nn.init.normal_(layer.weight)
    most = (11, 5, 3)[dims - 1]
    return layer, draw(st.tuples(*[st.integers(1, most)] * dims))


@settings(max_examples=200, deadline=None)
@given(convolutions(), st.sampled_from((0.2, 1.0, 3.0)))
def test_clipping_is_that_of_the_circulant_matrix_cut_to_the_taps(drawn, bound):
    layer, size = drawn
    try:
        layer(torch.zeros(1, layer.in_channels, *size, dtype=torch.float64))
    except RuntimeError:
        return
    torus = torus_of(layer, size)
    matrix = circular_matrix(layer, torus)
    wanted = taps_of(dense_clip(matrix, bound), layer, torus)
    (row,) = clip_singular_values_(layer, bound, (layer.in_channels, *size)).itertuples()
    case = (layer, size, bound)
    assert torch.allclose(layer.weight, wanted, atol=1e-9, rtol=0), case
    norms = [
        torch.linalg.matrix_norm(x, 2).item() for x in (matrix, circular_matrix(layer, torus))
    ]
    assert (row.before, row.after) == pytest.approx(norms, rel=1e-6, abs=1e-12), case
    assert row.clipped == min(bound, row.before) and row.rounds == (row.before > bound), case


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_a_transposed_convolution_is_clipped_as_the_convolution_it_transposes(dims):
    torch.manual_seed(0)
    options = {"stride": 2, "groups": 2, "dilation": 3}
    transposed = TRANSPOSED[dims - 1](4, 6, 3, **options).double()
    plain = CONVOLUTIONS[dims - 1](6, 4, 3, **options).double()
    plain.weight.data = transposed.weight.data.clone()
    size = (5, 4, 4)[:dims]
    one = clip_singular_values_(transposed, 0.4, (4, *size))
    other = clip_singular_values_(plain, 0.4, (6, *(2 * n for n in size)))
    assert torch.allclose(plain.weight, transposed.weight, atol=1e-12)
    assert one.before.item() == pytest.approx(other.before.item()) and one.rounds.item() == 1


def plain_clip(layer, size, bound):
    """As it is usually written: transform, SVD at all frequencies, back, cut. Stride 1."""
    dims = tuple(range(len(size)))
    kernel = layer.weight.detach().double().movedim((0, 1), (-2, -1))
    clipped = dense_clip_batch(torch.fft.fftn(kernel, size, dims), bound)
    kernel = torch.fft.ifftn(clipped, dim=dims).real
    for dim, taps in enumerate(layer.kernel_size):
        kernel = kernel.narrow(dim, 0, taps)
    return kernel.movedim((-2, -1), (0, 1))


def dense_clip_batch(matrices, bound):
    u, s, v = torch.linalg.svd(matrices, full_matrices=False)
    return (u * s.clamp(max=bound).unsqueeze(-2).to(u)) @ v


@pytest.mark.parametrize("channels", [(40, 52), (52, 40)])
@pytest.mark.parametrize("share", [0.001, 0.1, 0.6, 0.95])
def test_many_channels_are_clipped_as_by_a_full_decomposition(channels, share):
    torch.manual_seed(0)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-6)):
        layer = nn.Conv2d(*channels, (3, 5), padding=1, dtype=dtype)
        start = layer.weight.norm().item()
        norm = spectral_norm(layer, (9, 12), boundary="circular").lower
        wanted = plain_clip(layer, (9, 12), share * norm)
        table = clip_singular_values_(layer, share * norm, (channels[0], 9, 12))
        assert (layer.weight - wanted).norm() <= tolerance * start, (dtype, share)
        after = singular_values(layer, (9, 12)).max().item()
        assert table.before.item() == pytest.approx(norm, rel=1e-5)
        assert table.after.item() == pytest.approx(after, rel=1e-5)
        if share == 0.6:
            assert after > share * norm  # what truncation brings back


def test_what_is_under_the_bound_stays_bit_for_bit():
    torch.manual_seed(0)
    for channels in (5, 40):
        layer = nn.Conv2d(channels, channels + 3, 3, padding=1)
        weight = layer.weight.detach().clone()
        norm = singular_values(layer, (8, 7)).max().item()
        table = clip_singular_values_(layer, 1.001 * norm, (channels, 8, 7))
        assert torch.equal(layer.weight, weight) and table.rounds.item() == 0
        assert table[["before", "clipped", "after"]].values[0] == pytest.approx(norm, rel=1e-5)


def test_a_linear_layer_and_a_kernel_as_large_as_the_map_lose_nothing_and_need_one_round():
    torch.manual_seed(0)
    for layer, shape, size in (
        (nn.Linear(7, 12), (7,), None),
        (nn.Conv2d(4, 5, 1, 2), (4, 9, 9), (10, 10)),
        (nn.Conv2d(3, 4, (5, 6), padding=(3, 3)), (3, 5, 6), (5, 6)),
        (nn.Conv2d(3, 8, 4, 4), (3, 8, 12), (8, 12)),
    ):
        layer = layer.double()
        table = clip_singular_values_(layer, 0.3, shape)
        assert table.after.item() == pytest.approx(0.3, rel=1e-6) and table.rounds.item() == 1
        assert singular_values(layer, size).max().item() == pytest.approx(0.3, rel=1e-9)
        weight = layer.weight.detach().clone()
        clip_singular_values_(layer, 0.3, shape)
        assert torch.allclose(layer.weight, weight, atol=1e-10), layer


def test_one_clipping_brings_no_two_kernels_further_apart_and_is_no_further_than_the_bound():
    torch.manual_seed(0)
    for scale in (1.0, 0.1, 1e-3):
        one, other = (nn.Conv2d(4, 6, 3, stride=2, padding=1).double() for _ in range(2))
        other.weight.data = one.weight.data + scale * torch.randn_like(one.weight)
        apart = (one.weight - other.weight).norm()
        for layer in (one, other):
            clip_singular_values_(layer, 0.3, (4, 8, 8))
        assert (one.weight - other.weight).norm() <= apart * (1 + ROUNDING)


@pytest.mark.parametrize("alternate", [1, 3, 200])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_alternating_ends_at_the_bound(alternate, dtype):
    torch.manual_seed(0)
    for layer in (
        nn.Conv2d(5, 7, 3, padding=1),
        nn.Conv1d(6, 4, 5, stride=2),
        nn.Conv2d(36, 40, 3),
    ):
        size = (9, 8)[: layer.weight.dim() - 2]
        layer = layer.to(dtype)
        table = clip_singular_values_(layer, 0.4, (layer.in_channels, *size), alternate=alternate)
        found = singular_values(layer, torus_of(layer, size)).max().item()
        assert found <= 0.4 * (1 + 2e-6) and table.after.item() <= 0.4 * (1 + 2e-6), layer
        assert found >= 0.4 * (1 - 1e-4), layer
        assert 1 <= table.rounds.item() <= alternate
        assert (table.factor.item() < 1) == (table.rounds.item() == alternate), table


def test_more_rounds_come_nearer_before_the_layer_is_scaled():
    torch.manual_seed(0)
    start = nn.Conv2d(8, 8, 3, padding=1).double()
    factors = []
    for alternate in (1, 2, 5, 20):
        layer = copy.deepcopy(start)
        table = clip_singular_values_(layer, 0.4, (8, 8, 8), alternate=alternate)
        factors.append(table.factor.item())
    assert factors == sorted(factors) and 0.5 < factors[0] < factors[-1] <= 1.0, factors


def test_every_layer_of_a_network_is_clipped_and_the_table_tells_the_norms():
    torch.manual_seed(0)
    model = models.build("resnet8", width=8, in_channels=1, input_size=(8, 8))
    table = clip_singular_values_(model, 0.5, (1, 8, 8), alternate=5)
    assert set(table.status) == {"ok"} and (table.before > 0.5).sum() > 5 and model.training
    layers = dict(weighted_layers(model))
    sizes = input_sizes(model, layers, (1, 8, 8))
    for row in table.itertuples():
        layer, size = layers[row.layer], sizes[row.layer]
        torus = torus_of(layer, size) if row.kind == "conv" else size
        found = singular_values(layer, torus).max().item()
        assert row.after == pytest.approx(found, rel=2e-6) and found <= 0.5 * (1 + 2e-6), row


def test_extreme_weights_and_bounds_are_clipped_like_others():
    torch.manual_seed(0)
    start = nn.Conv2d(4, 4, 3)
    plain = copy.deepcopy(start)
    clip_singular_values_(plain, 0.3, (4, 6, 6))
    for scale in (2.0**80, 2.0**-80):
        layer = copy.deepcopy(start)
        layer.weight.data *= scale
        clip_singular_values_(layer, 0.3 * scale, (4, 6, 6))
        assert torch.allclose(layer.weight / scale, plain.weight, atol=1e-6), scale
    table = clip_singular_values_(start, 1e300, (4, 6, 6))
    assert table.rounds.item() == 0
    nn.init.zeros_(start.weight)
    assert clip_singular_values_(start, 1e-300, (4, 6, 6)).after.item() == 0.0


def test_half_precision_channels_last_and_frozen_weights_are_clipped():
    torch.manual_seed(0)
    start = nn.Conv2d(4, 6, 3, padding=1)
    plain = copy.deepcopy(start)
    clip_singular_values_(plain, 0.3, (4, 6, 7))
    last = copy.deepcopy(start).to(memory_format=torch.channels_last).requires_grad_(False)
    half = copy.deepcopy(start).bfloat16()
    for layer, tolerance in ((last, 1e-6), (half, 1e-2)):
        clip_singular_values_(layer, 0.3, (4, 6, 7))
        assert torch.allclose(layer.weight.float(), plain.weight, atol=tolerance)


def test_a_layer_that_is_never_called_keeps_its_weights_and_its_row():
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Conv1d(1, 1, 3), nn.Conv1d(1, 1, 3)

        def forward(self, x):
            return self.used(x)

    model = Half()
    weight = model.unused.weight.detach().clone()
    table = clip_singular_values_(model, 1e-3, (1, 8))
    assert table.status.tolist()[0] == "ok" and "never called" in table.status.tolist()[1]
    assert math.isnan(table.after[1]) and torch.equal(model.unused.weight, weight)


def test_wrong_arguments_are_refused_before_anything_changes():
    layer = nn.Conv2d(3, 4, 3)
    weight = layer.weight.detach().clone()
    for bound in (0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="bound .* is not a finite number above 0"):
            clip_singular_values_(layer, bound, (3, 8, 8))
    for alternate in (-1, 1.5, True, None):
        with pytest.raises(ValueError, match="alternate .* is not a whole number"):
            clip_singular_values_(layer, 0.1, (3, 8, 8), alternate=alternate)
    for size in ((2, 8, 8), (3, 2, 2), None, "32"):
        with pytest.raises(ValueError, match="input_size .*Conv2d"):
            clip_singular_values_(layer, 0.1, size)
    with pytest.raises(ValueError, match="no convolution or linear layer"):
        clip_singular_values_(nn.ReLU(), 0.1, (3, 8, 8))
    with pytest.raises(TypeError, match="model is a Tensor"):
        clip_singular_values_(torch.ones(2, 2), 0.1, (3, 8, 8))
    computed = nn.Sequential(layer, parametrizations.spectral_norm(nn.Conv2d(4, 4, 3)))
    with pytest.raises(ValueError, match="'1' .*computes its weight.*spectral"):
        clip_singular_values_(computed, 0.1, (3, 8, 8))
    broken = nn.Sequential(layer, nn.Conv2d(4, 4, 3))
    broken[1].weight.data[0] = math.inf
    with pytest.raises(ValueError, match="'1': .*36 non-finite"):
        clip_singular_values_(broken, 0.1, (3, 8, 8))
    assert torch.equal(layer.weight, weight)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_cuda_device_clips_the_same():
    torch.manual_seed(0)
    here = models.build("resnet8", width=24)
    there = copy.deepcopy(here).cuda()
    tables = [clip_singular_values_(model, 1.0, (3, 32, 32)) for model in (here, there)]
    assert tables[0].after.tolist() == pytest.approx(tables[1].after.tolist(), rel=1e-4)
    for one, other in zip(here.parameters(), there.parameters(), strict=True):
        assert torch.allclose(one, other.cpu(), atol=1e-4)
