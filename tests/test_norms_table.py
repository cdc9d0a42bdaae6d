"""The layer table of whole networks."""

import math
import os
from pathlib import Path

import pytest
import torch
from dense import ROUNDING, operator_matrix
from torch import nn

from normkit.norms import (
    convolution_map,
    l1_norm,
    layer_table,
    linear_map,
)

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


NETS = {
    "resnet18": {"conv": 20, "batch_norm": 20, "linear": 1},
    "mobilenet_v3_small": {"conv": 52, "batch_norm": 34, "linear": 2},
    "densenet121": {"conv": 120, "batch_norm": 121, "linear": 1},
    "swin_t": {"conv": 1, "linear": 52, "other": 41},
}


@pytest.mark.parametrize("name", NETS)
def test_layer_table_of_a_torchvision_net_measures_every_layer_or_says_why_not(name):
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None, num_classes=10)
    table = layer_table(model, (3, 32, 32), norms=("l1", "linf", "frobenius"))
    assert table[table.norm == "linf"].kind.value_counts().to_dict() == NETS[name]
    assert set(table[table.kind != "other"].status) == {"ok"}
    assert all(
        "has no known linear map" in status for status in table[table.kind == "other"].status
    )


def test_values_and_rows_do_not_depend_on_the_number_of_workers():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(16, 24, 3, padding=1),
        nn.BatchNorm2d(24),
        nn.Conv2d(24, 24, 3, padding=1, groups=2),
        nn.GroupNorm(2, 24),
        nn.Conv2d(24, 8, 5, 2),
        nn.Flatten(),
        nn.Linear(128, 300),
        nn.Linear(300, 7),
    )
    threads = torch.get_num_threads()
    tables = []
    try:
        for available, workers in ((1, None), (2, 1), (2, 3), (3, None), (1, 20)):
            torch.set_num_threads(available)
            table = layer_table(model, (16, 12, 11), workers=workers, progress=True)
            assert torch.get_num_threads() == available
            assert (table.seconds >= 0).all()
            tables.append(table.drop(columns="seconds"))
    finally:
        torch.set_num_threads(threads)
    assert all(table.equals(tables[0]) for table in tables)


def test_the_progress_bar_stays_away_from_files(capfd):
    layer_table(small_net(), (2, 5, 6), norms=("l1",), progress=True)
    assert capfd.readouterr() == ("", "")


def test_a_linear_layer_on_tokens_is_its_matrix_and_raw_weights_keep_their_rows():
    model = nn.TransformerEncoderLayer(6, 2, 10, batch_first=True).eval()
    table = layer_table(model, (5, 6), norms=("frobenius",)).set_index("layer")
    for name in ("self_attn.out_proj", "linear1", "linear2"):
        weight = model.get_parameter(f"{name}.weight").double()
        assert table.value[name] == pytest.approx(weight.norm().item()), name
    for name in ("self_attn", "norm1", "norm2"):
        assert "has no known linear map" in table.status[name]
        assert math.isnan(table.value[name]) and table.kind[name] == "other"


def test_parametrized_layers_are_measured_by_their_effective_weight():
    layer = nn.utils.parametrizations.weight_norm(nn.Conv2d(2, 3, 3, dtype=torch.float64))
    model = nn.Sequential(layer, nn.Flatten())
    table = layer_table(model, (2, 4, 5), norms=("linf",))
    matrix = operator_matrix(layer, (2, 4, 5))
    assert table.layer.tolist() == ["0"]
    assert table.value[0] == pytest.approx(matrix.abs().sum(1).max().item(), rel=ROUNDING)


def test_a_rule_that_is_broken_is_heard_and_leaves_nothing_changed():
    class Broken(nn.Linear):
        pass

    @linear_map.register
    def _(layer: Broken, input_size, boundary="zero"):
        raise KeyError("broken")

    model, threads = nn.Sequential(Broken(2, 2), nn.Linear(2, 2)).train(), torch.get_num_threads()
    with pytest.raises(KeyError, match="broken"):
        layer_table(model, (2,), workers=2)
    assert torch.get_num_threads() == threads
    assert model.training and not any(part._forward_pre_hooks for part in model)


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
