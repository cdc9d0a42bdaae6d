"""What ENorm finds in a network and tells of it, and what it refuses."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from normkit import models
from normkit.projections import ENorm


def _net(*between: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 6), *between, nn.Linear(6, 3))


class Functional(nn.Module):
    """Functions where others have modules, and a residual sum."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8 * 4, 5)

    def forward(self, x):
        x = F.relu(self.first(x))
        x = x + F.leaky_relu(self.second(x), 0.1)
        x = F.max_pool2d(x, 2)
        x = F.dropout(x, training=self.training)
        return self.head(x.view(x.size(0), -1))


class Tied(nn.Module):
    """One weight in two layers."""

    def __init__(self, swap: bool = False):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.b.weight = self.c.weight if not swap else self.a.weight
        self.d = nn.Linear(4, 2)

    def forward(self, x):
        return self.d(self.c(self.b(self.a(x).relu()).relu()).relu())


class Branching(nn.Module):
    """What torch.fx cannot follow, in a module that has parts."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(6, 6)

    def forward(self, x):
        if x.sum() > 0:
            return self.inner(x)
        return x


class Odd(nn.Module):
    """The same without parts: left whole by itself."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(6))

    def forward(self, x):
        return x * self.weight if x.sum() > 0 else x + 1


def test_functions_residual_sums_and_flattening_by_view_are_followed():
    torch.manual_seed(0)
    net = Functional().double().eval()
    x = torch.randn(2, 3, 4, 4).double()
    before, enorm = net(x), ENorm(net)
    enorm.step()
    torch.testing.assert_close(net(x), before, rtol=1e-12, atol=1e-12)
    assert enorm.groups[["units", "writers", "readers"]].values.tolist() == [
        [8, "first.weight, second.weight", "second.weight, head.weight"]
    ]
    assert enorm.unbalanced.empty


def test_groups_of_a_residual_net_with_batch_norm_say_who_writes_and_who_reads():
    enorm = ENorm(models.build("resnet8", width=4))
    first = enorm.groups.iloc[0]
    assert first.units == 4
    assert first.writers == "stem.normalization.weight, blocks.0.normalization2.weight"
    assert "blocks.0.convolution1.weight" in first.readers
    left = enorm.unbalanced.set_index("tensor")
    assert left.loc["stem.convolution.weight", "side"].tolist() == ["output", "input"]
    reasons = left.loc[["blocks.0.convolution1.weight"]]
    assert reasons.side.tolist() == ["output"]
    assert "'blocks.0.normalization1' (BatchNorm2d)" in reasons.reason.iloc[0]


@pytest.mark.parametrize(
    ("layer", "word"),
    [
        (nn.GELU(), "GELU"),
        (nn.Softmax(1), "Softmax"),
        (nn.LayerNorm(6), "LayerNorm"),
        (nn.ReLU6(), "ReLU6"),
        (Odd(), "Odd"),
    ],
)
def test_what_does_not_scale_is_named_and_the_rest_is_balanced(layer, word):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), layer, nn.Linear(6, 6), nn.ReLU(),
        nn.Linear(6, 3),
    ).double()  # fmt: skip
    x = torch.randn(5, 4).double()
    before, enorm = net(x), ENorm(net)
    enorm.step()
    torch.testing.assert_close(net(x), before, rtol=1e-12, atol=1e-12)
    assert enorm.groups.writers.tolist() == ["0.weight", "4.weight"]
    told = enorm.unbalanced
    assert {"2.weight", "4.weight"} <= set(told.tensor)
    assert told.reason.str.contains(word).all(), told


def test_a_network_with_nothing_to_rescale_is_refused_with_the_reasons():
    with pytest.raises(ValueError, match="no hidden unit that can be rescaled.*GELU"):
        ENorm(_net(nn.GELU()))
    with pytest.raises(ValueError, match="no hidden unit"):
        ENorm(nn.Linear(3, 2))


def test_a_model_that_cannot_be_traced_names_the_line_and_the_way_out():
    net = _net(nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), Branching())
    with pytest.raises(ValueError, match=r"if x.sum\(\) > 0.*leaves=\(MyBlock,\)"):
        ENorm(net)
    x, before = torch.randn(3, 4), None
    before = net(x)
    enorm = ENorm(net, leaves=(Branching,))
    enorm.step()
    torch.testing.assert_close(net(x), before)
    assert enorm.groups.writers.tolist() == ["0.weight"]


def test_shared_weights_are_scaled_alike():
    torch.manual_seed(0)
    net, x = Tied().double(), torch.randn(5, 4).double()
    before, enorm = net(x), ENorm(net)
    for _ in range(3):
        enorm.step()
    torch.testing.assert_close(net(x), before, rtol=1e-12, atol=1e-12)
    assert enorm.groups.writers.tolist() == ["a.weight, b.weight = c.weight"]


