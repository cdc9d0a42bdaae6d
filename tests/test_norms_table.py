"""The layer table of whole networks, and what the norms refuse."""

import math
import os
from pathlib import Path

import pytest
import torch
from dense import operator_matrix
from torch import nn

from normkit.norms import (
    convolution_map,
    frobenius_norm,
    l1_norm,
    layer_table,
    linear_map,
    linf_norm,
    singular_values,
    spectral_norm,
)

ROUNDING = 1e-12
NORMS = ("l1", "linf", "spectral", "frobenius", "stable_rank")
COLUMNS = ("layer", "kind", "norm", "value", "lower", "upper", "status", "seconds")


def small_net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2),
        nn.Flatten(),
        nn.Linear(54, 3),
    ).double()


def test_layer_table_equals_the_dense_matrices():
    model = small_net()
    table = layer_table(model, (2, 5, 6))
    assert tuple(table) == COLUMNS
    assert set(table.status) == {"ok"}
    kinds = {"0": "conv", "1": "batch_norm", "3": "conv", "5": "linear"}
    assert dict(zip(table.layer, table.kind, strict=True)) == kinds
    model.eval()
    shapes = {"0": (2, 5, 6), "1": (4, 5, 6), "3": (4, 5, 6), "5": (54,)}
    for name, shape in shapes.items():
        matrix = operator_matrix(model.get_submodule(name), shape)
        sigma, frobenius = torch.linalg.matrix_norm(matrix, 2).item(), matrix.norm().item()
        wanted = [matrix.abs().sum(side).max().item() for side in (0, 1)]
        wanted += [sigma, frobenius, (frobenius / sigma) ** 2]
        rows = table[table.layer == name].set_index("norm").loc[list(NORMS)]
        assert rows.value.tolist() == pytest.approx(wanted, rel=ROUNDING), name
        assert rows.lower.tolist() == pytest.approx(wanted, rel=ROUNDING), name
        assert rows.upper.tolist() == pytest.approx(wanted, rel=ROUNDING), name


