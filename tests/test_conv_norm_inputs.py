"""What ConvNorm refuses: arguments, images and a second normalization beside its own."""

import copy

import pytest
import torch

from normkit import layers, training
from normkit.layers import ConvNorm2d

REFUSED = [
    ({"groups": 4}, "groups is 4 and out_channels 6; groups must divide"),
    ({"groups": 3}, "groups is 3 and in_channels 4; groups must divide"),
    ({"groups": 0}, "groups is 0; it must be a whole number of at least 1"),
    ({"padding": "sme"}, "padding is 'sme'; .* must be 'same' or 'valid'"),
    ({"padding": "same", "stride": 2}, r"padding 'same' needs stride 1, not \(2, 2\)"),
    ({"padding": -1}, "padding is -1; it must be a whole number of at least 0"),
    ({"padding": None}, "padding is None"),
    ({"stride": (1, 2, 3)}, r"stride is \(1, 2, 3\); it must be a whole number or two"),
    ({"stride": 1.5}, "stride is 1.5"),
    ({"dilation": 0}, "dilation is 0"),
    ({"kernel_size": 0}, "kernel_size is 0"),
    ({"padding_mode": "zero"}, "padding_mode is 'zero'; accepted: zeros, reflect"),
    ({"variant": "relased"}, "variant is 'relased'; accepted: paper, released"),
    ({"filter_init": "ones"}, "filter_init is 'ones'; accepted: delta, torch"),
    ({"filter_gain": float("nan")}, "filter_gain is nan"),
    ({"filter_gain": "2"}, "filter_gain is '2'"),
    ({"eps": -1.0}, "eps is -1.0; it must be a finite number of at least 0"),
    ({"eps": float("nan")}, "eps is nan"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED, ids=str)
def test_bad_arguments_are_refused_in_one_sentence(options, message):
    with pytest.raises(ValueError, match=message):
        ConvNorm2d(4, 6, **({"kernel_size": 3} | options))


@pytest.mark.parametrize(
    ("shape", "dtype", "error", "message"),
    [
        ((2, 4, 2, 9), "float32", ValueError, "input is 2x9, padded 2 pixels along axis 0; .* 3"),
        ((2, 3, 9, 9), "float32", ValueError, r"shape \(N, 4, H, W\), found \(2, 3, 9, 9\)"),
        ((4, 9), "float32", ValueError, r"found \(4, 9\)"),
        ((1, 2, 4, 9, 9), "float32", ValueError, r"found \(1, 2, 4, 9, 9\)"),
        ((2, 4, 9, 9), "float64", TypeError, "weights of torch.float32 .* input of torch.float64"),
        ((2, 4, 9, 9), "float16", TypeError, "input of torch.float16; convert one of them"),
        ((2, 4, 9, 9), "int64", TypeError, "input of torch.int64"),
    ],
)
def test_bad_images_are_refused_in_one_sentence(shape, dtype, error, message):
    layer = ConvNorm2d(4, 6, 3)
    before = copy.deepcopy(layer.state_dict())
    with pytest.raises(error, match=message):
        layer(torch.zeros(shape, dtype=getattr(torch, dtype)))
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())


def test_another_normalization_beside_its_own_is_refused():
    said = "normalization is 'batch' and convolution 'conv_norm', .* BatchNorm of its own"
    with pytest.raises(ValueError, match=said):
        layers.pair("batch", "conv_norm")
    with pytest.raises(ValueError, match=said):
        training.TrainConfig(convolution="conv_norm", normalization="batch")
    assert layers.pair("group", "conv_norm", batch_norm=False).normalization(8).num_groups == 8
