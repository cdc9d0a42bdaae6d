"""State dicts without a name: the net is recognized, or the message says why not."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from normkit import models

SHORTCUTS = ("conv1x1", "conv3x3", "pad", "all_conv1x1")
SHARED = os.environ.get("NORMKIT_SHARED")


@pytest.mark.parametrize("name", models.NAMES)
def test_every_net_comes_back_from_its_state_dict(name):
    normalize = {"mean": (0.5, 0.4), "std": (0.2, 0.3)}
    net = models.build(name, in_channels=2, input_size=(8, 9), width=4, **normalize).eval()
    again = models.from_state_dict(net.state_dict(), input_size=(8, 9), **normalize)
    x = torch.rand(2, 2, 8, 9, generator=torch.Generator().manual_seed(0))
    assert torch.equal(net(x), again(x))


@pytest.mark.parametrize("normalization", [nn.Identity, nn.BatchNorm2d])
@pytest.mark.parametrize(
    ("name", "options"),
    [("uniform", {"depth": 3}), ("mlp", {"depth": 4}), ("small_cnn", {}), ("cfg_10", {})]
    + [("uniform", {"depth": 3, "bias": True}), ("mlp", {"bias": True}), ("resnet8", {"bias": True})]
    + [("resnet8", {"shortcut": s}) for s in SHORTCUTS]
    + [("resnet20", {"shortcut": s, "skip_init": True}) for s in SHORTCUTS]
    + [("senet18", {"shortcut": s, "skip_init": True}) for s in SHORTCUTS]
    + [(name, {"bias": bias}) for name in ("fully_conv", "fully_conv_released") for bias in (0, 1)]
    + [("regnetx_200mf", {"width": w, "skip_init": w == 8}) for w in (8, 16, 24)]
    + [(name, {"width": 8, "bias": True}) for name in ("senet18", "regnetx_200mf")],
)
def test_a_state_dict_tells_its_net(name, options, normalization):
    given = {"width": 6, "num_classes": 3, "in_channels": 2, "normalization": normalization}
    given |= options
    net = models.build(name, input_size=(9, 8), **given)
    fit = models.fit_state_dict(net.state_dict(), input_size=(9, 8))
    assert fit.name == name
    assert given.items() <= fit.options.items()


@pytest.mark.parametrize("bias", [False, True])
def test_a_state_dict_tells_an_autoencoder_from_an_mlp_of_its_depth(bias):
    for name, options in (("autoencoder", {}), ("mlp", {"depth": 7})):
        net = models.build(name, width=16, in_channels=2, input_size=(5, 4), bias=bias, **options)
        fit = models.fit_state_dict(net.state_dict(), input_size=(5, 4))
        assert (fit.name, fit.options["width"], fit.options["bias"]) == (name, 16, bias)


def test_a_state_dict_tells_preactivation_by_the_normalization_at_the_end():
    net = models.build("resnet8", width=4, preactivation=True, skip_init=True).eval()
    again = models.from_state_dict(net.state_dict(), input_size=(32, 32))
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(net(x), again(x))


def test_a_normalization_that_a_state_dict_cannot_tell_is_asked_for():
    def group(channels):
        return nn.GroupNorm(2, channels)

    state = models.build("resnet8", width=4, normalization=group).state_dict()
    with pytest.raises(ValueError, match="normalization must be given"):
        models.fit_state_dict(state, input_size=(32, 32))
    fit = models.fit_state_dict(state, input_size=(32, 32), normalization=group)
    assert fit.name == "resnet8"


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"a.weight": torch.ones(2)}, "fits no net; its first names are \\['a.weight'\\]"),
        ({}, "fits no net"),
        ({"epoch": 3}, "tensors only, but 'epoch' is a int"),
        (
            {**models.build("resnet8", width=4).state_dict(), "extra": torch.ones(2)},
            "nearest is resnet8, but 1 names differ: extra is \\(2,\\), not absent",
        ),
        (
            models.build("small_cnn", width=4, input_size=(16, 16)).state_dict(),
            "nearest is small_cnn, .* hidden.linear.weight is \\(25, 128\\), not \\(25, 512\\)",
        ),
    ],
)
def test_a_state_dict_that_fits_nothing_says_where(state, message):
    with pytest.raises(ValueError, match=message):
        models.from_state_dict(state, input_size=(32, 32))


@pytest.mark.skipif(SHARED is None, reason="NORMKIT_SHARED names no folder of published weights")
@pytest.mark.parametrize(
    ("file", "mean", "std", "accuracy"),
    [
        ("small_cnn_standard", (0.485, 0.456, 0.406), (0.225, 0.225, 0.225), 0.7610),
        ("small_cnn_certified", (0.485, 0.456, 0.406), (0.225, 0.225, 0.225), 0.6162),
        ("small_cnn_adversarial", (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010), 0.6975),
        ("resnet20_standard", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 0.9173),
    ],
)
def test_published_weights_reach_their_published_accuracy(file, mean, std, accuracy):
    state = load_file(Path(SHARED) / "weights" / f"cifar10_{file}.safetensors")
    net = models.from_state_dict(state, input_size=(32, 32), mean=mean, std=std)
    data = np.load(Path(SHARED) / "data" / "cifar10_1000x1000.npz")
    test_images = torch.from_numpy(data["x_test"]).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        found = (net(test_images).argmax(1).numpy() == data["y_test"]).mean()
    # 0.04 is three standard errors on 1,000 of the 10,000 images.
    assert abs(found - accuracy) < 0.04, found
