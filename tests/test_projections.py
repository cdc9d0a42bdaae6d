"""Projections on norm balls and of BatchNorm, against dense matrices and other algorithms."""

import copy
import math

import pytest
import torch
from dense import CONVOLUTIONS, ROUNDING, TRANSPOSED, operator_matrix
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from normkit import models
from normkit.norms import l1_norm, layer_table, linear_map, linf_norm
from normkit.projections import project_batch_norm_, project_norms_
from normkit.projections.balls import weighted_l1_ball

NORMS = {"l1": (l1_norm, 0), "linf": (linf_norm, 1)}
MODES = ("zeros", "zeros", "circular", "reflect", "replicate")


@st.composite
def layers(draw):
    """A convolution, or a transposed one, of any geometry, and sizes to try it on."""
    dims, groups = draw(st.sampled_from((1, 1, 2, 2, 3))), draw(st.integers(1, 2))
    each = st.tuples(*[st.integers(1, 3 if dims < 3 else 2)] * dims)
    channels = [groups * draw(st.integers(1, 3)) for _ in range(2)]
    options = {"groups": groups, "stride": draw(each), "dilation": draw(each)}
    options["padding"] = tuple(n - 1 for n in draw(each))
    if draw(st.integers(0, 3)) == 0:
        make, most = TRANSPOSED[dims - 1], 4
    else:
        make, most = CONVOLUTIONS[dims - 1], (9, 7, 4)[dims - 1]
        options["padding_mode"] = draw(st.sampled_from(MODES))
    torch.manual_seed(draw(st.integers(0, 2**20)))
    layer = make(*channels, draw(each), **options).double()
    nn.init.normal_(layer.weight)
    sizes = st.lists(st.tuples(*[st.integers(1, most)] * dims), min_size=3, max_size=3)
    return layer, draw(sizes)


def dense_norm(layer, size, norm):
    """The norm of the operator as executed; None where the layer refuses the input."""
    try:
        matrix = operator_matrix(copy.deepcopy(layer).double(), (layer.in_channels, *size))
    except RuntimeError:
        return None
    return matrix.abs().sum(NORMS[norm][1]).max().item()


@settings(max_examples=300, deadline=None)
@given(layers(), st.sampled_from(("l1", "linf")), st.sampled_from((0.5, 2.0, 4.0)))
def test_the_bound_holds_and_what_meets_it_stays(drawn, norm, bound):
    layer, (size, *_) = drawn
    before, weight = dense_norm(layer, size, norm), layer.weight.detach().clone()
    if before is None:
        return
    (row,) = project_norms_(
        layer, bound, norm=norm, input_size=(layer.in_channels, *size)
    ).itertuples()
    after = dense_norm(layer, size, norm)
    assert after <= bound * (1 + ROUNDING), (layer, size, norm)
    assert NORMS[norm][0](layer, size).item() <= bound
    assert (row.before, row.after) == pytest.approx((before, after), rel=ROUNDING, abs=0)
    assert (row.changed == 0) == torch.equal(layer.weight, weight) == (before <= bound)
    assert (layer.weight.abs() <= weight.abs()).all()


@settings(max_examples=150, deadline=None)
@given(layers(), st.sampled_from(("l1", "linf")))
def test_without_a_size_the_bound_holds_at_every_size(drawn, norm):
    layer, sizes = drawn
    project_norms_(layer, 1.0, norm=norm)
    found = [dense_norm(layer, size, norm) for size in sizes]
    worst = max((value for value in found if value is not None), default=0.0)
    assert worst <= 1 + ROUNDING, (layer, sizes, norm)


