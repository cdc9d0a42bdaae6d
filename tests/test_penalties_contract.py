"""Norm decay leaves alone what is not its own, says what it skips, and refuses what is wrong."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

from normkit.norms import l1_norm, layer_table, linf_norm
from normkit.penalties import NormDecay

NORMS = {"l1": l1_norm, "linf": linf_norm}
EVERY = ("l1", "linf", "spectral")


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(80, 3)
    )  # fmt: skip


def backward(model, *shape):
    like = next(model.parameters())
    model(torch.rand(3, *(shape or (2, 5, 4))).to(like)).float().square().mean().backward()


def hooks(model):
    return [hook for part in model.modules() for hook in part._forward_pre_hooks.values()]


@pytest.mark.parametrize("norm", EVERY)
def test_the_table_holds_the_norms_that_layer_table_measures(norm):
    model = net().double()
    decay = NormDecay(model, norm=norm, include=("conv", "batch_norm", "linear"))
    backward(model)
    for _ in range(1 if norm != "spectral" else 300):
        table = decay.step()
    wanted = layer_table(model, (2, 5, 4), norms=norm)
    assert list(table.columns) == ["layer", "kind", "norm", "value"]
    for column in ("layer", "kind", "norm"):
        assert table[column].tolist() == wanted[column].tolist()
    assert table.value.tolist() == pytest.approx(wanted.value.tolist(), rel=1e-5)


def test_shapes_seen_at_the_first_pass_and_shapes_given_are_the_same_and_hooks_leave():
    found = []
    for given in (None, (2, 5, 4)):
        model = net()
        assert not hooks(model)
        decay = NormDecay(model, norm="l1", input_size=given)
        model.train()
        backward(model)
        backward(model)
        found.append((decay.step().value.tolist(), [p.grad for p in model.parameters()]))
        assert not hooks(model)
    assert found[0][0] == found[1][0]
    assert all(map(torch.equal, found[0][1], found[1][1]))


def test_a_layer_used_twice_counts_with_its_first_input():
    conv = nn.Conv2d(1, 1, 3, padding=1)
    nn.init.ones_(conv.weight)
    model = nn.Sequential(conv, nn.Upsample(scale_factor=3), conv)
    decay = NormDecay(model, norm="linf")
    backward(model, 1, 2, 2)
    assert decay.step().value.tolist() == [4.0]


@pytest.mark.parametrize("norm", EVERY)
def test_a_step_changes_gradients_of_its_layers_alone(norm):
    model = net()
    parametrizations.spectral_norm(model[4])
    decay = NormDecay(model, norm=norm, beta=0.1)
    backward(model)
    before, state = copy.deepcopy(model.state_dict()), torch.random.get_rng_state()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    decay.step()
    assert torch.equal(state, torch.random.get_rng_state())
    assert model[4].training
    after = model.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    named = model.named_parameters()
    moved = {name for name, p in named if not torch.equal(p.grad, gradients[name])}
    assert moved == {"0.weight", "4.parametrizations.weight.original"}


@pytest.mark.parametrize("norm", EVERY)
def test_no_strength_leaves_gradients_bit_for_bit_and_strength_scales(norm):
    terms = []
    for beta in (0.0, 0.5, 1.0):
        model = net().double()
        decay = NormDecay(model, norm=norm, beta=beta)
        backward(model)
        before = [p.grad.clone() for p in model.parameters()]
        decay.step()
        pairs = zip(model.parameters(), before, strict=True)
        terms.append(torch.cat([(p.grad - q).flatten() for p, q in pairs]))
    assert not terms[0].any()
    assert terms[1].any()
    assert torch.allclose(2 * terms[1], terms[2], atol=1e-14)


def test_layers_that_share_a_weight_each_add_their_term():
    first, second = nn.Linear(4, 3, bias=False), nn.Linear(4, 3, bias=False)
    second.weight = first.weight
    model = nn.ModuleList([first, second])
    model[0].weight.grad = torch.zeros(3, 4)
    NormDecay(model, norm="linf", beta=0.5).step()
    assert sorted(set(model[0].weight.grad.abs().flatten().tolist())) == [0.0, 1.0]


def test_of_equal_sums_the_first_is_decayed():
    layer = nn.Linear(4, 3)
    nn.init.ones_(layer.weight)
    layer.weight.grad = torch.zeros(3, 4)
    NormDecay(layer, norm="linf", beta=0.5).step()
    assert layer.weight.grad.tolist() == [[0.5] * 4, [0.0] * 4, [0.0] * 4]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_gets_the_signs_of_its_weights(dtype):
    layer = nn.Linear(6, 5).to(dtype)
    layer.weight.grad = torch.zeros_like(layer.weight)
    row = layer.weight.detach().double().abs().sum(1).argmax()
    for _ in range(2):
        NormDecay(layer, norm="linf", beta=0.25).step()
    wanted = torch.zeros(5, 6)
    wanted[row] = 0.5 * layer.weight[row].sign().float()
    assert layer.weight.grad.dtype == dtype
    assert torch.equal(layer.weight.grad.float(), wanted)


def test_channels_last_weights_and_gradients_get_the_same_terms():
    found = []
    for layout in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(0)
        layer = nn.Conv2d(3, 4, 3, stride=2, padding=1).double().to(memory_format=layout)
        decay = NormDecay(layer, beta=0.1, input_size=(3, 5, 5))
        for _ in range(5):
            layer.zero_grad()
            layer(torch.ones(1, 3, 5, 5).double().to(memory_format=layout)).sum().backward()
            decay.step()
            layer.weight.data -= layer.weight.grad
        found.append(layer.weight.detach())
    assert torch.allclose(*found, atol=1e-12)


@pytest.mark.parametrize("norm", EVERY)
def test_a_model_may_change_precision_weights_and_parametrization_between_steps(norm):
    model = net()
    decay = NormDecay(model, norm=norm)
    backward(model)
    decay.step()
    model.double()
    model[4].weight = nn.Parameter(torch.randn(3, 80).double())
    parametrizations.weight_norm(model[0])
    model.zero_grad()
    backward(model)
    for _ in range(1 if norm != "spectral" else 200):
        values = decay.step().value.tolist()
    table = layer_table(model, (2, 5, 4), norms=norm)
    wanted = table[table.kind != "batch_norm"].value.tolist()
    assert values == pytest.approx(wanted, rel=1e-5)


def test_a_copy_made_before_the_first_step_does_not_speak_for_the_model():
    model = net()
    decay = NormDecay(model, norm="linf")
    copied = copy.deepcopy(model[0])
    backward(model)
    copied(torch.rand(1, 2, 1, 1))
    assert decay.step().value[0] == pytest.approx(linf_norm(model[0], (5, 4)).item())


def test_lazy_layers_are_measured_once_they_are_made():
    model = nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten(), nn.LazyLinear(3))
    decay = NormDecay(model)
    backward(model)
    assert decay.step().kind.tolist() == ["conv", "linear"]


class Branches(nn.Module):
    """One layer that works, and one of each that cannot."""

    def __init__(self):
        super().__init__()
        self.used, self.frozen = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1).requires_grad_(False)
        self.idle, self.apart = nn.Conv2d(2, 2, 1), nn.Linear(4, 4)
        self.table = nn.Embedding(3, 2)

    def forward(self, x):
        with torch.no_grad():
            self.apart(x)
        return self.frozen(self.used(x))


def test_what_is_skipped_is_said_once_and_kept_with_its_reason():
    model = Branches()
    decay = NormDecay(model)
    backward(model)
    with pytest.warns(UserWarning, match="'frozen' .it is frozen.*'apart'") as warned:
        assert decay.step().layer.tolist() == ["used"]
    assert len(warned) == 1
    assert warned[0].filename == __file__
    assert decay.skipped.keys() == {"frozen", "idle", "apart", "table"}
    assert "no forward pass" in decay.skipped["idle"]
    assert "gradient is None" in decay.skipped["apart"]
    assert "Embedding has no known linear map" in decay.skipped["table"]
    decay.step()
    model.frozen.requires_grad_()
    model.zero_grad()
    backward(model)
    assert decay.step().layer.tolist() == ["used", "frozen"]
    assert "frozen" not in decay.skipped


WRONG = [
    ({"beta": -1e-3}, "beta -0.001 is not a finite number"),
    ({"beta": math.nan}, "beta nan"),
    ({"beta": math.inf}, "beta inf"),
    ({"beta": "1"}, "beta '1'"),
    ({"memory": 1.0}, "memory 1.0 is not a number from 0 to less than 1"),
    ({"memory": -0.1}, "memory -0.1"),
    ({"memory": math.nan}, "memory nan"),
    ({"norm": "l_inf"}, "norm 'l_inf' .* nearest is 'linf'"),
    ({"include": ("batchnorm",)}, "include 'batchnorm' .* nearest is 'batch_norm'"),
    ({"include": ()}, "nothing to decay"),
    ({"input_size": (3, 5, 4)}, "input_size .* wants 2 input channels"),
]


@pytest.mark.parametrize(("options", "message"), WRONG, ids=str)
def test_wrong_arguments_are_named_before_anything_is_done(options, message):
    model = net()
    with pytest.raises(ValueError, match=message):
        NormDecay(model, **options)
    assert not hooks(model)


def test_a_model_without_such_layers_is_refused():
    with pytest.raises(ValueError, match="nothing to decay: no layer is linear or conv"):
        NormDecay(nn.Sequential(nn.BatchNorm2d(3), nn.ReLU()))


def test_a_step_without_gradients_or_in_evaluation_mode_is_refused():
    model = net()
    decay = NormDecay(model)
    with pytest.raises(RuntimeError, match="after backward"):
        decay.step()
    decay = NormDecay(model)
    backward(model)
    model.eval()
    with pytest.raises(RuntimeError, match=r"call model\.train\(\)"):
        decay.step()


@pytest.mark.parametrize("norm", EVERY)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_named_and_no_gradient_is_touched(norm, value):
    model = net()
    decay = NormDecay(model, norm=norm)
    backward(model)
    before = [p.grad.clone() for p in model.parameters()]
    kept = model[4].weight.detach().clone()
    model[4].weight.data[1, 2] = value
    with pytest.raises(ValueError, match="layer '4' has weights that are not finite"):
        decay.step()
    assert all(torch.equal(p.grad, q) for p, q in zip(model.parameters(), before, strict=True))
    model[4].weight.data = kept
    assert decay.step().value.notna().all()


class Own(nn.Conv2d):
    def forward(self, x):
        return super().forward(x) ** 2


@pytest.mark.parametrize("norm", EVERY)
@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (lambda: Own(2, 2, 1), "layer '0' has no NORM norm: layer Own overrides forward"),
        (
            lambda: nn.BatchNorm2d(2, track_running_stats=False),
            "layer '0' has no NORM norm: .*runn",
        ),
        (
            lambda: prune.identity(nn.Conv2d(2, 2, 1), "weight"),
            "layer '0' has no NORM norm to decay",
        ),
    ],
    ids=["subclass", "batch_norm", "hook"],
)
def test_layers_without_such_a_norm_are_named(norm, layer, message):
    model = nn.Sequential(layer())
    decay = NormDecay(model, norm=norm, include=("conv", "batch_norm"))
    backward(model)
    with pytest.raises(ValueError, match=message.replace("NORM", norm)):
        decay.step()


def test_the_norm_of_a_parametrized_weight_falls_through_its_parameters():
    torch.manual_seed(0)
    layer = parametrizations.weight_norm(nn.Linear(6, 4))
    assert parametrize.is_parametrized(layer)
    decay, values = NormDecay(layer, beta=0.1, norm="linf"), []
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    for _ in range(40):
        optimizer.zero_grad()
        (0 * layer(torch.rand(2, 6))).sum().backward()
        values += decay.step().value.tolist()
        optimizer.step()
    assert values[-1] < 0.8 * values[0]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("norm", EVERY)
def test_steps_on_a_gpu_are_those_of_the_cpu(norm):
    found = []
    for device in ("cpu", "cuda"):
        model = net().double()
        decay = NormDecay(model, norm=norm, beta=0.1, include=("linear", "conv", "batch_norm"))
        for step in range(5):
            model.to(device if step else "cpu").zero_grad()
            backward(model)
            decay.step()
            for parameter in model.parameters():
                parameter.data = parameter.detach() - 0.1 * parameter.grad
        found.append([p.detach().cpu() for p in model.parameters()])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)
