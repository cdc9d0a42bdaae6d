"""Spectral normalization against torch's own, and against the dense matrix of every operator."""

import copy

import pytest
import torch
from dense import operator_matrix
from torch import nn
from torch.nn.utils import parametrizations

from normkit import models, norms
from normkit.layers import spectral_norm
from normkit.layers.spectral_normalization import OperatorNormConv2d, power_iteration

GEOMETRIES = [
    ({}, (5, 4)),
    ({"padding": 1}, (5, 4)),
    ({"padding": 1, "stride": 2}, (6, 5)),
    ({"padding": (2, 0), "stride": (2, 1)}, (5, 7)),
    ({"padding": 1, "groups": 2}, (4, 5)),
    ({"padding": 2, "dilation": 2}, (5, 6)),
    ({"padding": "same", "padding_mode": "reflect"}, (4, 4)),
    ({"padding": 1, "padding_mode": "circular", "stride": 2}, (6, 4)),
]
OF = ["kernel", "operator"]
# What 100 turns, or 2000, leave out of these small operators' norms, relative.
EVALUATED, TRAINED = 0.01, 1e-7


def features(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def operator(options, seed=0):
    torch.manual_seed(seed)
    return OperatorNormConv2d(4, 6, 3, **options).double()


def plain(options, weight):
    layer = nn.Conv2d(4, 6, 3, **options, bias=False).double()
    layer.weight = nn.Parameter(weight.detach().clone())
    return layer


def original(layer):
    return layer.parametrizations.weight.original


def dense_norm(layer, size):
    return torch.linalg.matrix_norm(operator_matrix(layer, (4, *size)), 2).item()


def test_of_the_kernel_is_torchs_own():
    torch.manual_seed(0)
    ours = spectral_norm(3, 4, 3, 2, 1, True, n_power_iterations=2)
    torch.manual_seed(0)
    torchs = nn.Conv2d(3, 4, 3, 2, 1)
    parametrizations.spectral_norm(torchs, n_power_iterations=2)
    nn.init.zeros_(torchs.bias)
    x = features(2, 3, 7, 5).float()
    for _ in range(3):
        assert torch.equal(ours(x), torchs(x))
    assert list(ours.state_dict()) == list(torchs.state_dict())


@pytest.mark.parametrize(("options", "size"), GEOMETRIES, ids=str)
def test_of_the_operator_divides_by_the_norm_of_its_dense_matrix(options, size):
    layer = operator(options)
    twin = plain(options, original(layer))
    sigma, x = dense_norm(twin, size), features(2, 4, *size)
    for mode, gap in ((False, EVALUATED), (True, TRAINED)):
        layer.train(mode)
        for _ in range(1900 if mode else 1):
            y = layer(x)
        bias = layer.bias.reshape(-1, 1, 1)
        found = (twin(x) / (y - bias)).mean().item()
        assert sigma * (1 - gap) < found < sigma * (1 + 1e-9), (mode, found, sigma)
        torch.testing.assert_close(y, twin(x) / found + bias)


@pytest.mark.parametrize(("options", "size"), GEOMETRIES, ids=str)
def test_it_is_measured_with_the_weight_that_this_size_sees(options, size):
    layer = operator(options).eval()
    for shape in (size, (8, 8)):
        found = norms.spectral_norm(layer, shape)
        assert found.lower == pytest.approx(dense_norm(layer, shape), rel=1e-4)
        assert 1 - 1e-9 < found.lower < 1 + EVALUATED
        linear, x = norms.linear_map(layer, shape), features(2, 4, *shape)
        torch.testing.assert_close(linear.forward(x), layer(x) - layer.bias.reshape(-1, 1, 1))
    table = norms.layer_table(nn.Sequential(layer), (4, *size), norms=("spectral", "linf"))
    assert (table.status == "ok").all() and table.value[0] == pytest.approx(1, abs=EVALUATED)
    taps = norms.linear_map(layer, (8, 8), "circular")
    assert torch.equal(taps.weight, norms.linear_map(layer, (8, 8)).weight)


def test_the_norm_of_the_kernel_leaves_that_of_the_operator_between_1_and_the_kernels_root():
    found = []
    for seed in range(3):
        torch.manual_seed(seed)
        layer = spectral_norm(4, 6, 3, padding=1).double()
        if seed == 2:
            nn.init.ones_(original(layer))
        for _ in range(300):
            layer(torch.zeros(1, 4, 8, 8).double())
        found.append(norms.spectral_norm(layer, (20, 20)).lower)
    assert all(1 < value < 3 for value in found) and found[2] > 2.9 > 2 > found[0]


@pytest.mark.parametrize("options", [{"padding": 1}, {"padding": 1, "stride": 2, "groups": 2}])
def test_the_gradient_goes_through_sigma(options):
    layer, size = operator(options), (4, 3)
    x = features(2, 4, *size)
    for _ in range(1900):
        y = layer(x)
    along = features(*y.shape, seed=1)
    (y * along).sum().backward()
    weight = original(layer).detach().clone().requires_grad_()
    units = torch.eye(48).double().reshape(48, 4, *size)
    geometry = {"stride": options.get("stride", 1), "groups": options.get("groups", 1)}
    matrix = nn.functional.conv2d(units, weight, padding=1, **geometry).flatten(1)
    scaled = weight / torch.linalg.svdvals(matrix)[0]
    (nn.functional.conv2d(x, scaled, padding=1, **geometry) * along).sum().backward()
    torch.testing.assert_close(original(layer).grad, weight.grad, rtol=1e-3, atol=1e-5)


def test_each_forward_pass_in_training_takes_its_turns_from_where_it_was():
    torch.manual_seed(0)
    layer = spectral_norm(4, 6, 3, padding=1, of="operator", n_power_iterations=3).double()
    norm, x = layer.parametrizations.weight[0], features(2, 4, 5, 5)
    layer(x)
    before = norm.vector
    with torch.no_grad():
        original(layer).add_(0.1 * features(6, 4, 3, 3, seed=3))
    layer(x)
    linear = norms.linear_map(plain({"padding": 1}, original(layer)), (5, 5))
    assert torch.equal(norm.vector, power_iteration(linear, before, 3))
    (layer(x) + layer(x)).sum().backward()
    layer(features(2, 4, 3, 6))
    assert norm.vector.shape == (1, 4, 3, 6)


def test_evaluation_changes_nothing_and_depends_on_weights_and_size_alone():
    layers = [operator({"padding": 1}) for _ in range(2)]
    x, wide = features(2, 4, 5, 5), features(2, 4, 9, 3)
    layers[0].train()(wide)
    layers[0].train()(x)
    vector, state = layers[0].parametrizations.weight[0].vector, torch.random.get_rng_state()
    with torch.inference_mode():
        found = [layers[0].eval()(image) for image in (wide, x, wide, x)]
    assert torch.equal(found[0], found[2]) and torch.equal(found[1], found[3])
    assert torch.equal(state, torch.random.get_rng_state())
    assert layers[0].parametrizations.weight[0].vector is vector
    assert torch.equal(found[1], layers[1].eval()(x))
    with torch.no_grad():
        original(layers[0]).mul_(2)
    torch.testing.assert_close(layers[0](x), found[1])


def test_a_state_dict_loads_whatever_size_was_seen_and_training_starts_afresh():
    layer, other = operator({"padding": 1}), operator({"padding": 1}, seed=1)
    x = features(2, 4, 5, 5)
    layer(features(2, 4, 8, 7))
    other(x)
    assert set(layer.state_dict()) == {"bias", "parametrizations.weight.original"}
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(x), operator({"padding": 1})(x))
    assert torch.equal(other.eval()(x), layer.eval()(x))


