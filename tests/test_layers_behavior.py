"""What the layers do beyond their formula: gradients, running averages, types, refusals."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from normkit import layers, norms
from normkit.layers.channelwise import moments


def features(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def makers():
    made = {key: layers.NORMALIZATIONS[key] for key in layers.NORMALIZATIONS if key != "none"}
    made["tlu"] = layers.TLU
    made["learnable_eps"] = lambda n: layers.FilterResponseNorm(n, learnable_eps=True)
    made["group_released"] = lambda n: layers.group(n, groups=2, variant="released")
    made["s0_released"] = lambda n: layers.EvoNormS0(n, groups=2, variant="released")
    made["scaled_relu"] = lambda n: layers.ScaledReLU()
    return made


MAKERS = makers()
RUNNING = {
    "variance": ("running_var", layers.VarianceNorm),
    "mean_centering": ("running_mean", layers.MeanCentering),
    "evonorm_b0": ("running_var", layers.EvoNormB0),
}


def as_function(layer):
    """The layer as a function of its input and its parameters."""
    names = [name for name, _ in layer.named_parameters()]

    def call(x, *values):
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,))

    return call, [p.detach().clone().requires_grad_() for p in layer.parameters()]


@pytest.mark.parametrize("key", MAKERS)
@pytest.mark.parametrize("training", [True, False])
def test_gradients_of_first_and_second_order_are_those_of_the_function(key, training):
    layer = MAKERS[key](4).double().train(training)
    x = (features(3, 4, 2, 3, seed=5) + 0.3).requires_grad_()
    call, values = as_function(layer)
    inputs = (x, *values)
    assert torch.autograd.gradcheck(call, inputs)
    assert torch.autograd.gradgradcheck(call, inputs)


@pytest.mark.parametrize("make", [layers.weight_norm, layers.scaled_ws, layers.weight_centering])
def test_normalized_convolutions_can_be_trained_on_their_input_gradient(make):
    call, values = as_function(make(2, 3, 2, bias=True).double())
    inputs = (features(2, 2, 3, 4).requires_grad_(), *values)

    def penalty(x, *values):
        return torch.autograd.grad(call(x, *values).pow(3).sum(), x, create_graph=True)[0]

    assert torch.autograd.gradcheck(call, inputs)
    assert torch.autograd.gradcheck(penalty, inputs)


@pytest.mark.parametrize("make", [layers.scaled_ws, layers.weight_centering])
def test_second_derivatives_by_the_weights_are_those_of_the_function(make):
    call, values = as_function(make(2, 3, 2, bias=True).double())
    assert torch.autograd.gradgradcheck(call, (features(2, 2, 3, 4).requires_grad_(), *values))


@pytest.mark.parametrize("over_images", [True, False])
def test_moments_of_maps_far_from_zero_keep_their_digits(over_images):
    x = (features(16, 3, 8, 8) + 5000).float()
    dims = (0, 2, 3) if over_images else (2, 3)
    var, mean = torch.var_mean(x.double(), dims, correction=0, keepdim=True)
    found = moments(x, over_images=over_images)
    torch.testing.assert_close(found[0].double(), mean, rtol=1e-6, atol=0)
    # E[x^2] - E[x]^2 in float32 would be wrong by more than the variance itself.
    torch.testing.assert_close(found[1].double(), var, rtol=1e-4, atol=0)


@pytest.mark.parametrize("key", RUNNING)
def test_evaluation_uses_the_long_run_average_of_the_training_statistics(key):
    name, make = RUNNING[key]
    layer = make(4, momentum=0.2).double()
    average = getattr(layer, name).numpy().copy()
    for seed in range(40):
        x = features(8, 4, 5, 3, seed=seed) * 2 + 3
        layer(x)
        images = x.numpy()
        new = images.mean((0, 2, 3)) if key == "mean_centering" else images.var((0, 2, 3), ddof=1)
        average = 0.8 * average + 0.2 * new
    np.testing.assert_allclose(getattr(layer, name).numpy(), average, rtol=1e-12)
    # The average forgets all but about 10 batches of 120 values: a spread of 4 % of the variance.
    np.testing.assert_allclose(average, 3 if key == "mean_centering" else 4, rtol=0.2)

    layer.eval()
    frozen = copy.deepcopy(layer.state_dict())
    level = average.reshape(-1, 1, 1)
    x = (features(2, 4, 5, 3, seed=99) * 2 + 3).numpy()
    expected = {
        "variance": lambda: x / np.sqrt(level + 1e-5),
        "mean_centering": lambda: x - level,
        "evonorm_b0": lambda: (
            x / np.maximum(np.sqrt(level + 1e-5), x + np.sqrt(x.var((2, 3), keepdims=True) + 1e-5))
        ),
    }[key]()
    torch.testing.assert_close(layer(torch.from_numpy(x)), torch.from_numpy(expected))
    one = torch.from_numpy(x[:1])
    torch.testing.assert_close(layer(one), torch.from_numpy(expected[:1]))
    assert all(torch.equal(layer.state_dict()[k], v) for k, v in frozen.items())


@pytest.mark.parametrize("key", MAKERS)
def test_under_autocast_maps_of_bfloat16_come_near_those_of_float32(key):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), MAKERS[key](8), nn.Conv2d(8, 4, 1))
    x = torch.rand(16, 3, 6, 5)

    def run():
        net.zero_grad()
        y = net(x)
        y.float().square().mean().backward()
        return [y.detach().float()] + [p.grad.clone() for p in net.parameters()]

    exact = run()
    with torch.autocast("cpu", torch.bfloat16):
        near = run()
    # bfloat16 has 8 digits, and three layers round; a gradient that is a difference of two sums,
    # as that of what a normalization cancels, keeps fewer, so it is compared with the largest.
    scale = max(e.norm() for e in exact[1:])
    assert all(n.isfinite().all() for n in near)
    assert (near[0] - exact[0]).norm() < 0.02 * exact[0].norm()
    assert max((n - e).norm() for n, e in zip(near[1:], exact[1:], strict=True)) < 0.05 * scale


@pytest.mark.parametrize("key", MAKERS)
def test_half_precision_maps_stay_in_their_type(key):
    layer = MAKERS[key](6)
    x = features(4, 6, 5, 3)
    y = layer(x.bfloat16())
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), layer(x.float()), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("key", MAKERS)
def test_channels_last_maps_give_the_same_values_and_keep_their_format(key):
    layer = MAKERS[key](8).double()
    x = features(3, 8, 5, 4)
    last = x.clone().to(memory_format=torch.channels_last).requires_grad_()
    first = x.clone().requires_grad_()
    y, z = layer(first), layer(last)
    torch.testing.assert_close(z, y)
    (y * features(*y.shape, seed=1)).sum().backward()
    (z * features(*z.shape, seed=1)).sum().backward()
    torch.testing.assert_close(last.grad, first.grad)
    # Torch's instance normalization is the one that gives the format up.
    assert z.is_contiguous(memory_format=torch.channels_last) or key == "instance"


@pytest.mark.parametrize("key", ["variance", "mean_centering", "evonorm_b0", "evonorm_s0"])
def test_without_affine_there_is_no_gamma_and_no_beta(key):
    make = layers.NORMALIZATIONS[key]
    plain, affine = make(4, affine=False).double(), make(4).double()
    x = features(3, 4, 5, 2)
    assert torch.equal(plain(x), affine(x))
    left = {name for name, _ in affine.named_parameters()} - {"weight", "bias"}
    assert {name for name, _ in plain.named_parameters()} == left
    assert not {"weight", "bias"} & set(plain.state_dict())


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_the_groups_of_evonorm_s0_do_not_see_each_other(groups):
    layer = layers.EvoNormS0(8, groups=groups).double()
    x = features(2, 8, 5, 3)
    moved = x.clone()
    moved[:, 0] *= 3
    changed = (layer(moved) != layer(x)).any(3).any(2).any(0)
    assert changed.tolist() == [channel < 8 // groups for channel in range(8)]


PIXEL = torch.rand(3, 4, 1, 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: layers.group(4, groups=4)(PIXEL), r"2 values .* \(3, 4, 1, 1\) have 1"),
        (lambda: layers.group(4, groups=4)(PIXEL[:0]), "GroupNorm needs at least 2"),
        (lambda: layers.group(4, groups=4, variant="released")(PIXEL), "GroupNorm needs"),
        (lambda: layers.layer(1)(PIXEL[:, :1]), "GroupNorm needs at least 2 values"),
        (lambda: layers.EvoNormS0(4, groups=4)(PIXEL), "EvoNormS0 needs at least 2 values"),
        (lambda: layers.VarianceNorm(4)(PIXEL[:1]), "VarianceNorm needs .* have 1"),
        (lambda: layers.MeanCentering(4)(PIXEL[:1]), "MeanCentering needs .* have 1"),
        (lambda: layers.EvoNormB0(4)(PIXEL[:1]), "EvoNormB0 needs .* have 1"),
        (lambda: layers.EvoNormB0(4)(PIXEL[:0]), "EvoNormB0 needs .* have 0"),
        (lambda: layers.weight_centering(1, 4, 1), "weight_centering needs at least 2 weights"),
        (lambda: layers.EvoNormS0(6, group_size=4), "group_size=4 does not divide 6 channels"),
        (lambda: layers.EvoNormS0(6, variant="code"), "one of paper, released, not 'code'"),
        (lambda: layers.group(6, variant="code"), "one of paper, released, not 'code'"),
        (lambda: layers.normalization("group", variant=1), "one of paper, released, not 1"),
        (
            lambda: layers.normalization("evonorm_b0", variant="released"),
            "'evonorm_b0' has one variant, so variant='released' must be left out",
        ),
        (lambda: layers.normalization("evonorm_b0", groups=2), "'evonorm_b0' has no groups"),
        (lambda: layers.normalization("evonorm_s1"), "nearest is 'evonorm_s0'"),
        (lambda: layers.pair("filter"), "there is no normalization 'filter'"),
        (lambda: layers.pair("batch", "weightnorm"), "nearest is 'weight_norm'"),
        (lambda: layers.pair("batch", groups=2), "'batch' has no groups"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()


OURS = ["layer", "group", "filter_response", "variance", "mean_centering", "evonorm_b0", "tlu"]


@pytest.mark.parametrize("key", [*OURS, "evonorm_s0"])
@pytest.mark.parametrize("shape", [(2, 4, 5, 5), (2, 1, 5, 5), (2, 8), (8, 5, 5)])
@pytest.mark.parametrize("training", [True, False])
def test_maps_of_other_channels_are_refused(key, shape, training):
    with pytest.raises(ValueError, match=r"takes maps of shape \(N, 8, H, W\), not"):
        MAKERS[key](8).train(training)(torch.rand(shape))


@pytest.mark.parametrize("make", RUNNING.values(), ids=RUNNING)
def test_evaluation_takes_one_image_of_one_pixel(make):
    assert make[1](4).eval()(PIXEL[:1]).isfinite().all()


@pytest.mark.parametrize("key", ["variance", "mean_centering"])
def test_a_layer_that_is_linear_in_evaluation_is_measured_as_one(key):
    torch.manual_seed(0)
    layer = layers.NORMALIZATIONS[key](3).double()
    for _ in range(3):
        layer(torch.randn(4, 3, 5, 5, dtype=torch.float64) * 3 + 1)
    torch.nn.init.uniform_(layer.weight, -2, 2)
    layer.eval()
    dense = torch.func.jacrev(layer)(torch.zeros(1, 3, 2, 2, dtype=torch.float64)).reshape(12, 12)
    table = norms.layer_table(layer, (3, 2, 2), norms=("linf", "spectral")).set_index("norm")
    assert (table.status == "ok").all()
    assert table.value.linf == pytest.approx(dense.abs().sum(1).max().item())
    assert table.value.spectral == pytest.approx(torch.linalg.matrix_norm(dense, 2).item())


@pytest.mark.parametrize("key", [k for k in layers.NORMALIZATIONS if k != "none"])
def test_whole_numbers_are_refused(key):
    with pytest.raises((ValueError, RuntimeError), match="floating|Byte|not implemented|mixed"):
        layers.NORMALIZATIONS[key](3)(torch.zeros(2, 3, 4, 4, dtype=torch.uint8))
