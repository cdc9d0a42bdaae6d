"""Figures of equi-normalization show the runs, the norms, the times and the failures given."""

from functools import cache
from itertools import combinations, product

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.text import Text
from scipy import stats

from normkit.plots import enorm, save
from normkit.plots.style import COLORS, LABELS, MARKERS

NOTE, BAD = "digits 8x8, width 8", "diverged at step 7"
METHODS = ["batch", "none", "group", "weight_norm_batch", "path_sgd", "enorm", "enorm_batch"]
DEPTHS, SIZES, FACTORS = (1, 5, 9, 19), (1, 4, 16), (0.8, 1.0, 1.2)
NETS = ["plain net", "conv net", "residual"]


def accuracies(seeds=3, **levels):
    """A run per combination and seed, its accuracy known from its place in the table."""
    rows = [
        dict(zip(levels, values, strict=True)) | {"seed": seed, "status": "ok"}
        | {"accuracy": 0.4 + 0.3 * np.sin(index) ** 2 + 0.01 * seed * (1 + np.cos(index))}
        for (index, values), seed in product(enumerate(product(*levels.values())), range(seeds))
    ]  # fmt: skip
    return pd.DataFrame(rows)


def diverge(table, **which):
    bad = np.logical_and.reduce([table[key] == value for key, value in which.items()])
    return table.assign(
        accuracy=table["accuracy"].mask(bad), status=table["status"].mask(bad, BAD)
    )


def depth_rows():
    """At the largest depth Path-SGD loses two seeds, and no normalization all."""
    table = accuracies(method=METHODS, p=DEPTHS)
    for seed in (0, 1):
        table = diverge(table, method="path_sgd", p=19, seed=seed)
    return diverge(table, method="none", p=19)


def published():
    return accuracies(1, method=METHODS, p=(1, 9, 19))[["method", "p", "accuracy"]]


def batch_rows():
    return diverge(accuracies(method=["batch", "group", "enorm"], batch_size=SIZES),
                   method="batch", batch_size=1)  # fmt: skip


def asymmetry_rows():
    return diverge(accuracies(p=(1, 5), c=FACTORS), p=5, c=1.2, seed=1)


def level_rows():
    return diverge(accuracies(net=NETS[:2], method=METHODS), net="conv net", method="none", seed=2)


def path_rows(nets=NETS):
    """Halved every cycle by the paper's rule, less by the released one; below 0 by rounding."""
    return pd.DataFrame([
        {"net": net, "variant": variant, "start": start, "cycle": cycle,
         "excess": 9.0 * factor**cycle if cycle < 60 else -1e-17,
         "imbalance": (start + 1) * factor**cycle}
        for net, (variant, factor), start, cycle in product(
            nets, (("paper", 0.5), ("released", 0.7)), range(3), range(0, 61, 20))
    ])  # fmt: skip


def function_rows():
    changes = {"no BatchNorm": 1e-15, "rescale": 0.0, "ignore": 0.2}
    return pd.DataFrame([
        {"network": net, "mode": mode, "change": change * (1 + index), "kind": "float64"}
        for (index, net), (mode, change) in product(enumerate(NETS), changes.items())
    ])  # fmt: skip


def unit_rows(c=1.5):
    rows = []
    for group, unit in product(("1 to 2", "2 to 3"), range(1, 6)):
        here = {"group": group, "unit": unit}
        rows.append(here | {"incoming": 1.0 * unit, "outgoing": 4.0 / unit, "when": "before"})
        rows.append(here | {"incoming": 2 / c**0.5, "outgoing": 2 * c**0.5, "when": "after"})
    return pd.DataFrame(rows)


def cost_rows():
    """Milliseconds of known median; GroupNorm's least is negative at the smallest batch."""
    return pd.DataFrame([
        {"method": method, "batch_size": size, "repetition": repetition,
         "seconds": 1e-3 * (add + slope * size) + 1e-4 * (repetition - 1) ** 3,
         "base_seconds": 1e-3 * (2 + size)}
        for (method, add, slope), size, repetition in product(
            (("enorm", 2, 0), ("batch", 1, 0.1), ("group", 0, 0.05)), SIZES, range(3))
    ])  # fmt: skip


