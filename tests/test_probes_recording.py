"""A recorded run gives the values of its layers, and does not notice it."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from normkit.probes import PROBES, record


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def a_net(inplace=True):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace), nn.Conv2d(4, 3, 2),
        nn.ReLU(inplace), nn.Dropout(0.5), nn.Flatten(), nn.Linear(18, 5))


def images(n=6):
    return draw(n, 2, 5, 6, seed=3)


def train(net, probed, steps=3):
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    torch.manual_seed(1)
    for _ in range(steps):
        optimizer.zero_grad()
        if probed:
            with record(net, PROBES) as recording:
                net(images()).square().sum().backward()
            assert len(recording.table()) == 2 * 4 + 3
        else:
            net(images()).square().sum().backward()
        optimizer.step()
    return [*net.state_dict().values(), torch.get_rng_state()]


def test_a_probed_run_is_the_unprobed_one_bit_for_bit():
    bare, probed = train(a_net(), False), train(a_net(), True)
    assert all(torch.equal(a, b) for a, b in zip(bare, probed, strict=True))


def test_recorded_values_are_those_of_the_layers():
    net = a_net().eval()
    with record(net, PROBES) as recording:
        F.cross_entropy(net(images()), torch.arange(6) % 5).backward()
    x, expected = images(), {}
    outputs = []
    for layer in a_net(inplace=False).eval():
        x = layer(x)
        x.retain_grad()
        outputs.append(x)
    F.cross_entropy(x, torch.arange(6) % 5).backward()
    for i, x in enumerate(outputs):
        for name in PROBES:
            value = x.grad if name == "gradient_norm" else x.detach()
            expected[str(i), name] = PROBES[name](value)
    table = recording.table()
    assert table.columns.tolist() == ["layer", "measure", "value", "step"]
    measured = [(str(i), name) for i in (0, 2, 3, 4, 7) for name in PROBES
                if (name == "gradient_norm") == (i in (0, 3, 7))]
    assert list(zip(table.layer, table.measure, strict=True)) == measured
    for row in table.itertuples():
        assert row.value == pytest.approx(expected[row.layer, row.measure], rel=1e-5), row


def test_an_in_place_relu_does_not_reach_what_was_measured_before_it():
    net = a_net().eval()
    with record(net, ["activation_variance", "gradient_norm"], layers=["3"]) as recording:
        net(images()).square().sum().backward()
    plain = a_net(inplace=False).eval()
    middle = plain[:4](images())
    gradient, = torch.autograd.grad(plain[4:](middle).square().sum(), middle)
    expected = [PROBES["activation_variance"](middle),
                PROBES["gradient_norm"](gradient)]
    assert recording.table().value.tolist() == pytest.approx(expected, rel=1e-5)


def test_hooks_leave_with_the_block_also_after_an_error():
    net = a_net()
    with pytest.raises(ZeroDivisionError), record(net, PROBES) as recording:
        late = net(images()).sum()
        1 / 0
    assert not any(module._forward_hooks for module in net.modules())
    rows = recording.table()
    late.backward()
    net(images())
    assert recording.table().equals(rows) and "gradient_norm" not in set(rows.measure)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients_there_are_no_gradient_norms(mode):
    net = a_net().eval()
    with record(net, ["stable_rank", "gradient_norm"]) as recording, mode():
        net(images())
    assert recording.table().measure.tolist() == ["stable_rank"] * 2


def test_every_forward_pass_is_a_step_and_the_step_may_be_set():
    net = a_net()
    with record(net, ["activation_std", "gradient_norm"], layers="4") as recording:
        first, second = net(images()), net(images())
        recording.step = 100
        net(images()).sum().backward()
        (first + second).sum().backward()
        net.eval()(images())
    assert recording.table()[["measure", "step"]].values.tolist() == [
        [name, step] for step in (0, 1, 100) for name in ("activation_std", "gradient_norm")
    ] + [["activation_std", 101]]


def test_a_layer_that_runs_twice_has_two_rows():
    relu = nn.ReLU()
    net = nn.Sequential(nn.Linear(3, 3), relu, nn.Linear(3, 3), relu)
    with record(net, "activation_variance") as recording:
        net(draw(4, 3))
    table = recording.table()
    assert table.layer.tolist() == ["1", "1"] and table.value.nunique() == 2


def test_a_model_that_is_one_layer_is_measured():
    net = nn.ReLU()
    with record(net, "activation_variance") as recording:
        net(draw(4, 3))
    assert recording.table()[["layer", "step"]].values.tolist() == [["", 0]]


def test_a_layer_that_never_ran_is_named():
    net = a_net()
    with record(net, "stable_rank") as recording:
        net[:3](images())
    with pytest.raises(RuntimeError, match="never ran.*: 4;"):
        recording.table()


@pytest.mark.parametrize(("names", "layers", "message"), [
    (["stable_ranks"], None, "probes must.*'stable_ranks', nearest is 'stable_rank'"),
    ("cosine", None, "probes must.*'cosine', nearest is 'cosine_similarity'"),
    (["stable_rank"], ["1.relu"], "layers must.*'1.relu', nearest is '1"),
    (["gradient_norm", "stable_rank"], None, "stable_rank finds no layer.*layers="),
])
def test_bad_names_are_refused_before_anything_runs(names, layers, message):
    net = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2)))
    with pytest.raises(ValueError, match=message):
        record(net, names, layers=layers)


def test_a_layer_whose_output_is_no_tensor_is_named():
    net = nn.Sequential(nn.LSTM(3, 4))
    with (pytest.raises(TypeError, match="layer '0' returns a tuple"),
          record(net, "stable_rank", layers="0")):
        net(draw(2, 5, 3))
