"""Norms and condition numbers of single output channels against their own dense matrices."""

import random

import pytest
import torch
from dense import CONVOLUTIONS, ROUNDING, TRANSPOSED, circular_matrix, operator_matrix
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from normkit.norms.channels import (
    channel_condition_numbers,
    channel_norms,
    reshaped_stable_rank,
)


def assert_equals_dense(layer: nn.Module, size, matrix: Tensor, channels: int, groups: int = 1):
    """Of the layer's matrix, each output channel's rows and its group's columns are compared."""
    blocks = matrix.unflatten(1, (groups, -1)).unflatten(0, (groups, channels // groups, -1))
    blocks = torch.cat([block[:, :, group] for group, block in enumerate(blocks)])
    values = torch.linalg.svdvals(blocks)  # (C_out, values)
    norms, conditions = channel_norms(layer, size), channel_condition_numbers(layer, size)
    largest, smallest = values[:, 0], values[:, -1]
    assert norms.dtype == conditions.dtype == torch.float64
    assert torch.allclose(norms, largest, rtol=ROUNDING, atol=0), (layer, size)
    error = (norms / conditions - smallest).abs() / largest
    assert error.max() < ROUNDING, (layer, size)


def random_layer(rng, kinds):
    dims, groups = rng.choice((1, 1, 2, 2, 3)), rng.choice((1, 1, 2, 3))
    channels = [groups * rng.randint(1, 5) for _ in range(2)]

    def draw(high):
        return tuple(rng.randint(1, high) for _ in range(dims))

    kernel, stride, dilation = draw(5 - dims), draw(3 if dims < 3 else 2), draw(2)
    coarse = draw((7, 4, 2)[dims - 1])
    options = {"stride": stride, "dilation": dilation, "groups": groups, "dtype": torch.float64}
    fine = tuple(s * n for s, n in zip(stride, coarse, strict=True))
    return kinds[dims - 1](*channels, kernel, **options), coarse, fine


@pytest.mark.parametrize("seed", range(4))
def test_convolutions_equal_the_matrix_of_each_channel(seed):
    rng = random.Random(seed)
    torch.manual_seed(seed)
    for _ in range(40):
        layer, _, fine = random_layer(rng, CONVOLUTIONS)
        matrix = circular_matrix(layer, fine)
        assert_equals_dense(layer, fine, matrix, layer.out_channels, layer.groups)


@pytest.mark.parametrize("seed", range(4))
def test_transposed_convolutions_equal_the_matrix_of_each_channel(seed):
    rng = random.Random(seed)
    torch.manual_seed(seed)
    for _ in range(30):
        layer, coarse, fine = random_layer(rng, TRANSPOSED)
        matrix = circular_matrix(layer, fine).T
        assert_equals_dense(layer, coarse, matrix, layer.out_channels, layer.groups)


def test_layers_that_run_on_a_torus_equal_what_they_execute():
    torch.manual_seed(0)
    around = {"padding": (2, 1), "padding_mode": "circular", "dilation": (2, 1)}
    cases = [
        (nn.Conv2d(4, 6, 3, groups=2, **around), (4, 5, 4), 6, 2),
        (nn.Conv1d(3, 4, 3, 3), (3, 12), 4, 1),
        (nn.ConvTranspose1d(3, 4, 2, 3, output_padding=1), (3, 5), 4, 1),
        (nn.Linear(5, 7), (5,), 7, 1),
        (nn.BatchNorm2d(3).eval(), (3, 2, 3), 3, 3),
    ]
    for layer, shape, channels, groups in cases:
        matrix = operator_matrix(layer.double(), shape)
        assert_equals_dense(layer, shape[1:], matrix, channels, groups)


def test_the_whole_layer_lies_between_its_largest_channel_and_all_together():
    torch.manual_seed(0)
    layer = nn.Conv2d(5, 7, 3, 2, dtype=torch.float64)
    sigma = torch.linalg.matrix_norm(circular_matrix(layer, (6, 4)), 2)
    norms = channel_norms(layer, (6, 4))
    assert norms.max() <= sigma <= norms.square().sum().sqrt()


def test_a_channel_blind_to_a_wave_has_no_finite_condition_number():
    layer = nn.Conv2d(2, 4, 3, dtype=torch.float64)
    nn.init.zeros_(layer.weight)
    layer.weight.data[0, 1, 1, 1] = -3.0  # a pixel, scaled
    layer.weight.data[1, :, 0, :2] = torch.tensor([1.0, -1.0])  # blind to constants
    layer.weight.data[2, 0, :] = 1 / 3  # a mean, blind to some waves
    norms = torch.tensor([3.0, 8**0.5, 3.0, 0.0], dtype=torch.float64)
    assert torch.allclose(channel_norms(layer, (6, 6)), norms)
    conditions = channel_condition_numbers(layer, (6, 6)).tolist()
    assert conditions == [1.0, float("inf"), float("inf"), float("inf")]


def test_dividing_a_channel_by_its_waves_gives_norm_and_condition_number_one():
    torch.manual_seed(0)
    taps = torch.randn(4, 3, 3, 3, dtype=torch.float64)
    waves = torch.fft.rfft2(taps, s=(7, 6))
    waves = waves / waves.abs().square().sum(1, keepdim=True).sqrt()
    layer = nn.Conv2d(3, 4, (7, 6), dtype=torch.float64)
    layer.weight.data = torch.fft.irfft2(waves, s=(7, 6))
    ones = torch.ones(4, dtype=torch.float64)
    assert torch.allclose(channel_norms(layer, (7, 6)), ones, rtol=ROUNDING)
    assert torch.allclose(channel_condition_numbers(layer, (7, 6)), ones, rtol=ROUNDING)


def test_channels_too_many_for_one_block_give_what_each_gives_alone():
    torch.manual_seed(0)
    layer, alone = nn.Conv2d(2, 40, 3, 2), nn.Conv2d(2, 1, 3, 2)
    norms = channel_norms(layer, (300, 200))
    for channel in (0, 33, 34, 39):
        alone.weight.data = layer.weight.data[channel, None]
        assert norms[channel] == pytest.approx(channel_norms(alone, (300, 200)).item(), ROUNDING)


def test_the_stride_must_divide_the_torus():
    with pytest.raises(ValueError, match="2 does not divide input_size 7"):
        channel_norms(nn.Conv1d(2, 2, 3, 2), (7,))


@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(5, 7),
        nn.Conv2d(6, 4, 3, groups=2),
        nn.ConvTranspose2d(6, 4, 3, groups=2),
        nn.ConvTranspose1d(3, 8, 5, stride=2),
    ],
)
def test_reshaped_stable_rank_is_that_of_the_matrix_that_torch_normalizes(layer):
    torch.manual_seed(0)
    nn.init.normal_(layer.weight)
    layer = parametrizations.spectral_norm(layer.double(), n_power_iterations=2000).eval()
    found, weight = reshaped_stable_rank(layer).item(), layer.weight.detach()
    assert found == pytest.approx(weight.square().sum().item(), rel=1e-6)
    matrix = (weight.transpose(0, 1) if isinstance(layer, TRANSPOSED) else weight).flatten(1)
    values = torch.linalg.svdvals(matrix)
    assert found == pytest.approx((values / values[0]).square().sum().item(), rel=ROUNDING)


def test_a_kernel_of_zeros_has_stable_rank_zero():
    layer = nn.Conv1d(2, 3, 3)
    nn.init.zeros_(layer.weight)
    assert reshaped_stable_rank(layer) == 0