def test_a_weight_shared_with_the_first_layer_keeps_its_scale_and_is_named():
    net = Tied(swap=True).double()
    enorm = ENorm(net)
    assert enorm.groups.writers.tolist() == ["c.weight"]
    assert "a.weight = b.weight" in set(enorm.unbalanced.tensor)


def test_a_weight_that_a_transposed_convolution_shares_is_a_conflict():
    net = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.ReLU(), nn.ConvTranspose2d(4, 4, 1),
        nn.ReLU(), nn.Conv2d(4, 2, 1),
    )  # fmt: skip
    net[4].weight = net[2].weight
    with pytest.raises(ValueError, match="shared by '2.weight' and '4.weight', whose scales"):
        ENorm(net)


def test_a_weight_that_a_function_reads_too_keeps_its_scale():
    class Penalized(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x):
            y = self.c(self.b(self.a(x).relu()).relu())
            return y + self.b.weight.sum()

    net, x = Penalized().double(), torch.randn(5, 4).double()
    with pytest.raises(ValueError, match="is read by a function, too"):
        ENorm(net)


def test_a_parametrized_weight_stays_as_it_is():
    net = nn.Sequential(
        nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(),
        nn.Linear(6, 3),
    )  # fmt: skip
    nn.utils.parametrizations.weight_norm(net[2])
    before = copy.deepcopy(net[2].state_dict())
    enorm = ENorm(net)
    enorm.step()
    assert enorm.groups.writers.tolist() == ["4.weight"]
    assert all(torch.equal(before[k], v) for k, v in net[2].state_dict().items())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"c": 0}, "c is 0; it must be a finite number above 0"),
        ({"c": float("nan")}, "c is nan"),
        ({"c": [1.0, 1.0]}, "c has 2 numbers, but the model has 1 groups"),
        ({"p": 0.5}, "p is 0.5; it must be a finite number, 1 or more"),
        ({"cycles": 0}, "cycles is 0"),
        ({"every": 1.5}, "every is 1.5"),
        ({"biases": "keep"}, "biases is 'keep'; it must be 'rescale' or 'ignore'"),
        ({"batch_norm": "fold"}, "batch_norm is 'fold'"),
        ({"variant": "original"}, "variant is 'original'; it must be 'paper' or 'released'"),
    ],
)
def test_arguments_out_of_range_are_refused(options, words):
    with pytest.raises(ValueError) as caught:
        ENorm(_net(nn.ReLU()), **options)
    assert words in str(caught.value)


def test_a_thing_that_is_no_module_and_a_strange_optimizer_are_refused():
    with pytest.raises(TypeError, match="model is a list"):
        ENorm([nn.Linear(2, 2)])
    net = _net(nn.ReLU())
    with pytest.raises(TypeError, match="optimizer is a LBFGS.*accepted are SGD, Adam"):
        ENorm(net, torch.optim.LBFGS(net.parameters()))


def test_an_optimizer_of_other_parameters_is_refused():
    net = _net(nn.ReLU())
    with pytest.raises(ValueError, match="holds none of the parameters"):
        ENorm(net, torch.optim.SGD(copy.deepcopy(net).parameters(), 0.1))


@pytest.mark.parametrize("to_none", [True, False])
def test_a_call_in_the_middle_of_gradient_accumulation_is_refused(to_none):
    net, x = _net(nn.ReLU()), torch.randn(5, 4)
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
    enorm = ENorm(net, optimizer)
    for _ in range(2):
        optimizer.zero_grad(set_to_none=to_none)
        net(x).square().sum().backward()
        with pytest.raises(RuntimeError, match="middle of gradient accumulation"):
            enorm.step()
        net(x).square().sum().backward()
        optimizer.step()
        enorm.step()
        enorm.step()
    optimizer.zero_grad(set_to_none=to_none)
    enorm.step()


def test_a_step_that_a_gradient_scaler_skipped_is_no_error():
    net = _net(nn.ReLU())
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    enorm = ENorm(net, optimizer)
    for parameter in net.parameters():
        parameter.grad = torch.full_like(parameter, torch.inf)
    enorm.step()


def test_the_models_mode_and_gradients_are_left_as_they_were():
    net = _net(nn.BatchNorm1d(6), nn.ReLU())
    net[1].eval()
    modes = [module.training for module in net.modules()]
    ENorm(net)
    assert [module.training for module in net.modules()] == modes
    assert net[1].num_batches_tracked == 0


def test_weights_that_are_not_finite_are_not_spread():
    net = _net(nn.ReLU())
    with torch.no_grad():
        net[0].weight[2, 1] = torch.nan
    ENorm(net).step()
    assert net[2].weight.isfinite().all()
