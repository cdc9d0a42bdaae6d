"""Networks whose pairs of convolution and BatchNorm are turned into ConvNorm layers."""

import copy

import pytest
import torch
from torch import nn
from torchvision import models as vision

from normkit import models
from normkit.layers import ConvNorm2d, convert


def count(model, kind):
    return sum(type(part) is kind for part in model.modules())


@pytest.mark.parametrize(
    ("name", "pairs", "left"),
    [
        ("resnet18", 20, 0),
        ("mobilenet_v2", 52, 0),
        ("densenet121", 59, 61),  # most of its BatchNorms stand before a convolution
        ("efficientnet_b0", 49, 32),  # squeeze and excitation has no BatchNorm
    ],
)
def test_every_pair_of_a_torchvision_network_is_converted(name, pairs, left):
    torch.manual_seed(0)
    model = getattr(vision, name)(num_classes=3)
    before = copy.deepcopy(model.state_dict())
    made = convert(model)
    assert (count(made, ConvNorm2d), count(made, nn.Conv2d)) == (pairs, left)
    assert count(made, nn.BatchNorm2d) == count(model, nn.BatchNorm2d)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    y = made(torch.randn(2, 3, 32, 32))
    y.square().sum().backward()
    assert y.shape == (2, 3)
    assert all(p.grad.isfinite().all() for p in made.parameters() if p.grad is not None)


def test_a_network_without_memory_behind_its_weights_is_converted():
    with torch.device("meta"):
        made = convert(vision.vgg16_bn())
    assert (count(made, ConvNorm2d), count(made, nn.Conv2d)) == (13, 0)
    assert all(parameter.is_meta for parameter in made.parameters())


@pytest.mark.parametrize("name", ["resnet8", "vgg11", "senet18"])
def test_networks_of_the_library_are_converted_too(name):
    options = {"normalization": nn.BatchNorm2d, "input_size": (32, 32), "width": 8}
    assert count(convert(models.build(name, **options)), ConvNorm2d) >= 8


def pair(**options):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3, padding=1, **options), nn.BatchNorm2d(4, eps=1e-3))


def test_a_converted_pair_keeps_taps_bias_and_batch_norm_and_forgets_its_statistics():
    model = pair(stride=2, groups=2, dilation=2, padding_mode="reflect").double()
    model(torch.randn(4, 2, 9, 9).double())
    nn.init.uniform_(model[1].weight)
    made = convert(model)[0]
    for name in ("weight", "bias"):
        assert torch.equal(getattr(made, name), getattr(model[0], name))
        assert torch.equal(getattr(made.batch_norm, name), getattr(model[1], name))
    assert made.batch_norm.eps == 1e-3 and made.batch_norm.running_mean.abs().max() == 0
    geometry = ("stride", "padding", "dilation", "groups", "padding_mode")
    assert all(getattr(made, name) == getattr(model[0], name) for name in geometry)


@pytest.mark.parametrize("modes", [(True, True), (False, False), (True, False)])
def test_batch_norm_keeps_its_mode(modes):
    model = pair()
    for part, mode in zip(model, modes, strict=True):
        part.train(mode)
    assert convert(model)[0].batch_norm.training == modes[1]


class Shared(nn.Module):
    """A convolution used twice, one that is read twice, and a pair."""

    def __init__(self):
        super().__init__()
        self.twice, self.read = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.first, self.second, self.third = (nn.BatchNorm2d(3) for _ in range(3))
        self.again = self.twice
        self.pair, self.last = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x):
        x = self.second(self.again(self.first(self.twice(x))))
        y = self.read(x)
        return self.last(self.pair(self.third(y) + y))


def test_a_layer_used_twice_or_read_twice_is_left_alone():
    made = convert(Shared())
    assert [type(part) for part in (made.twice, made.read, made.pair)] == [
        nn.Conv2d, nn.Conv2d, ConvNorm2d
    ]  # fmt: skip
    assert made.again is made.twice and made(torch.randn(2, 3, 5, 5)).shape == (2, 3, 5, 5)


def test_taps_that_two_layers_share_stay_shared():
    model = nn.Sequential(*pair(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), *pair())
    model[4].weight = model[0].weight
    model[2:4].requires_grad_(False)
    made = convert(nn.Sequential(*model[:4], nn.Conv2d(4, 2, 1), *model[4:]))
    assert made[0].weight is made[5].weight
    assert not made[2].weight.requires_grad and made[0].weight.requires_grad


def test_a_network_that_is_partly_converted_is_converted_further():
    model = nn.Sequential(ConvNorm2d(3, 2, 3), nn.ReLU(), *pair())
    assert count(convert(model), ConvNorm2d) == 2


def test_convolutions_whose_taps_are_computed_are_left_alone_or_refused_by_a_sentence():
    for wrap in (nn.utils.parametrizations.weight_norm, nn.utils.spectral_norm):
        model = pair()
        wrap(model[0])
        with pytest.raises(ValueError, match="convolution"):
            convert(model)


class Choosing(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: convert(pair(), "own"), "convolution is 'own'; .* converted to 'conv_norm'"),
        (lambda: convert(Choosing()), "Choosing cannot be traced by torch.fx: symbolically"),
        (lambda: convert(nn.Sequential(nn.Conv2d(2, 3, 1))), "Sequential has no convolution"),
        (lambda: convert(nn.Conv2d(2, 3, 1)), "Conv2d has no convolution"),
        (lambda: convert(convert(pair())), "Sequential has no convolution"),
    ],
)
def test_what_cannot_be_converted_is_refused_in_one_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_what_is_no_module_is_refused():
    with pytest.raises((TypeError, ValueError), match=r"model .*int"):
        convert(3)


def test_a_converted_network_does_not_change_with_the_size_of_its_taps():
    torch.manual_seed(0)
    made = convert(vision.resnet18(num_classes=3)).double().eval()
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    before = made(x)
    for part in made.modules():
        if isinstance(part, ConvNorm2d):
            part.weight.data *= 3
    torch.testing.assert_close(made(x), before)
