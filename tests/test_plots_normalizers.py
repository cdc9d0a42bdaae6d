"""Figures of training under many normalizers show the numbers, failures and intervals given."""

from functools import cache
from itertools import combinations, product

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex, to_rgb
from matplotlib.text import Text
from scipy import stats

from normkit.plots import normalizers, save, tradeoffs
from normkit.plots.marks import readable
from normkit.plots.multiples import BACKGROUND
from normkit.plots.style import COLORS, LABELS

NOTE = "digits 8x8, width 8"
METHODS = [
    "batch", "none", "layer", "instance", "group", "filter_response", "variance",
    "mean_centering", "evonorm_b0", "evonorm_s0", "weight_norm", "scaled_ws", "weight_centering",
]  # fmt: skip
CORRELATION = {"effect": -0.61, "low": -0.72, "high": -0.48, "n": 3}
BAD = "diverged at step 7"
FIGURES = {
    name: getattr(module, name)
    for module, names in (
        (normalizers, ["curves", "speed", "profiles"]),
        (tradeoffs, ["rank_training", "tradeoff", "guide"]),
    )
    for name in names
}
every_figure = pytest.mark.parametrize("name", FIGURES)


def curve_rows():
    """Under "none" no run finishes an epoch; two of "group" end after epochs 2 and 1 of 4."""
    rows = []
    for (index, method), seed in product(enumerate(METHODS), range(3)):
        epochs = {"none": 0, "group": 2 + 2 * (seed == 2) - (seed == 1)}.get(method, 4)
        row = {"net": "10 layers", "method": method, "seed": seed}
        row["status"] = "ok" if epochs == 4 else BAD
        if not epochs:
            rows.append({**row, "epoch": 0, "train_accuracy": 0.1 if seed else np.nan})
        for epoch in range(1, epochs + 1):
            accuracy = (10 + 15 * epoch + index * (1 + seed)) / 120
            rows.append({**row, "epoch": epoch, "train_accuracy": accuracy})
    return pd.DataFrame(rows)


def speed_rows():
    return pd.DataFrame([
        {"net": "cfg_10", "batch_size": size, "lr": 1.0, "method": method, "seed": seed,
         "cosine": (1 + index + seed) / 17, "speed": 0.1 if bad else 0.9 - index / 20 - seed / 50,
         "status": BAD if bad else "ok"}
        for (index, method), seed, size in product(enumerate(METHODS), range(3), (4, 128))
        for bad in [method == "instance" and size == 4]
    ])  # fmt: skip


def profile_rows():
    values = {
        "activation_variance": lambda layer, step, seed: 2.0 ** (layer + seed - step),
        "stable_rank": lambda layer, step, seed: layer + step + seed,
        "cosine_similarity": lambda layer, step, seed: (layer + seed) / (8 + step),
        "gradient_norm": lambda layer, step, seed: (3.0 + step) ** (4 - layer) * (1 + seed),
    }
    return pd.DataFrame([
        {"method": method, "seed": seed, "position": layer, "step": step, "measure": measure,
         "value": value(layer, step, seed)}
        for method, seed, layer, step, (measure, value) in product(
            ("batch", "none", "layer", "instance", "weight_centering"), range(3), (1, 2, 3, 4),
            (0, 1, 2), values.items())
        if method != "none" or step < 2
    ])  # fmt: skip


def rank_rows():
    return pd.DataFrame([
        {"group_size": size, "situation": situation, "seed": seed, "epoch": epoch,
         "value": factor * (1 + epoch) / min(size, 8) + seed}
        for (situation, factor), size, seed, epoch in product(
            {"10 layers": 1, "20 layers": 3}.items(), (1.0, 2.0, 4.0, np.inf), range(3),
            (0.0, 0.5, 1.0))
    ])  # fmt: skip


def tradeoff_rows():
    """With one channel in a group two seeds of the small batches diverge, with two one."""
    lost = {1.0: 2, 2.0: 1}
    return pd.DataFrame([
        {"net": net, "batch_size": size, "group_size": group, "seed": seed,
         "early": 0.1 if bad else 0.3 + index / 20 + seed / 100,
         "final": 0.1 if bad else 0.9 - index / 20 + seed / 100, "status": BAD if bad else "ok"}
        for net, size, (index, group), seed in product(
            ("10 layers", "20 layers"), (4, 128), enumerate((1.0, 2.0, 8.0, np.inf)), range(3))
        for bad in [size == 4 and seed < lost.get(group, 0)]
    ])  # fmt: skip


