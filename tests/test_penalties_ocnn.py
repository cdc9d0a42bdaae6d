"""OCNN's penalty against dense matrices, singular values, and its sum written out."""

import copy
import itertools
import math

import pytest
import torch
from dense import circular_matrix
from torch import nn
from torch.nn.utils import parametrizations

from normkit import models
from normkit.layers import weight_norm
from normkit.layers.orthogonal import oni
from normkit.layers.spectral_normalization import spectral_norm
from normkit.norms import layer_table, linear_map, singular_values
from normkit.penalties import OCNN
from normkit.penalties.ocnn import orthogonality_error

# Layers, and tori on which no two taps of two filters meet twice.
GEOMETRIES = [
    (nn.Conv2d, (3, 5, 3), {"padding": 1}, (6, 7)),
    (nn.Conv2d, (5, 3, (1, 4)), {}, (2, 9)),
    (nn.Conv2d, (3, 16, 3), {"stride": 2}, (8, 10)),
    (nn.Conv2d, (3, 5, (3, 2)), {"stride": (2, 1)}, (8, 5)),
    (nn.Conv2d, (4, 6, 3), {"groups": 2}, (6, 6)),
    (nn.Conv2d, (4, 4, 3), {"groups": 4, "stride": 2}, (8, 8)),
    (nn.Conv2d, (3, 5, 1), {}, (4, 4)),
    (nn.Conv2d, (3, 5, 1), {"stride": 2}, (4, 4)),
    (nn.Conv2d, (2, 9, 2), {"stride": 3}, (6, 6)),
    (nn.Conv2d, (3, 5, 3), {"dilation": 2, "padding_mode": "circular"}, (10, 10)),
    (nn.Conv2d, (2, 9, 3), {"dilation": 2, "stride": 2}, (12, 12)),
    (nn.Conv2d, (2, 9, 3), {"dilation": 2, "stride": 3}, (12, 12)),
    (nn.Conv1d, (3, 5, 4), {"stride": 2}, (12,)),
    (nn.Conv3d, (2, 3, 2), {}, (4, 4, 4)),
]
TRANSPOSED = [
    (nn.ConvTranspose2d, (3, 5, 3), {"stride": 2, "padding": 1}, (5, 5)),
    (nn.ConvTranspose2d, (5, 3, 3), {}, (6, 5)),
]


def made(kind, arguments, options):
    torch.manual_seed(0)
    return kind(*arguments, **options).double()


def lack(layer):
    """How many more outputs a pixel has than inputs to read, each counted once; of all groups."""
    axes = zip(layer.kernel_size, layer.stride, layer.dilation, strict=True)
    places = [{tap * dilation % stride for tap in range(n)} for n, stride, dilation in axes]
    return max(0, layer.out_channels - layer.in_channels * math.prod(map(len, places)))


def written_out(weight, stride, dilation, groups):
    """The sum over pairs of filters of each group, and over all their shifts by the stride."""
    total = 0.0
    for block in weight.chunk(groups):
        reach = [d * (n - 1) + 1 for n, d in zip(block.shape[2:], dilation, strict=True)]
        k = torch.zeros(*block.shape[:2], *reach).to(block)
        k[:, :, :: dilation[0], :: dilation[1]] = block
        h, w = reach
        canvas = nn.functional.pad(k, (w, w, h, h))
        for a, b in itertools.product(range(-h, h + 1), range(-w, w + 1)):
            if a % stride[0] == 0 and b % stride[1] == 0:
                shifted = canvas[:, :, h + a : 2 * h + a, w + b : 2 * w + b]
                products = torch.einsum("mchw,nchw->mn", k, shifted)
                total = total + (products - (a == b == 0) * torch.eye(len(k)).to(k)).square().sum()
    return total


@pytest.mark.parametrize("case", GEOMETRIES, ids=str)
def test_the_error_is_that_of_the_dense_matrix(case):
    layer, size = made(*case[:3]), case[3]
    matrix = circular_matrix(layer, size)
    gap = (matrix @ matrix.T - torch.eye(len(matrix))).square().sum().item()
    outputs = len(matrix) // layer.out_channels
    found = orthogonality_error(linear_map(layer, size)).item()
    assert found == pytest.approx(gap / outputs - lack(layer), rel=1e-9)


