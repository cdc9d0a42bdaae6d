"""Figures show the table they are given: lines, labels, counts of what is left out."""

import re
from functools import cache
from itertools import combinations, product

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from IPython.core.formatters import DisplayFormatter
from matplotlib.colors import to_hex
from matplotlib.text import Text
from scipy import stats

from normkit.plots import beyond_batchnorm, norm_decay, save
from normkit.plots.style import COLORS, LABELS, MARKERS

FACTORS, NOTE = {"plain": 1.0, "pgd": 1.5, "trades": 1.25, "alp": 0.75}, "digits 8x8, width 8"
MEASURES = {"rank": "stable_rank", "cosine": "cosine_similarity", "gradient": "gradient_norm"}
NORMS = ["density", "layers", "ratios"]
every_figure = pytest.mark.parametrize("name", [*NORMS, "variance", *MEASURES])


def norm_rows(nets=("vgg",), layers=4):
    """Norms with known answers: a method's are its factor times plain's of the same seed."""
    base = np.exp(np.random.default_rng(0).normal(1.5, 0.5, (3, 3, layers)))
    norms, accuracy = [], []
    for net, (number, method), seed in product(nets, enumerate(FACTORS), range(3)):
        run = {"net": net, "method": method, "seed": seed}
        good = {"clean": 0.9 - number / 100, "robust": 0.1 + number / 10, "status": "ok"}
        accuracy.append({**run, **good})
        for (index, norm), layer in product(enumerate(["l1", "linf", "spectral"]), range(layers)):
            value = FACTORS[method] * base[index, seed, layer]
            for kind, scale in (("linear" if layer == 3 else "conv", 1), ("batch_norm", 100)):
                at = {"layer": f"{kind}{layer}", "position": 2 * layer + (scale > 1), "kind": kind}
                norms.append({**run, **at, "norm": norm, "value": scale * value})
    return pd.DataFrame(norms), pd.DataFrame(accuracy)


def variance_rows():
    growth = {"none": 5.0, "batch": 1.2, "layer": 1.1, "scaled_ws": 4.0}
    return pd.DataFrame([
        {"method": method, "skip_init": skip, "seed": seed, "position": block,
         "measure": "activation_variance", "value": growth[method] ** (block * (not skip)) + seed}
        for skip, seed, block, method in product((False, True), range(3), range(1, 5), growth)
    ])  # fmt: skip


def group_rows(measure):
    return pd.DataFrame([
        {"groups": groups, "depth": depth, "width": 8, "seed": seed, "position": layer,
         "measure": measure, "value": groups ** (1 - layer / depth) * (1 + 0.1 * seed) / 10}
        for depth, groups, seed in product((3, 4), (1, 2, 4, 8), range(3))
        for layer in range(1, depth + 1)
    ])  # fmt: skip


def draw(name, change=lambda table: table):
    """Draw the figure of that name from a changed table of known numbers."""
    if name in NORMS:
        norms, accuracy = norm_rows()
        more = {} if name == "ratios" else {"norm": "l1"}
        return getattr(norm_decay, name)(change(norms), accuracy=accuracy, note=NOTE, **more)
    rows = variance_rows() if name == "variance" else group_rows(MEASURES[name])
    return getattr(beyond_batchnorm, name)(change(rows), note=NOTE)


drawn = cache(draw)


def texts(figure):
    return [text.get_text() for text in figure.findobj(Text) if text.get_text().strip()]


def bottom(figure):
    return figure.get_supxlabel().replace("\n", " ")


def lines(axes):
    return {line.get_label(): line for line in axes.lines}


@every_figure
def test_nothing_is_clipped_and_direct_labels_do_not_touch(name):
    figure = drawn(name)
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert min(box.x0, box.y0, width - box.x1, height - box.y1) > -0.01, box
    for axes in figure.axes:
        ends = [Text.get_window_extent(t) for t in axes.texts if t.get_gid() == "end label"]
        for one, other in combinations(ends, 2):
            assert not one.padded(-1).overlaps(other)


@every_figure
def test_every_axis_says_what_it_shows_and_the_bottom_names_the_interval(name):
    figure = drawn(name)
    assert all(axes.get_xlabel() for axes in figure.axes)
    assert bottom(figure).endswith(NOTE)
    assert name == "density" or re.search("over 3 seeds.*95 % t interval", bottom(figure))
    assert figure.get_figwidth() in (3.25, 5.5)


def test_a_notebook_shows_a_figure_once_and_pyplot_keeps_none():
    shown, _ = DisplayFormatter().format(drawn("rank"))
    assert sorted(shown) == ["image/png", "text/plain"] and plt.get_fignums() == []