def autoencoder_rows():
    return pd.DataFrame([
        {"method": method, "seed": seed, "epoch": epoch, "train_loss": 0.8 * level / epoch,
         "loss": level * np.exp(0.1 * seed) / epoch, "energy": 100 * level / epoch**0.5}
        for (method, level), seed, epoch in product(
            (("none", 2.0), ("enorm", 1.0)), range(3), range(1, 9))
    ])  # fmt: skip


TABLES = {
    "depth": depth_rows, "depth_change": depth_rows, "balancing": path_rows,
    "function": function_rows, "units": unit_rows, "cost": cost_rows, "batch": batch_rows,
    "asymmetry": asymmetry_rows, "autoencoder": autoencoder_rows, "levels": level_rows,
}  # fmt: skip
ORDER = {"net": NETS, "network": NETS, "group": ["1 to 2", "2 to 3"]}
MORE = {"units": {"c": 1.5}, "function": {"tolerance": 1e-12}}
AVERAGED = ["depth", "depth_change", "batch", "asymmetry", "autoencoder", "levels"]
every_figure = pytest.mark.parametrize("name", TABLES)


def draw(name, change=lambda table: table, **more):
    tables = [change(TABLES[name]()), *([published()] if name.startswith("depth") else [])]
    return getattr(enorm, name)(*tables, **{**MORE.get(name, {}), "note": NOTE, **more})


drawn = cache(draw)


def shuffled(table):
    """Mix the rows, but for those columns whose order is that of panels, rows or colors."""
    table = table.sample(frac=1, random_state=0)
    for column in ORDER.keys() & set(table):
        table = table.sort_values(column, key=lambda keys, by=ORDER[column]: keys.map(by.index))
    return table


def bottom(figure):
    return figure.get_supxlabel().replace("\n", " ")


def lines(axes):
    return {line.get_label(): line for line in axes.lines}


def bars(axes, index=0):
    return [bar[:, 1] for bar in axes.collections[index].get_segments() if len(bar)]


def good(table):
    return table[table["status"] == "ok"]


@every_figure
def test_nothing_is_clipped_and_no_words_touch(name):
    figure = drawn(name)
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert min(box.x0, box.y0, width - box.x1, height - box.y1) > -0.01, box
    found = [text for axes in figure.axes for text in (*axes.texts, axes._left_title)]
    found += [axes.xaxis.label for axes in figure.axes]
    for axes in figure.axes:
        found += axes.get_xticklabels() if axes.get_xlabel() else []
    boxes = [Text.get_window_extent(text) for text in found if text.get_text()]
    boxes += [legend.get_window_extent() for legend in figure.legends]
    for one, other in combinations(boxes, 2):
        touching = one.padded(-1).overlaps(other)
        assert not touching or not one.width * other.width, (one, other)


@every_figure
def test_every_figure_says_what_it_shows_and_ends_with_the_note(name):
    figure = drawn(name)
    assert bottom(figure).endswith(NOTE) and "  " not in bottom(figure)
    assert all(axes.get_xlabel() for axes in figure.axes[-1:])
    assert figure.axes[0].get_ylabel() or name in ("function", "levels")
    if name in AVERAGED:
        assert "3 seeds" in bottom(figure) and "95 % t interval" in bottom(figure)
        one = draw(name, lambda table: table[table["seed"] == 2])
        assert "1 seed" in bottom(one) and "95 %" not in bottom(one)


@every_figure
def test_drawing_and_saving_again_give_the_same_bytes_in_any_order_of_rows(name, tmp_path):
    table = TABLES[name]()
    first = [path.read_bytes() for path in save(drawn(name), table, tmp_path / "a")]
    other = save(draw(name, shuffled), table, tmp_path / "b" / "a")
    assert first == [path.read_bytes() for path in other]