@settings(max_examples=100, deadline=None)
@given(layers(), st.sampled_from(("l1", "linf")), st.sampled_from((0.3, 0.7)))
def test_float32_rounding_does_not_break_the_bound(drawn, norm, bound):
    layer, (size, *_) = drawn
    if dense_norm(layer, size, norm) is None:
        return
    layer = layer.float()
    shape = (layer.in_channels, *size)
    project_norms_(layer, bound, norm=norm, input_size=shape)
    once = layer.weight.detach().clone()
    assert NORMS[norm][0](layer, size).item() <= bound, (layer, size)
    assert NORMS[norm][0](layer.double(), size).item() <= bound * (1 + ROUNDING), (layer, size)
    table = project_norms_(layer.float(), bound, norm=norm, input_size=shape)
    assert torch.equal(layer.weight, once) and table.changed.item() == 0, (layer, size)


def test_without_a_size_each_axis_may_be_small_by_itself():
    layer = nn.Conv2d(1, 1, (1, 2), padding=(1, 0), padding_mode="circular").double()
    nn.init.ones_(layer.weight)
    project_norms_(layer, 1.0, norm="l1")
    assert dense_norm(layer, (1, 9), "l1") == pytest.approx(1.0, rel=ROUNDING)


def bisected(point, weights, radius):
    """The nearest point of a weighted l1 ball, by bisection of the multiplier."""
    low, high = 0.0, (point.abs() / weights).max().item()
    if (weights * point.abs()).sum() <= radius:
        return point
    for _ in range(200):
        theta = (low + high) / 2
        kept = (point.abs() - theta * weights).clamp(min=0)
        low, high = (theta, high) if (weights * kept).sum() > radius else (low, theta)
    return kept.copysign(point)


def sorted_projection(point, radius):
    """The nearest point of the l1 ball as Duchi et al. write it: by sorting."""
    if point.abs().sum() <= radius:
        return point
    falling = point.abs().sort(descending=True).values
    thetas = (falling.cumsum(0) - radius) / torch.arange(1, len(point) + 1)
    theta = thetas[(falling > thetas).nonzero().max()]
    return (point.abs() - theta).clamp(min=0).copysign(point)


@pytest.mark.parametrize("radius", [1e-9, 0.1, 3.0, 30.0, 1e3])
def test_the_nearest_point_is_that_of_sorting_and_of_bisection(radius):
    torch.manual_seed(0)
    points = torch.randn(20, 37, dtype=torch.float64) * torch.logspace(-8, 2, 20)[:, None].double()
    points[:, 3], points[:, 5] = points[:, 4], 0.0
    weights = torch.randint(1, 5, (37,)).double()
    ones = torch.ones_like(weights)
    for point, found in zip(points, weighted_l1_ball(points, ones, radius), strict=True):
        wanted = sorted_projection(point, radius)
        assert torch.allclose(found, wanted, rtol=1e-9, atol=1e-9 * radius)
    for point, found in zip(points, weighted_l1_ball(points, weights, radius), strict=True):
        assert torch.allclose(found, bisected(point, weights, radius), rtol=1e-9, atol=1e-12)


def test_a_convolution_goes_to_its_nearest_point_slice_by_slice():
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 6, (3, 4), (2, 3), padding=1, groups=2).double()
    weight = layer.weight.detach().clone()
    project_norms_(layer, 0.9, norm="linf")
    wanted = torch.stack([sorted_projection(row.flatten(), 0.9) for row in weight])
    assert torch.allclose(layer.weight.flatten(1), wanted, atol=1e-12)
    layer.weight.data = weight.clone()
    project_norms_(layer, 0.3, norm="l1")
    for group, channel, y, x in torch.ones(2, 2, 2, 3).nonzero().tolist():
        block = slice(3 * group, 3 * group + 3), channel, slice(y, None, 2), slice(x, None, 3)
        wanted = sorted_projection(weight[block].flatten(), 0.3)
        assert torch.allclose(layer.weight[block].flatten(), wanted, atol=1e-12)


