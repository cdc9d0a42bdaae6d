"""Figures of ConvNorm show the layers, the runs, the differences and the failures given."""

import numpy as np
import pytest
from convnorm_tables import (
    LAYERS, METHODS, MORE, PARTS, TABLES, accuracies, bars, bottom, concept_grids, diverge, draw,
    drawn, lines, spectral_rows, title,
)  # fmt: skip
from matplotlib.colors import to_hex
from scipy import stats

from normkit.plots import convnorm
from normkit.plots.multiples import BACKGROUND
from normkit.plots.style import COLORS, LABELS


def names(axes):
    return [label.get_text() for label in axes.get_yticklabels()]


def interval(values):
    return stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))


def test_concept_shows_the_matrices_with_frequency_zero_and_tap_zero_in_the_middle():
    figure, grids = drawn("concept"), concept_grids()
    rows = ["kernel spectrum filter_spectrum product", "image convolved filter normalized"]
    for axes, name in zip(figure.axes, " ".join(rows).split(), strict=True):
        middle = name in (*rows[0].split()[1:], "filter")
        expected = np.roll(grids[name], (3, 3), (0, 1)) if middle else grids[name]
        np.testing.assert_array_equal(axes.images[0].get_array(), expected, err_msg=name)
    left, right, *_ = figure.axes[1].images[0].get_extent()
    assert (left, right) == pytest.approx((-3.5 / 6, 2.5 / 6)), "cycles per pixel"


def test_concept_shares_the_scale_of_gains_and_that_of_outputs():
    figure = drawn("concept")
    ends = [axes.images[0].get_clim() for axes in figure.axes]
    assert ends[1] == ends[2] == ends[3] and np.prod(ends[1]) == pytest.approx(1), "white is 1"
    assert ends[5] == ends[7] and sum(ends[5]) == 0, "white is 0"
    taps = [text.get_text().replace("\N{MINUS SIGN}", "-") for text in figure.axes[0].texts]
    taps = [float(tap) for tap in taps if tap[-1].isdigit()]
    np.testing.assert_allclose(taps, concept_grids()["kernel"].ravel(), atol=6e-3)
    (said,) = [text.get_text() for text in figure.axes[3].texts if "within" in text.get_text()]
    assert float(said.split()[-1]) < 1e-12


def test_spectral_draws_geometric_means_and_the_root_of_the_output_channels():
    table, axes = spectral_rows(), drawn("spectral").axes[0]
    found = lines(axes)
    for index, method in enumerate(METHODS):
        part = np.log(table[table["method"] == method].pivot(
            index="seed", columns="position", values="sigma"))  # fmt: skip
        np.testing.assert_allclose(found[method].get_ydata(), np.exp(part.mean()))
        np.testing.assert_allclose(bars(axes, index)[2], np.exp(interval(part[2])))
        assert LABELS[method] in [text.get_text() for text in axes.texts]
    x, root = axes.lines[0].get_data()
    np.testing.assert_allclose(root, np.repeat([2.0, 4, 8, 16], 2))
    np.testing.assert_allclose(x, [-0.5, 0.5, 0.5, 1.5, 1.5, 2.5, 2.5, 3.5])
    assert found["1"].get_ydata() == [1, 1] and axes.get_yscale() == "log"
    ticks = [label.get_text() for label in axes.get_xticklabels()]
    assert ticks == [name.replace("convolution", "conv") for name in LAYERS]


def test_spectral_gives_a_panel_to_each_of_more_than_six_methods():
    methods = [*METHODS, "conv_norm_spectral"]
    figure = convnorm.spectral(spectral_rows(methods).assign(sigma=lambda t: t["sigma"].mask(
        (t["method"] == "oni") & (t["position"] == 0))))  # fmt: skip
    assert {title(axes) for axes in figure.axes} == {LABELS[method] for method in methods}
    for axes in figure.axes:
        own = [line for line in axes.lines if line.get_label() in methods]
        assert len(own) == 1 and LABELS[own[0].get_label()] == title(axes)
        assert sum(line.get_color() == BACKGROUND for line in axes.lines) == len(methods) - 1
    assert "Not measured and left out: 3 values." in bottom(figure)


def test_isometry_has_a_dot_per_channel_and_says_how_close_to_one_they_are():
    table, figure = TABLES["isometry"](), drawn("isometry")
    axes = figure.axes[0]
    for line, state in zip(axes.lines, ("before", "after"), strict=True):
        part = table[table["state"] == state].sort_values(["position", "condition"])
        np.testing.assert_array_equal(line.get_ydata(), part["condition"])
        assert np.abs(line.get_xdata() - part["position"]).max() <= 0.25
    medians = [bar[0] for index in range(4) for bar in bars(axes, index)]
    np.testing.assert_allclose(medians, [9.0, 27, 81, 243])
    said = [text.get_text() for text in figure.legends[0].texts]
    assert said == ["before: convolution, 1 to 2.19e+03", "after: ConvNorm, 1 to within 4e-07"]
    lost = draw("isometry", lambda rows: rows.assign(
        condition=rows["condition"].where(rows.index != 0, np.inf)))  # fmt: skip
    assert "Not finite and left out: 1 value." in bottom(lost)