@every_figure
def test_missing_columns_and_empty_tables_are_refused_by_name(name):
    for column in TABLES[name]():
        with pytest.raises(ValueError, match=f"table lacks the column {column}: it has"):
            draw(name, lambda table, column=column: table.drop(columns=column))
    with pytest.raises(ValueError, match="table has no rows"):
        draw(name, lambda table: table[:0])
    if name.startswith("depth"):
        with pytest.raises(ValueError, match="published lacks the column p: it has"):
            getattr(enorm, name)(depth_rows(), published().drop(columns="p"))


@pytest.mark.parametrize("name", [*AVERAGED, "cost"])
def test_runs_that_occur_twice_and_unknown_methods_are_refused(name):
    with pytest.raises(ValueError, match="table has several rows for .*(seed|repetition)=0"):
        draw(name, lambda table: pd.concat([table, table]))
    if name != "asymmetry":
        with pytest.raises(ValueError, match="method is 'enorn'.*nearest is 'enorm'"):
            draw(name, lambda table: table.replace({"method": {"enorm": "enorn"}}))


@pytest.mark.parametrize("name", ["depth", "batch", "asymmetry", "levels"])
def test_a_table_of_diverged_runs_alone_is_refused(name):
    with pytest.raises(ValueError, match="without diverged runs, has no rows"):
        draw(name, lambda table: table.assign(accuracy=np.nan))


def test_the_keys_that_meet_differ_in_color_marker_and_label():
    for keys in (METHODS, ["enorm", "released_enorm"], ["batch", "enorm", "released_enorm"]):
        for values in (COLORS, MARKERS, LABELS):
            assert len({values[key] for key in keys}) == len(keys)


def test_depth_has_a_panel_per_method_with_means_intervals_and_published_values():
    table, paper, figure = good(depth_rows()), published(), drawn("depth")
    assert len(figure.axes) == len(METHODS)
    for axes, method in zip(figure.axes, METHODS, strict=True):
        assert axes.get_title(loc="left").replace("\n", " ") == LABELS[method]
        runs = table[table["method"] == method].groupby("p")["accuracy"]
        np.testing.assert_allclose(lines(axes)[method].get_xdata(), runs.mean().index)
        np.testing.assert_allclose(lines(axes)[method].get_ydata(), runs.mean())
        assert to_hex(lines(axes)[method].get_color()) == COLORS[method].lower()
        low, high = stats.t.interval(0.95, 2, runs.mean(), runs.sem())
        whole = (runs.size() == 3).to_numpy()
        drawn_bars = [bar for bar in bars(axes) if np.isfinite(bar).all()]
        np.testing.assert_allclose(drawn_bars, np.stack([low, high], axis=1)[whole])
        theirs = lines(axes)["paper"]
        np.testing.assert_allclose(
            theirs.get_ydata(), paper[paper["method"] == method]["accuracy"]
        )
        assert theirs.get_markerfacecolor() == "white"
        grey = [line for line in axes.lines if to_hex(line.get_color()) == "#dedede"]
        assert len(grey) == len(METHODS) - 1
    assert [text.get_text() for text in figure.legends[0].texts][1] == "paper"


@pytest.mark.parametrize("name", ["depth", "depth_change"])
def test_depth_marks_and_counts_diverged_runs_where_they_were(name):
    figure = drawn(name)
    assert "Diverged (x): no normalization 3, Path-SGD 2." in bottom(figure)
    for axes, method in zip(figure.axes, METHODS, strict=True):
        cross = lines(axes).get("diverged")
        if method not in ("none", "path_sgd"):
            assert cross is None and not axes.texts
            continue
        assert list(cross.get_xdata()) == [19]
        assert axes.texts[0].get_text() == {"none": "3", "path_sgd": "2"}[method]
        least = min(line.get_ydata().min() for line in (lines(axes)[method], lines(axes)["paper"]))
        assert axes.get_ylim()[0] < cross.get_ydata()[0] < least, "below all that was measured"
        assert min(axes.get_yticks()) > cross.get_ydata()[0]


