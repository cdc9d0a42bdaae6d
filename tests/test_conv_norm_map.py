"""The norms of ConvNorm, through its linear map; what projects, decays and measures it."""

import copy
import math

import pytest
import torch
from conv_norm_naive import inverse_roots, naive
from dense import ROUNDING, operator_matrix
from torch import nn

from normkit import norms, penalties, probes, projections
from normkit.layers import ConvNorm2d, own_grid


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def drawn(*arguments, size=(6, 7), **options):
    """A layer with random parameters that has seen some batches, in evaluation mode."""
    layer = ConvNorm2d(*arguments, dtype=torch.float64, **options)
    for i, parameter in enumerate(layer.parameters()):
        parameter.data.copy_(randn(*parameter.shape, seed=i))
    layer(randn(3, layer.in_channels, *size))
    return layer.eval()


def net(**options):
    torch.manual_seed(0)
    return nn.Sequential(
        ConvNorm2d(3, 6, 3, padding=1, **options),
        nn.ReLU(),
        ConvNorm2d(6, 4, 3, stride=2, padding=1, **options),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 5),
    )


def state(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def unchanged(module, before):
    return all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


GEOMETRIES = [
    {},
    {"stride": 2, "padding": 1},
    {"padding": "same", "dilation": 2},
    {"padding": (4, 0), "stride": (1, 3)},
    {"groups": 2, "padding": 1},
    {"padding": 2, "padding_mode": "reflect"},
    {"padding": 1, "padding_mode": "circular", "groups": 2},
    {"padding": 1, "batch_norm": False},
    {"padding": 1, "affine": False, "bias": False},
    {"padding": 1, "variant": "released"},
]


@pytest.mark.parametrize("kernel", [3, (2, 4), 1], ids=str)
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_the_map_is_the_layer_as_executed_in_evaluation(kernel, geometry):
    layer = drawn(2, 4, kernel, size=(7, 8), **geometry)
    layer.weight.data += 0.3 * randn(*layer.weight.shape, seed=20)
    matrix = operator_matrix(layer, (2, 7, 8))
    linear = norms.linear_map(layer, (7, 8))
    units = torch.eye(2 * 56, dtype=torch.float64)
    made = linear.forward(units if not linear.axes else units.view(-1, 2, 7, 8)).flatten(1).T
    torch.testing.assert_close(made, matrix, rtol=0, atol=ROUNDING * 100)
    linf = matrix.abs().sum(1).max()
    torch.testing.assert_close(norms.linf_norm(layer, (7, 8)), linf)
    torch.testing.assert_close(norms.l1_norm(layer, (7, 8)), matrix.abs().sum(0).max())
    sigma = torch.linalg.matrix_norm(matrix, 2).item()
    bracket = norms.spectral_norm(layer, (7, 8))
    assert bracket.lower <= sigma * (1 + 1e-9) and sigma <= bracket.upper * (1 + 1e-9)


@pytest.mark.parametrize("kernel", [3, (2, 4), (1, 3)], ids=str)
@pytest.mark.parametrize("options", [{}, {"groups": 2}, {"dilation": (2, 1), "stride": 2}])
def test_the_circular_map_is_the_definition_on_the_torus(kernel, options):
    layer, size = drawn(2, 4, kernel, padding=2, **options), (5, 6)
    grid = own_grid(size, layer.kernel_size, layer.dilation)
    linear = norms.linear_map(layer, size, "circular")
    assert linear.in_shape == (2, *grid) and linear.out_shape == (4, *grid)
    x = randn(3, 2, *grid)

    def around(images, weight, before, dilation, groups):
        reach = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
        (top, left), (below, right) = before, [r - b for r, b in zip(reach, before, strict=True)]
        images = nn.functional.pad(images, (left, right, top, below), mode="circular")
        return nn.functional.conv2d(images, weight, dilation=dilation, groups=groups)

    z = around(x, layer.weight, (0, 0), layer.dilation, layer.groups)
    y = torch.fft.ifft2(torch.fft.fft2(z) * inverse_roots(layer, grid)).real
    y = around(y, layer.filter, [(k - 1) // 2 for k in layer.kernel_size], (1, 1), 4)
    bn = layer.batch_norm
    y = y * (bn.weight / (bn.running_var + bn.eps).sqrt())[:, None, None]
    torch.testing.assert_close(linear.forward(x), y, rtol=0, atol=1e-9)


def test_a_channel_is_an_isometry_by_every_way_to_measure_it():
    options = {"bias": False, "affine": False, "batch_norm": False, "eps": 0.0}
    layer = ConvNorm2d(3, 8, 3, padding=1, dtype=torch.float64, **options)
    circular = norms.spectral_norm(layer, (9, 8), boundary="circular")
    assert 1 - 1e-9 <= circular.upper and circular.lower <= math.sqrt(8)
    executed = norms.spectral_norm(layer, (9, 8))
    assert executed.lower <= circular.upper * (1 + 1e-9)  # cropping can only lower it
    values = norms.singular_values(layer, (9, 8))
    assert abs(values.square().sum() - 8 * 11 * 10) < 1e-8  # eight isometries


@pytest.mark.parametrize("boundary", ["zero", "circular"])
@pytest.mark.parametrize("variant", ["paper", "released"])
def test_a_table_measures_every_layer_and_changes_none(boundary, variant):
    model = net(variant=variant)
    model(torch.randn(4, 3, 8, 8))
    before = state(model)
    table = norms.layer_table(model, (3, 8, 8), boundary=boundary)
    assert list(table.layer.unique()) == ["0", "2", "5"]  # BatchNorm is part of its layer
    assert set(table.status) == {"ok"} and set(table.kind) == {"conv", "linear"}
    assert unchanged(model, before) and model.training


def test_asking_for_the_map_changes_nothing_in_training_mode():
    layer = ConvNorm2d(2, 3, 3, variant="released")
    layer(torch.randn(2, 2, 6, 6))
    before = state(layer)
    norms.linear_map(layer, (7, 7))
    assert unchanged(layer, before) and layer.training


def test_a_layer_too_large_for_a_matrix_keeps_its_row_with_a_sentence():
    model = nn.Sequential(ConvNorm2d(3, 32, 3, padding=1))
    table = norms.layer_table(model, (3, 32, 32), norms=("linf", "spectral"))
    assert table.value.isna().all()
    assert table.status.str.contains("boundary 'circular' is that of its own grid").all()
    table = norms.layer_table(model, (3, 32, 32), norms="spectral", boundary="circular")
    assert list(table.status) == ["ok"]


@pytest.mark.parametrize("size", [None, (8,), (8, 8, 8), "88", (8.0, 8), (0, 8), (-8, 8), True])
def test_a_size_that_is_none_is_refused_in_one_sentence(size):
    for kernel, boundary in ((3, "zero"), (3, "circular"), (1, "zero"), (1, "circular")):
        with pytest.raises(ValueError, match="input_size .* does not fit|the input is 0x8"):
            norms.linear_map(ConvNorm2d(2, 3, kernel, padding=1), size, boundary)


@pytest.mark.parametrize(
    "project",
    [
        lambda model: projections.clip_singular_values_(model, 0.5, (3, 8, 8)),
        lambda model: projections.project_norms_(model, 0.5, norm="l1"),
        lambda model: projections.project_norms_(model, 0.5, norm="linf", input_size=(3, 8, 8)),
    ],
)
def test_projections_refuse_weights_that_are_computed_and_leave_them(project):
    model = net()
    before = state(model)
    with pytest.raises(ValueError, match=r"layer '0' \(ConvNorm2d\) .*(computes|input_size)"):
        project(model)
    assert unchanged(model, before)


@pytest.mark.parametrize(("norm", "size"), [("l1", (6, 7)), ("linf", (6, 7)), ("l1", (13, 12))])
def test_norm_decay_adds_the_gradient_of_the_norm_with_v_constant(norm, size):
    layer = drawn(2, 3, 3, padding=1)
    units = torch.eye(2 * size[0] * size[1], dtype=torch.float64).view(-1, 2, *size)
    matrix = naive(layer, units) - naive(layer, torch.zeros(1, 2, *size).double())
    matrix.flatten(1).abs().sum(1 if norm == "l1" else 0).max().backward()
    expected = {name: p.grad for name, p in layer.named_parameters()}
    for parameter in layer.parameters():
        parameter.grad = torch.zeros_like(parameter)
    layer.train()
    penalties.NormDecay(layer, norm=norm, beta=0.5, input_size=(2, *size)).step()
    for name, parameter in layer.named_parameters():
        term = torch.zeros_like(parameter) if expected[name] is None else 0.5 * expected[name]
        torch.testing.assert_close(parameter.grad, term, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("options", [{}, {"batch_norm": False}], ids=str)
def test_enorm_refuses_a_net_of_conv_norm_layers_and_leaves_it(options):
    model = net(**options)
    before = state(model)
    with pytest.raises(ValueError, match="ConvNorm2d"):
        projections.ENorm(model).step()
    assert unchanged(model, before)


def test_enorm_keeps_the_function_of_a_net_with_one_conv_norm_layer():
    stem = drawn(3, 6, 3, padding=1, size=(8, 8))
    rest = [nn.Conv2d(6, 5, 3), nn.ReLU(), nn.Conv2d(5, 4, 3), nn.Flatten(), nn.Linear(64, 2)]
    model = nn.Sequential(stem, nn.ReLU(), *rest).double().eval()
    x = randn(2, 3, 8, 8)
    before, taps = model(x), model[2].weight.detach().clone()
    projections.ENorm(model, leaves=(ConvNorm2d,)).step()
    assert not torch.equal(model[2].weight, taps)
    torch.testing.assert_close(model(x), before)


def test_probes_see_a_conv_norm_net_and_its_gradients():
    model, x = net(), torch.randn(4, 3, 8, 8)
    twin = copy.deepcopy(model)
    with probes.record(model, ["activation_variance", "gradient_norm"]) as recording:
        y = model(x)
        y.square().sum().backward()
    assert torch.equal(y, twin(x)) and unchanged(model, state(twin))
    table = recording.table()
    found = table[table.measure == "gradient_norm"].layer
    assert set(found) == {"0", "2", "5"}
