"""The nets of ENorm: their layout, where they normalize, and weight-normalized linear layers."""

import pytest
import torch
from torch import nn

from normkit import layers, models


def built(name, **options):
    torch.manual_seed(0)
    return models.build(name, **({"width": 8, "input_size": (16, 16)} | options))


def order(net, *shape):
    """The kinds of the layers of a net in the order of its forward pass."""
    kinds = {nn.Conv2d: "c", nn.BatchNorm2d: "n", nn.ReLU: "r", nn.MaxPool2d: "p", nn.Linear: "l"}
    seen = []
    for part in net.modules():
        if type(part) in kinds:
            part.register_forward_hook(lambda part, *_: seen.append(kinds[type(part)]))
    net.eval()(torch.rand(2, *shape))
    return "".join(seen)


def test_the_fully_convolutional_net_normalizes_behind_its_third_and_sixth_convolution_alone():
    expected = "crcrcnrp" * 2 + "crcrc"
    assert order(built("fully_conv"), 3, 16, 16) == expected
    assert order(built("fully_conv_released"), 3, 16, 16) == expected + "r"


def test_the_fully_convolutional_net_has_its_paper_s_widths_and_maps():
    net, maps = built("fully_conv", width=None, input_size=(32, 32)), []
    for part in net.modules():
        if isinstance(part, nn.Conv2d):
            part.register_forward_hook(lambda _m, _x, y: maps.append(tuple(y.shape[1:])))
    net(torch.rand(1, 3, 32, 32))
    expected = [(128, 32, 32)] * 3 + [(256, 16, 16)] * 3 + [(320, 8, 8)] * 2 + [(10, 8, 8)]
    assert maps == expected
    kernels = [part.kernel_size[0] for part in net.modules() if isinstance(part, nn.Conv2d)]
    assert kernels == [3] * 7 + [1] * 2


def test_every_convolution_of_it_starts_from_he_s_normal_the_last_too():
    net = built("fully_conv", width=64, num_classes=100)
    for part in net.modules():
        if isinstance(part, nn.Conv2d) and part.in_channels > 3:
            assert abs(part.weight.var() * part.weight[0].numel() / 2 - 1) < 0.05


def test_the_released_net_differs_by_the_relu_on_the_maps_before_their_average():
    plain, released = built("fully_conv").eval(), built("fully_conv_released").eval()
    x = torch.rand(5, 3, 16, 16)
    maps = plain[:-2](x)
    assert torch.equal(plain(x), maps.mean((2, 3)))
    torch.testing.assert_close(released(x), maps.relu().mean((2, 3)))
    assert plain(x).min() < 0 <= released(x).min()


def test_the_autoencoder_narrows_to_a_linear_code_and_widens_again():
    net = built("autoencoder", width=16, in_channels=2, input_size=(3, 5))
    assert order(net, 2, 3, 5) == "lnr" * 3 + "l" + "lnr" * 3 + "l"
    widths = [part.out_features for part in net.modules() if isinstance(part, nn.Linear)]
    assert widths == [16, 8, 4, 2, 4, 8, 16, 30]
    assert [part.out_features for part in built("autoencoder", width=1).modules()
            if isinstance(part, nn.Linear)][:-1] == [1] * 7  # fmt: skip
    assert models.RECONSTRUCTING == ("autoencoder",)


@pytest.mark.parametrize("bias", [False, True])
def test_a_weight_normalized_linear_layer_is_torch_s_with_gamma_one(bias):
    torch.manual_seed(0)
    layer = layers.linear("weight_norm")(5, 4, bias=bias).double()
    torch.testing.assert_close(layer.weight.norm(dim=1), torch.ones(4).double())
    gamma, v = (getattr(layer.parametrizations.weight, f"original{i}") for i in (0, 1))
    gamma.data.copy_(torch.tensor([[1.0], [2.0], [-3.0], [0.5]]))
    x = torch.rand(3, 5).double()
    expected = x @ (gamma * v / v.norm(dim=1, keepdim=True)).T
    torch.testing.assert_close(layer(x), expected)
    assert (layer.bias is not None) == bias and (not bias or not layer.bias.any())


def test_every_key_of_a_convolution_has_a_linear_layer_plain_but_for_weight_norm():
    for key in layers.CONVOLUTIONS:
        made = layers.linear(key)
        assert (made is nn.Linear) == (key != "weight_norm"), key
    with pytest.raises(ValueError, match="no convolution 'weight'; the nearest is 'weight_"):
        layers.linear("weight")


@pytest.mark.parametrize("name", ["mlp", "autoencoder", "small_cnn"])
def test_hidden_linear_layers_are_made_by_the_constructor_that_is_given(name):
    net = built(name, width=16, linear=layers.linear("weight_norm"))
    linear = [part for part in net.modules() if isinstance(part, nn.Linear)]
    plain = [part for part in linear if type(part) is nn.Linear]
    assert plain == [net.head] and len(linear) > 1


@pytest.mark.parametrize("name", ["mlp", "autoencoder"])
def test_a_net_without_convolutions_takes_one_only_with_a_linear_layer_of_its_kind(name):
    key = "weight_norm"
    net = built(name, convolution=layers.convolution(key), linear=layers.linear(key))
    assert net(torch.rand(2, 3, 16, 16)).shape[0] == 2
    for key in ("scaled_ws", "weight_centering"):
        with pytest.raises(ValueError, match=f"{name} has no convolutions"):
            built(name, convolution=layers.convolution(key), linear=layers.linear(key))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("autoencoder", {"depth": 3}, "fixed depth, so depth=3 must be left out"),
        ("autoencoder", {"shortcut": "pad"}, "no residual branches"),
        ("fully_conv", {"input_size": (1, 8)}, "at least 2x2 pixels"),
        ("fully_conv", {"shortcut": "all_conv1x1"}, "no residual branches"),
        ("regnetx_200mf", {"shortcut": "all_conv1x1"}, "residual blocks of its own"),
    ],
)
def test_options_that_these_nets_do_not_have_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        built(name, **options)