def test_the_projection_brings_no_two_kernels_further_apart():
    torch.manual_seed(0)
    for norm in NORMS:
        for scale in (1.0, 0.1, 1e-3):
            one, other = (nn.Conv2d(3, 5, 3, stride=2, padding=1).double() for _ in range(2))
            other.weight.data = one.weight.data + scale * torch.randn_like(one.weight)
            apart = (one.weight - other.weight).norm()
            for layer in (one, other):
                project_norms_(layer, 0.5, norm=norm)
            assert (one.weight - other.weight).norm() <= apart * (1 + ROUNDING), (norm, scale)


def test_channels_under_the_bound_stay_bit_for_bit():
    torch.manual_seed(0)
    layer = nn.Conv2d(5, 7, 3, padding=1)
    layer.weight.data[::2] *= 10
    weight = layer.weight.detach().clone()
    table = project_norms_(layer, weight[1::2].abs().flatten(1).sum(1).max().item(), norm="linf")
    assert torch.equal(layer.weight[1::2], weight[1::2])
    assert (layer.weight[::2] != weight[::2]).flatten(1).any(1).all()
    assert table.changed.item() == 4


@pytest.mark.parametrize("input_size", [None, (3, 32, 32)])
@pytest.mark.parametrize("norm", NORMS)
def test_every_layer_of_a_network_is_projected_and_the_table_says_so(norm, input_size):
    torch.manual_seed(0)
    model = models.build("resnet18", width=8)
    before = layer_table(model, (3, 32, 32), norms=(norm,)).query("kind != 'batch_norm'")
    table = project_norms_(model, 1.5, norm=norm, input_size=input_size)
    after = layer_table(model, (3, 32, 32), norms=(norm,)).query("kind != 'batch_norm'")
    assert list(table.layer) == list(before.layer) and set(table.kind) == {"conv", "linear"}
    assert set(table.norm) == {norm}
    assert (after.value <= 1.5 * (1 + ROUNDING)).all()
    if input_size:
        assert table.before.tolist() == pytest.approx(before.value.tolist(), rel=1e-5)
        assert table.after.tolist() == pytest.approx(after.value.tolist(), rel=1e-5)
    assert ((table.before > 1.5) == (table.changed > 0)).all()
    assert table.changed.sum() > 0 and model.training


def test_weights_that_two_layers_share_hold_the_bound_in_both():
    torch.manual_seed(0)
    one = nn.Conv1d(3, 3, 3, padding=2, padding_mode="circular")
    other = nn.Conv1d(3, 3, 3, stride=2, padding=1)
    other.weight = one.weight
    model = nn.Sequential(one, other).double()
    for norm, (measure, _) in NORMS.items():
        nn.init.normal_(one.weight)
        table = project_norms_(model, 1.0, norm=norm, input_size=(3, 2))
        assert measure(one, (2,)) <= 1.0 and measure(other, (4,)) <= 1.0
        assert table.after.tolist() == [measure(one, (2,)).item(), measure(other, (4,)).item()]


def test_what_one_sharing_layer_cuts_apart_the_other_projects_again():
    one = nn.Conv1d(4, 4, 3, padding=1, padding_mode="circular", bias=False)
    other = nn.Conv1d(4, 4, 3, stride=3, padding=2, bias=False)
    nn.init.zeros_(one.weight)
    one.weight.data[..., 0], one.weight.data[..., 2] = 1.0, -1.0
    other.weight = one.weight
    model = nn.Sequential(one, nn.MaxPool1d(2), other)
    table = project_norms_(model, 1.0, norm="linf", input_size=(4, 2))
    assert table.before.tolist() == [0.0, 4.0]  # on two pixels the outer taps of `one` cancel
    assert linf_norm(one, (2,)) <= 1.0 and linf_norm(other, (1,)) <= 1.0
    assert table.changed.tolist() == [4, 4]