@pytest.mark.parametrize("of", OF)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("options", [{}, {"groups": 3, "stride": 2}, {"kernel_size": 1}], ids=str)
def test_every_convolution_keeps_its_contract(of, dtype, options):
    torch.manual_seed(1)
    options = {"kernel_size": (3, 2), "padding": 1, "bias": True} | options

    def made():
        return spectral_norm(6, 9, **options, of=of).to(dtype)

    layer, x = made(), features(3, 6, 5, 7).to(dtype)
    y = layer(x)
    assert y.shape == nn.Conv2d(6, 9, **options).to(dtype)(x).shape and y.dtype == dtype
    (y * features(*y.shape, seed=1).to(dtype)).sum().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad.isfinite().all() and parameter.grad.any(), name
    assert not layer.bias.any()
    layer.eval()
    state = copy.deepcopy(layer.state_dict())
    assert torch.equal(layer(x), layer(x))
    torch.testing.assert_close(layer(x), y, rtol=0.1, atol=0.1)
    assert torch.equal(layer(x[0]), layer(x[:1])[0])
    assert all(torch.equal(value, state[key]) for key, value in layer.state_dict().items())
    other = made().eval()
    other.load_state_dict(state)
    assert torch.equal(other(x), layer(x))
    assert torch.equal(copy.deepcopy(layer)(x), layer(x))


def test_weights_of_zero_give_zero_and_recover():
    layer = operator({"padding": 1, "bias": False})
    weight = original(layer).detach().clone()
    nn.init.zeros_(original(layer))
    x = features(2, 4, 5, 5)
    assert not layer(x).any() and not layer.eval()(x).any()
    with torch.no_grad():
        original(layer).copy_(weight)
    for _ in range(200):
        y = layer.train()(x)
    torch.testing.assert_close(y, layer.eval()(x), rtol=0.01, atol=0.01)


@pytest.mark.parametrize("of", OF)
def test_a_residual_net_trains_with_it_and_its_operators_are_bounded(of):
    torch.manual_seed(0)
    net = models.build(
        "resnet8",
        width=8,
        input_size=(9, 6),
        normalization=lambda n: nn.Identity(),
        convolution=lambda *args, **options: spectral_norm(*args, **options, of=of),
    )
    optimizer, losses = torch.optim.SGD(net.parameters(), lr=0.5), []
    x, y = torch.rand(16, 3, 9, 6), torch.arange(16) % 10
    for _ in range(8):
        optimizer.zero_grad()
        losses.append(nn.functional.cross_entropy(net(x), y))
        losses[-1].backward()
        assert all(p.grad.isfinite().all() for p in net.parameters())
        optimizer.step()
    assert losses[-1] < losses[0]
    table = norms.layer_table(net, (3, 9, 6), norms="spectral")
    values = table[table.kind == "conv"].value
    assert len(values) >= 9 and values.max() < (3 if of == "kernel" else 1 + 2 * EVALUATED)
    assert values.min() > 1 - 1e-3 or of == "kernel"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: spectral_norm(3, 4, 3, of="weight"), "'kernel' or 'operator', not 'weight'"),
        (lambda: spectral_norm(3, 4, 3, n_power_iterations=0), "1 or more, not 0"),
        (lambda: norms.spectral_norm(operator({}), (4, 8, 8)), r"\(4, 8, 8\) is not 2 positive"),
        (lambda: norms.spectral_norm(operator({}), None), "None is not 2 positive integers"),
        (lambda: norms.spectral_norm(operator({}), (2, 8)), "at least as large as the kernel"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()
