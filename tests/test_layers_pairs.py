"""What a net puts between two convolutions: every normalization with the activation it needs."""

import pytest
import torch
from torch import nn

from normkit import layers, models

ACTIVATIONS = {
    "filter_response": layers.TLU,
    "evonorm_b0": layers.EvoNormB0,
    "evonorm_s0": layers.EvoNormS0,
}


@pytest.mark.parametrize("convolution", layers.CONVOLUTIONS)
@pytest.mark.parametrize("normalization", layers.NORMALIZATIONS)
def test_every_pair_of_normalization_and_activation_trains_a_plain_net(normalization, convolution):
    torch.manual_seed(0)
    options = {"batch_norm": False} if convolution == "conv_norm" else {}
    pair = layers.pair(normalization, convolution, batch_norm=False)
    activation = pair.activation(8)
    expected = ACTIVATIONS.get(normalization, nn.ReLU)
    if (normalization, convolution) == ("none", "weight_norm"):
        expected = layers.ScaledReLU
    assert type(activation) is expected
    assert isinstance(activation, nn.ReLU | models.Activation)
    if normalization.startswith("evonorm"):
        assert type(pair.normalization(8)) is nn.Identity
    else:
        assert type(pair.normalization(8)) is type(layers.NORMALIZATIONS[normalization](8))
    net = models.build(
        "cfg_10",
        width=8,
        input_size=(6, 5),
        normalization=pair.normalization,
        activation=pair.activation,
        convolution=layers.convolution(convolution, **options),
    )
    net(torch.rand(4, 3, 6, 5)).square().mean().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad.isfinite().all() and parameter.grad.any(), name


def test_a_pair_passes_groups_and_variant_on():
    norm = layers.pair("group", group_size=4, variant="released").normalization(12)
    assert (norm.num_groups, norm.variant) == (3, "released")
    norm = layers.pair("evonorm_s0", groups=2, variant="released").activation(12)
    assert (norm.num_groups, norm.variant) == (2, "released")