def test_an_accuracy_that_is_no_number_counts_as_diverged_whatever_the_status():
    figure = draw("depth", lambda table: table.assign(status="ok"))
    assert "Diverged (x): no normalization 3, Path-SGD 2." in bottom(figure)


def test_depth_change_is_in_points_and_paired_by_seed():
    table, paper, figure = good(depth_rows()), published(), drawn("depth_change")
    for axes, method in zip(figure.axes, METHODS, strict=True):
        wide = table[table["method"] == method].pivot(index="seed", columns="p", values="accuracy")
        change = 100 * wide.sub(wide[1], axis=0)
        np.testing.assert_allclose(lines(axes)[method].get_ydata(), change.mean(), atol=1e-12)
        low, high = stats.t.interval(0.95, 2, change[5].mean(), change[5].sem())
        np.testing.assert_allclose(bars(axes)[1], [low, high])
        theirs = paper[paper["method"] == method]["accuracy"].to_numpy()
        np.testing.assert_allclose(lines(axes)["paper"].get_ydata(), 100 * (theirs - theirs[0]))
        assert any(list(line.get_ydata()) == [0, 0] for line in axes.lines), "the line at 0"


def test_depth_change_leaves_out_and_counts_runs_without_a_shallowest_one():
    figure = draw("depth_change", lambda table: diverge(table, method="enorm", p=1, seed=2))
    assert "Without a run at $p$ = 1, left out: 3 runs." in bottom(figure)
    without = enorm.depth_change(depth_rows(), published().query("p > 1"))
    assert not any("paper" in lines(axes) for axes in without.axes)


def test_balancing_draws_a_line_per_start_no_lower_than_rounding():
    table, figure = path_rows(), drawn("balancing")
    grid = np.reshape(figure.axes, (2, len(NETS)))
    for column, net in zip(grid.T, NETS, strict=True):
        assert column[0].get_title(loc="left") == net
        for axes, size in zip(column, ("excess", "imbalance"), strict=True):
            assert axes.get_yscale() == "log"
            for variant, start in product(("paper", "released"), range(3)):
                part = table.query("net == @net and variant == @variant and start == @start")
                line = lines(axes)[f"{variant} {start}"]
                np.testing.assert_allclose(line.get_ydata(), part[size].clip(lower=1e-16))
                key = {"paper": "enorm", "released": "released_enorm"}[variant]
                assert line.get_color() == COLORS[key]
    assert {text.get_text() for axes in figure.axes for text in axes.texts} == {"rounding"}
    assert "3 starts" in bottom(figure)


def test_balancing_refuses_more_than_four_networks_and_unknown_variants():
    with pytest.raises(ValueError, match="table has 5 networks: 4 at most"):
        enorm.balancing(path_rows([*"abcde"]))
    with pytest.raises(ValueError, match="variant is 'papers'.*nearest is 'paper'"):
        enorm.balancing(path_rows().replace({"variant": {"paper": "papers"}}))
    assert enorm.balancing(path_rows(["a"])).get_figwidth() == 3.25


def test_function_has_a_row_per_network_and_a_place_for_zero():
    axes = drawn("function").axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == NETS
    found = lines(axes)
    np.testing.assert_allclose(found["ignore"].get_xdata(), [0.2, 0.4, 0.6])
    ticks = dict(zip(axes.get_xticks(), axes.get_xticklabels(), strict=True))
    (zero,) = set(found["rescale"].get_xdata())
    assert ticks[zero].get_text() == "0" and zero < 1e-16
    assert any(list(line.get_xdata()) == [1e-12, 1e-12] for line in axes.lines), "the tolerance"
    for mode in ("no BatchNorm", "rescale", "ignore"):
        assert np.round(found[mode].get_ydata()).astype(int).tolist() == [0, 1, 2]


