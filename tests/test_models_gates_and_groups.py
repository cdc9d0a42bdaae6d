"""SENet-18 and RegNetX-200MF: their definitions, against timm's and against resnet18."""

import re

import pytest
import timm
import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from normkit import layers, models, norms

OF_TIMM = (
    (r"^stem\.conv\.", "stem.convolution."),
    (r"^stem\.bn\.", "stem.normalization."),
    (r"^head\.fc\.", "head."),
    (r"\.conv([123])\.conv\.", r".convolution\1."),
    (r"\.conv([123])\.bn\.", r".normalization\1."),
    (r"\.downsample\.conv\.", ".shortcut.convolution."),
    (r"\.downsample\.bn\.", ".shortcut.normalization."),
)


def images(*shape, seed=0, dtype=torch.float64):
    return torch.rand(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def widths(net):
    return list(dict.fromkeys(block.convolution3.out_channels for block in net.blocks))


def timms_regnetx():
    """timm's net with the strides for small images, its statistics away from 0 and 1."""
    torch.manual_seed(0)
    net = timm.create_model("regnetx_002", num_classes=10)
    net.stem.conv.stride = (1, 1)
    for stage in (net.s1, net.s2):
        stage.b1.conv2.conv.stride = stage.b1.downsample.conv.stride = (1, 1)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return net.double().eval()


def test_regnetx_200mf_is_timms_with_the_strides_for_small_images():
    theirs = timms_regnetx()
    state, blocks = {}, {}
    for key, value in theirs.state_dict().items():
        block = re.match(r"s\d\.b\d\.", key)
        if block:
            place = blocks.setdefault(block[0], len(blocks))
            key = f"blocks.{place}.{key[block.end() :]}"
        for pattern, name in OF_TIMM:
            key = re.sub(pattern, name, key)
        state[key] = value
    ours = models.build("regnetx_200mf", input_size=(17, 16)).double().eval()
    ours.load_state_dict(state)
    assert sum(p.numel() for p in ours.parameters()) == 2_319_482
    x = images(2, 3, 17, 16)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-9, atol=1e-12)
    fit = models.fit_state_dict(state, input_size=(17, 16))
    assert (fit.name, fit.options["width"]) == ("regnetx_200mf", 24)


@pytest.mark.parametrize(
    ("width", "stem", "stages"),
    [
        (24, 32, [24, 56, 152, 368]),
        (8, 8, [8, 16, 48, 120]),
        (16, 24, [16, 40, 104, 248]),
        (48, 64, [48, 112, 304, 736]),
        (1, 8, [8, 16, 48, 120]),
        (12, 24, [16, 40, 104, 248]),
    ],
)
def test_the_widths_of_regnetx_scale_in_multiples_of_8(width, stem, stages):
    with torch.device("meta"):
        net = models.build("regnetx_200mf", width=width)
    assert net.stem.convolution.out_channels == stem
    assert widths(net) == stages
    for block in net.blocks:
        assert block.convolution2.weight.shape[1] == 8
        assert {block.convolution1.groups, block.convolution3.groups} == {1}


def test_a_gate_is_timms():
    torch.manual_seed(0)
    ours = models.SqueezeExcitation(96, bias=True).double()
    theirs = timm.layers.SEModule(96, rd_channels=6).double()
    pairs = zip(ours.parameters(), theirs.parameters(), strict=True)
    for mine, their in pairs:
        their.data = mine.data.reshape(their.shape)
    x = images(3, 96, 5, 7) - 0.5
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("channels", "hidden"), [(8, 4), (64, 4), (100, 6), (128, 8), (512, 32)])
def test_a_gate_has_16_channels_a_hidden_unit_but_4_units_at_least(channels, hidden):
    gate = models.SqueezeExcitation(channels)
    shapes = {name: tuple(p.shape) for name, p in gate.named_parameters()}
    assert shapes == {"reduce.weight": (hidden, channels), "expand.weight": (channels, hidden)}


def test_a_gate_learns_where_its_hidden_units_are_on():
    torch.manual_seed(0)
    gate = models.SqueezeExcitation(64).double()
    x = images(1, 64, 3, 3) - 0.5
    on = gate.reduce(x.mean((2, 3)))[0] > 0
    assert on.any() and not on.all()
    gate(x).square().sum().backward()
    assert torch.equal(gate.reduce.weight.grad.any(1), on)
    assert torch.equal(gate.expand.weight.grad.any(0), on)