@pytest.mark.parametrize("name", ["density", "cosine"])
def test_saving_twice_and_drawing_again_give_the_same_bytes(name, tmp_path):
    first = [path.read_bytes() for path in save(drawn(name), variance_rows(), tmp_path / "a")]
    again = [path.read_bytes() for path in save(drawn(name), variance_rows(), tmp_path / "a")]
    with matplotlib.rc_context({"font.size": 20, "lines.linewidth": 5, "pdf.fonttype": 3}):
        other = save(draw(name), variance_rows(), tmp_path / "b" / "a")
    assert first == again == [path.read_bytes() for path in other]


def test_density_has_a_curve_of_area_one_a_median_and_every_layer_per_method():
    table, figure = norm_rows()[0].query("norm == 'l1'"), drawn("density")
    for axes, kinds in zip(figure.axes, (["conv", "linear"], ["batch_norm"]), strict=True):
        curves = {key: line for key, line in lines(axes).items() if key in COLORS}
        assert list(curves) == list(FACTORS)
        for index, (method, line) in enumerate(curves.items()):
            values = table[(table["method"] == method) & table["kind"].isin(kinds)]["value"]
            x, y = line.get_data()
            assert np.trapezoid(y, np.log10(x)) == pytest.approx(1, abs=0.05), "cut at 2 sigma"
            assert to_hex(line.get_color()) == COLORS[method].lower()
            np.testing.assert_allclose(axes.collections[index].get_positions(), sorted(values))
            marks = [ln.get_xdata()[0] for ln in axes.lines if ln.get_marker() == MARKERS[method]]
            assert values.median() in marks


def test_density_prints_mean_accuracies_in_percent_and_counts():
    words = " ".join(texts(drawn("density")))
    assert "plain 90.0 10.0" in words and "ALP 87.0 40.0" in words
    assert "4 layers, 3 seeds" in words


def test_diverged_runs_and_unmeasured_norms_are_counted_and_left_out():
    norms, accuracy = norm_rows()
    bad = (accuracy["method"] == "trades") & (accuracy["seed"] < 2) | (accuracy["method"] == "alp")
    accuracy.loc[bad, ["status", "clean"]] = ["diverged at step 12", np.nan]
    norms.loc[(norms["method"] == "trades") & (norms["seed"] < 2), "value"] = np.nan
    norms.loc[(norms["method"] == "pgd") & (norms["layer"] == "conv1"), "value"] = 0.0
    norms.loc[(norms["method"] == "pgd") & (norms["layer"] == "conv0"), "value"] /= 100
    density = norm_decay.density(norms, accuracy, norm="l1")
    layers = norm_decay.layers(norms, norm="l1", accuracy=accuracy)
    ratios = norm_decay.ratios(norms, accuracy=accuracy)
    for figure, unmeasured in ((density, 3), (layers, 3), (ratios, 9)):
        assert "Diverged and left out: 2 TRADES, 3 ALP." in bottom(figure)
        assert f"Not measured and left out: {unmeasured} norms." in bottom(figure)
    assert "alp" not in lines(density.axes[0])
    assert len(lines(ratios.axes[0])["trades l1 seeds"].get_xdata()) == 1
    assert "larger in 2 of 3 layers (67 %)" in texts(layers)


def test_layers_shows_geometric_means_in_depth_order_with_t_intervals():
    axes = draw("layers", lambda table: table.sample(frac=1, random_state=0)).axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["conv0", "conv1", "conv2", "linear3"]
    assert axes.yaxis_inverted(), "the first layer is on top"
    logs = norm_rows()[0].query("norm == 'l1' and method == 'pgd' and layer in @names")
    logs = logs.assign(value=np.log(logs["value"])).groupby("layer")["value"]
    np.testing.assert_allclose(lines(axes)["pgd"].get_xdata(), np.exp(logs.mean()))
    low, high = stats.t.interval(0.95, 2, logs.mean(), logs.sem())
    bars = np.array(axes.collections[1].get_segments())[:, :, 0]
    np.testing.assert_allclose(bars, np.exp(np.stack([low, high], axis=1)))


def test_ratios_divide_by_the_reference_of_the_same_seed():
    axes = drawn("ratios").axes[0]
    for method, norm in product(["pgd", "trades", "alp"], ["l1", "linf", "spectral"]):
        for label in (f"{method} {norm}", f"{method} {norm} seeds"):
            np.testing.assert_allclose(lines(axes)[label].get_xdata(), FACTORS[method])
    assert any(list(line.get_xdata()) == [1, 1] for line in axes.lines), "the line at 1"