def test_function_has_a_panel_and_a_tolerance_per_kind_and_no_zero_where_there_is_none():
    table = function_rows().assign(change=lambda rows: rows["change"] + 1e-14)
    both = pd.concat([table, table.assign(kind="float32", change=table["change"] * 1e8)])
    limits = {"float32": 1e-5, "float64": 1e-12}
    figure = enorm.function(both, tolerance=limits)
    for axes, kind in zip(figure.axes, ("float64", "float32"), strict=True):
        assert axes.get_title(loc="left") == kind
        assert any(list(line.get_xdata()) == [limits[kind]] * 2 for line in axes.lines)
    assert "0" not in [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert "0:" not in bottom(figure)
    with pytest.raises(ValueError, match="mode is 'rescaled'.*nearest is 'rescale'"):
        enorm.function(table.replace({"mode": {"rescale": "rescaled"}}), tolerance=1.0)
    lost = enorm.function(table.assign(change=table["change"].mask(table.index == 0)), tolerance=1)
    assert "Not measured and left out: 1 value." in bottom(lost)


def test_units_show_every_norm_and_the_line_before_and_after():
    table, figure = unit_rows(), drawn("units")
    for axes, when in zip(figure.axes, ("before", "after"), strict=True):
        assert axes.get_title(loc="left") == when
        for group in ("1 to 2", "2 to 3"):
            part = table.query("when == @when and group == @group")
            found = np.sort(lines(axes)[group].get_xydata(), axis=0)
            np.testing.assert_allclose(found, np.sort(part[["incoming", "outgoing"]], axis=0))
        x, y = lines(axes)["balanced"].get_data()
        np.testing.assert_allclose(y, 1.5 * np.array(x))
    before, after = ([text.get_text() for text in axes.texts] for axes in figure.axes)
    assert before in ([f"at most a factor of {off} off the line"] for off in ("9.37", "9.38"))
    assert "outgoing = 1.5 incoming" in after and "10 hidden units" in bottom(figure)


def test_units_without_a_norm_are_counted_and_many_groups_are_named_by_their_ends():
    def change(table):
        return table.assign(incoming=table["incoming"].mask(table.index == 0, 0.0))

    assert "Zero and left out: 1 value." in bottom(draw("units", change))
    many = pd.concat([unit_rows().assign(group=f"group {index}") for index in range(8)])
    figure = enorm.units(many)
    assert [t.get_text() for t in figure.legends[0].texts] == ["first: group 0", "last: group 7"]
    with pytest.raises(ValueError, match="when is 'then'"):
        enorm.units(unit_rows().assign(when="then"))


def test_cost_is_the_median_from_least_to_most_and_a_share_of_the_plain_step():
    table, figure = cost_rows(), drawn("cost")
    table["added"] = 1e3 * table["seconds"]
    table["share"] = 100 * table["seconds"] / table["base_seconds"]
    for axes, size in zip(figure.axes, ("added", "share"), strict=True):
        for index, method in enumerate(["batch", "group", "enorm"]):
            by = table[table["method"] == method].groupby("batch_size")[size]
            np.testing.assert_allclose(lines(axes)[method].get_ydata(), by.median())
            np.testing.assert_allclose(bars(axes, index), np.stack([by.min(), by.max()], axis=1))
        assert axes.get_yscale() == "symlog"
        assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "4", "16"]
    assert "Median of 3 repetitions." in bottom(figure)
    positive = draw("cost", lambda table: table.assign(seconds=table["seconds"] + 0.01))
    assert {axes.get_yscale() for axes in positive.axes} == {"log"}
    assert draw("cost", lambda table: table.assign(seconds=0.0)).axes[0].get_yscale() == "symlog"