@pytest.mark.parametrize("case", GEOMETRIES + TRANSPOSED, ids=str)
def test_it_is_0_where_all_singular_values_are_1_and_the_mean_of_their_gaps_elsewhere(case):
    layer, size = made(*case[:3]), case[3]
    values = singular_values(layer, size)
    rank = int((values > 1e-9).sum(1).max())
    gaps = (values[:, :rank].square() - 1).square().sum(1).mean().item()
    found = orthogonality_error(linear_map(layer, size)).item()
    assert found == pytest.approx(gaps, rel=1e-9) and found > 0


SOLVABLE = [((3, 8, 1), 1), ((4, 8, 2), 2), ((2, 6, 3), 1), ((6, 2, 3), 2)]


@pytest.mark.parametrize(("arguments", "stride"), SOLVABLE)
def test_steps_down_the_penalty_lead_to_an_orthogonal_convolution(arguments, stride):
    size = (6, 8)
    layer = made(nn.Conv2d, arguments, {"stride": stride, "padding": 1, "bias": False})
    penalty = OCNN(layer, weight=1.0, input_size=(arguments[0], *size))
    exact = {"tolerance_grad": 1e-13, "tolerance_change": 0.0, "max_iter": 200}
    optimizer = torch.optim.LBFGS(layer.parameters(), line_search_fn="strong_wolfe", **exact)

    def close():
        layer.weight.grad = torch.zeros_like(layer.weight)
        return torch.tensor(penalty.step().value[0])

    optimizer.step(close)
    assert penalty.step().value[0] < 1e-12
    assert (singular_values(layer, size) - 1).abs().max() < 1e-5


def test_a_kernel_with_orthonormal_rows_is_no_orthogonal_convolution():
    layer = made(nn.Conv2d, (3, 5, 3), {"bias": False})
    nn.init.orthogonal_(layer.weight)
    assert orthogonality_error(linear_map(layer, (6, 6))) > 0.5


SHAPES = [((4, 3, 3, 3), 1, (1, 1), (1, 1)), ((6, 2, 3, 2), 2, (2, 1), (1, 1))]
SHAPES += [((6, 1, 3, 3), 3, (3, 2), (2, 2)), ((5, 2, 1, 1), 1, (2, 2), (1, 1))]


@pytest.mark.parametrize(("shape", "groups", "stride", "dilation"), SHAPES)
@pytest.mark.parametrize("computed", [None, "weight_norm", "spectral_norm"])
def test_a_step_adds_the_gradient_of_the_sum(shape, groups, stride, dilation, computed):
    options = {"groups": groups, "stride": stride, "dilation": dilation, "padding": 1}
    layer = made(nn.Conv2d, (shape[1] * groups, shape[0], shape[2:]), options)
    if computed:
        getattr(parametrizations, computed)(layer)
    layer(torch.rand(2, shape[1] * groups, 7, 8).double()).square().sum().backward()
    before = {name: p.grad.clone() for name, p in layer.named_parameters()}
    table = OCNN(layer, weight=0.3, input_size=(shape[1] * groups, 7, 8)).step()
    layer.eval()
    error = written_out(layer.weight, stride, dilation, groups)
    assert table.value[0] == pytest.approx(error.item() - lack(layer), rel=1e-9)
    named = dict(layer.named_parameters())
    slopes = torch.autograd.grad(error, list(named.values()), allow_unused=True)
    for (name, parameter), slope in zip(named.items(), slopes, strict=True):
        term = 0 if name == "bias" else 0.3 * slope
        torch.testing.assert_close(parameter.grad, before[name] + term)


def backward(model, *shape):
    like = next(model.parameters())
    model(torch.rand(3, *(shape or (3, 8, 8))).to(like)).float().square().mean().backward()