def guide_rows():
    """Effects grow from row to row; every third interval holds zero, "none" fails in one."""
    rows = []
    for (index, method), situation in product(enumerate(METHODS), ("small batch", "deep net")):
        if method == "weight_norm" and situation == "deep net":
            continue
        effect = (index - 6) / 50
        half = abs(effect) * (2 if index % 3 == 0 else 0.5)
        fails = method == "none" and situation == "deep net"
        row = {"method": method, "situation": situation, "n": 3, "fails": fails}
        effect = -0.8 if fails else effect
        rows.append({**row, "effect": effect, "low": effect - half, "high": effect + half})
    return pd.DataFrame(rows)


TABLES = dict(
    zip(
        FIGURES,
        (curve_rows, speed_rows, profile_rows, rank_rows, tradeoff_rows, guide_rows),
        strict=True,
    )
)


def draw(name, change=lambda table: table):
    more = {"correlation": CORRELATION} if name == "speed" else {}
    return FIGURES[name](change(TABLES[name]()), note=NOTE, **more)


drawn = cache(draw)


def bottom(figure):
    return figure.get_supxlabel().replace("\n", " ")


def titles(figure):
    return [axes.get_title(loc="left") for axes in figure.axes]


def panel(figure, method):
    return next(a for a in figure.axes if a.get_title(loc="left") == LABELS[method])


def lines(axes):
    return {line.get_label(): line for line in axes.lines}


def points(line):
    return sorted(map(tuple, np.round(line.get_xydata(), 9).tolist()))


@every_figure
def test_nothing_is_clipped_and_no_title_or_label_touches_another(name):
    figure = drawn(name)
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert min(box.x0, box.y0, width - box.x1, height - box.y1) > -0.01, box
    assert width in (3.25, 5.5)
    heads = [Text.get_window_extent(axes._left_title) for axes in figure.axes]
    ends = [
        Text.get_window_extent(text).padded(-1)
        for axes in figure.axes
        for text in axes.texts
        if text.get_gid() == "end label"
    ]
    below = [axes.xaxis.label for axes in figure.axes if axes.get_xlabel()]
    for one, other in combinations([*heads, *ends, *map(Text.get_window_extent, below)], 2):
        assert not one.overlaps(other) or not one.width * other.width, (one, other)


@every_figure
def test_the_bottom_ends_with_the_note_and_tells_how_many_seeds(name):
    figure = drawn(name)
    assert bottom(figure).endswith(NOTE)
    said = bottom(figure) + (figure.get_suptitle() if name == "speed" else "")
    assert "3 seeds" in said and (name == "speed" or "95 %" in said), said


@every_figure
def test_drawing_and_saving_again_give_the_same_bytes(name, tmp_path):
    table = TABLES[name]()
    first = [path.read_bytes() for path in save(drawn(name), table, tmp_path / "a")]
    again = [path.read_bytes() for path in save(drawn(name), table, tmp_path / "a")]
    kept = "situation" if name == "guide" else "seed"  # the order of situations is that of rows
    shuffled = draw(name, lambda t: t.sample(frac=1, random_state=0).sort_values(kept)[::-1])
    other = save(shuffled, table, tmp_path / "b" / "a")
    assert first == again == [path.read_bytes() for path in other]


@every_figure
def test_an_empty_table_a_missing_column_and_an_unknown_method_are_refused(name):
    with pytest.raises(ValueError, match=r"has no row.*needs one row at least of .*"):
        draw(name, lambda table: table[:0])
    with pytest.raises(ValueError, match=r"lacks the column .*: it has .*, and needs"):
        draw(name, lambda table: table.iloc[:, 1:])
    if "method" in TABLES[name]():
        with pytest.raises(ValueError, match=r"method is 'batchnorm'.*nearest is 'batch'"):
            draw(name, lambda table: table.replace({"method": {"batch": "batchnorm"}}))