def test_curves_are_solid_for_test_and_dotted_for_training_images():
    table, figure = TABLES["curves"](), drawn("curves")
    for axes, method in zip(figure.axes, PARTS, strict=True):
        by = table[table["method"] == method].groupby("epoch")
        test, train = (line for line in axes.lines if line.get_label() == method)
        np.testing.assert_allclose(test.get_ydata(), by["accuracy"].mean())
        np.testing.assert_allclose(train.get_ydata(), by["train_accuracy"].mean())
        assert (test.get_linestyle(), train.get_linestyle()) == ("-", ":")
        thin = [line.get_ydata() for line in axes.lines if line.get_linewidth() == 0.6]
        assert len(thin) == len(PARTS) - 1, "the other methods, behind"
    cross = lines(figure.axes[1])["diverged"]
    last = table[(table["method"] == "none") & (table["seed"] == 2) & (table["epoch"] == 4)]
    assert cross.get_xydata().tolist() == last[["epoch", "accuracy"]].to_numpy().tolist()
    assert "Diverged (x): no normalization 1." in bottom(figure)


@pytest.mark.parametrize(("name", "x"), [("noise", "level"), ("scarcity", "fraction")])
def test_leads_are_paired_by_seed_beside_the_accuracies(name, x):
    table, figure = TABLES[name](), drawn(name)
    table = table if "kind" in table else table.assign(kind="")
    pairs = zip(dict.fromkeys(table["kind"]), *np.reshape(figure.axes, (-1, 2)).T, strict=True)
    for kind, left, right in pairs:
        part = table[table["kind"] == kind]
        assert title(left) == kind
        for method in METHODS:
            mean = part[part["method"] == method].groupby(x)["accuracy"].mean().dropna()
            np.testing.assert_allclose(lines(left)[LABELS[method]].get_ydata(), mean)
        wide = part.pivot(index=[x, "seed"], columns="method", values="accuracy")
        lead = (100 * (wide["conv_norm"] - wide["batch"])).dropna()
        np.testing.assert_allclose(lines(right)["seeds"].get_ydata(), lead, atol=1e-12)
        by = lead.groupby(level=0)
        np.testing.assert_allclose(lines(right)["difference"].get_ydata(), by.mean())
        whole = lead.xs(part[x].max())
        np.testing.assert_allclose(bars(right)[-1], interval(whole))
        assert any(list(line.get_ydata()) == [0, 0] for line in right.lines), "the line at 0"
        ticks = [label.get_text() for label in left.get_xticklabels()]
        assert ticks == [f"{100 * level:g}%" for level in sorted(set(part[x]))]
    lost = {"noise": "no normalization 3", "scarcity": "BatchNorm 1"}[name]
    assert f"Diverged (x): {lost}." in bottom(figure)


def test_leads_need_runs_of_both_methods_and_a_seed_to_pair():
    with pytest.raises(ValueError, match="table has no run of 'batch': it needs some of 'conv_n"):
        draw("scarcity", lambda table: table[table["method"] != "batch"])
    odd = draw("scarcity", lambda table: table[(table["seed"] % 2 == 0) == (
        table["method"] == "batch")])  # fmt: skip
    assert "no seed has both" in [text.get_text() for text in odd.axes[1].texts]


def test_of_more_than_six_methods_the_pair_has_color_and_the_others_are_named_below():
    table = accuracies(std=(0.0, 0.1), method=[*METHODS, *MORE])
    figure = convnorm.corruptions(table)
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.texts] == ["BatchNorm", "ConvNorm"]
    grey = [line.get_ydata() for line in axes.lines if line.get_color() == BACKGROUND]
    assert len(grey) == len(METHODS) + len(MORE) - 2
    assert all(LABELS[key] in bottom(figure) for key in MORE)


def test_ablation_subtracts_conv_norm_of_the_same_seed():
    table, (left, right) = TABLES["ablation"](), drawn("ablation").axes
    wide = table.pivot(index="seed", columns="method", values="accuracy")
    assert names(left) == [LABELS[method] for method in PARTS]
    for row, method in enumerate(PARTS):
        np.testing.assert_allclose(lines(left)[method].get_xdata(), wide[method].mean())
        if method != "conv_norm":
            change = 100 * (wide[method] - wide["conv_norm"]).dropna()
            np.testing.assert_allclose(lines(right)[f"{method} seeds"].get_xdata(), change)
            assert list(lines(right)[method].get_ydata()) == [row]
    assert lines(left)["diverged"].get_ydata().tolist() == [PARTS.index("conv_norm_bare")]
    for one in ("conv_norm", "batch"):
        with pytest.raises(ValueError, match="table has "):
            draw("ablation", lambda rows, one=one: rows[rows["method"] == one])