def test_every_convolution_of_a_net_is_in_the_table_and_nothing_else_changes():
    model = models.build("resnet8", width=4, input_size=(8, 8), convolution=weight_norm)
    penalty = OCNN(model, weight=0.5)
    backward(model)
    state = copy.deepcopy(model.state_dict())
    before = {name: p.grad.clone() for name, p in model.named_parameters()}
    table = penalty.step()
    assert list(table.columns) == ["layer", "kind", "norm", "value"]
    rows = layer_table(model, (3, 8, 8), norms="l1")
    assert table.layer.tolist() == rows[rows.kind == "conv"].layer.tolist()
    assert set(table.kind) == {"conv"} and set(table.norm) == {"ocnn"}
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    moved = {n for n, p in model.named_parameters() if not torch.equal(p.grad, before[n])}
    assert moved == {n for n in before if "parametrizations" in n}


@pytest.mark.parametrize("of", ["oni", "operator"])
def test_it_falls_through_weights_that_are_computed(of):
    torch.manual_seed(0)
    layer = oni(3, 4, 3) if of == "oni" else spectral_norm(3, 4, 3, of="operator")
    penalty, values = OCNN(layer, weight=1.0), []
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.02)
    for _ in range(40):
        optimizer.zero_grad()
        (0 * layer(torch.rand(2, 3, 6, 6))).sum().backward()
        values += penalty.step().value.tolist()
        optimizer.step()
    assert values[-1] < 0.8 * values[0]


def test_layers_that_share_a_weight_each_add_their_term():
    found = []
    for count in (1, 2):
        model = nn.Sequential(*(made(nn.Conv2d, (3, 3, 3), {}) for _ in range(count)))
        for layer in model:
            layer.weight = model[0].weight
        penalty = OCNN(model, input_size=(3, 8, 8))
        model[0].weight.grad = torch.zeros_like(model[0].weight)
        penalty.step()
        found.append(model[0].weight.grad)
    torch.testing.assert_close(found[1], 2 * found[0])


class Branches(nn.Module):
    """One convolution that works, and one of each that cannot."""

    def __init__(self):
        super().__init__()
        self.used, self.frozen, self.idle = (nn.Conv2d(2, 2, 1) for _ in range(3))
        self.table = nn.Embedding(3, 2)
        self.frozen.requires_grad_(False)

    def forward(self, x):
        return self.frozen(self.used(x))


def test_what_is_skipped_is_said_once_and_kept_with_its_reason():
    model = Branches()
    penalty = OCNN(model)
    backward(model, 2, 4, 4)
    with pytest.warns(UserWarning, match="OCNN skips .*'frozen' .it is frozen") as warned:
        assert penalty.step().layer.tolist() == ["used"]
    assert len(warned) == 1 and warned[0].filename == __file__
    assert penalty.skipped.keys() == {"frozen", "idle", "table"}
    assert "no forward pass" in penalty.skipped["idle"]
    penalty.step()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": -1e-4}, "weight -0.0001 is not a finite number, 0 or more"),
        ({"weight": math.nan}, "weight nan"),
        ({"weight": "1"}, "weight '1'"),
        ({"input_size": (2, 8, 8)}, "input_size .* wants 3 input channels"),
    ],
)
def test_wrong_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        OCNN(nn.Sequential(nn.Conv2d(3, 4, 3)), **options)


def test_what_it_cannot_act_on_is_refused():
    with pytest.raises(ValueError, match="no convolution"):
        OCNN(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)))
    with pytest.raises(TypeError, match="model is a list"):
        OCNN([nn.Conv2d(3, 4, 3)])


def test_a_step_that_cannot_be_taken_is_refused_and_touches_no_gradient():
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    with pytest.raises(RuntimeError, match="after backward"):
        OCNN(model).step()
    penalty = OCNN(model)
    backward(model)
    with pytest.raises(RuntimeError, match=r"call model\.train\(\)"):
        model.eval() and penalty.step()
    before = model[0].weight.grad.clone()
    model.train()[0].weight.data[1, 2] = math.nan
    with pytest.raises(ValueError, match="layer '0' has weights that are not finite"):
        penalty.step()
    assert torch.equal(model[0].weight.grad, before)