def test_variance_lines_are_geometric_means_over_seeds():
    for axes, skip in zip(drawn("variance").axes, (False, True), strict=True):
        assert axes.get_title(loc="left") == ("with SkipInit" if skip else "without SkipInit")
        part = variance_rows().query("skip_init == @skip")
        means = part.groupby(["method", "position"])["value"].agg(stats.gmean)
        for method, line in lines(axes).items():
            np.testing.assert_allclose(line.get_ydata(), means[method], err_msg=method)
            assert LABELS[method] in texts(axes)


def test_rank_takes_the_last_layer_of_each_run_in_a_panel_per_width():
    table = group_rows("stable_rank")
    wider = table.assign(width=16, value=table["value"] * 3)
    figure = beyond_batchnorm.rank(pd.concat([table, wider]))
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["width 8", "width 16"]
    for (factor, axes), depth in product(zip((1, 3), figure.axes, strict=True), (3, 4)):
        means = table.query("depth == @depth == position").groupby("groups")["value"].mean()
        np.testing.assert_allclose(lines(axes)[f"{depth} layers"].get_ydata(), factor * means)
        ticks = [label.get_text().split() for label in axes.get_xticklabels()]
        named = ["8", "InstanceNorm"] if factor == 1 else ["8"]
        assert ticks == [["1", "LayerNorm"], ["2"], ["4"], named]


def test_cosine_has_a_panel_per_depth_and_a_line_per_number_of_groups():
    names = {1: "LayerNorm, G = 1", 2: "G = 2", 4: "G = 4", 8: "InstanceNorm, G = 8"}
    for axes, depth in zip(drawn("cosine").axes, (3, 4), strict=True):
        means = group_rows("").groupby(["depth", "groups", "position"])["value"].mean()[depth]
        for groups, name in names.items():
            np.testing.assert_allclose(lines(axes)[name].get_ydata(), means[groups])
    assert [text.get_text() for text in axes.texts] == list(names.values())


def test_gradient_is_relative_to_the_last_layer_and_ends_at_the_ratio():
    *panels, ratio = drawn("gradient").axes
    for axes, depth in zip(panels, (3, 4), strict=True):
        curves = np.array([lines(axes)[f"G = {groups}"].get_ydata() for groups in (1, 2, 4, 8)])
        exact = [g ** (1 - np.arange(1, depth + 1) / depth) for g in (1, 2, 4, 8)]
        np.testing.assert_allclose(curves, exact)
        np.testing.assert_allclose(lines(ratio)[f"{depth} layers"].get_ydata(), curves[:, 0])
        assert axes.xaxis_inverted(), "drawn from the last layer to the first"


@pytest.mark.parametrize("name", ["layers", "ratios", "rank"])
def test_fewer_than_three_seeds_have_no_interval_and_say_so(name):
    assert "too few for an interval" in bottom(draw(name, lambda t: t.query("seed < 2")))


def test_equal_norms_are_ticks_without_a_curve_and_every_net_has_its_panels():
    norms, accuracy = norm_rows(nets=("a", "b", "c"), layers=1)
    first, *others = norm_decay.density(norms.assign(value=2.0), accuracy, norm="l1").axes
    assert len(others) == 5
    assert not set(lines(first)) & set(COLORS) and len(first.collections) == 4


@every_figure
def test_an_empty_table_or_a_missing_column_is_refused_by_name(name):
    with pytest.raises(ValueError, match=r"has no row.*needs one row at least of .*value"):
        draw(name, lambda table: table[:0])
    with pytest.raises(ValueError, match=r"lacks the columns seed, value: it has .*, and needs"):
        draw(name, lambda table: table.drop(columns=["seed", "value"]))


def test_unknown_names_are_answered_with_the_nearest_and_mixed_runs_are_not_averaged():
    norms, accuracy = norm_rows()
    with pytest.raises(ValueError, match=r"norm is 'spectrum'.*nearest is 'spectral'"):
        norm_decay.density(norms, accuracy, norm="spectrum")
    with pytest.raises(ValueError, match=r"method is 'trade'.*nearest is 'trades'"):
        norm_decay.layers(norms, norm="l1", method="trade")
    with pytest.raises(ValueError, match=r"reference is 'plane'.*nearest is 'plain'"):
        norm_decay.ratios(norms, reference="plane")
    with pytest.raises(ValueError, match=r"method is 'batchnorm'.*nearest is 'batch'"):
        draw("variance", lambda table: table.replace({"method": {"batch": "batchnorm"}}))
    with pytest.raises(ValueError, match=r"several rows for .*depth=3, groups=1, seed=0"):
        draw("rank", lambda table: pd.concat([table, table]))
