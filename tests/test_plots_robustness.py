"""Figures of a steep robust classifier, and of published networks, show the numbers given."""

from functools import cache
from itertools import combinations, product

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.text import Text

from normkit.plots import robustness, save
from normkit.plots.style import COLORS, LABELS, MARKERS

NOTE, SLOPES, FAR = "digits 8x8", (1.0, 100.0, 1e4, 1e6), 2.5
NETWORKS = {"standard": 1.0, "certified": 0.25, "adversarial": 1.5}
NORMS = {"l1": 8.0, "linf": 4.0, "spectral": 2.0}
every_figure = pytest.mark.parametrize("name", ["lipschitz", "networks"])


def line_rows(slopes=SLOPES):
    """A segment of length FAR, the sign changes in its middle, where no strip is."""
    position = np.linspace(-1, FAR + 1, 46)
    return pd.concat([
        pd.DataFrame({"slope": s, "position": position, "output": s * (FAR / 2 - position)})
        for s in slopes
    ])  # fmt: skip


def slope_rows(slopes=SLOPES):
    slopes = np.array(slopes)
    return pd.DataFrame({"slope": slopes, "accuracy": 1.0, "robust": 1.0,
                         "measured_slope": slopes * 1.01})  # fmt: skip


def layer_rows():
    """A network's norms are its factor times the layer's; the BatchNorm is left out."""
    kinds = {"a.convolution": "conv", "a.norm": "batch_norm", "b.convolution": "conv",
             "c" * 30: "linear"}  # fmt: skip
    return pd.DataFrame([
        {"network": network, "layer": layer, "position": position, "kind": kind, "norm": norm,
         "value": factor * size * (1 + position)}
        for (network, factor), (position, (layer, kind)), (norm, size) in product(
            NETWORKS.items(), enumerate(kinds.items()), {**NORMS, "stable_rank": 1}.items())
    ])  # fmt: skip


def accuracy_rows():
    return pd.DataFrame(
        {
            "network": list(NETWORKS),
            "clean": [0.761, 0.6162, 0.6975],
            "robust_2": [0.162, 0.555, 0.543],
            "robust_8": [0.001, 0.268, np.nan],
        }
    )


def draw(name, change=lambda table: table, note=NOTE):
    """Draw the figure of that name from known numbers, its first table changed."""
    if name == "lipschitz":
        return robustness.lipschitz(change(line_rows()), slope_rows(), note=note)
    return robustness.networks(change(layer_rows()), accuracy_rows(), note=note)


drawn = cache(draw)


def bottom(figure):
    return figure.get_supxlabel().replace("\n", " ")


def lines(axes):
    return {line.get_label(): line for line in axes.lines}


@every_figure
def test_nothing_is_clipped_and_no_words_touch(name):
    figure = drawn(name)
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert min(box.x0, box.y0, width - box.x1, height - box.y1) > -0.01, box
    found = [text for axes in figure.axes for text in (*axes.texts, axes._left_title)]
    found += [axes.xaxis.label for axes in figure.axes]
    found += [tick for axes in figure.axes[-2:] for tick in axes.get_xticklabels()]
    boxes = [Text.get_window_extent(text) for text in found if text.get_text()]
    for one, other in combinations(boxes, 2):
        assert not one.overlaps(other) or not one.width * other.width, (one, other)


@every_figure
def test_drawing_and_saving_again_give_the_same_bytes_in_any_order_of_rows(name, tmp_path):
    first = [path.read_bytes() for path in save(drawn(name), layer_rows(), tmp_path / "a")]
    mixed = draw(name, lambda table: table.sample(frac=1, random_state=0))
    other = save(mixed, layer_rows(), tmp_path / "b" / "a")
    assert first == [path.read_bytes() for path in other]
    assert bottom(mixed).endswith(NOTE)


@every_figure
def test_bad_tables_are_refused_by_name(name):
    last = {"lipschitz": "output", "networks": "value"}[name]
    for change, said in [
        (lambda t: t[:0], "has no rows"),
        (lambda t: t.drop(columns=last), f"lacks the column {last}: it has"),
        (lambda t: pd.concat([t, t]), "has several rows for"),
    ]:
        with pytest.raises(ValueError, match=said):
            draw(name, change)


def test_the_keys_that_meet_differ_in_color_marker_and_label():
    for values in (COLORS, MARKERS, LABELS):
        assert len({values[key] for key in NETWORKS}) == len(NETWORKS)


def test_lipschitz_draws_every_slope_between_the_images_and_their_strips():
    axes = drawn("lipschitz").axes[0]
    for slope, part in line_rows().groupby("slope"):
        np.testing.assert_allclose(lines(axes)[f"{slope:g}"].get_ydata(), part["output"])
    places = [lines(axes)[name].get_xdata()[0] for name in ("first image", "second image")]
    np.testing.assert_allclose(places, [0, FAR])
    strips = [(strip.get_x(), strip.get_x() + strip.get_width()) for strip in axes.patches]
    np.testing.assert_allclose(strips, [(-1, 1), (FAR - 1, FAR + 1)])
    keys = [text.get_text() for text in drawn("lipschitz").legends[0].texts]
    assert keys == ["slope", "$10^{0}$", "$10^{2}$", "$10^{4}$", "$10^{6}$"]