def test_sums_that_float32_rounds_down_to_the_bound_are_above_it():
    layer = nn.Linear(2, 1)
    layer.weight.data = torch.tensor([[1.0, 2.0**-25]])
    assert linf_norm(layer, None) == 1.0
    assert project_norms_(layer, 1.0, norm="linf").changed.item() == 1
    assert linf_norm(layer.double(), None) <= 1.0
    layer = nn.BatchNorm1d(10_000)
    layer.running_var.uniform_(0.1, 1.0)
    layer.weight.data = 0.7 * (layer.running_var + layer.eps).sqrt()
    project_batch_norm_(layer, 0.7)
    assert linf_norm(layer, None).item() <= 0.7 and linf_norm(layer.double(), None) <= 0.7


def test_layouts_frozen_and_half_precision_weights_are_projected_as_well():
    torch.manual_seed(0)
    plain = nn.Conv2d(4, 6, 3, padding=1)
    last = copy.deepcopy(plain).to(memory_format=torch.channels_last).requires_grad_(False)
    for norm in NORMS:
        project_norms_(plain, 1.0, norm=norm)
        project_norms_(last, 1.0, norm=norm)
        assert torch.allclose(plain.weight, last.weight, atol=1e-6)
    for dtype in (torch.float16, torch.bfloat16):
        layer = nn.Linear(50, 20).to(dtype)
        project_norms_(layer, 0.7, norm="linf")
        assert 0.7 * 0.9 < linf_norm(layer, None) <= 0.7


def test_a_layer_that_is_never_called_is_bound_at_every_size():
    model = nn.Sequential(nn.Conv1d(1, 1, 3))
    model.add_module("spare", nn.Identity())
    model.spare.unused = nn.Conv1d(1, 1, 3, padding=1)
    nn.init.ones_(model.spare.unused.weight)
    table = project_norms_(model, 0.6, norm="linf", input_size=(1, 3))
    assert table.layer.tolist() == ["0", "spare.unused"]
    assert model.spare.unused.weight.sum().item() == pytest.approx(0.6, rel=1e-6)


def broken(which):
    """A model with one layer, `bad`, that no norm ball can hold, and what is said of it."""

    class Own(nn.Conv2d):
        def forward(self, x):
            return super().forward(2 * x)

    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Parameter(torch.ones(2, 2))

    @linear_map.register
    def _(layer: Scaled, input_size, boundary="zero"):
        return linear_map(nn.Linear(2, 2), input_size, boundary)

    bad = {
        "nan": nn.Conv2d(3, 3, 3),
        "own": Own(3, 3, 3),
        "parametrized": parametrizations.weight_norm(nn.Conv2d(3, 3, 3)),
        "identity": nn.Conv2d(3, 3, 3),
        "computed": Scaled(),
        "lazy": nn.LazyConv2d(3, 3),
    }[which]
    if which == "nan":
        bad.weight.data[1, 2, 0, 0] = math.nan
    if which == "identity":
        parametrize.register_parametrization(bad, "weight", nn.Identity())
    model = nn.Sequential(nn.Conv2d(3, 3, 3), nn.Sequential())
    model[1].add_module("bad", bad)
    return model


WRONG = {
    "nan": "'1.bad': .* 1 non-finite values of 81",
    "own": "'1.bad' .*has no linf norm.*overrides forward",
    "parametrized": "'1.bad' .*computes its weight.*linf",
    "identity": "'1.bad' .*computes its weight",
    "computed": "'1.bad' .*computes its weight",
    "lazy": "'1.bad' .*not initialized",
}


@pytest.mark.filterwarnings("ignore:Lazy modules")
@pytest.mark.parametrize("which", WRONG)
def test_a_layer_that_cannot_be_projected_is_named_before_anything_changes(which):
    model = broken(which)
    weight = model[0].weight.detach().clone()
    with pytest.raises(ValueError, match=WRONG[which]):
        project_norms_(model, 1e-3, norm="linf")
    assert torch.equal(model[0].weight, weight)


