"""Every layer against its formula in float64 and against other libraries."""

import copy

import numpy as np
import pytest
import timm.layers
import torch
from torch import nn

from normkit import layers

EPS = 1e-3


def features(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def shaken(layer, seed=1):
    """Moves every parameter off its start, so that no factor of 1 or 0 hides a mistake."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in layer.parameters():
            noise = torch.randn(parameter.shape, dtype=torch.float64, generator=generator)
            parameter.add_(0.3 * noise)
    return layer


def parameters(layer):
    return {k: p.detach().numpy().reshape(-1, 1, 1) for k, p in layer.named_parameters()}


def filter_response(x, p):
    return p["weight"] * x / np.sqrt((x**2).mean((2, 3), keepdims=True) + EPS) + p["bias"]


def variance(x, p):
    return p["weight"] * x / np.sqrt(x.var((0, 2, 3), keepdims=True) + EPS) + p["bias"]


def mean_centering(x, p):
    return p["weight"] * (x - x.mean((0, 2, 3), keepdims=True)) + p["bias"]


def evonorm_b0(x, p):
    batch = np.sqrt(x.var((0, 2, 3), keepdims=True) + EPS)
    image = np.sqrt(x.var((2, 3), keepdims=True) + EPS)
    return p["weight"] * x / np.maximum(batch, p["v"] * x + image) + p["bias"]


def evonorm_s0(x, p, groups=3, correction=0):
    grouped = x.reshape(len(x), groups, -1)
    var = np.repeat(grouped.var(2, ddof=correction), x.shape[1] // groups, axis=1)
    swish = x / (1 + np.exp(-p["v"] * x))
    return p["weight"] * swish / np.sqrt(var[:, :, None, None] + EPS) + p["bias"]


FORMULAS = [
    (layers.FilterResponseNorm(6, EPS), filter_response),
    (layers.FilterResponseNorm(6, -EPS), filter_response),
    (layers.VarianceNorm(6, EPS), variance),
    (layers.MeanCentering(6), mean_centering),
    (layers.EvoNormB0(6, EPS), evonorm_b0),
    (layers.EvoNormS0(6, EPS, groups=3), evonorm_s0),
    (layers.EvoNormS0(6, EPS, group_size=2), evonorm_s0),
    (layers.TLU(6), lambda x, p: np.maximum(x, p["tau"])),
    (
        layers.ScaledReLU(),
        lambda x, p: 1.7128585504496627 * (np.maximum(x, 0) - 0.3989422804014327),
    ),
]


@pytest.mark.parametrize("shape", [(4, 6, 5, 3), (3, 6, 1, 1), (1, 6, 2, 7)])
@pytest.mark.parametrize(("layer", "formula"), FORMULAS, ids=lambda part: str(part)[:25])
def test_a_layer_is_its_formula(layer, formula, shape):
    layer = shaken(copy.deepcopy(layer).double())
    x = features(*shape) * 2 + 1
    expected = torch.from_numpy(formula(x.numpy(), parameters(layer)))
    torch.testing.assert_close(layer(x), expected, rtol=1e-12, atol=1e-12)


def test_a_trained_eps_starts_at_1e_minus_4_and_counts_by_its_size():
    layer = layers.FilterResponseNorm(6, learnable_eps=True).double()
    assert abs(layer.eps.item() - 1e-4) < 1e-9
    nn.init.constant_(layer.eps, -EPS)
    x = features(4, 6, 5, 3)
    expected = filter_response(x.numpy(), parameters(layer) | {"eps": None})
    torch.testing.assert_close(layer(x), torch.from_numpy(expected))
    layer(x).sum().backward()
    assert layer.eps.grad.abs() > 0
    assert layers.FilterResponseNorm(6).eps == 1e-6


def test_filter_response_normalization_of_one_pixel_is_the_sign():
    x = torch.tensor([3.0, -0.5, 0.01], dtype=torch.float64).reshape(1, 3, 1, 1)
    y = layers.FilterResponseNorm(3).double()(x)
    gap = (y - x.sign()).abs()
    assert (gap < 1e-6 / (2 * x.square())).all() and (gap > 0).all(), gap


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_the_released_variant_divides_by_the_unbiased_variance(groups):
    x = features(4, 6, 5, 3) * 2 + 1
    layer = shaken(layers.group(6, groups=groups, variant="released").double())
    p = parameters(layer)
    part = x.numpy().reshape(4, groups, -1)
    deviation = np.sqrt(part.var(2, ddof=1, keepdims=True) + 1e-5)
    normalized = ((part - part.mean(2, keepdims=True)) / deviation).reshape(x.shape)
    expected = torch.from_numpy(p["weight"] * normalized + p["bias"])
    torch.testing.assert_close(layer(x), expected, rtol=1e-12, atol=1e-12)

    layer = shaken(layers.EvoNormS0(6, EPS, groups=groups, variant="released").double())
    expected = evonorm_s0(x.numpy(), parameters(layer), groups, correction=1)
    torch.testing.assert_close(layer(x), torch.from_numpy(expected), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("key", ["group", "evonorm_s0"])
def test_the_released_variant_is_smaller_by_a_known_factor(key):
    x = features(4, 6, 5, 3)
    paper, released = (
        layers.normalization(key, groups=3, variant=variant)(6).double()(x)
        for variant in layers.VARIANTS
    )
    # 2 channels of 5 x 3 pixels; eps changes the factor by 1e-5 / 60 at most.
    torch.testing.assert_close(released, paper * (29 / 30) ** 0.5, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("groups", [1, 3, 6])
def test_the_papers_group_normalization_is_torchs(groups):
    x = features(4, 6, 5, 3) + 1
    ours = shaken(layers.group(6, groups=groups)).double()
    torchs = nn.GroupNorm(groups, 6).double()
    torchs.load_state_dict(ours.state_dict())
    assert torch.equal(ours(x), torchs(x))


def test_variance_and_mean_are_the_two_halves_of_batch_normalization():
    x = features(4, 6, 5, 3) * 3 + 2
    batch = nn.BatchNorm2d(6).double()
    scaled, centered = layers.VarianceNorm(6).double(), layers.MeanCentering(6).double()
    expected = batch(x)
    var, mean = torch.var_mean(x, (0, 2, 3), correction=0, keepdim=True)
    torch.testing.assert_close(scaled(x), expected + mean / (var + 1e-5).sqrt())
    torch.testing.assert_close(scaled.running_var, batch.running_var)
    torch.testing.assert_close(scaled(centered(x)), expected)
    torch.testing.assert_close(centered.running_mean, batch.running_mean)


def converted(x):
    return x.float().requires_grad_()


@pytest.mark.parametrize(
    ("ours", "timms"),
    [
        (
            nn.Sequential(layers.FilterResponseNorm(6), layers.TLU(6)),
            timm.layers.FilterResponseNormTlu2d(6, eps=1e-6),
        ),
        (
            nn.Sequential(layers.FilterResponseNorm(6), nn.ReLU()),
            timm.layers.FilterResponseNormAct2d(6, eps=1e-6),
        ),
        (layers.EvoNormB0(6), timm.layers.EvoNorm2dB0(6, eps=1e-5)),
        (layers.EvoNormS0(6, groups=3), timm.layers.EvoNorm2dS0(6, groups=3)),
        (layers.EvoNormS0(6, group_size=3), timm.layers.EvoNorm2dS0(6, group_size=3)),
    ],
    ids=["frn-tlu", "frn-relu", "b0", "s0-groups", "s0-size"],
)
@pytest.mark.parametrize("mode", [True, False])
def test_a_layer_agrees_with_timms(ours, timms, mode):
    ours, timms = shaken(copy.deepcopy(ours)), copy.deepcopy(timms)
    names = [name.split(".")[-1] for name, _ in ours.named_parameters()]
    values = dict(zip(names, ours.parameters(), strict=True))
    timms.load_state_dict(values, strict=False)
    images = features(8, 6, 5, 3, seed=2) * 2 + 1
    for layer in (ours, timms):
        layer.train()(images.float())
        layer.train(mode)
    x, y = converted(images), converted(images)
    found, expected = ours(x), timms(y)
    # Both compute in float32, in another order.
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    weights = features(*images.shape, seed=3).float()
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-4, atol=1e-5)
    state = timms.state_dict()
    if "running_var" in state:
        torch.testing.assert_close(ours.running_var, state["running_var"])


def test_scaled_weight_standardization_agrees_with_timms():
    ours = shaken(layers.scaled_ws(3, 4, 3, 2, 1, True, eps=1e-6))
    timms = timm.layers.ScaledStdConv2d(3, 4, 3, 2, 1, bias=True, gamma=layers.RELU_GAIN, eps=1e-6)
    with torch.no_grad():
        timms.weight.copy_(ours.parametrizations.weight.original)
        timms.gain.copy_(ours.parametrizations.weight[0].gamma.reshape(-1, 1, 1, 1))
        timms.bias.copy_(ours.bias)
    x = features(2, 3, 7, 9).float()
    torch.testing.assert_close(ours(x), timms(x), rtol=1e-4, atol=1e-5)


def test_weight_norm_is_its_formula_and_starts_with_rows_of_norm_1():
    layer = layers.weight_norm(3, 4, (3, 5), 2, 1, True).double()
    gamma = layer.parametrizations.weight.original0
    direction = layer.parametrizations.weight.original1
    assert torch.equal(gamma, torch.ones_like(gamma))
    norms = layer.weight.flatten(1).norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(4, dtype=torch.float64))
    shaken(layer)
    w = direction.detach().numpy()
    norm = np.sqrt((w**2).sum((1, 2, 3), keepdims=True))
    expected = torch.from_numpy(gamma.detach().numpy() * w / norm)
    torch.testing.assert_close(layer.weight, expected, rtol=1e-12, atol=0)


def test_weight_centering_is_its_formula_and_draws_as_he_et_al():
    torch.manual_seed(0)
    layer = layers.weight_centering(64, 32, 3, 2, 1, True).double()
    w = layer.parametrizations.weight.original.detach().numpy()
    expected = torch.from_numpy(w - w.mean((1, 2, 3), keepdims=True))
    torch.testing.assert_close(layer.weight, expected, rtol=0, atol=1e-15)
    assert layer.bias.abs().max() == 0
    # 18432 draws: the standard error of the ratio is 1 %.
    assert abs(w.var() * 64 * 9 / 2 - 1) < 0.04