def test_layer_table_leaves_the_model_as_it_found_it():
    model = small_net().train()
    model[1].eval()
    model[3].requires_grad_(False)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    layer_table(model, (2, 5, 6))
    assert [part.training for part in model] == [True, False, True, True, True, True]
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(not part._forward_pre_hooks for part in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_layer_that_cannot_be_measured_keeps_its_rows():
    model = small_net()
    model.insert(2, nn.GroupNorm(2, 4).double())
    model[0].weight.data[0, 0, 0] = math.nan
    table = layer_table(model, (2, 5, 6), norms=("l1", "spectral"))
    assert table.layer.tolist() == [name for name in "01246" for _ in range(2)]
    status = table.set_index("layer").status
    assert "3 non-finite values of 72" in status["0"].iloc[0]
    assert "GroupNorm has no known linear map" in status["2"].iloc[0]
    assert table.value.isna().sum() == 4
    assert table.kind[:2].tolist() == ["conv", "conv"]
    for part in (model[0], nn.Conv2d(2, 2, 3)):
        unused = nn.ModuleDict({"used": nn.Linear(3, 2), "unused": part})
        unused.forward = unused["used"].forward
        statuses = layer_table(unused, (1, 4, 3), norms=("l1",)).status.tolist()
        assert statuses[0] == "ok"
        assert "never called" in statuses[1]


def test_a_shared_layer_is_measured_once_at_its_first_input():
    shared = nn.Conv2d(2, 2, 3, padding=1)
    model = nn.Sequential(shared, nn.MaxPool2d(5), shared)
    table = layer_table(model, (2, 5, 5), norms=("l1",))
    assert table.layer.tolist() == ["0"]
    assert table.value[0] == pytest.approx(l1_norm(shared, (5, 5)).item())


def test_layer_table_of_a_torchvision_net_measures_every_layer():
    torchvision = pytest.importorskip("torchvision")
    model = torchvision.models.resnet18(num_classes=10).eval()
    table = layer_table(model, (3, 32, 32), norms=("l1", "linf", "frobenius"))
    assert set(table.status) == {"ok"}
    counts = table[table.norm == "linf"].kind.value_counts()
    assert counts.to_dict() == {"conv": 20, "batch_norm": 20, "linear": 1}


def test_a_layer_defined_elsewhere_says_which_map_it_is():
    class Standardized(nn.Conv2d):
        def forward(self, x):
            return self._conv_forward(x, self.weight - self.weight.mean(), None)

    layer = Standardized(2, 3, 3, padding=1, dtype=torch.float64)
    with pytest.raises(TypeError, match="Standardized overrides forward of Conv2d"):
        l1_norm(layer, (5, 5))

    @linear_map.register
    def _(layer: Standardized, input_size, boundary="zero"):
        weight = layer.weight - layer.weight.mean()
        return convolution_map(weight, input_size, padding=layer.padding, boundary=boundary)

    matrix = operator_matrix(layer, (2, 5, 5))
    assert l1_norm(layer, (5, 5)).item() == pytest.approx(matrix.abs().sum(0).max().item())
    table = layer_table(nn.Sequential(layer), (2, 5, 5), norms=("linf",))
    assert table.kind.tolist() == ["conv"]
    assert table.value[0] == pytest.approx(matrix.abs().sum(1).max().item())


BAD_CALLS = {
    "3 non-finite": lambda: l1_norm(with_weight([math.nan, math.inf, -math.inf, 1.0]), None),
    "torch.int64": lambda: linf_norm(with_weight([1, 2, 3]), None),
    "empty": lambda: frobenius_norm(with_weight([]), None),
    r"input_size .*effective kernel of 5": lambda: l1_norm(nn.Conv2d(1, 1, 3, dilation=2), (4, 9)),
    r"input_size \(8,\) .*2 positive": lambda: l1_norm(nn.Conv2d(1, 1, 3), (8,)),
    r"input_size \(8, 0\)": lambda: l1_norm(nn.Conv2d(1, 1, 3), (8, 0)),
    "input_size None": lambda: spectral_norm(nn.Conv1d(1, 1, 3), None),
    "padding_mode 'reflect'": lambda: l1_norm(
        nn.Conv1d(1, 1, 5, padding=2, padding_mode="reflect"), (2,)
    ),
    "2 does not divide input_size 7": lambda: spectral_norm(
        nn.Conv2d(1, 1, 3, 2), (8, 7), boundary="circular"
    ),
    "nearest is 'circular'": lambda: spectral_norm(nn.Linear(2, 2), None, boundary="circle"),
    "rtol 0": lambda: spectral_norm(nn.Linear(2, 2), None, rtol=0),
    "dense matrix": lambda: singular_values(
        nn.Conv2d(64, 64, 3, padding=1), (32, 32), boundary="zero"
    ),
    "track_running_stats": lambda: l1_norm(nn.BatchNorm1d(3, track_running_stats=False), None),
    "GroupNorm has no known": lambda: l1_norm(nn.GroupNorm(1, 3), None),
    "LazyLinear are not initialized": lambda: l1_norm(nn.LazyLinear(3), None),
    "nearest is 'spectral'": lambda: layer_table(small_net(), (2, 5, 6), norms=("spectrum",)),
    "nearest is 'zero'": lambda: layer_table(small_net(), (2, 5, 6), boundary="zeros"),
    r"\(3, 5, 6\) .*'0' Conv2d wants 2 input chan": lambda: layer_table(small_net(), (3, 5, 6)),
    "is not .C, H, W. in positive": lambda: layer_table(small_net(), (2, -5, 6)),
}


def with_weight(values):
    layer = nn.Linear(len(values), 1, bias=False)
    layer.weight = nn.Parameter(torch.tensor([values]), requires_grad=False)
    return layer


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature")
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize("message", BAD_CALLS)
def test_bad_input_gets_one_clear_sentence(message):
    with pytest.raises((ValueError, TypeError), match=message) as error:
        BAD_CALLS[message]()
    assert "\n" not in str(error.value)


PUBLISHED = {
    "standard": [7.36, 5.81, 3.91, 3.09],
    "certified": [2.23, 2.26, 1.54, 2.17],
    "adversarial": [1.19, 5.83, 28.5, 3.21],
}


@pytest.mark.parametrize("training", PUBLISHED)
def test_spectral_norms_of_published_networks(training):
    folder = os.environ.get("NORMKIT_SHARED")
    if folder is None:
        pytest.skip("NORMKIT_SHARED does not say where the published weights are")
    load_file = pytest.importorskip("safetensors.torch").load_file
    model = nn.Sequential(
        nn.Conv2d(3, 16, 4, 2, 1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 4, 2, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(2048, 100),
        nn.ReLU(),
        nn.Linear(100, 10),
    )
    file = Path(folder) / "weights" / f"cifar10_small_cnn_{training}.safetensors"
    model.load_state_dict(load_file(file))
    table = layer_table(model, (3, 32, 32), norms=("spectral",), rtol=1e-4)
    assert table.value.tolist() == pytest.approx(PUBLISHED[training], rel=2e-3)
    assert (table.lower <= table.upper).all()