@pytest.mark.parametrize("bound", [0, 0.0, -1.0, math.nan, math.inf, "1", None, True])
def test_bounds_that_are_no_positive_number_are_refused(bound):
    with pytest.raises(ValueError, match="bound .* is not a finite number above 0"):
        project_norms_(nn.Linear(2, 2), bound, norm="l1")
    with pytest.raises(ValueError, match="bound .* is not a finite number above 0"):
        project_batch_norm_(nn.BatchNorm1d(2), bound)


def test_other_wrong_arguments_are_refused_in_words():
    with pytest.raises(ValueError, match="norm 'l_inf' is not one of l1, linf.*'linf'"):
        project_norms_(nn.Linear(2, 2), 1.0, norm="l_inf")
    with pytest.raises(ValueError, match="model has no convolution or linear layer"):
        project_norms_(nn.Sequential(nn.BatchNorm2d(3), nn.ReLU()), 1.0, norm="l1")
    with pytest.raises(ValueError, match="input_size .* does not fit the model"):
        project_norms_(nn.Conv2d(3, 4, 3), 1.0, norm="l1", input_size=(2, 8, 8))
    for project in (project_batch_norm_, lambda *args: project_norms_(*args, norm="l1")):
        with pytest.raises(TypeError, match="model is a list"):
            project([nn.Linear(2, 2)], 1.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_batch_norms_are_clipped_to_the_bound_and_not_further(dtype):
    torch.manual_seed(0)
    layer = nn.BatchNorm2d(200, eps=1e-3).to(dtype)
    nn.init.normal_(layer.weight)
    layer.running_var.uniform_(0.0, 2.0)
    gamma, limit = layer.weight.detach().clone(), 0.7 * (layer.running_var + 1e-3).sqrt()
    table = project_batch_norm_(nn.Sequential(layer), 0.7)
    assert l1_norm(layer, (2, 2)).item() <= 0.7 and linf_norm(layer.double(), None) <= 0.7
    layer.to(dtype)
    assert torch.allclose(layer.weight, gamma.clamp(-limit, limit), rtol=1e-5, atol=0)
    inside = gamma.abs() < 0.999 * limit
    assert torch.equal(layer.weight[inside], gamma[inside])
    assert table.changed.item() == (gamma.abs() > limit).sum() > 20
    again = project_batch_norm_(layer, 0.7)
    assert again.changed.item() == 0 and again.before.item() == table.after.item() <= 0.7


def test_batch_norms_that_cannot_be_clipped_are_listed_or_refused():
    model = nn.Sequential(*(nn.BatchNorm1d(2, affine=False, eps=0.0) for _ in range(2)))
    model[0].running_var[:] = torch.tensor([1.0, 0.25])
    table = project_batch_norm_(model, 1.5)
    assert table.status.tolist() == [
        "above the bound: the layer has no weight to clip (affine=False)",
        "ok",
    ]
    assert table.after.tolist() == [2.0, 1.0]
    with pytest.raises(ValueError, match="no BatchNorm layer"):
        project_batch_norm_(nn.Linear(2, 2), 1.0)
    model = nn.Sequential(nn.BatchNorm1d(3), nn.BatchNorm1d(3, track_running_stats=False))
    nn.init.constant_(model[0].weight, 5.0)
    with pytest.raises(ValueError, match="'1' .*track_running_stats=False"):
        project_batch_norm_(model, 1.0)
    assert (model[0].weight == 5.0).all()
    model[0].running_var[1] = math.nan
    with pytest.raises(ValueError, match="'0': .*non-finite"):
        project_batch_norm_(model[:1], 1.0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_cuda_device_gives_the_same_weights():
    torch.manual_seed(0)
    here = models.build("resnet8")
    there = copy.deepcopy(here).cuda()
    for model in (here, there):
        project_norms_(model, 2.0, norm="l1", input_size=(3, 32, 32))
        project_norms_(model, 3.0, norm="linf")
        project_batch_norm_(model, 0.5)
    for one, other in zip(here.parameters(), there.parameters(), strict=True):
        assert torch.allclose(one, other.cpu(), atol=1e-5)
