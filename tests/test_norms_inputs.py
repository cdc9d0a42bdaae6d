"""What a network or a layer may be given as its input, and what the norms refuse."""

import math

import pytest
import torch
from dense import ROUNDING, operator_matrix
from torch import nn

from normkit.norms import (
    LinearMap,
    frobenius_norm,
    l1_norm,
    layer_table,
    linear_map,
    linf_norm,
    singular_values,
    spectral_norm,
)


def small_net():
    return nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.Flatten(), nn.Linear(120, 3)).double()


class Pair(nn.Module):
    """Two inputs of their own shape, one by its name."""

    def __init__(self):
        super().__init__()
        self.image = nn.Conv2d(2, 3, 3, padding=1, dtype=torch.float64)
        self.sound = nn.Conv1d(1, 4, 5, dtype=torch.float64)

    def forward(self, image, sound, scale=1.0):
        return self.image(image).mean() + scale * self.sound(input=sound).mean()


def test_a_model_of_several_inputs_takes_one_shape_for_each():
    model = Pair()
    table = layer_table(model, ((2, 1, 7), (1, 6)), norms=("l1", "frobenius"))
    for name, shape in (("image", (2, 1, 7)), ("sound", (1, 6))):
        matrix = operator_matrix(model.get_submodule(name), shape)
        wanted = [matrix.abs().sum(0).max().item(), matrix.norm().item()]
        assert table[table.layer == name].value.tolist() == pytest.approx(wanted, rel=ROUNDING)
    one = layer_table(model.image, ((2, 1, 7),), norms=("l1",))
    assert one.value.tolist() == table.value[:1].tolist()


class Packed(nn.Module):
    """Keeps its weights out of reach, as quantized layers do."""

    def weight(self):
        return torch.ones(3, 3, dtype=torch.int8)

    def forward(self, x):
        return x @ self.weight().to(x)


class Counts(nn.Linear):
    """Integer weights that a forward pass makes floating point."""

    def forward(self, x):
        return x @ self.weight.to(x)


def test_integer_weights_keep_their_rows_with_the_reason():
    counts = Counts(3, 3, bias=False)
    counts.weight = nn.Parameter(torch.ones(3, 3, dtype=torch.int8), requires_grad=False)

    @linear_map.register
    def _(layer: Counts, input_size, boundary="zero"):
        return LinearMap("linear", layer.weight[None], ())

    table = layer_table(nn.Sequential(Packed(), counts), (3,), norms=("l1",))
    assert table.status.tolist() == [
        "weights of Packed are packed (quantized); a norm needs floating point",
        "weights of Counts are torch.int8; a norm needs floating point",
    ]


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
    r"\(\) is not .C, H, W.*one per input": lambda: layer_table(small_net(), ()),
    r"\(2, 2\)\) is not .C, H, W": lambda: layer_table(Pair(), (3, (2, 2))),
    r"1 of the 2 inputs \(image, sound\).*one shape": lambda: layer_table(Pair(), (2, 5, 6)),
    "failed at layer '1' or after it: .*Kernel size": lambda: layer_table(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 5)), (3, 6, 6)
    ),
    "layer '0' is not initialized": lambda: layer_table(nn.Sequential(nn.LazyLinear(3)), (4,)),
    "workers 0 is not": lambda: layer_table(small_net(), (2, 5, 6), workers=0),
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