def test_batch_draws_means_against_batch_size_and_marks_diverged_runs():
    table, axes = good(batch_rows()), drawn("batch").axes[0]
    for method in ("batch", "group", "enorm"):
        means = table[table["method"] == method].groupby("batch_size")["accuracy"].mean()
        np.testing.assert_allclose(lines(axes)[LABELS[method]].get_ydata(), means)
        np.testing.assert_allclose(lines(axes)[LABELS[method]].get_xdata(), means.index)
        assert LABELS[method] in [text.get_text() for text in axes.texts]
    assert lines(axes)["diverged"].get_xdata().tolist() == [1]
    assert "Diverged (x): BatchNorm 3." in bottom(drawn("batch"))
    assert axes.get_xscale() == "log"


def test_asymmetry_has_a_line_per_depth_and_one_at_c_equal_to_one():
    table, axes = good(asymmetry_rows()), drawn("asymmetry").axes[0]
    for p in (1, 5):
        means = table[table["p"] == p].groupby("c")["accuracy"].mean()
        np.testing.assert_allclose(lines(axes)[f"$p$ = {p}"].get_ydata(), means)
    assert any(list(line.get_xdata()) == [1, 1] for line in axes.lines), "the line at 1"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.8", "1", "1.2"]
    assert "Diverged (x): ENorm 1." in bottom(drawn("asymmetry"))


def test_autoencoder_draws_geometric_means_of_losses_and_energy():
    table, (left, right) = autoencoder_rows(), drawn("autoencoder").axes
    for index, method in enumerate(["none", "enorm"]):
        part = table[table["method"] == method].groupby("epoch")
        test, train = (line for line in left.lines if line.get_label() == method)
        np.testing.assert_allclose(test.get_ydata(), part["loss"].agg(stats.gmean))
        np.testing.assert_allclose(train.get_ydata(), part["train_loss"].agg(stats.gmean))
        assert (test.get_linestyle(), train.get_linestyle()) == ("-", ":")
        energy = right.lines[index]
        np.testing.assert_allclose(energy.get_ydata(), part["energy"].agg(stats.gmean))
    assert left.get_yscale() == right.get_yscale() == "log"


def test_autoencoder_ends_a_diverged_run_with_an_x():
    def change(table):
        lost = (table["method"] == "none") & (table["seed"] == 2) & (table["epoch"] > 4)
        return table.assign(loss=table["loss"].mask(lost))

    figure = draw("autoencoder", change)
    cross = lines(figure.axes[0])["diverged"]
    assert cross.get_xdata().tolist() == [4]
    assert cross.get_ydata().tolist() == pytest.approx([2 * np.exp(0.2) / 4])
    assert "Diverged (x): no normalization 1." in bottom(figure)


def test_levels_have_a_row_per_method_with_a_dot_per_seed():
    table, figure = good(level_rows()), drawn("levels")
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [
        LABELS[method] for method in METHODS
    ]
    for axes, net in zip(figure.axes, NETS[:2], strict=True):
        assert axes.get_title(loc="left") == net
        for index, method in enumerate(METHODS):
            runs = table.query("net == @net and method == @method")["accuracy"]
            np.testing.assert_allclose(lines(axes)[f"{method} seeds"].get_xdata(), runs)
            np.testing.assert_allclose(lines(axes)[method].get_xdata(), runs.mean())
            assert list(lines(axes)[method].get_ydata()) == [index]
    assert "diverged" not in lines(figure.axes[0])
    assert lines(figure.axes[1])["diverged"].get_ydata().tolist() == [METHODS.index("none")]
    assert "Diverged (x): no normalization 1." in bottom(figure)


@pytest.mark.parametrize(("low", "high", "names"), [
    (0.1, 0.9, ["20%", "40%", "60%", "80%"]), (0.521, 0.529, ["52.2%", "52.4%", "52.6%", "52.8%"]),
])  # fmt: skip
def test_ticks_in_percent_are_never_rounded(low, high, names):
    table = pd.DataFrame({"method": "enorm", "batch_size": [1, 2], "seed": 0, "status": "ok"})
    axes = enorm.batch(table.assign(accuracy=[low, high])).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == names
