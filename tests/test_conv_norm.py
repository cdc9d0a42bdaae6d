"""ConvNorm against its definition written out with torch's FFT: outputs, gradients, isometry."""

import math

import pytest
import torch
from conv_norm_naive import inverse_roots, naive
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from normkit import norms
from normkit.layers import ConvNorm2d, inverse_root, own_grid
from normkit.layers.fourier import View, analyze, frequencies, synthesize
from normkit.layers.normalized_convolution import _in_space, normalized_convolution

ROUNDING = 1e-9  # of float64, with V up to 1000 where the spectrum nearly vanishes


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def drawn(layer, seed=0):
    """The layer with every parameter random."""
    for i, parameter in enumerate(layer.parameters()):
        parameter.data.copy_(randn(*parameter.shape, seed=seed + i))
    return layer


def with_gradients(layer, call, x):
    """Outputs, then gradients of a random functional by the input and every parameter."""
    x = x.clone().requires_grad_()
    y = call(x)
    functional = (y * randn(*y.shape, seed=7)).sum()
    return y, *torch.autograd.grad(functional, [x, *layer.parameters()])


def check(layer, x, call=None):
    expected = with_gradients(layer, lambda images: naive(layer, images), x)
    found = with_gradients(layer, call or layer, x)
    assert found[0].shape == expected[0].shape
    for one, other in zip(found, expected, strict=True):
        scale = max(1.0, other.abs().max().item())
        torch.testing.assert_close(one, other, rtol=0, atol=ROUNDING * scale)


GEOMETRIES = [
    {},
    {"stride": 2, "padding": 1},
    {"stride": (3, 2), "padding": (0, 2)},
    {"stride": 5, "padding": 2},
    {"padding": "same"},
    {"padding": "valid", "stride": 2},
    {"padding": 5},
    {"padding": (4, 1), "stride": (1, 3)},
    {"dilation": 2, "padding": 2},
    {"dilation": (1, 3), "padding": "same"},
    {"dilation": (2, 1), "padding": (7, 3), "stride": 2},
    {"groups": 2, "padding": 1},
    {"groups": 2, "dilation": 2, "padding": 5, "stride": 2},
    {"padding_mode": "reflect", "padding": 2},
    {"padding_mode": "replicate", "padding": (3, 1), "stride": 2},
    {"padding_mode": "circular", "padding": "same"},
    {"padding_mode": "circular", "padding": 1, "groups": 2},
    {"bias": False, "padding": 1},
    {"affine": False, "padding": 1},
    {"batch_norm": False, "padding": 1, "stride": 2},
    {"bias": False, "affine": False, "batch_norm": False, "padding": 1},
    {"eps": 1e-2, "padding": 1},
]


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("size", [(7, 8), (11, 14)])
def test_outputs_and_gradients_are_those_of_the_definition(geometry, size):
    layer = drawn(ConvNorm2d(4, 6, 3, dtype=torch.float64, **geometry))
    check(layer, randn(3, 4, *size, seed=9))


@pytest.mark.parametrize("kernel", [1, 2, 4, 5, (1, 3), (3, 1), (1, 4), (2, 5), (1, 2)], ids=str)
@pytest.mark.parametrize("padding", [0, 2, "same"])
@pytest.mark.parametrize("groups", [1, 3])
def test_every_shape_of_kernel_is_right(kernel, padding, groups):
    layer = ConvNorm2d(3, 6, kernel, padding=padding, groups=groups, dtype=torch.float64)
    check(drawn(layer), randn(2, 3, 6, 9, seed=9))
    layer.stride = (2, 1) if padding != "same" else (1, 1)
    check(layer, randn(2, 3, 9, 6, seed=9))


def test_every_size_of_image_from_1_to_40_is_right():
    layer = drawn(ConvNorm2d(2, 3, 3, padding=1, batch_norm=False, dtype=torch.float64))
    for n in range(1, 41):
        for size in ((n, n), (n, 41 - n)):
            check(layer, randn(1, 2, *size, seed=n))


@pytest.mark.parametrize("size", [(5, 6), (13, 9)])
@pytest.mark.parametrize("stride", [(1, 1), (2, 3)])
@pytest.mark.parametrize(("kernel", "dilation"), [((3, 3), (1, 1)), ((2, 3), (2, 1))])
def test_in_space_and_in_fourier_are_the_same_operation(size, stride, kernel, dilation):
    plain = {"bias": False, "affine": False, "batch_norm": False}
    layer = ConvNorm2d(3, 4, kernel, stride, 1, dilation, dtype=torch.float64, **plain)
    grid = own_grid(size, kernel, dilation)
    outputs = tuple(layer(randn(1, 3, *size)).shape[2:])
    view = View(grid, outputs, (-1, -1), stride)

    def space(x):
        root = inverse_root(layer.weight, grid, dilation=dilation, eps=layer.eps)
        return _in_space(x, layer.weight, root, view, dilation, 1)

    def fourier(x):
        root = inverse_root(layer.weight, grid, dilation=dilation, eps=layer.eps)
        how = {"stride": stride, "before": (1, 1), "outputs": outputs, "dilation": dilation}
        return normalized_convolution(x, layer.weight, root, **how)

    check(layer, randn(2, 3, *size, seed=3), space)
    check(layer, randn(2, 3, *size, seed=3), fourier)


def test_a_layer_too_large_for_fourier_is_right():
    layer = ConvNorm2d(128, 600, 2, padding=1, batch_norm=False)
    every = frequencies(own_grid((42, 42), (2, 2)))[0]
    assert 2 * len(every) * layer.weight[:, :, 0, 0].numel() > 2**27
    x = randn(1, 128, 42, 42).float()
    y = layer(x)
    part = ConvNorm2d(128, 3, 2, padding=1, batch_norm=False, dtype=torch.float64)
    part.load_state_dict({name: value[:3] for name, value in layer.state_dict().items()})
    torch.testing.assert_close(y[:, :3].double(), naive(part, x.double()), rtol=0, atol=1e-5)


