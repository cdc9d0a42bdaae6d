"""The explorer's panels of a network and of a layer show the numbers that norms computes."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from normkit import layers, norms
from normkit.networks import Network
from normkit.widgets import Session, layer_views
from normkit.widgets.layer_norms import aligned, network_norms
from normkit.widgets.layer_panel import LayerPanel
from normkit.widgets.layer_shown import VIEWS
from normkit.widgets.layer_spectra import spectrum
from normkit.widgets.network_panel import NetworkPanel

FREQUENCY, SORTED, CHANNELS, KERNELS, GROWTH = VIEWS


def _net(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(),
            nn.Conv2d(4, 6, 3, stride=2, padding=1), nn.ReLU(),
            layers.ConvNorm2d(6, 4, 3, padding=1),
            nn.LayerNorm([4, 4, 4]), nn.Flatten(), nn.Linear(64, 10),
        ).eval()  # fmt: skip


def _network(seed: int = 0, name: str = "mine") -> Network:
    return Network(name, _net(seed), (1, 8, 8), 10)


def _show(panel, **values):
    for name, value in values.items():
        panel.controls[name].value = value
    return panel.refresh().result(60)


@pytest.mark.parametrize("norm", ["l1", "linf", "spectral", "frobenius", "stable_rank"])
@pytest.mark.parametrize("boundary", ["zero", "circular"])
def test_the_chart_has_the_numbers_of_the_layer_table(norm, boundary):
    network = _network()
    shown = _show(NetworkPanel(Session(first=network)), norm=norm, boundary=boundary)
    expected = norms.layer_table(network.model, (1, 8, 8), norms=(norm,), boundary=boundary)
    assert shown.table["layer"].tolist() == expected["layer"].tolist()
    for column in ("value", "lower", "upper"):
        np.testing.assert_allclose(shown.table[column], expected[column], rtol=1e-9)
    assert shown.table["status"].tolist() == expected["status"].tolist()
    assert shown.table["kind"].tolist()[-1] == "linear"


def test_a_layer_without_a_norm_stays_with_its_sentence():
    shown = _show(NetworkPanel(Session(first=_network())))
    lost = shown.table[shown.table["status"] != "ok"]
    assert lost["layer"].tolist() == ["6"]
    assert "LayerNorm has no known linear map" in shown.words
    label = next(mark.label for mark in shown.marks if mark.name == "6")
    assert "no known linear map" in label


def test_marks_stand_at_the_layers_of_the_first_network_in_order():
    panel = NetworkPanel(Session(first=_network(), second=_network(1, "other")))
    shown = _show(panel)
    first = shown.table[shown.table["role"] == "first"]
    assert [mark.name for mark in shown.marks] == first["layer"].tolist()
    name, shape, value, beside = shown.marks[0].label.split("\n")
    assert (name, shape) == ("0", "Conv2d 4x1x3x3")
    assert value.startswith(f"{first['value'].iloc[0]:.4g}") and beside.startswith("second: ")
    lefts = [mark.box[0] for mark in shown.marks]
    assert lefts == sorted(lefts) and all(0 <= edge <= 1 for m in shown.marks for edge in m.box)
    assert {"mine", "other"} == set(shown.table["network"])


def test_choosing_a_mark_sets_the_layer_and_the_other_way_round():
    session = Session(first=_network())
    chart, single = NetworkPanel(session), LayerPanel(session)
    _show(chart)
    chart.picture.chosen = "3"
    assert session.layer == "3" and single.controls["layer"].value == "3"
    assert "Chosen: 3, Conv2d 6x4x3x3" in chart.wait().words
    single.controls["layer"].value = "8"
    assert session.layer == "8" and chart.picture.chosen == "8"
    assert "Chosen: 8, Linear 10x64" in chart.wait().words
    chart.picture.chosen = "6"  # a LayerNorm: it has no norm, so nothing to show
    assert session.layer == "8"


def test_the_scale_changes_the_axis_and_not_the_numbers():
    panel = NetworkPanel(Session(first=_network()))
    log, linear = _show(panel), _show(panel, scale="linear")
    assert [s.figure.axes[0].get_yscale() for s in (log, linear)] == ["log", "linear"]
    assert log.table.equals(linear.table)


def test_layers_of_two_networks_are_aligned_by_name_and_else_by_depth():
    place = aligned(["a", "b", "c"], ["a", "bn", "b"])
    assert [place["second", n] for n in ("a", "bn", "b")] == [0, 1, 2]
    assert [place["first", n] for n in ("a", "b", "c")] == [0, 2, 3]
    assert aligned(["a"], ["x", "y"])["second", "y"] == 1


def test_what_was_measured_is_not_measured_again_until_the_weights_change():
    network, seen = _network(7), []

    def each(items, what):
        seen.append(len(items))
        return items

    for _ in range(2):
        before = network_norms(network, None, "linf", "zero", each)
    network.model[0].weight.data.mul_(2)
    after = network_norms(network, None, "linf", "zero", each)
    assert seen == [6, 6]
    np.testing.assert_allclose(after["value"].iloc[0], 2 * before["value"].iloc[0], rtol=1e-6)


@pytest.mark.parametrize("layer", [
    nn.Conv2d(3, 5, 3), nn.Conv2d(40, 24, 3), nn.Conv2d(4, 6, 3, stride=2, groups=2),
    nn.Conv2d(70, 80, 3), nn.Conv1d(3, 4, 5, dilation=2), nn.ConvTranspose2d(3, 4, 3, stride=2),
    nn.Conv2d(3, 4, 1), layers.ConvNorm2d(3, 4, 3),
], ids=repr)  # fmt: skip
def test_the_spectrum_is_that_of_all_singular_values(layer):
    size = (8,) if isinstance(layer, nn.Conv1d) else (8, 6)
    expected = norms.singular_values(layer.eval(), size)
    every = spectrum(layer, size, every=True).flatten(0, -2)
    torch.testing.assert_close(every, expected, rtol=1e-9, atol=1e-9 * expected.max().item())
    largest = spectrum(layer, size, every=False).flatten()
    torch.testing.assert_close(largest, expected[:, 0], rtol=1e-5, atol=0)


def test_the_map_of_frequencies_has_zero_in_the_middle():
    layer = nn.Conv2d(1, 1, 3, bias=False)
    nn.init.ones_(layer.weight)
    table = layer_views.frequencies(layer, (8, 8))
    top = table.loc[table["value"].idxmax()]
    assert (top["fy"], top["fx"]) == (0, 0) and math.isclose(top["value"], 9, rel_tol=1e-6)


def test_a_slider_move_changes_the_map_of_frequencies():
    session = Session(first=_network(), layer="0")
    panel = LayerPanel(session)
    first = _show(panel, view=FREQUENCY)
    assert panel.controls["side"].value == 8 and len(first.table) == 64
    second = _show(panel, side=12)
    expected = norms.singular_values(session.first.model[0], (12, 12))[:, 0].max().item()
    assert len(second.table) == 144 and f"{expected:.4g}" in second.words
    assert second.figure.axes[0].images[0].get_array().shape == (12, 12)


def test_the_core_of_a_conv_norm_stays_under_the_root_of_its_channels():
    panel = LayerPanel(Session(first=_network(), layer="5"))
    shown = _show(panel, view=SORTED)
    core = shown.table[shown.table["curve"] == "core"]["value"]
    assert core.max() <= 2 + 1e-6
    expected = norms.singular_values(panel.session.first.model[5], (4, 4)).flatten()
    mine = shown.table[shown.table["curve"] == "layer"]
    np.testing.assert_allclose(mine["value"], expected.sort(descending=True).values, rtol=1e-6)
    labels = shown.figure.axes[0].get_legend_handles_labels()[1]
    assert any("C_\\mathrm{out}" in label for label in labels)


def test_channels_before_and_after_are_those_of_plain_and_normalized_layers():
    layer = layers.ConvNorm2d(5, 4, 3, dilation=2, eps=0.0).eval()
    table = layer_views.channels(layer, (6, 7))
    plain = nn.Conv2d(5, 4, 3, dilation=2, bias=False)
    plain.weight = layer.weight
    before, after = (table[table["state"] == state] for state in ("before", "after"))
    grid = layers.own_grid((6, 7), (3, 3), (2, 2))
    np.testing.assert_allclose(before["norm"], norms.channel_norms(plain, grid), rtol=1e-6)
    condition = norms.channel_condition_numbers(plain, grid)
    np.testing.assert_allclose(before["condition"], condition, rtol=1e-6)
    measured = norms.channel_norms(layer.core(), (6, 7))
    np.testing.assert_allclose(after["norm"], measured, rtol=1e-5)
    np.testing.assert_allclose(after["condition"], 1, rtol=1e-5)


def test_tiles_are_the_weights():
    layer = nn.Conv2d(30, 20, 3)
    table = layer_views.kernels(layer)
    row = table.iloc[100]
    index = tuple(int(row[name]) for name in ("output", "input", "row", "column"))
    assert row["value"] == layer.weight[index].item() and len(table) == 12 * 24 * 9


def test_the_norm_grows_with_the_map_as_measured_at_each_size():
    panel = LayerPanel(Session(first=_network(), layer="0"))
    shown = _show(panel, view=GROWTH, norm="frobenius", side=5)
    conv = panel.session.first.model[0]
    expected = [norms.frobenius_norm(conv, (n, n)).item() for n in shown.table["side"]]
    np.testing.assert_allclose(shown.table["value"], expected, rtol=1e-6)
    assert shown.table.loc[shown.table["chosen"], "side"].tolist() == [5]
    assert not panel.controls["norm"].disabled


@pytest.mark.parametrize("name", ["0", "1", "3", "5", "8"])
def test_every_view_shows_every_kind_of_layer_or_says_why_not(name):
    panel = LayerPanel(Session(first=_network(), layer=name))
    flat = {FREQUENCY, GROWTH} if name in ("1", "8") else set()
    flat |= {KERNELS} if name == "1" else set()
    for view in VIEWS:
        shown = _show(panel, view=view)
        assert shown is not None, (view, panel.state.value)
        assert ("does not apply" in shown.words) == (view in flat), shown.words


@pytest.mark.parametrize("view", VIEWS)
def test_the_line_of_code_runs(view):
    panel = LayerPanel(Session(first=_network(), layer="3"))
    shown = _show(panel, view=view)
    exec(shown.code, {"model": panel.session.first.model})
    chart = _show(NetworkPanel(panel.session))
    exec(chart.code, {"model": panel.session.first.model})


def test_another_network_renews_the_layers_and_keeps_a_name_that_it_has():
    session = Session(first=_network(), layer="3")
    panel = LayerPanel(session)
    _show(panel)
    session.first = Network("small", nn.Sequential(nn.Linear(4, 2)), (4,))
    assert panel.controls["layer"].value == session.layer == "0"
    assert "Linear 2x4" in panel.wait().words


def test_bad_networks_become_one_sentence():
    network = _network()
    network.model[0].weight.data[0, 0, 0, 0] = math.nan
    session = Session(first=network, layer="0")
    panel, chart = LayerPanel(session), NetworkPanel(session)
    for view in VIEWS:
        assert _show(panel, view=view) is None
        assert "layer 0" in panel.state.value.replace("&#x27;", "").replace("'", "")
        assert "finite" in panel.state.value
    assert "0 (weights of Conv2d hold 1 non-finite values of 36)" in _show(chart).words
    empty = Session(first=Network("empty", nn.Sequential(nn.ReLU()), (4,)))
    for made in (NetworkPanel(empty), LayerPanel(empty)):
        assert _show(made) is None and "empty holds no layer" in made.state.value
    wrong = Session(first=Network("wrong", _net(), (3, 8, 8)))
    for made in (NetworkPanel(wrong), LayerPanel(wrong)):
        assert _show(made) is None and "does not fit the model" in made.state.value
