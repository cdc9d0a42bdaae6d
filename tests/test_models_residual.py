"""Residual blocks: in which order they normalize, activate and add, and what the nets are given."""

import pytest
import torch
from torch import nn

from normkit import models


class Double(models.Activation):
    """An activation whose place in a block can be read off its output."""

    def __init__(self, num_features):
        super().__init__()
        self.num_features = num_features

    def forward(self, x):
        return 2 * x


def net(name="resnet8", **options):
    torch.manual_seed(0)
    return models.build(name, width=4, input_size=(8, 8), in_channels=2, **options).eval()


def images():
    return torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, lambda f, g, x: 2 * (x + g(2 * f(x)))),
        ({"activation_before_sum": True}, lambda f, g, x: x + 2 * g(2 * f(x))),
        ({"preactivation": True}, lambda f, g, x: x + g(2 * f(2 * x))),
    ],
)
def test_a_block_adds_in_the_order_that_is_asked_for(options, expected):
    block = net(normalization=nn.Identity, activation=Double, **options).blocks[0]
    x = images()
    torch.testing.assert_close(block(x), expected(block.convolution1, block.convolution2, x))


def test_a_preactivated_net_normalizes_before_every_convolution_and_at_the_end():
    model = net(preactivation=True)
    assert [name for name, _ in model.named_children()] == [
        "normalize", "stem", "blocks", "last", "pool", "flatten", "head"
    ]  # fmt: skip
    order = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            module.register_forward_hook(lambda *_, name=name: order.append(name))
    model(torch.rand(2, 2, 8, 8))
    kinds = ["n" if "normalization" in name else "c" for name in order]
    assert "".join(kinds) == "c" + "ncnc" + "nccnc" * 2 + "n", order
    assert [len(m) for m in (model.stem, model.last)] == [1, 2]


@pytest.mark.parametrize("name", models.NAMES)
def test_every_net_takes_an_activation_of_as_many_features_as_it_gets(name):
    seen = []

    class Seen(Double):
        def forward(self, x):
            seen.append((self.num_features, x.shape[1]))
            return super().forward(x)

    model = net(name, activation=Seen)
    model(torch.rand(2, 2, 8, 8))
    assert seen and all(told == found for told, found in seen)
    relus = [name for name, module in model.named_modules() if isinstance(module, nn.ReLU)]
    assert all(name.endswith("gate.activation") for name in relus), relus


@pytest.mark.parametrize("name", models.NAMES)
def test_every_hidden_layer_of_every_net_has_a_bias_if_asked(name):
    model = net(name, bias=True)
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert all(layer.bias is not None for layer in layers if layer is not model.head)


@pytest.mark.parametrize("preactivation", [False, True])
def test_option_c_has_a_convolution_and_its_normalization_on_every_shortcut(preactivation):
    model = net("resnet20", shortcut="all_conv1x1", preactivation=preactivation)
    for block in model.blocks:
        names = [name for name, _ in block.shortcut.named_children()]
        assert names == ["convolution", "normalization"][: 2 - preactivation]
        assert block.shortcut.convolution.kernel_size == (1, 1)
    changed = net("resnet20", preactivation=preactivation).blocks
    kept = [isinstance(block.shortcut, nn.Identity) for block in changed]
    assert kept == [True] * 3 + [False, True, True] * 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preactivation": True}, "no residual branches, so preactivation=True must be left out"),
        ({"activation_before_sum": True}, "so activation_before_sum=True must be left out"),
    ],
)
def test_a_stack_refuses_orders_of_a_block(options, message):
    with pytest.raises(ValueError, match=message):
        net("cfg_10", **options)


def test_two_orders_at_once_are_refused():
    with pytest.raises(ValueError, match="may be True, not both"):
        net(preactivation=True, activation_before_sum=True)
