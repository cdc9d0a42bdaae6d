"""How ConvNorm behaves as a layer: state, modes, types, memory formats, and what it refuses."""

import copy
import io
import math

import numpy as np
import pytest
import torch
from conv_norm_naive import naive
from torch import nn

from normkit import layers
from normkit.layers import ConvNorm2d, inverse_root

SMALL, LARGE = (6, 7), (14, 15)  # one matrix per image, and one along each axis
PATHS = [(3, 1, SMALL), (3, 1, LARGE), (3, 2, SMALL), (1, 1, SMALL)]  # kernel, groups, size


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def made(kernel=3, groups=1, dtype=torch.float64, **options):
    """A layer of 4 to 6 channels that keeps the size of an image."""
    torch.manual_seed(0)
    padding = kernel // 2
    return ConvNorm2d(4, 6, kernel, padding=padding, groups=groups, dtype=dtype, **options)


def test_it_has_the_signature_and_the_taps_of_a_convolution():
    arguments = (4, 6, (3, 2), (2, 1), (1, 0), (1, 2), 2, True, "reflect")
    torch.manual_seed(0)
    layer = ConvNorm2d(*arguments)
    torch.manual_seed(0)
    plain = nn.Conv2d(*arguments)
    assert torch.equal(layer.weight, plain.weight)
    x = randn(2, 4, 8, 9, dtype=torch.float32)
    assert layer(x).shape == plain(x).shape
    assert layer.bias.abs().max() == 0
    names = {"weight", "filter", "bias", "batch_norm.weight", "batch_norm.bias"}
    assert dict(layer.named_parameters()).keys() == names


@pytest.mark.parametrize("variant", ["paper", "released"])
@pytest.mark.parametrize("seen", [None, SMALL, LARGE])
def test_a_state_dict_goes_round_whatever_sizes_were_seen(variant, seen):
    layer, other = made(variant=variant), made(variant=variant)
    other(randn(2, 4, 9, 9))
    if seen:
        layer(randn(2, 4, *seen))
    layer.weight.data += 1
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    for size in (SMALL, (9, 9), LARGE):
        x = randn(2, 4, *size, seed=3)
        assert torch.equal(other.eval()(x), layer.eval()(x))
    other.train()(randn(2, 4, *SMALL))
    copied = copy.deepcopy(layer)
    assert torch.equal(copied(x), layer(x))


def test_the_state_of_the_paper_variant_is_its_parameters_and_batch_norms():
    assert set(made().state_dict()) == {"weight", "filter", "bias"} | {
        f"batch_norm.{name}" for name in nn.BatchNorm2d(6).state_dict()
    }


@pytest.mark.parametrize("groups", [1, 2])
def test_the_released_variant_evaluates_with_the_running_average_of_v(groups):
    layer = made(groups=groups, variant="released", batch_norm=False, eps=1e-3)
    x, running = randn(2, 4, *SMALL), 0.0
    for step in range(1, 6):
        root = inverse_root(layer.weight, (8, 9), eps=1e-3)
        assert torch.equal(layer.train()(x), made_like(layer)(x))
        weight = max(0.5 + 0.5 * math.cos(math.pi * step / 40_000), 0.01)
        running = weight * root + (1 - weight) * running
        layer.weight.data += 0.1 * randn(*layer.weight.shape, seed=step)
    torch.testing.assert_close(layer.running.value, running)
    stale = layer.eval()(x)
    assert (stale - made_like(layer)(x)).abs().max() > 1e-3
    z = nn.functional.conv2d(x, layer.weight, padding=2, groups=groups)
    full = torch.zeros(8, 9, 6, dtype=torch.float64)
    u, v = layers.fourier.frequencies((8, 9))[0].long().unbind(1)
    full[u, v] = full[-u, -v] = running
    y = torch.fft.ifft2(torch.fft.fft2(z) * full.permute(2, 0, 1)).real[..., 1:-1, 1:-1]
    expected = nn.functional.conv2d(y, layer.filter, layer.bias, padding=1, groups=6)
    torch.testing.assert_close(stale, expected)


