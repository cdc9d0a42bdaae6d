"""ONI and OWN against their formulas, the polar factor, and the nets that they stand in."""

import copy
import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from normkit import models, norms
from normkit.layers.orthogonal import OrthogonalRows, oni, orthonormalized, own, stretched

SHAPES = [(4, 9), (8, 9), (7, 7), (9, 4), (2, 3, 8), (2, 8, 3)]
KINDS = {"oni": oni, "released": partial(oni, variant="released"), "own": own}


def features(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def centered(rows):
    return rows - rows.mean(-1, keepdim=True)


def polar(rows):
    """The nearest matrix with orthonormal rows or columns, without what has no length."""
    u, s, vh = torch.linalg.svd(centered(rows), full_matrices=False)
    return u * (s > 1e-9).to(s).unsqueeze(-2) @ vh


def written_out(matrix, iterations, divided=True):
    """The iteration as Huang et al. write it, with the matrix B, in numpy."""
    z = centered(matrix).numpy()
    tall = z.shape[0] > z.shape[1]
    z = z.T if tall else z
    s = z @ z.T
    norm = np.sqrt((s**2).sum())
    b = np.eye(len(s))
    for _ in range(iterations):
        b = 1.5 * b - 0.5 * b @ b @ b @ (s / norm if divided else s)
    w = b @ z / np.sqrt(norm)
    return torch.from_numpy(w.T if tall else w)


@pytest.mark.parametrize("shape", [s for s in SHAPES if len(s) == 2])
@pytest.mark.parametrize("iterations", [0, 1, 3, 5])
def test_oni_is_the_iteration_of_its_paper(shape, iterations):
    rows = features(*shape)
    expected = written_out(rows, iterations)
    # Written with B, the rounding of one step grows in the next ones.
    torch.testing.assert_close(stretched(rows, iterations), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("shape", SHAPES)
def test_as_released_only_columns_lack_their_division(shape):
    rows = features(*shape) / 6
    found, paper = (stretched(rows, 5, variant=v) for v in ("released", "paper"))
    if shape[-2] <= shape[-1]:
        assert torch.equal(found, paper)
        return
    for one, expected in zip(rows.reshape(-1, *shape[-2:]), found.reshape(-1, *shape[-2:])):
        torch.testing.assert_close(written_out(one, 5, divided=False), expected)
    z = centered(rows)
    length = torch.linalg.matrix_norm(z.mT @ z, keepdim=True).sqrt()
    limit = stretched(rows, 40, variant="released") * length
    torch.testing.assert_close(limit, polar(rows), rtol=0, atol=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_many_iterations_lead_to_the_nearest_orthogonal_matrix(shape):
    rows = features(*shape)
    torch.testing.assert_close(stretched(rows, 30), polar(rows), rtol=0, atol=1e-9)


def test_singular_values_rise_to_1_and_never_above():
    rows = features(6, 20)
    values = torch.stack([torch.linalg.svdvals(stretched(rows, n)) for n in range(8)])
    assert (values > 0).all() and (values <= 1 + 1e-12).all()
    assert (values.diff(dim=0) > -1e-12).all()


@pytest.mark.parametrize("shape", [(4, 9), (2, 5, 8), (1, 2), (3, 4)])
def test_own_is_the_polar_factor(shape):
    rows = features(*shape)
    found = orthonormalized(rows, eps=0.0)
    torch.testing.assert_close(found, polar(rows), rtol=0, atol=1e-9)
    eye = torch.eye(shape[-2], dtype=torch.float64).expand_as(found @ found.mT)
    torch.testing.assert_close(found @ found.mT, eye, rtol=0, atol=1e-9)


@pytest.mark.parametrize("function", [orthonormalized, partial(stretched, iterations=3)])
def test_the_matrix_alone_counts_and_not_its_scale_or_offset(function):
    rows = features(4, 9)
    torch.testing.assert_close(function(5 * rows - 2), function(rows), rtol=0, atol=1e-5)


EQUAL = torch.linalg.qr(centered(features(3, 7)).T)[0].T.contiguous()


@pytest.mark.parametrize("rows", [features(3, 7), EQUAL, features(2, 3, 5)])
def test_gradients_are_those_of_the_function_also_where_eigenvalues_are_equal(rows):
    rows = rows.clone().requires_grad_()
    assert torch.autograd.gradcheck(orthonormalized, rows)
    for variant in ("paper", "released"):
        step = partial(stretched, iterations=3, variant=variant)
        assert torch.autograd.gradcheck(step, rows)
        assert torch.autograd.gradcheck(step, rows.detach().mT.contiguous().requires_grad_())


def test_second_derivatives_of_own_are_refused_and_not_wrong():
    rows = features(3, 7).requires_grad_()
    (gradient,) = torch.autograd.grad(orthonormalized(rows).sum(), rows, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.parametrize("function", [orthonormalized, partial(stretched, iterations=3)])
@pytest.mark.parametrize("shape", [(3, 7), (7, 3)])
def test_equal_weights_give_zero_with_a_finite_gradient(function, shape):
    rows = torch.full(shape, 0.7, dtype=torch.float64, requires_grad=True)
    found = function(rows)
    found.square().sum().backward()
    assert found.abs().max() < 1e-6
    assert rows.grad.isfinite().all()


CASES = [(1, 8, 3, {}), (3, 64, 3, {}), (8, 16, 1, {}), (16, 16, 1, {}), (6, 4, (3, 1), {})]
CASES += [(6, 8, 3, {"groups": 2}), (4, 8, 3, {"groups": 4, "stride": 2})]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_every_convolution_keeps_its_contract(kind, dtype, case):
    torch.manual_seed(1)
    channels, outputs, size, options = case

    def made():
        return KINDS[kind](channels, outputs, size, padding=1, bias=True, **options).to(dtype)

    layer, x = made(), features(3, channels, 6, 5).to(dtype)
    plain = nn.Conv2d(channels, outputs, size, padding=1, bias=True, **options).to(dtype)
    y = layer(x)
    assert y.shape == plain(x).shape and y.dtype == dtype
    (y * features(*y.shape, seed=1).to(dtype)).sum().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad.isfinite().all() and parameter.grad.any(), name
    assert not layer.bias.any()
    assert layer.parametrizations.weight[0].scale.tolist() == pytest.approx([2**0.5] * outputs)

    state = copy.deepcopy(layer.state_dict())
    layer.eval()
    assert torch.equal(layer(x), layer(x)) and torch.equal(layer(x), y)
    assert all(torch.equal(value, state[key]) for key, value in layer.state_dict().items())
    other = made().eval()
    other.load_state_dict(state)
    assert torch.equal(other(x), y)
    assert torch.equal(copy.deepcopy(layer)(x), y)


@pytest.mark.parametrize("kind", KINDS)
def test_the_groups_of_a_convolution_are_convolutions_side_by_side(kind):
    torch.manual_seed(0)
    whole = KINDS[kind](6, 8, 3, stride=2, padding=1, bias=True, groups=2).double()
    parts = [KINDS[kind](3, 4, 3, stride=2, padding=1, bias=True).double() for _ in range(2)]
    for i, part in enumerate(parts):
        part.load_state_dict({k: v.chunk(2)[i] for k, v in whole.state_dict().items()})
    x = features(2, 6, 7, 5)
    expected = torch.cat([part(half) for part, half in zip(parts, x.chunk(2, 1), strict=True)], 1)
    torch.testing.assert_close(whole(x), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("channels", "outputs", "kernel", "options", "size"),
    [
        (64, 128, 3, {}, 64),
        (64, 96, 3, {}, 48),
        (3, 64, 3, {}, 16),
        (8, 16, 1, {}, 4),
        (16, 16, 1, {}, 8),
        (2, 5, 1, {}, 1),
        (1, 8, 3, {}, 8),
        (64, 12, 3, {"group_size": 5}, 4),
        (8, 32, 3, {"groups": 4}, 8),
        (4, 4, 3, {"groups": 4}, 1),
    ],
)
def test_groups_of_rows_are_as_large_as_they_may_be(channels, outputs, kernel, options, size):
    layer = own(channels, outputs, kernel, **options)
    assert layer.parametrizations.weight[0].blocks == outputs // size
    blocks = layer.weight.detach().flatten(1).unflatten(0, (-1, size))
    eye = 2 * torch.eye(size).expand(len(blocks), -1, -1)
    torch.testing.assert_close(blocks @ blocks.mT, eye, rtol=0, atol=0.02)


def test_rows_are_multiplied_by_their_scale():
    parts = OrthogonalRows(orthonormalized, 4, blocks=2, scale=1.0).double()
    weight = features(4, 2, 3, 3)
    with torch.no_grad():
        parts.scale.copy_(torch.tensor([1.0, -2.0, 3.0, 0.5]))
    lengths = parts(weight).flatten(1).norm(dim=1)
    assert lengths.tolist() == pytest.approx([1, 2, 3, 0.5], rel=1e-5)


@pytest.mark.parametrize("kind", ["oni", "own"])
def test_its_operator_is_measured_and_stretches_by_no_more_than_scale_and_kernel_allow(kind):
    torch.manual_seed(0)
    net = nn.Sequential(KINDS[kind](6, 5, 3, padding=1), nn.ReLU(), KINDS[kind](5, 4, 1))
    table = norms.layer_table(net.double(), (6, 7, 5), norms="spectral")
    assert (table.status == "ok").all()
    assert 1 < table.value[0] <= math.sqrt(2) * 3
    assert table.value[1] <= math.sqrt(2) * (1 + 1e-9)
    assert table.value[1] > math.sqrt(2) * (0.99 if kind == "oni" else 1 - 1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_residual_net_trains_with_it(kind):
    torch.manual_seed(0)
    net = models.build("resnet8", width=8, input_size=(9, 6), convolution=KINDS[kind])
    optimizer, losses = torch.optim.SGD(net.parameters(), lr=0.1), []
    x, y = torch.rand(16, 3, 9, 6), torch.arange(16) % 10
    for _ in range(6):
        optimizer.zero_grad()
        losses.append(nn.functional.cross_entropy(net(x), y))
        losses[-1].backward()
        assert all(p.grad.isfinite().all() and p.grad.any() for p in net.parameters())
        optimizer.step()
    assert sum(map(parametrize.is_parametrized, net.modules())) >= 9
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: oni(1, 4, 1), "oni needs at least 2 weights for each output channel"),
        (lambda: own(4, 4, 1, groups=4), "own needs at least 2 weights .* give 1"),
        (lambda: oni(3, 4, 3, iterations=-1), "iterations must be a whole number, 0 or more"),
        (lambda: oni(3, 4, 3, iterations=1.5), "iterations .* not 1.5"),
        (lambda: oni(3, 4, 3, variant="code"), "one of paper, released, not 'code'"),
        (lambda: own(3, 4, 3, group_size=0), "group_size .* 1 or more, not 0"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()