def test_lipschitz_counts_the_slopes_whose_sign_does_not_change_near_an_image():
    def wrong(table):
        strip = (table["slope"] == 100) & (table["position"] > FAR + 0.9)
        return table.assign(output=table["output"].mask(strip, 1.0))

    def unknown(table):
        strip = (table["slope"] <= 100) & (table["position"] > FAR + 0.9)
        return table.assign(output=table["output"].mask(strip))

    for change, kept in ((lambda t: t, 4), (wrong, 3), (unknown, 2)):
        figure = draw("lipschitz", change)
        said = f"one sign in each strip: {kept} of 4 slopes"
        assert figure.axes[0].texts[0].get_text() == said
    assert "Not measured and left out: 4 values." in bottom(figure)
    constant = draw("lipschitz", lambda table: table.assign(output=1.0))
    assert "0 of 4" in constant.axes[0].texts[0].get_text(), "both images in one class"


def test_lipschitz_shows_accuracies_and_the_measured_slope_against_the_slope():
    table = slope_rows().assign(robust=[1, 0.9, 0.8, np.nan], accuracy=[1, 1, 0.95, 0.9])
    figure = robustness.lipschitz(line_rows(), table.sample(frac=1, random_state=1))
    _, upper, lower = figure.axes
    for axes, column in ((upper, "robust"), (upper, "accuracy"), (lower, "measured_slope")):
        assert axes.get_xscale() == "log"
        np.testing.assert_allclose(lines(axes)[column].get_xdata(), SLOPES)
        np.testing.assert_allclose(lines(axes)[column].get_ydata(), table[column])
    assert lower.get_yscale() == "log" and upper.get_yscale() == "linear"
    assert "100%" in [tick.get_text() for tick in upper.get_yticklabels()]
    assert "Not measured and left out: 1 value." in bottom(figure)


@pytest.mark.parametrize("slopes", [(3.0,), (1.0, 2.0)])
def test_lipschitz_has_a_linear_axis_if_the_outputs_are_of_one_size(slopes):
    figure = robustness.lipschitz(line_rows(slopes), slope_rows(slopes))
    assert figure.axes[0].get_yscale() == "linear"
    assert drawn("lipschitz").axes[0].get_yscale() == "symlog"
    assert f"{len(slopes)} of {len(slopes)}" in figure.axes[0].texts[0].get_text()


def test_lipschitz_refuses_slopes_and_segments_that_have_no_place():
    with pytest.raises(ValueError, match=r"line has the slope 0: it must be positive"):
        draw("lipschitz", lambda table: table.replace({"slope": {1.0: 0.0}}))
    with pytest.raises(ValueError, match=r"runs from position 0 to 4.5: it must run from -1"):
        draw("lipschitz", lambda table: table.assign(position=table["position"] + 1))
    with pytest.raises(ValueError, match="table lacks the column robust"):
        robustness.lipschitz(line_rows(), slope_rows().drop(columns="robust"))


def test_networks_have_a_panel_per_norm_and_a_marker_per_layer_in_depth_order():
    figure, table = drawn("networks"), layer_rows()
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == [r"$\ell_1$ norm", r"$\ell_\infty$ norm", "spectral norm"]
    assert figure.axes[0].yaxis_inverted(), "the first layer is on top"
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["a", "b", "\N{HORIZONTAL ELLIPSIS}" + "c" * 17]
    for axes, norm in zip(figure.axes, NORMS, strict=True):
        for network in NETWORKS:
            part = table.query("network == @network and norm == @norm and kind != 'batch_norm'")
            line = lines(axes)[network]
            assert line.get_marker() == MARKERS[network]
            assert to_hex(line.get_color()) == COLORS[network].lower()
            found = sorted(zip(line.get_ydata(), line.get_xdata(), strict=True))
            np.testing.assert_allclose(found, list(zip(range(3), part["value"], strict=True)))
            medians = [ln.get_xdata()[0] for ln in axes.lines if ln.get_label().startswith("_")]
            assert part["value"].median() in medians


def test_networks_are_named_with_their_accuracies_in_percent():
    texts = [text.get_text() for text in drawn("networks").legends[0].texts]
    assert texts == [
        "standard: 76.1 % clean, 16.2 % at 2/255, 0.1 % at 8/255",
        "certified: 61.6 % clean, 55.5 % at 2/255, 26.8 % at 8/255",
        "adversarial: 69.8 % clean, 54.3 % at 2/255, \N{EN DASH} at 8/255",
    ]
    unknown = robustness.networks(layer_rows(), accuracy_rows()[:1]).legends[0].texts[1]
    assert unknown.get_text().startswith("certified: \N{EN DASH} clean")


def test_networks_count_norms_that_were_not_measured_and_need_not_all_be_there():
    def change(table):
        table = table[(table["network"] != "certified") & (table["norm"] == "l1")]
        return table.assign(value=table["value"].mask(table["layer"] == "b.convolution"))

    figure = draw("networks", change)
    assert "Not measured and left out: 2 values." in bottom(figure)
    assert len(figure.axes) == 1 and figure.get_figwidth() == 3.25
    assert len(figure.axes[0].get_yticks()) == 2
    assert [text.get_text().split(":")[0] for text in figure.legends[0].texts] == [
        "standard", "adversarial",
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"network is 'certify'.*nearest is 'certified'"):
        draw("networks", lambda table: table.replace({"network": {"certified": "certify"}}))
    with pytest.raises(ValueError, match="accuracy has several rows for network=standard"):
        robustness.networks(layer_rows(), pd.concat([accuracy_rows()] * 2))
    with pytest.raises(ValueError, match="measured norms of such layers, has no rows"):
        draw("networks", lambda table: table[table["kind"] == "batch_norm"])