@pytest.mark.parametrize("name", ["curves", "profiles", "rank_training", "tradeoff"])
def test_rows_that_occur_twice_are_refused_and_two_seeds_have_no_interval(name):
    with pytest.raises(ValueError, match="several rows for"):
        draw(name, lambda table: pd.concat([table, table.assign(position=4)]))
    assert "too few for an interval" in bottom(draw(name, lambda t: t[t["seed"] > 0]))


@pytest.mark.parametrize("number", [1, 5, 6, 9, 10, 13])
def test_small_multiples_stand_in_even_rows_labeled_wherever_nothing_is_below(number):
    figure = draw("curves", lambda t: t[t["method"].isin(METHODS[:number])])
    assert titles(figure) == [LABELS[method] for method in METHODS[:number]]
    rows = sorted({round(axes.get_position().y1, 6) for axes in figure.axes}, reverse=True)
    assert len(rows) == -(-number // 4)
    gaps = figure.get_figheight() * -np.diff(rows)
    assert np.allclose(gaps, gaps.mean() if len(gaps) else 0, atol=0.01), "even to 0.01 inches"
    columns = {}
    for axes in figure.axes:
        columns[round(axes.get_position().x0, 6)] = axes  # the last one is the lowest
    for axes in figure.axes:
        lowest = axes in columns.values()
        assert (axes.get_xlabel() == "epoch") == lowest
        assert any(tick.get_visible() for tick in axes.get_xticklabels()) == lowest
        assert bool(axes.get_ylabel()) == axes.get_subplotspec().is_first_col()


def test_curves_are_means_of_the_runs_that_got_there_with_t_intervals():
    table, figure = curve_rows(), drawn("curves")
    assert figure.get_suptitle() == "10 layers"
    for method in METHODS:
        axes, color = panel(figure, method), COLORS[method].lower()
        runs = table[(table["method"] == method) & (table["epoch"] > 0)]
        runs = runs.groupby("epoch")["train_accuracy"]
        grey = [line for line in axes.lines if to_hex(line.get_color()) == BACKGROUND.lower()]
        assert len(grey) == len(METHODS) - 1 - (method != "none"), method
        np.testing.assert_allclose(lines(axes)[method].get_ydata(), runs.mean(), err_msg=method)
        assert to_hex(lines(axes)[method].get_color()) == color
        assert to_hex(axes._left_title.get_color()) == readable(color)
    axes = panel(figure, "evonorm_s0")
    runs = table[(table["method"] == "evonorm_s0") & (table["epoch"] == 4)]["train_accuracy"]
    low, high = stats.t.interval(0.95, 2, runs.mean(), runs.sem())
    edges = axes.collections[0].get_paths()[0].vertices
    edges = edges[np.isclose(edges[:, 0], 4), 1]
    assert edges.min() == pytest.approx(low) and edges.max() == pytest.approx(high)


def test_a_curve_ends_with_an_x_where_its_run_diverged():
    table, figure = curve_rows(), drawn("curves")
    assert points(lines(panel(figure, "none"))["diverged"]) == [(0, 0), (0, 0.1), (0, 0.1)]
    found = lines(panel(figure, "group"))["diverged"]
    ends = table.query("method == 'group' and status != 'ok'").groupby("seed").last()
    assert points(found) == sorted(zip(ends["epoch"], ends["train_accuracy"].round(9)))
    assert found.get_marker() == "x" and to_hex(found.get_color()) == readable(COLORS["group"])
    assert sum("diverged" in lines(axes) for axes in figure.axes) == 2
    assert "Diverged (x): no normalization 3, GroupNorm 2." in bottom(figure)
    assert "Diverged" not in bottom(draw("curves", lambda t: t[t["status"] == "ok"]))


def test_curves_are_of_one_net_and_can_end_before_the_first_epoch():
    with pytest.raises(ValueError, match="several nets, 10 layers, 20 layers: keep one"):
        draw("curves", lambda t: pd.concat([t, t.assign(net="20 layers")]))
    figure = draw("curves", lambda t: t[t["method"] == "none"])
    assert "No run finished an epoch. Diverged (x): no normalization 3." in bottom(figure)
    assert points(panel(figure, "none").lines[-1]) == [(0, 0), (0, 0.1), (0, 0.1)]


def test_speed_marks_every_run_once_in_color_and_everywhere_else_in_grey():
    table, figure = speed_rows(), drawn("speed")
    assert figure.get_suptitle() == "Spearman correlation -0.61 [-0.72, -0.48], 3 seeds"
    for method in METHODS:
        axes, mine = panel(figure, method), table[table["method"] == method]
        grey, own = axes.lines[0], [line for line in axes.lines[1:] if len(line.get_xdata())]
        others = table[table["method"] != method][["cosine", "speed"]].round(9)
        assert points(grey) == sorted(map(tuple, others.to_numpy()))
        found = sorted(point for line in own for point in points(line))
        assert found == sorted(map(tuple, mine[["cosine", "speed"]].round(9).to_numpy()))
        assert to_hex(lines(axes)[method].get_color()) == COLORS[method].lower()
    crossed = lines(panel(figure, "instance"))["diverged"]
    assert set(crossed.get_ydata()) == {0.1} and len(crossed.get_ydata()) == 3
    assert "Diverged (x): InstanceNorm 3." in bottom(figure)
    assert f"one of {len(table)} runs" in bottom(figure)


def test_speed_counts_runs_without_a_similarity_and_leaves_out_an_interval_that_is_none():
    table = speed_rows()
    table.loc[[0, 40], "cosine"] = np.nan, np.inf
    none = CORRELATION | {"low": np.nan, "high": np.nan, "n": 1}
    figure = normalizers.speed(table, correlation=none)
    assert figure.get_suptitle() == "Spearman correlation -0.61, 1 seed"
    assert "No similarity, not drawn: 2 runs." in bottom(figure)
    assert len(panel(figure, "batch").lines[1].get_xdata()) == 5
    with pytest.raises(ValueError, match="table, with a similarity given, has no rows"):
        normalizers.speed(table.assign(cosine=np.nan), correlation=none)


def test_profiles_have_a_row_per_measure_a_column_per_method_and_a_line_per_step():
    figure, layers = drawn("profiles"), np.arange(1, 5)
    grid = np.reshape(figure.axes, (4, 5))
    names = ["BatchNorm", "no\nnormalization", "LayerNorm", "InstanceNorm", "WeightCentering"]
    assert [axes.get_title(loc="left") for axes in grid[0]] == names
    for column, step in product(range(5), range(3)):
        found = [lines(axes).get(str(step)) for axes in grid[:, column]]
        if names[column].startswith("no\n") and step == 2:
            assert found == [None] * 4, "there is no such step"
            continue
        exact = [
            2.0 ** (layers + 1 - step), layers + step + 1, (layers + 1) / (8 + step),
            (3.0 + step) ** (4 - layers),
        ]  # fmt: skip
        for line, values in zip(found, exact, strict=True):
            np.testing.assert_allclose(line.get_ydata(), values)
    assert [axes.get_yscale() for axes in grid[:, 0]] == ["log", "linear", "linear", "log"]
    assert all(axes.get_ylabel() for axes in grid[:, 0])


def test_profiles_name_the_first_and_last_step_and_have_a_band_there_alone():
    grid = np.reshape(drawn("profiles").axes, (4, 5))
    for row in grid:
        assert [text.get_text() for text in row[-1].texts] == ["start", "end"]
        assert not any(axes.texts for axes in row[:-1]) and len(row[-1].collections) == 2
    steps = [to_hex(lines(grid[0, 0])[str(step)].get_color()) for step in range(3)]
    brightness = [sum(to_rgb(color)) for color in steps]
    assert brightness == sorted(brightness, reverse=True), "the later the darker"
    early = draw("profiles", lambda t: t[t["method"].isin(["batch", "none"])])
    assert [text.get_text() for text in early.axes[-1].texts] == ["start", "step 1"]


def test_profiles_leave_out_and_count_what_a_log_axis_or_a_dead_last_layer_cannot_show():
    table = profile_rows().query("method == 'batch'")
    at = (table["seed"] == 0) & (table["step"] == 0)
    variance, gradient = (table["measure"] == m for m in ("activation_variance", "gradient_norm"))
    table.loc[at & variance & (table["position"] == 2), "value"] = 0.0
    table.loc[at & gradient & (table["position"] == 4), "value"] = 0.0
    assert "Not measured: 5 values." in bottom(normalizers.profiles(table))
    with pytest.raises(ValueError, match="6 methods: 5 at most"):
        draw("profiles", lambda t: pd.concat([t, t.assign(method="group")]))
    with pytest.raises(ValueError, match="of known measures, has no rows"):
        draw("profiles", lambda t: t.assign(measure="loss"))


def test_rank_training_has_a_panel_per_situation_and_a_line_per_group_size():
    figure = drawn("rank_training")
    assert titles(figure) == ["10 layers", "20 layers"]
    names = {1: "InstanceNorm", 2: "2 channels", 4: "4 channels", np.inf: "LayerNorm"}
    for axes, factor in zip(figure.axes, (1, 3), strict=True):
        assert [text.get_text() for text in axes.texts] == list(names.values())[::-1]
        for size, name in names.items():
            values = factor * np.array([1, 1.5, 2]) / min(size, 8) + 1
            np.testing.assert_allclose(lines(axes)[name].get_ydata(), values)
    same = {lines(axes)["LayerNorm"].get_color() for axes in figure.axes}
    assert len(same) == 1, "color means the group size in every panel"


def test_rank_training_counts_what_was_not_measured():
    figure = draw("rank_training", lambda t: t.assign(value=t["value"].where(t["seed"] > 0)))
    lines_of_seed_0 = 2 * 4  # in two situations, for four group sizes
    said = f"too few for an interval. Not measured: {3 * lines_of_seed_0} values."
    assert said in bottom(figure)
    with pytest.raises(ValueError, match="table, with values given, has no rows"):
        draw("rank_training", lambda t: t.assign(value=np.nan))


def test_tradeoff_runs_from_instance_norm_to_layer_norm_in_means_over_seeds():
    figure, table = drawn("tradeoff"), tradeoff_rows()
    assert titles(figure) == ["first epochs", "last epoch"]
    for axes, column in zip(figure.axes, ["early", "final"], strict=True):
        ticks = [label.get_text().split() for label in axes.get_xticklabels()]
        assert ticks == [["1", "InstanceNorm"], ["2"], ["8"], ["all", "LayerNorm"]]
        np.testing.assert_allclose(axes.get_xticks(), [1, 2, 8, 16])
        for net, size in product(("10 layers", "20 layers"), (4, 128)):
            means = table.query("net == @net and batch_size == @size")
            means = means.groupby("group_size")[column].mean()
            line = lines(axes)[f"{net}, batch {size}"]
            np.testing.assert_allclose(line.get_ydata(), means)
            np.testing.assert_allclose(np.round(np.log2(line.get_xdata())), [0, 1, 3, 4])
    names = [text.get_text() for text in figure.axes[1].texts if text.get_gid() == "end label"]
    assert sorted(names) == sorted(label for label in lines(axes) if "batch" in label)


def test_tradeoff_marks_points_with_diverged_runs_counts_them_and_gives_no_interval():
    figure, table = drawn("tradeoff"), tradeoff_rows()
    for axes, column in zip(figure.axes, ["early", "final"], strict=True):
        crossed = [line for line in axes.lines if line.get_label() == "diverged"]
        assert [len(line.get_xdata()) for line in crossed] == [2, 2]
        counts = [text.get_text() for text in axes.texts if text.get_gid() != "end label"]
        assert counts == ["2", "1"] * 2
        shown = {label: line.get_markevery() for label, line in lines(axes).items()}
        assert shown["10 layers, batch 4"].tolist() == [False, False, True, True]
        bars = [bar for group in axes.collections for bar in group.get_segments()]
        found = sorted(bar[:, 1].mean() for bar in bars if bar.size)
        sound = table.groupby(["net", "batch_size", "group_size"]).filter(
            lambda runs: (runs["status"] == "ok").all()
        )
        means = sound.groupby(["net", "batch_size", "group_size"])[column].mean()
        np.testing.assert_allclose(found, sorted(means))
    assert "x: how many of the runs diverged; no interval there." in bottom(figure)
    sound = draw("tradeoff", lambda t: t[t["batch_size"] == 128])
    assert "diverged" not in bottom(sound) and "diverged" not in lines(sound.axes[0])
    with pytest.raises(ValueError, match="lacks an accuracy: after a divergence .* chance"):
        draw("tradeoff", lambda t: t.assign(final=np.nan))


def test_guide_writes_each_difference_in_points_bold_if_its_interval_excludes_zero():
    figure, table = drawn("guide"), guide_rows()
    axes, bar = figure.axes
    assert [t.get_text() for t in axes.get_yticklabels()] == [LABELS[m] for m in METHODS]
    assert [t.get_text().split() for t in axes.get_xticklabels()] == [
        ["small", "batch"], ["deep", "net"]
    ]  # fmt: skip
    cells = {tuple(np.floor(text.get_position()).astype(int)): text for text in axes.texts}
    assert len(cells) == 2 * len(METHODS)
    for row in table.itertuples():
        text = cells.pop((int(row.situation == "deep net"), METHODS.index(row.method)))
        said = text.get_text().replace("\N{MINUS SIGN}", "-")
        if row.fails:
            assert said == "fails"
            continue
        assert float(said) == pytest.approx(100 * row.effect, abs=0.05)
        assert said == "0" or said[0] in "+-"
        sure = row.low > 0 or row.high < 0
        assert text.get_fontweight() == ("bold" if sure else "normal"), said
    assert [text.get_text() for text in cells.values()] == ["\N{EN DASH}"], "weight_norm, deep"
    assert "points" in bar.get_ylabel() and "BatchNorm" in bar.get_ylabel()


def test_guide_is_centered_on_zero_legible_and_scaled_by_what_does_not_fail():
    axes = drawn("guide").axes[0]
    mesh = axes.collections[0]
    assert mesh.get_clim() == pytest.approx((-12, 12)), "the failure, at -80, is beyond the end"
    low, middle, high = (mesh.cmap(mesh.norm(value)) for value in (-12, 0, 12))
    assert low[0] > low[2] and high[2] > high[0] and min(middle) > 0.9, "red, white, blue"
    values = np.ma.filled(mesh.get_array(), np.nan).reshape(len(METHODS), 2)
    for text in axes.texts:
        x, y = np.floor(text.get_position()).astype(int)
        cell = mesh.cmap(mesh.norm(values[y, x]))[:3] if np.isfinite(values[y, x]) else (1, 1, 1)
        one, other = (
            np.dot([0.2126, 0.7152, 0.0722], np.array(color) ** 2.2) + 0.05
            for color in (cell, to_rgb(text.get_color()))
        )
        assert max(one, other) / min(one, other) > 4.4, (text.get_text(), cell)


def test_guide_turns_the_names_of_many_situations():
    many = pd.concat(
        [guide_rows().assign(situation=f"ResNet-56 with SkipInit, batch {i}") for i in range(9)]
    )
    figure = tradeoffs.guide(many[~many.duplicated(["method", "situation"])])
    figure.set_dpi(200)  # as it is saved
    assert figure.get_tightbbox().y1 <= figure.get_figheight()
    axes = figure.axes[0]
    boxes = [text.get_window_extent() for text in axes.get_xticklabels()]
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    assert {text.get_rotation() for text in axes.get_xticklabels()} == {90}


def test_guide_refuses_a_cell_given_twice_and_draws_one_without_an_effect():
    with pytest.raises(ValueError, match="several rows for batch in small batch"):
        draw("guide", lambda t: pd.concat([t, t[:1]]))
    figure = draw("guide", lambda t: t.assign(effect=np.nan))
    said = [text.get_text() for text in figure.axes[0].texts]
    assert said.count("fails") == 1 and set(said) == {"fails", "\N{EN DASH}"}, "nothing to compare"
    figure = draw("guide", lambda t: t.assign(effect=np.nan, low=np.nan, high=np.nan, fails=True))
    assert {text.get_text() for text in figure.axes[0].texts} == {"fails", "\N{EN DASH}"}
    assert {text.get_color() for text in figure.axes[0].texts} == {"#111111", "#767676"}