def made_like(layer):
    """The paper variant with the same weights."""
    options = {"batch_norm": False, "eps": layer.eps, "groups": layer.groups}
    other = ConvNorm2d(4, 6, 3, padding=1, dtype=torch.float64, **options)
    state = {k: v for k, v in layer.state_dict().items() if not k.startswith("running")}
    other.load_state_dict(state)
    return other


def test_the_released_variant_at_another_size_evaluates_with_the_v_of_its_weights():
    layer = made(variant="released", batch_norm=False)
    layer(randn(2, 4, *SMALL))
    layer.weight.data += 1
    x = randn(2, 4, *LARGE)
    assert torch.equal(layer.eval()(x), made_like(layer)(x))
    assert made(variant="released").eval()(x).abs().max() > 0  # theirs gives zero


@pytest.mark.parametrize(("step", "expected"), [(20_000, 0.5), (40_000, 0.01), (90_000, 0.01)])
def test_the_weight_of_the_current_v_falls_to_a_hundredth(step, expected):
    running = layers.running_root.RunningRoot()
    running(torch.zeros(3, 1), (2, 2))
    running.steps.fill_(step - 1)
    running(torch.ones(3, 1), (2, 2))
    torch.testing.assert_close(running.value, torch.full((3, 1), expected), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("kernel", "groups", "size"), PATHS)
@pytest.mark.parametrize("variant", ["paper", "released"])
def test_a_dead_filter_gives_finite_outputs_and_gradients(kernel, groups, size, variant):
    for eps in (0.0, 1e-6):
        layer = made(kernel, groups, eps=eps, variant=variant, batch_norm=False, bias=False)
        layer.weight.data[1] = 0
        x = randn(2, 4, *size).requires_grad_()
        y = layer(x)
        y.square().sum().backward()
        assert y[:, 1].abs().max() == 0 and y[:, 0].abs().max() > 0.1
        assert layer.weight.grad[1].abs().max() == 0 and layer.weight.grad[0].any()
        assert all(t.grad.isfinite().all() for t in (x, *layer.parameters()))


@pytest.mark.parametrize(("kernel", "groups", "size"), PATHS)
def test_gradients_are_there_just_where_they_are_asked_for(kernel, groups, size):
    layer, x = made(kernel, groups), randn(2, 4, *size)
    layer(x).square().sum().backward()
    assert x.grad is None and layer.weight.grad is not None
    layer.requires_grad_(False).zero_grad()
    assert not layer(x).requires_grad
    layer(x.requires_grad_()).square().sum().backward()
    assert x.grad.any() and layer.weight.grad is None
    with torch.no_grad():
        assert not layer.requires_grad_()(x).requires_grad
    with torch.inference_mode():
        layer(x)
    layer(x).sum().backward()


def test_a_second_derivative_is_refused():
    x = randn(2, 4, *SMALL).requires_grad_()
    for batch_norm in (True, False):
        y = made(batch_norm=batch_norm)(x)
        [gradient] = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        with pytest.raises(RuntimeError, match="differentiate twice"):
            gradient.square().sum().backward()


@pytest.mark.parametrize(("kernel", "groups", "size"), PATHS)
@pytest.mark.parametrize("batch_norm", [True, False])
def test_an_empty_batch_gives_an_empty_output(kernel, groups, size, batch_norm):
    layer = made(kernel, groups, batch_norm=batch_norm).eval()
    x = randn(0, 4, *size).requires_grad_()
    y = layer(x)
    assert y.shape == (0, 6, *size)
    y.sum().backward()
    assert layer.weight.grad.abs().max() == 0


@pytest.mark.parametrize(("kernel", "groups", "size"), PATHS)
def test_layout_and_batching_do_not_change_the_output(kernel, groups, size):
    layer, x = made(kernel, groups).eval(), randn(3, 4, *size)
    y, last = layer(x), torch.channels_last
    moved = copy.deepcopy(layer).to(memory_format=last)
    close = {"rtol": 0, "atol": 1e-13}
    torch.testing.assert_close(layer(x.contiguous(memory_format=last)), y, **close)
    torch.testing.assert_close(moved(x.contiguous(memory_format=last)), y, **close)
    torch.testing.assert_close(layer(x[1]), y[1], **close)
    wide = randn(3, 8, size[0], 2 * size[1])[:, ::2, :, ::2]
    torch.testing.assert_close(layer(wide), layer(wide.contiguous()), **close)


