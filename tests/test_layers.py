"""Both registries of layers: what each entry does, against brute force and its formula."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from normkit import layers, models


def features(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def brute_force(x, groups):
    """Normalizes group by group in numpy, with eps = 1e-5 as torch has it."""
    out = np.empty_like(x)
    size = x.shape[1] // groups
    for n in range(x.shape[0]):
        for start in range(0, x.shape[1], size):
            part = x[n, start : start + size]
            out[n, start : start + size] = (part - part.mean()) / np.sqrt(part.var() + 1e-5)
    return out


@pytest.mark.parametrize(
    ("key", "options", "groups"),
    [
        ("layer", {}, 1),
        ("instance", {}, 12),
        ("group", {}, 4),
        ("group", {"groups": 3}, 3),
        ("group", {"group_size": 2}, 6),
        ("group", {"groups": 12}, 12),
    ],
)
def test_a_normalization_is_its_definition(key, options, groups):
    x = features(3, 12, 5, 7) * 3 + 1
    layer = layers.normalization(key, **options)(12).double()
    expected = torch.from_numpy(brute_force(x.numpy(), groups))
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-12)


def test_batch_normalization_is_its_definition_in_both_modes():
    x = features(6, 4, 5, 3) * 2 - 1
    layer = layers.normalization("batch")(4).double()
    mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), keepdim=True, correction=0)
    torch.testing.assert_close(layer(x), (x - mean) / (var + 1e-5).sqrt())
    torch.testing.assert_close(layer.running_mean, 0.1 * mean.flatten())


def test_none_is_the_identity():
    x = features(2, 3, 5, 1)
    assert layers.normalization("none")(3)(x) is x


def made(registry, key):
    if registry == "normalization":
        return layers.NORMALIZATIONS[key](6)
    return layers.CONVOLUTIONS[key](6, 4, 3, stride=2, padding=1, bias=True)


ENTRIES = [("normalization", key) for key in layers.NORMALIZATIONS]
ENTRIES += [("convolution", key) for key in layers.CONVOLUTIONS]


@pytest.mark.parametrize(("registry", "key"), ENTRIES)
@pytest.mark.parametrize("size", [(8, 8), (5, 7), (2, 1)])
def test_every_entry_keeps_its_contract(registry, key, size):
    torch.manual_seed(1)
    layer = made(registry, key).double()
    x = features(3, 6, *size).requires_grad_()
    y = layer(x)
    half = tuple(-(-n // 2) for n in size)
    assert y.shape == ((3, 6, *size) if registry == "normalization" else (3, 4, *half))
    (y * features(*y.shape, seed=1)).sum().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad.abs().sum() > 0, name
    assert x.grad is not None

    layer.eval()
    assert torch.equal(layer(x), layer(x))
    other = made(registry, key).double().eval()
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(x), layer(x))
    assert torch.equal(copy.deepcopy(layer)(x), layer(x))


@pytest.mark.parametrize("key", layers.CONVOLUTIONS)
def test_a_convolution_has_no_bias_unless_asked(key):
    convolution = layers.convolution(key)(3, 4, (3, 5))
    assert convolution.bias is None
    assert (convolution.stride, convolution.padding) == ((1, 1), (0, 0))
    assert convolution(torch.rand(1, 3, 9, 9)).shape == (1, 4, 7, 5)


@pytest.mark.parametrize("channels", [1, 6, 16, 24, 32, 48, 64, 100])
def test_the_default_groups_are_32_or_the_most_that_divide_both(channels):
    groups = layers.normalization("group")(channels).num_groups
    assert groups == max(d for d in range(1, 33) if channels % d == 0 and 32 % d == 0)


def test_instance_normalization_refuses_a_single_pixel_instead_of_erasing_it():
    with pytest.raises(ValueError, match="more than 1 spatial element"):
        layers.normalization("instance")(4)(torch.rand(2, 4, 1, 1))


@pytest.mark.parametrize("shape", [(4, 3, 3, 3), (5, 2, 1, 4), (1, 7, 1, 1)])
def test_standardize_is_its_formula(shape):
    weight, gamma = features(*shape) * 3 + 2, features(shape[0], seed=1)
    expected = np.empty(shape)
    fan_in = math.prod(shape[1:])
    for k in range(shape[0]):
        w = weight[k].numpy()
        std = np.sqrt(w.var() + 1e-3)
        expected[k] = 1.7 * gamma[k].item() * (w - w.mean()) / (std * math.sqrt(fan_in))
    found = layers.standardize(weight, 1.7, gamma, 1e-3)
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=0, atol=1e-14)


def test_standardize_has_the_gradient_of_its_formula():
    weight, gamma = features(3, 2, 3, 2).requires_grad_(), features(3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda w, g: layers.standardize(w, layers.RELU_GAIN, g, 1e-8), (weight, gamma)
    )


def test_standardize_of_constant_weights_is_zero_with_a_finite_gradient():
    weight = torch.full((2, 3, 3, 3), 0.7, requires_grad=True)
    standardized = layers.standardize(weight, layers.RELU_GAIN, torch.ones(2), 1e-8)
    standardized.square().sum().backward()
    assert standardized.abs().max() == 0
    assert weight.grad.isfinite().all()


def test_standardize_ignores_scale_and_offset_of_the_weights():
    weight, gamma = features(4, 3, 3, 3), torch.ones(4, dtype=torch.float64)
    moved = layers.standardize(5 * weight - 2, layers.RELU_GAIN, gamma, 0.0)
    torch.testing.assert_close(moved, layers.standardize(weight, layers.RELU_GAIN, gamma, 0.0))


def test_the_gain_undoes_what_a_relu_does_to_the_variance_of_a_normal():
    relu = features(1_000_000).relu()
    assert abs(layers.RELU_GAIN - 1.71286) < 5e-6
    # The standard error of this variance is about 0.002.
    assert abs(layers.RELU_GAIN**2 * relu.var().item() - 1) < 0.01


def test_scaled_ws_keeps_the_variance_through_ten_layers():
    torch.manual_seed(0)
    x = features(32, 128, 1, 1)
    for _ in range(10):
        x = layers.scaled_ws(128, 128, 1).double()(x.relu())
    # Seeds 0-19 gave 0.76 to 1.09; without the gain it is 2e-5.
    assert 0.7 < x.var().item() < 1.2


def test_scaled_ws_convolves_with_the_standardized_weight():
    layer = layers.scaled_ws(3, 4, 3, 2, 1, True).double()
    original = layer.parametrizations.weight.original
    gamma = layer.parametrizations.weight[0].gamma
    weight = layers.standardize(original, layers.RELU_GAIN, gamma, 1e-8)
    x = features(2, 3, 7, 9)
    expected = nn.functional.conv2d(x, weight, layer.bias, stride=2, padding=1)
    assert torch.equal(layer(x), expected)


@pytest.mark.parametrize("make", [layers.scaled_ws, layers.weight_centering])
def test_a_kernel_that_would_be_erased_is_refused(make):
    with pytest.raises(ValueError, match="at least 2 weights .* in_channels=1, groups=1 and"):
        make(1, 4, 1)
    with pytest.raises(ValueError, match="in_channels=4, groups=4 and .* give 1"):
        make(4, 4, 1, groups=4)


# torch's spectral normalization flattens the kernel of all groups into one matrix.
@pytest.mark.parametrize("key", [key for key in layers.CONVOLUTIONS if key != "spectral_norm"])
def test_the_groups_of_a_convolution_are_convolutions_side_by_side(key):
    torch.manual_seed(0)
    whole = layers.convolution(key)(6, 8, 3, stride=2, padding=1, bias=True, groups=2).double()
    parts = [layers.convolution(key)(3, 4, 3, stride=2, padding=1, bias=True) for _ in range(2)]
    for i, part in enumerate(parts):
        state = whole.state_dict().items()
        half = {name: value.chunk(2)[i] if value.dim() else value for name, value in state}
        part.double().load_state_dict(half)
    x = features(2, 6, 7, 5)
    expected = torch.cat([part(half) for part, half in zip(parts, x.chunk(2, 1), strict=True)], 1)
    torch.testing.assert_close(whole(x), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("convolution", layers.CONVOLUTIONS)
@pytest.mark.parametrize("normalization", layers.NORMALIZATIONS)
def test_every_pair_trains_a_residual_net(normalization, convolution):
    torch.manual_seed(0)
    net = models.build(
        "resnet8",
        width=8,
        input_size=(9, 6),
        normalization=layers.normalization(normalization),
        convolution=layers.convolution(convolution),
    )
    net(torch.rand(4, 3, 9, 6)).square().mean().backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in net.parameters())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: layers.normalization("bach"), "nearest is 'batch'"),
        (lambda: layers.convolution("scaled_vs"), "nearest is 'scaled_ws'"),
        (lambda: layers.normalization("layer", groups=2), "'layer' has no groups, so groups=2"),
        (lambda: layers.normalization("none", group_size=2), "so group_size=2 must be left out"),
        (lambda: layers.normalization("group", groups=2, group_size=2), "not both"),
        (lambda: layers.normalization("group", groups=0), "at least 1, not 0"),
        (lambda: layers.normalization("group", group_size=1.5), "whole number .* not 1.5"),
        (
            lambda: layers.normalization("group", groups=8)(12),
            "groups=8 does not divide 12 channels; 1, 2, 3, 4, 6, 12 do",
        ),
        (lambda: layers.group(6, group_size=4), "group_size=4 does not divide 6 channels"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()
