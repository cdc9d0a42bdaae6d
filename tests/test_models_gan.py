"""The nets of the generative network: their layout at any size, and what they refuse."""

import pytest
import torch
from torch import nn

from normkit import layers, models

SIZES = [(1, (8, 8)), (3, (16, 16)), (3, (32, 32)), (1, (28, 28)), (2, (12, 16))]


@pytest.mark.parametrize(("channels", "size"), SIZES)
def test_noise_becomes_images_of_the_size_and_images_one_number(channels, size):
    maker = models.gan.generator(latent=7, out_channels=channels, input_size=size, width=2)
    judge = models.gan.discriminator(in_channels=channels, input_size=size, width=2)
    images = maker(torch.randn(3, 7))
    assert images.shape == (3, channels, *size)
    assert 0 <= images.min() and images.max() <= 1
    assert judge(images).shape == (3, 1)


def test_at_the_published_width_the_nets_are_sngan_s():
    maker = models.gan.generator(latent=128, out_channels=3, input_size=(32, 32), width=64)
    kinds = (nn.Linear, nn.ConvTranspose2d, nn.Conv2d)
    found = [tuple(part.weight.shape) for part in maker.modules() if isinstance(part, kinds)]
    deconvolutions = [(512, 256, 4, 4), (256, 128, 4, 4), (128, 64, 4, 4)]
    assert found == [(512 * 16, 128), *deconvolutions, (3, 64, 3, 3)]
    judge = models.gan.discriminator(in_channels=3, input_size=(32, 32), width=64)
    maps, images = [], torch.rand(1, 3, 32, 32)
    for block in judge.layers:
        images = block(images)
        maps.append((images.shape[1], images.shape[2]))
    twice = [(64, 32), (64, 16), (128, 16), (128, 8), (256, 8), (256, 4), (512, 4)]
    assert maps == twice
    assert judge.head.in_features == 512 * 16 and judge.layers[0].activation.negative_slope == 0.1


def test_the_discriminator_is_made_of_what_it_is_given():
    judge = models.gan.discriminator(
        in_channels=1,
        input_size=(8, 8),
        width=4,
        convolution=layers.convolution("weight_norm"),
        normalization=nn.BatchNorm2d,
        linear=layers.linear("weight_norm"),
        bias=False,
    )
    parts = [(block.convolution, block.normalization) for block in judge.layers]
    assert len(parts) == 3
    assert all(nn.utils.parametrize.is_parametrized(part, "weight") for part, _ in parts)
    assert all(part.bias is None and isinstance(norm, nn.BatchNorm2d) for part, norm in parts)
    assert nn.utils.parametrize.is_parametrized(judge.head, "weight")


def test_plain_convolutions_start_from_he_s_normal():
    torch.manual_seed(0)
    judge = models.gan.discriminator(in_channels=3, input_size=(8, 8), width=64)
    weight = judge.layers[2].convolution.weight
    assert abs(weight.var() * weight[0].numel() / 2 - 1) < 0.05


@pytest.mark.parametrize("size", [(4, 4), (9, 9), (8, 4), (7, 8)])
@pytest.mark.parametrize("net", ["generator", "discriminator"])
def test_images_that_cannot_be_halved_are_refused(net, size):
    sizes = {"generator": {"latent": 4, "out_channels": 1}, "discriminator": {"in_channels": 1}}
    with pytest.raises(ValueError, match=f"images of {size[0]}x{size[1]} pixels cannot be halved"):
        getattr(models.gan, net)(input_size=size, width=4, **sizes[net])


@pytest.mark.parametrize("width", [0, -2, 1.5, None])
def test_a_width_that_is_none_is_refused(width):
    with pytest.raises(ValueError, match="width of the generator must be a whole number"):
        models.gan.generator(latent=4, out_channels=1, input_size=(8, 8), width=width)
    with pytest.raises(ValueError, match="width of the discriminator must be a whole number"):
        models.gan.discriminator(in_channels=1, input_size=(8, 8), width=width)