@pytest.mark.parametrize(("kernel", "groups", "size"), PATHS)
@pytest.mark.parametrize("variant", ["paper", "released"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_weights_compute_in_float32(kernel, groups, size, variant, dtype):
    layer = made(kernel, groups, dtype, variant=variant, batch_norm=False)
    x = randn(2, 4, *size, dtype=dtype)
    y = layer(x)
    y.float().square().sum().backward()
    double = copy.deepcopy(layer).double()
    assert y.dtype == dtype and {p.grad.dtype for p in layer.parameters()} == {dtype}
    error = (y.double() - naive(double, x.double())).abs().max() / y.double().abs().max()
    assert error < 2 * torch.finfo(dtype).eps, error
    assert layer.eval()(x).dtype == dtype


@pytest.mark.parametrize("given", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize(("kernel", "groups", "size"), PATHS)
def test_autocast_around_it_changes_nothing_but_the_type_of_the_input(kernel, groups, size, given):
    layer, x = made(kernel, groups, torch.float32), randn(3, 4, *size, dtype=given)
    factor = randn(3, 6, *size, dtype=torch.float32)
    expected = layer(x.float())
    (expected * factor).sum().backward()
    gradients = [p.grad for p in layer.parameters()]
    layer.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x.requires_grad_())
        (y * factor).sum().backward()
    assert torch.equal(y, expected) and x.grad.dtype == given
    for parameter, gradient in zip(layer.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-5, atol=1e-4)


def test_it_converts_to_float64():
    layer = made(dtype=torch.float32, variant="released")
    layer(randn(2, 4, *SMALL, dtype=torch.float32))
    layer.double()
    for mode in (False, True):
        assert layer.train(mode)(randn(2, 4, *SMALL)).dtype == torch.float64


def test_the_meta_device_tells_the_shape_of_the_output():
    x = torch.empty(2, 4, *SMALL, dtype=torch.float64, device="meta")
    assert made().to("meta")(x).shape == (2, 6, *SMALL)


def test_a_functional_call_is_the_layer_with_other_weights():
    layer, other, x = made(), made(), randn(2, 4, *SMALL)
    for parameter in other.parameters():
        parameter.data += 0.5
    given = dict(other.named_parameters())
    y = torch.func.functional_call(layer, given, (x,))
    assert torch.equal(y, other(x))
    y.square().sum().backward()
    assert layer.weight.grad is None and other.weight.grad.any()


def test_its_core_is_the_normalized_convolution_alone():
    layer, x = made(groups=2).eval(), randn(2, 4, *SMALL)
    y = nn.functional.conv2d(layer.core()(x), layer.filter, layer.bias, padding=1, groups=6)
    torch.testing.assert_close(layer(x), layer.batch_norm(y))


def test_its_core_draws_no_random_numbers():
    layer, state = made(), torch.get_rng_state()
    layer.core()
    assert torch.equal(torch.get_rng_state(), state)


def test_a_large_kernel_needs_no_more_memory_than_its_lags():
    layer = ConvNorm2d(1, 1, 31, padding=15, batch_norm=False, dtype=torch.float64)
    x = randn(1, 1, 4, 4)
    torch.testing.assert_close(layer(x), naive(layer, x), rtol=0, atol=1e-9)


def test_the_constructor_takes_the_options_of_its_key():
    options = {"affine": False, "batch_norm": False, "variant": "released"}
    layer = layers.convolution("conv_norm", **options)(4, np.int64(6), 3, padding="same", groups=2)
    assert (layer.filter, layer.batch_norm, layer.bias) == (None, None, None)
    assert layer.variant == "released" and layer.groups == 2
    strong = layers.convolution("conv_norm", filter_gain=2.5)(4, 6, (3, 4))
    assert torch.equal(strong.filter.sum((2, 3)), torch.full((6, 1), 2.5))
    assert strong.filter[0, 0, 1, 1] == 2.5