@pytest.mark.parametrize(("name", "column"), [("robust", "attack"), ("standard", "dataset")])
def test_published_values_are_open_marks_below_ours(name, column):
    table, figure = TABLES[name](), drawn(name)
    assert [title(axes) for axes in figure.axes] == ["clean", "FGSM", "PGD-10"] * 2
    for axes, source in zip(figure.axes, ["here"] * 3 + ["paper"] * 3, strict=True):
        part = table[(table["source"] == source) & (table[column] == title(axes))].dropna()
        assert source in [text.get_text() for text in axes.texts]
        assert ("no value" in [text.get_text() for text in axes.texts]) == part.empty
        for method, runs in part.groupby("method"):
            seeds, mean = lines(axes)[f"{method} seeds"], lines(axes)[method]
            np.testing.assert_allclose(seeds.get_xdata(), runs["accuracy"])
            np.testing.assert_allclose(mean.get_xdata(), runs["accuracy"].mean())
            for line in (seeds, mean):
                assert (line.get_markerfacecolor() == "white") == (source == "paper")
                assert to_hex(line.get_color()) == COLORS[method].lower()
    assert names(figure.axes[0]) == [LABELS[method] for method in METHODS]
    assert names(figure.axes[3]) == ["BatchNorm", "ConvNorm"]
    assert "ONI 3" in bottom(figure) and "no normalization 3" in bottom(figure)
    ours = draw(name, lambda rows: rows[rows["source"] == "here"])
    assert len(ours.axes) == 3 and "here" not in [text.get_text() for text in ours.axes[0].texts]


def test_blackbox_says_on_which_network_an_attack_was_made():
    table, figure = TABLES["blackbox"](), drawn("blackbox")
    made = [[text.get_text() for text in axes.texts][0] for axes in figure.axes]
    assert made == ["made on itself", "made on BatchNorm", "made on ONI"]
    assert [title(axes) for axes in figure.axes] == ["SPSA", "transfer", "transfer"]
    part = table[(table["source"] == "oni") & (table["method"] == "conv_norm")]["accuracy"]
    line = lines(figure.axes[2])["conv_norm"]
    np.testing.assert_allclose(line.get_xdata(), part.mean())
    index = METHODS.index("conv_norm")
    np.testing.assert_allclose(figure.axes[2].collections[index].get_segments()[0][:, 0],
                               interval(part))  # fmt: skip


def test_gan_draws_both_scores_the_real_images_and_the_lost_run():
    table, figure = TABLES["gan"](), draw("gan", floor=0.5, ceiling=7.0)
    means = {"frechet": stats.gmean, "inception": np.mean}
    for axes, (score, mean) in zip(figure.axes, means.items(), strict=True):
        for method in ("none", "conv_norm"):
            by = table[table["method"] == method].dropna().groupby("step")[score]
            np.testing.assert_allclose(lines(axes)[method].get_ydata(), by.agg(mean))
        assert lines(axes)["diverged"].get_xdata().tolist() == [100]
    assert [lines(axes)["real images"].get_ydata()[0] for axes in figure.axes] == [0.5, 7.0]
    assert "Diverged (x): no normalization 1." in bottom(figure)
    assert "real images" not in lines(drawn("gan").axes[0])


def test_samples_lie_on_a_sheet_in_the_order_of_their_index():
    table, figure = TABLES["samples"](), drawn("samples")
    assert [title(axes) for axes in figure.axes] == ["real images", "ConvNorm"]
    sheet = figure.axes[1].images[0].get_array()
    assert sheet.shape == (5, 11, 3), "two rows of three images, a white pixel between"
    pixel = table.query("method == 'conv_norm' and index == 4 and row == 1 and column == 2")
    np.testing.assert_allclose(sheet[4, 6], pixel.sort_values("channel")["value"])
    np.testing.assert_array_equal(sheet[2], np.ones((11, 3)))
    with pytest.raises(ValueError, match="table has 2 channels of 'real'"):
        draw("samples", lambda rows: rows[rows["channel"] < 2])
    with pytest.raises(ValueError, match="table lacks pixels of 'conv_norm': it has 107 of 108"):
        draw("samples", lambda rows: rows[:-1])


def test_scale_has_a_row_per_part_a_panel_per_place_and_no_mark_for_what_was_not_run():
    figure = drawn("scale")
    assert [title(axes) for axes in figure.axes] == ["digits", "CIFAR-10", "paper"]
    assert names(figure.axes[0]) == ["noise", "at 40 %", "at 80 %", "clean"]
    away, near, paper = "interval on one side of 0", "interval across 0, or none", "paper"
    found = [
        {key: lines(axes)[key].get_xydata().tolist() for key in (away, near, paper)
         if key in lines(axes)}
        for axes in figure.axes
    ]  # fmt: skip
    assert found == [{away: [[2, 1], [-1, 3]]}, {near: [[5, 1], [0, 3]]}, {paper: [[10, 2]]}]
    np.testing.assert_allclose(figure.axes[0].collections[0].get_segments()[0][:, 0], [1, 3])
    assert lines(figure.axes[2])[paper].get_markerfacecolor() == "white"


@pytest.mark.parametrize("name", ["noise", "robust", "ablation"])
def test_a_method_that_lost_every_run_keeps_its_place(name):
    figure = draw(name, lambda table: diverge(table, method="none"))
    assert "no normalization" in bottom(figure)
    assert np.isfinite(figure.axes[0].get_xlim()).all()
