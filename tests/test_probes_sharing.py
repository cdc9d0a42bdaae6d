"""Measures that are taken together are those taken alone, and no run notices them."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from normkit import layers, models
from normkit.models import Activation
from normkit.probes import PROBES, record
from normkit.probes.measures import measured
from normkit.probes.signals import Signal

OF_ACTIVATIONS = tuple(name for name in PROBES if name != "gradient_norm")


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def definitions(x):
    """The measures of activations as they are written down, in the order of `OF_ACTIVATIONS`."""
    x = x.double()
    n, channels, rows = len(x), x.transpose(0, 1).flatten(1), x.flatten(1)
    variances = (channels - channels.mean(1, keepdim=True)).square().mean(1)
    cosines = F.normalize(rows, dim=1, eps=1e-300) @ F.normalize(rows, dim=1, eps=1e-300).T
    pairs = (cosines.sum() - cosines.trace()) / (n * (n - 1)) if n > 1 else torch.tensor(math.nan)
    rank = n / torch.linalg.eigvalsh(cosines.fill_diagonal_(1))[-1]
    return [value.item() for value in (variances.mean(), pairs, rank, variances.sqrt().mean())]


def tensors():
    x = draw(70, 3, 9, 5).relu()
    dead = x.clone()
    dead[::3] = 0
    tiny = dead.clone()
    tiny[1] *= 1e-30
    return {
        "odd": x, "signed": draw(7, 5, 3, 11), "rows": draw(90, 66), "one image": x[:1],
        "one pixel": x[:, :, :1, :1], "dead": dead, "all dead": torch.zeros(70, 2, 6, 6),
        "huge": x * 1e30, "tiny": x * 1e-30, "one tiny image": tiny, "far": x / 100 + 7,
        "cropped": x[:, 1:, 2:, :4], "expanded": x[:, :1].expand(-1, 4, -1, -1),
        "last": x.to(memory_format=torch.channels_last), "volume": draw(5, 2, 3, 4, 5),
    }


@pytest.mark.parametrize("case", tensors())
def test_measures_taken_together_are_their_definitions(case):
    x = tensors()[case]
    for y, rel in ((x, 1e-5), (x.double(), 1e-11)):
        found = measured(y, OF_ACTIVATIONS)
        assert found == pytest.approx(definitions(y), rel=rel, abs=rel / 100, nan_ok=True)


@pytest.mark.parametrize("case", tensors())
def test_measures_taken_together_are_those_taken_alone(case):
    x = tensors()[case]
    together = dict(zip(OF_ACTIVATIONS[::-1], measured(x, OF_ACTIVATIONS[::-1]), strict=True))
    for name in OF_ACTIVATIONS:
        assert together[name] == pytest.approx(PROBES[name](x), rel=1e-12, nan_ok=True), name


def test_channels_last_is_read_in_place():
    x = draw(6, 3, 4, 5).to(memory_format=torch.channels_last)
    assert Signal(x).rows.data_ptr() == x.data_ptr()


@pytest.mark.parametrize("size", [(9, 7), (40, 50)])  # copied until the pass ends, and at once
def test_what_a_dead_image_and_a_diverged_one_do_is_recorded(size):
    x = draw(130, 2, *size).relu()
    x[::4] = 0
    net, expected = nn.Sequential(nn.ReLU()), definitions(x)
    with record(net, OF_ACTIVATIONS) as recording:
        net(x)
        x[1, 0, 2, 3] = math.inf
        net(x)
    values = recording.table().value.tolist()
    assert values[:4] == pytest.approx(expected, rel=1e-5)
    assert all(math.isnan(value) for value in values[4:])


@pytest.mark.parametrize("size", [(9, 7), (40, 50)])
def test_what_later_layers_overwrite_was_measured_before(size):
    x = draw(130, 2, *size)
    net = nn.Sequential(nn.GELU(), nn.Dropout(0.9, inplace=True), nn.Flatten())
    with record(net, OF_ACTIVATIONS) as recording:
        net(x)
        net(x[:90] + 1)
    expected = definitions(F.gelu(x)) + definitions(F.gelu(x[:90] + 1))
    assert recording.table().value.tolist() == pytest.approx(expected, rel=1e-5)


def test_copies_of_one_step_serve_the_next_in_any_mode():
    net, batches = nn.Sequential(nn.ReLU(), nn.ReLU()), [draw(80, 2, 8, 8, seed=s) for s in (0, 1)]
    with record(net, "activation_variance") as recording:
        with torch.inference_mode():
            net(batches[0])
        net(batches[1])
        with torch.inference_mode():
            net(batches[0])
    values = recording.table().value.tolist()
    expected = [definitions(batch.relu())[0] for batch in batches]
    assert values == pytest.approx([expected[s] for s in (0, 0, 1, 1, 0, 0)], rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_the_half_precision_outputs_are_measured_in_float32(dtype):
    net = nn.Sequential(nn.Linear(40, 70), nn.ReLU())
    seen = []
    net[1].register_forward_hook(lambda module, inputs, output: seen.append(output.detach()))
    with record(net, PROBES) as recording, torch.autocast("cpu", dtype=dtype):
        net(draw(90, 40)).sum().backward()
    assert seen[0].dtype == dtype
    found = recording.table().set_index(["layer", "measure"]).value["1"]
    assert found[list(OF_ACTIVATIONS)].tolist() == pytest.approx(definitions(seen[0]), rel=1e-5)


def test_activations_of_our_own_are_found():
    make = layers.pair("filter_response")
    net = models.build(
        "cfg_10", width=4, input_size=(8, 8), normalization=make.normalization,
        activation=make.activation,
    )
    with record(net, "stable_rank") as recording:
        net(torch.rand(5, 3, 8, 8))
    assert recording.table().layer.tolist() == [f"layers.{i}.activation" for i in range(10)]
    assert all(isinstance(block.activation, Activation) for block in net.layers)


def test_an_output_without_channels_is_refused_in_the_pass():
    net = nn.Sequential(nn.Flatten(0), nn.ReLU())
    with (pytest.raises(ValueError, match=r"must have shape \(N, C, ...\); found \(12,\)"),
          record(net, "activation_variance")):
        net(draw(3, 4))


@pytest.mark.parametrize("key", ["batch", "group"])
def test_a_probed_net_of_ours_is_the_unprobed_one_bit_for_bit(key):
    def trained(probed):
        torch.manual_seed(0)
        net = models.build("cfg_10", width=4, in_channels=1, input_size=(8, 8),
                           normalization=layers.NORMALIZATIONS[key])
        net.layers.append(nn.Dropout(0.3))
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        recording = record(net, PROBES if probed else ())
        with recording:
            for step in range(4):
                optimizer.zero_grad()
                logits = net(draw(70, 1, 8, 8, seed=step))
                F.cross_entropy(logits, torch.arange(70) % 10).backward()
                optimizer.step()
        assert len(recording.table()) == probed * 4 * (10 * 4 + 11)
        return [*net.state_dict().values(), torch.get_rng_state()]

    assert all(torch.equal(a, b) for a, b in zip(trained(False), trained(True), strict=True))