def test_senet18_with_open_gates_is_resnet18_with_preactivation():
    options = {"width": 4, "input_size": (9, 8), "bias": True, "shortcut": "conv3x3"}
    torch.manual_seed(0)
    gated = models.build("senet18", **options).double().eval()
    plain = models.build("resnet18", preactivation=True, **options).double().eval()
    left = plain.load_state_dict(gated.state_dict(), strict=False)
    assert not left.missing_keys
    assert all(".gate." in key for key in left.unexpected_keys)
    assert len(left.unexpected_keys) == 8 * 4
    x = images(2, 3, 9, 8)
    assert not torch.allclose(gated(x), plain(x))
    for block in gated.blocks:
        nn.init.zeros_(block.gate.expand.weight)
        nn.init.constant_(block.gate.expand.bias, 40)  # sigmoid(40) is 1 in float64
    torch.testing.assert_close(gated(x), plain(x), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ["senet18", "regnetx_200mf"])
def test_skip_init_starts_every_block_at_its_shortcut(name):
    torch.manual_seed(0)
    net = models.build(name, width=8, input_size=(8, 8), skip_init=True).double().eval()
    x = net.stem(images(2, 3, 8, 8))
    for block in net.blocks:
        if name == "senet18":
            y = block.activation1(block.normalization1(x))
            expected = block.shortcut(y if isinstance(block.shortcut, nn.Sequential) else x)
        else:
            expected = block.shortcut(x).relu()
        x = block(x)
        assert torch.equal(x, expected)


@pytest.mark.parametrize("convolution", layers.CONVOLUTIONS)
@pytest.mark.parametrize("normalization", layers.NORMALIZATIONS)
@pytest.mark.parametrize("name", ["senet18", "regnetx_200mf"])
def test_every_pair_trains_both_nets(name, normalization, convolution):
    torch.manual_seed(0)
    options = {"batch_norm": False} if convolution == "conv_norm" else {}
    pair = layers.pair(normalization, convolution, batch_norm=False)
    net = models.build(
        name,
        width=8,
        input_size=(6, 5),
        normalization=pair.normalization,
        activation=pair.activation,
        convolution=layers.convolution(convolution, **options),
    )
    nn.functional.cross_entropy(net(images(8, 3, 6, 5).float()), torch.arange(8)).backward()
    for parameter_name, parameter in net.named_parameters():
        assert parameter.grad.isfinite().all(), parameter_name
        assert parameter.grad.any() or ".gate." in parameter_name, parameter_name
    for module_name, module in net.named_modules():
        if isinstance(module, nn.Conv2d):
            assert is_parametrized(module) == (convolution != "conv"), module_name


@pytest.mark.parametrize("name", ["senet18", "regnetx_200mf"])
def test_every_layer_of_both_nets_is_measured(name):
    torch.manual_seed(0)
    net = models.build(name, width=16, input_size=(8, 8)).eval()
    table = norms.layer_table(net, (3, 8, 8))
    assert set(table.status) == {"ok"}
    kinds = (nn.Conv2d, nn.Linear, nn.BatchNorm2d)
    expected = {key for key, module in net.named_modules() if isinstance(module, kinds)}
    assert set(table.layer) == expected
    assert table.value.gt(0).all()


def test_the_norms_of_a_grouped_convolution_are_those_of_its_matrix():
    torch.manual_seed(0)
    layer = models.build("regnetx_200mf", width=8).blocks[2].convolution2.double()
    assert (layer.groups, layer.stride) == (6, (2, 2))
    pixels = torch.eye(48 * 4 * 3, dtype=torch.float64).reshape(-1, 48, 4, 3)
    matrix = layer(pixels).flatten(1).T
    rows = norms.layer_table(nn.Sequential(layer), (48, 4, 3), rtol=1e-6).set_index("norm")
    expected = {"l1": 1, "linf": torch.inf, "spectral": 2, "frobenius": "fro"}
    for norm, order in expected.items():
        truth = torch.linalg.matrix_norm(matrix, order).item()
        assert rows.value[norm] == pytest.approx(truth, rel=1e-6), norm
