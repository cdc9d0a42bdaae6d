"""Networks that are easily misread: ENorm keeps their function, or leaves them alone."""

import copy
import gc

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrize, prune

from normkit.projections import ENorm


class Net(nn.Module):
    """Layers a, b, c, d, and a forward pass of its own."""

    def __init__(self, act, **layers):
        super().__init__()
        self.act = act
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x):
        return self.act(self, x)


class Standardized(nn.Conv2d):
    """A convolution that computes its weight on the way."""

    def _conv_forward(self, x, weight, bias):
        return super()._conv_forward(x, weight - weight.mean(), bias)


class Twice(nn.Module):
    def forward(self, x):
        return 2 * x


class Choosing(nn.Module):
    """What cannot be traced, with a layer that others have, too."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x).sigmoid() if x.sum() > -1e9 else x


def _linear(*sizes):
    return nn.Linear(*sizes)


def _conv(*sizes):
    return nn.Conv2d(*sizes, 3, padding=1)


def _pruned_bias():
    net = nn.Sequential(_linear(4, 6), nn.ReLU(), _linear(6, 3))
    prune.l1_unstructured(net[0], "bias", 2)
    return net


def _parametrized_bias():
    net = nn.Sequential(_linear(4, 6), nn.ReLU(), _linear(6, 3))
    parametrize.register_parametrization(net[0], "bias", Twice())
    return net


def _own_forward():
    net = nn.Sequential(_linear(4, 6), nn.ReLU(), _linear(6, 3))
    net[0].forward = lambda x: torch.sigmoid(F.linear(x, net[0].weight, net[0].bias))
    return net


def _gate_overwritten(net, x):
    gate, hidden = net.a(x).sigmoid(), net.b(x).relu()
    gate.mul_(hidden)
    return net.c(gate) + net.d(hidden)


def _constant_overwritten(net, x):
    held = torch.ones(3, 6, dtype=x.dtype)
    hidden = net.a(x).relu()
    held.mul_(hidden)
    return net.b(held) + net.c(hidden)


def _shared_with_a_leaf():
    layer = _linear(4, 6)
    how = lambda net, x: net.b(net.a(x).relu()) + net.c(net.d(x))  # noqa: E731
    return Net(how, a=layer, b=_linear(6, 3), c=_linear(6, 3), d=Choosing(layer))


FLAT = {
    "pruned bias": _pruned_bias,
    "parametrized bias": _parametrized_bias,
    "forward of its own": _own_forward,
    "rounded quotient": lambda: Net(
        lambda n, x: n.b(torch.div(n.a(x).relu(), 0.1, rounding_mode="floor")),
        a=_linear(4, 6), b=_linear(6, 3),
    ),
    "gate overwritten": lambda: Net(
        _gate_overwritten, a=_linear(4, 6), b=_linear(4, 6), c=_linear(6, 3), d=_linear(6, 3)
    ),
    "constant overwritten": lambda: Net(
        _constant_overwritten, a=_linear(4, 6), b=_linear(6, 3), c=_linear(6, 3)
    ),
    "shared with a leaf": _shared_with_a_leaf,
    "constant concatenated": lambda: Net(
        lambda n, x: n.b(torch.cat([n.a(x).relu(), torch.ones(3, 2).double()], 1)),
        a=_linear(4, 6), b=_linear(8, 3),
    ),
    "result written elsewhere": lambda: Net(
        lambda n, x: n.b(torch.add(n.a(x), 1, out=None).relu()), a=_linear(4, 6), b=_linear(6, 3)
    ),
}  # fmt: skip
MAPS = {
    "standardized": lambda: nn.Sequential(
        Standardized(3, 6, 3, padding=1), nn.ReLU(), _conv(6, 4), nn.ReLU(), _conv(4, 2)
    ),
    "half of the channels": lambda: Net(
        lambda n, x: n.b(n.a(x).relu()[:, : 6 // 2]), a=_conv(3, 6), b=_conv(3, 2)
    ),
    "half, by shape": lambda: Net(
        lambda n, x: (lambda h: n.b(h[:, : h.shape[1] // 2]))(n.a(x).relu()),
        a=_conv(3, 6), b=_conv(3, 2),
    ),
    "padded by shape": lambda: Net(
        lambda n, x: n.c(
            (lambda h, k: k + F.pad(h, (0, 0, 0, 0, 0, k.shape[1] - h.shape[1])))(
                n.a(x).relu(), n.b(x).relu()
            )
        ),
        a=_conv(3, 4), b=_conv(3, 6), c=_conv(6, 2),
    ),
    "size of a parameter": lambda: Net(
        lambda n, x: n.b(n.a(x).relu().view(n.c.weight.size(0), -1)),
        a=_conv(3, 4), b=_linear(50, 3), c=_linear(1, 6),
    ),
    "named tensors": lambda: Net(
        lambda n, x: n.b(torch.cat(tensors=[n.a(x).relu(), x], dim=1)), a=_conv(3, 6), b=_conv(9, 2)
    ),
}  # fmt: skip
LINES = {
    "pool of images on lines": lambda: Net(
        lambda n, x: n.b(F.avg_pool2d(n.a(x).relu(), 3, 1, 1)),
        a=nn.Conv1d(3, 6, 3, padding=1), b=nn.Conv1d(6, 2, 3),
    ),
    "pool module of images on lines": lambda: nn.Sequential(
        nn.Conv1d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 1, 1), nn.Conv1d(6, 2, 3)
    ),
    "normalized positions": lambda: nn.Sequential(
        nn.Conv1d(3, 6, 3, padding=1), nn.ReLU(), nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(),
        nn.Linear(6, 2),
    ),
}  # fmt: skip


def _kept(net: nn.Module, x: torch.Tensor) -> None:
    torch.manual_seed(0)
    for parameter in net.parameters():
        nn.init.normal_(parameter)
    net = net.double().eval()
    leaves = (Choosing,)
    with torch.no_grad():
        before = net(x)
        try:
            enorm = ENorm(net, leaves=leaves)
        except ValueError as error:
            assert "no hidden unit that can be rescaled" in str(error), error
            return
        enorm.rescale_randomly(torch.Generator().manual_seed(0))
        for _ in range(3):
            enorm.step()
        torch.testing.assert_close(net(x), before, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", FLAT)
def test_the_function_of_a_dense_network_is_kept_or_it_is_left_alone(name):
    _kept(FLAT[name](), torch.randn(3, 4).double())


@pytest.mark.parametrize("name", MAPS)
def test_the_function_of_a_network_of_images_is_kept_or_it_is_left_alone(name):
    x = torch.randn(3, 3, 5, 5) if name != "size of a parameter" else torch.randn(3, 3, 5, 5)
    _kept(MAPS[name](), x.double())


@pytest.mark.parametrize("name", LINES)
def test_the_function_of_a_network_of_lines_is_kept_or_it_is_left_alone(name):
    _kept(LINES[name](), torch.randn(3, 3, 5).double())


def test_tabular_data_that_are_normalized_first_can_be_balanced():
    net = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 3)).double()
    x = torch.randn(6, 4).double()
    before, enorm = net(x).detach(), ENorm(net)
    enorm.step()
    assert enorm.groups.writers.tolist() == ["0.weight"]
    torch.testing.assert_close(net(x).detach(), before, rtol=1e-10, atol=1e-12)


def test_looking_at_a_network_leaves_no_trace_in_it():
    def forward(net, x):
        net.calls = net.calls + 1
        net.seen = net.a(x)
        net.count.add_(1)
        return net.b(net.seen.relu() * torch.rand(1, dtype=x.dtype))

    net = Net(forward, a=_linear(4, 6), b=_linear(6, 3))
    net.calls = 0
    net.register_buffer("count", torch.zeros(()))
    names, state = set(vars(net)), torch.get_rng_state()
    ENorm(net)
    assert set(vars(net)) == names and net.calls == 0 and net.count == 0
    assert torch.equal(torch.get_rng_state(), state)


def test_a_weight_that_was_replaced_is_noticed():
    net = nn.Sequential(_linear(4, 6), nn.ReLU(), _linear(6, 3))
    enorm = ENorm(net)
    net[0].weight = nn.Parameter(torch.randn(6, 4))
    with pytest.raises(RuntimeError, match="another tensor than when this ENorm was made"):
        enorm.step()


def test_an_interrupted_cycle_keeps_the_function(monkeypatch):
    net = nn.Sequential(*(part for _ in range(4) for part in (_linear(5, 5), nn.ReLU()))).double()
    x, enorm = torch.randn(3, 5).double(), ENorm(net)
    enorm.rescale_randomly(torch.Generator().manual_seed(0))
    before, read, seen = net(x).detach(), enorm._sweep._read, []

    def interrupt(group):
        seen.append(group)
        if len(seen) == 3:
            raise KeyboardInterrupt
        read(group)

    monkeypatch.setattr(enorm._sweep, "_read", interrupt)
    with pytest.raises(KeyboardInterrupt):
        enorm.step()
    torch.testing.assert_close(net(x).detach(), before, rtol=1e-10, atol=1e-12)
    monkeypatch.undo()
    assert enorm.imbalance().units.sum() == 15


def test_hooks_on_the_optimizer_go_with_the_method():
    net = nn.Sequential(_linear(4, 6), nn.ReLU(), _linear(6, 3))
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    for _ in range(5):
        ENorm(net, optimizer)
    gc.collect()
    assert len(optimizer._optimizer_step_post_hooks) == 0


@pytest.mark.parametrize("to_none", [True, False])
def test_every_call_between_backward_and_step_is_refused(to_none):
    torch.manual_seed(0)
    net = nn.Sequential(_linear(4, 6), nn.ReLU(), _linear(6, 3))
    optimizer = torch.optim.SGD(net.parameters(), 0.01, momentum=0.9)
    enorm, x = ENorm(net, optimizer), torch.randn(5, 4)
    for _ in range(50):
        optimizer.zero_grad(set_to_none=to_none)
        net(x).square().sum().backward()
        with pytest.raises(RuntimeError, match="gradient accumulation"):
            enorm.step()
        optimizer.step()
        enorm.step()


def test_a_step_that_was_skipped_for_another_layer_is_no_error():
    net = nn.Sequential(_conv(3, 4), nn.BatchNorm2d(4), nn.ReLU(), _conv(4, 2))
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    enorm = ENorm(net, optimizer)
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    net[0].weight.grad.fill_(torch.inf)
    enorm.step()


def test_a_network_that_became_double_is_balanced_in_double():
    net = nn.Sequential(_linear(4, 6), nn.ReLU(), _linear(6, 3))
    enorm, twin = ENorm(net), copy.deepcopy(net).double()
    net.double()
    ENorm(twin).step()
    enorm.step()
    torch.testing.assert_close(net[0].weight, twin[0].weight, rtol=1e-13, atol=0)


def test_all_that_keeps_its_scale_is_listed():
    net = nn.Sequential(
        _linear(4, 6), nn.ReLU(), _linear(6, 6), nn.LayerNorm(6), _linear(6, 3), nn.PReLU()
    )
    table = ENorm(net).unbalanced.set_index("tensor")
    assert table.loc["3.weight", "side"] == "whole"
    assert "'3' (LayerNorm), not rescaled" in table.loc["3.weight", "reason"]
    assert {"2.weight", "4.weight", "5.weight"} <= set(table.index)


@pytest.mark.parametrize("c", [None, True, "1", torch.ones(2)])
def test_a_c_that_is_no_number_is_refused(c):
    with pytest.raises(ValueError, match="it must be a number above 0"):
        ENorm(nn.Sequential(_linear(4, 6), nn.ReLU(), _linear(6, 3)), c=c)


def test_leaves_that_are_no_classes_are_refused():
    with pytest.raises(ValueError, match="it must hold classes of modules"):
        ENorm(nn.Sequential(_linear(4, 6), nn.ReLU(), _linear(6, 3)), leaves=("a",))