@pytest.mark.parametrize("groups", [1, 2])
def test_gradcheck_with_a_constant_root(groups):
    x, weight = randn(2, 2, 4, 4).requires_grad_(), randn(2, 2 // groups, 3, 3).requires_grad_()
    root = inverse_root(weight.detach(), (6, 6), eps=1e-3)
    how = {"before": (1, 1), "outputs": (4, 4), "groups": groups}
    call = lambda x, weight: normalized_convolution(x, weight, root, **how)  # noqa: E731
    assert torch.autograd.gradcheck(call, (x, weight))


def test_gradcheck_of_the_whole_layer_by_all_but_the_taps():
    layer = drawn(ConvNorm2d(2, 2, 3, padding=1, dtype=torch.float64))
    layer.weight.requires_grad_(False)
    inputs = [p for p in layer.parameters() if p.requires_grad]
    x = randn(2, 2, 4, 4, seed=5).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, *_: layer(x), (x, *inputs))


@pytest.mark.parametrize("grid", [(1, 1), (1, 2), (5, 6), (12, 12), (13, 12), (4, 17), (1, 20)])
def test_the_transform_is_that_of_torch_and_synthesize_inverts_it(grid):
    view = View(grid, grid)
    images = randn(2, 3, *grid)
    parts = analyze(images, view)
    u, v = frequencies(grid)[0].long().unbind(1)
    expected = torch.fft.fft2(images)[:, :, u, v].permute(2, 0, 1)
    torch.testing.assert_close(torch.complex(*parts), expected, rtol=0, atol=1e-12 * 400)
    torch.testing.assert_close(synthesize(parts, view), images, rtol=0, atol=1e-12)


@pytest.mark.parametrize("in_channels", [3, 24])
@pytest.mark.parametrize("eps", [0.0, 1e-6, 0.3])
def test_the_inverse_root_is_that_of_the_definition(in_channels, eps):
    layer = ConvNorm2d(in_channels, 5, (3, 2), dilation=(1, 2), eps=eps, dtype=torch.float64)
    found = inverse_root(layer.weight, (7, 9), dilation=(1, 2), eps=eps)
    u, v = frequencies((7, 9))[0].long().unbind(1)
    torch.testing.assert_close(found, inverse_roots(layer, (7, 9))[:, u, v].T)


def test_eps_adds_its_share_of_the_mean_spectrum():
    weight = randn(4, 3, 3, 3)
    bare, shifted = (inverse_root(weight, (8, 9), eps=eps) ** -2 for eps in (0.0, 0.25))
    mean = weight.square().sum((1, 2, 3))  # Parseval: of |F a|^2 over frequencies
    torch.testing.assert_close(shifted - bare, (0.25 * mean).expand_as(bare))


@settings(max_examples=15, deadline=None)
@given(
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    size=st.tuples(st.integers(4, 8), st.integers(4, 8)),
    channels=st.tuples(st.integers(1, 4), st.integers(1, 5)),
    seed=st.integers(0, 2**20),
)
def test_each_channel_is_an_isometry_and_sigma_is_within_its_bounds(kernel, size, channels, seed):
    options = {"bias": False, "affine": False, "batch_norm": False, "eps": 0.0}
    layer = drawn(ConvNorm2d(*channels, kernel, dtype=torch.float64, **options), seed)
    sigma = norms.singular_values(layer, size)
    low, high = 1 - 1e-6, math.sqrt(channels[1]) + 1e-6
    assert low <= sigma.max() <= high, sigma.max()
    for k in range(channels[1]):
        one = ConvNorm2d(channels[0], 1, kernel, dtype=torch.float64, **options)
        one.weight = nn.Parameter(layer.weight[k : k + 1].detach())
        values = norms.singular_values(one, size)
        condition = values.max() / values.min()
        # Near a zero of a spectrum the correlations that make it up cancel: eight digits are lost.
        assert abs(condition - 1) < 1e-6, (k, condition)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(
    ("dtype", "scale"),
    [("float64", 1e-60), ("float64", 1e60), ("float32", 1e-22), ("float32", 1e20)],
)
@pytest.mark.parametrize("in_channels", [4, 40])
def test_the_output_does_not_change_with_the_size_of_a_channels_taps(
    groups, dtype, scale, in_channels
):
    dtype = getattr(torch, dtype)
    layer = ConvNorm2d(in_channels, 6, 3, padding=1, groups=groups, batch_norm=False, dtype=dtype)
    x = randn(2, in_channels, 6, 7).to(dtype)
    before = layer(x)
    layer.weight.data[::2] *= scale
    tolerance = 1e-9 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(layer(x), before, rtol=0, atol=tolerance)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("size", [(6, 6), (15, 12)])
@pytest.mark.parametrize("in_channels", [4, 36])
def test_float32_is_close_to_float64(groups, size, in_channels):
    layer = drawn(ConvNorm2d(in_channels, 6, 3, padding=1, groups=groups, dtype=torch.float64))
    x = randn(4, in_channels, *size, seed=11)
    double = with_gradients(layer, layer, x)
    layer = layer.float()
    x = x.float().requires_grad_()
    y = layer(x)
    functional = (y * randn(*y.shape, seed=7).float()).sum()
    single = y, *torch.autograd.grad(functional, [x, *layer.parameters()])
    for name, one, other in zip("yxwfb12", single, double, strict=True):
        if name == "b":  # BatchNorm takes the bias out again: zero but for rounding
            continue
        error = (one - other).norm() / other.norm()
        assert error < 2e-5, (name, error)
