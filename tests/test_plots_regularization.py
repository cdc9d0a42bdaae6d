"""Figures of regularized training show the accuracies, the norms and the failures given."""

from functools import cache
from itertools import combinations, product

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex, to_rgb
from matplotlib.text import Text
from scipy import stats

from normkit.plots import regularization, save
from normkit.plots.style import COLORS, LABELS, MARKERS

NOTE, BAD = "digits 8x8, width 8", "diverged at step 7"
BETAS, BOUNDS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1), (2.0, 1.5, 1.0, 0.5, 0.1)
METHODS = {"nd_l1": BETAS, "nd_linf": BETAS, "svc": BOUNDS, "wd": BETAS}
LAYERS = {"conv1": "conv", "bn1": "batch_norm", "conv2": "conv", "bn2": "batch_norm"}
LAYERS |= {"head": "linear", "gate": "other"}
MORE = {"accuracies": {}, "curves": {"norm": "l1"}}
MORE["layers_over_time"] = {"norm": "l1", "strength": [1e-4, 1e-1]}
every_figure = pytest.mark.parametrize("name", MORE)


def accuracy_rows(methods=METHODS, seeds=3):
    """The third strength is chosen; at the last of "wd" two seeds diverge, of "svc" all."""
    rows = [
        {"method": "plain", "strength": np.nan, "seed": seed, "clean": 0.9 + seed / 100,
         "robust": 0.3 - seed / 50, "chosen": False, "status": "ok"}
        for seed in range(seeds)
    ]  # fmt: skip
    for (index, method), place, seed in product(enumerate(methods), range(5), range(seeds)):
        bad = place == 4 and (method == "svc" or (method == "wd" and seed > 0))
        row = {"method": method, "strength": methods[method][place], "seed": seed}
        row |= {"clean": 0.9 - 0.03 * (place - 2) ** 2 + seed / 200, "chosen": place == 2}
        row |= {"robust": 0.2 + index / 20 + place / 50 + seed / 70, "status": "ok"}
        rows.append(row | ({"clean": np.nan, "robust": np.nan, "status": BAD} if bad else {}))
    return pd.DataFrame(rows)


def norm_rows(method="nd_linf"):
    """Weights shrink with the strength, BatchNorm grows with it, unless it is projected."""
    runs = [("plain", 0, np.nan, False)]
    runs += [(method, i + 1, s, p) for i, s in enumerate(METHODS[method]) for p in (False, True)]
    return pd.DataFrame([
        {"method": name, "strength": strength, "projected": projected, "seed": seed,
         "epoch": epoch, "kind": kind, "layer": layer, "norm": norm,
         "value": (place + 2) * np.exp(0.1 * seed) * factor *
         (2.0 ** (place_of_run * epoch / 9 * (not projected)) if kind == "batch_norm"
          else 3.0 ** (epoch * (1 - place_of_run) / 6))}
        for (norm, factor), (name, place_of_run, strength, projected) in product(
            (("l1", 1), ("spectral", 0.5)), runs)
        for seed, epoch, (place, (layer, kind)) in product(
            range(3), (0, 3, 6), enumerate(LAYERS.items()))
    ])  # fmt: skip


TABLES = {"accuracies": accuracy_rows, "curves": norm_rows, "layers_over_time": norm_rows}


def draw(name, change=lambda table: table, **more):
    options = {**MORE[name], "note": NOTE, **more}
    return getattr(regularization, name)(change(TABLES[name]()), **options)


drawn = cache(draw)


def shuffled(table):
    """Mix the rows, but for the layers: the order of these is their depth."""
    table = table.sample(frac=1, random_state=0)
    if "layer" in table:
        table = table.sort_values("layer", key=lambda names: names.map([*LAYERS].index))
    return table


def bottom(figure):
    return figure.get_supxlabel().replace("\n", " ")


def lines(axes):
    return {line.get_label(): line for line in axes.lines}


def grid(figure, down):
    return np.reshape(figure.axes, (down, -1))


@every_figure
def test_nothing_is_clipped_and_no_title_or_label_touches_another(name):
    figure = drawn(name)
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert min(box.x0, box.y0, width - box.x1, height - box.y1) > -0.01, box
    heads = [Text.get_window_extent(axes._left_title) for axes in figure.axes]
    ends = [
        Text.get_window_extent(text).padded(-1)
        for axes in figure.axes
        for text in axes.texts
        if text.get_gid() == "end label"
    ]
    below = [axes.xaxis.label for axes in figure.axes if axes.get_xlabel()]
    ticks = [t for axes in grid(figure, 2)[1] for t in axes.get_xticklabels() if t.get_text()]
    boxes = [*heads, *ends, *map(Text.get_window_extent, [*below, *ticks])]
    for one, other in combinations(boxes, 2):
        assert not one.overlaps(other) or not one.width * other.width, (one, other)


@every_figure
def test_the_bottom_names_seeds_intervals_and_ends_with_the_note(name):
    said = bottom(drawn(name))
    assert "3 seeds" in said and said.endswith(NOTE)
    assert name == "layers_over_time" or "95 % t interval" in said
    one = draw(name, lambda table: table[table["seed"] == 0])
    assert "1 seed" in bottom(one) and "95 %" not in bottom(one)


@every_figure
def test_drawing_and_saving_again_give_the_same_bytes(name, tmp_path):
    table = TABLES[name]()
    first = [path.read_bytes() for path in save(drawn(name), table, tmp_path / "a")]
    other = save(draw(name, shuffled), table, tmp_path / "b" / "a")
    assert first == [path.read_bytes() for path in other]


@every_figure
def test_bad_tables_are_refused_by_name(name):
    for change, said in [
        (lambda t: t[:0], "has no rows"),
        (lambda t: t.drop(columns="strength"), "lacks the column strength: it has"),
        (lambda t: t[t["method"] == "plain"], "without plain|strength is '0.0001'"),
        (lambda t: t.replace({"method": {"nd_linf": "nd_lim"}}), "nearest is 'nd_linf'"),
        (lambda t: t.assign(strength=t["strength"].replace(1e-4, 0.0)), "strength is 0.0 for 'nd"),
        (lambda t: t.assign(strength=-1.0), "strength is -1.0 for 'nd_.*must be positive"),
        (lambda t: pd.concat([t, t]), "several rows for .*seed=0"),
    ]:
        with pytest.raises(ValueError, match=said):
            draw(name, change)
    if name != "accuracies":
        with pytest.raises(ValueError, match=r"norm is 'spectrum'.*nearest is 'spectral'"):
            draw(name, norm="spectrum")


@every_figure
@pytest.mark.parametrize("method", ["nd_linf", "svc"])
def test_a_single_strength_is_enough(name, method):
    one = METHODS[method][1]
    table = accuracy_rows() if name == "accuracies" else norm_rows(method)
    table = table[(table["method"] == method) & (table["strength"] == one)]
    more = {"strength": one} if name == "layers_over_time" else {}
    figure = getattr(regularization, name)(table, **{**MORE[name], **more})
    assert all(len(axes.lines) for axes in figure.axes) and "plain" not in lines(figure.axes[0])


def test_the_keys_that_meet_differ_in_color_marker_and_label():
    methods = ["plain", "nd_l1", "nd_linf", "nd_spectral", "svc", "wd"]
    for values in (COLORS, MARKERS, LABELS):
        assert len({values[key] for key in methods}) == len(methods)


def test_accuracies_are_means_with_t_intervals_and_a_dot_per_seed():
    table, figure = accuracy_rows(), drawn("accuracies")
    for row, measure in zip(grid(figure, 2), ("clean", "robust"), strict=True):
        for axes, method in zip(row, METHODS, strict=True):
            runs = table[(table["method"] == method) & (table["status"] == "ok")]
            means = runs.groupby("strength")[measure]
            np.testing.assert_allclose(lines(axes)[method].get_xdata(), means.mean().index)
            np.testing.assert_allclose(lines(axes)[method].get_ydata(), means.mean())
            seeds = lines(axes)[f"{method} seeds"].get_ydata()
            np.testing.assert_allclose(sorted(seeds), sorted(runs[measure]))
            low, high = stats.t.interval(0.95, 2, means.mean(), means.sem())
            bars = [bar[:, 1] for bar in axes.collections[0].get_segments() if len(bar)]
            whole = means.size() == 3
            expected = np.stack([low, high], axis=1)[whole]
            np.testing.assert_allclose([bar for bar in bars if np.isfinite(bar).all()], expected)
    assert "Mean over 1 to 3 seeds" in bottom(figure) and "from 3 seeds on" in bottom(figure)


def test_accuracies_have_plain_as_a_dotted_line_with_its_interval_as_a_band():
    table, figure = accuracy_rows(), drawn("accuracies")
    for row, measure in zip(grid(figure, 2), ("clean", "robust"), strict=True):
        plain = table[table["method"] == "plain"][measure]
        for axes in row:
            line = lines(axes)["plain"]
            assert line.get_linestyle() == ":" and line.get_ydata()[0] == plain.mean()
            low, high = stats.t.interval(0.95, 2, plain.mean(), plain.sem())
            (band,) = axes.patches
            assert (band.get_y(), band.get_height()) == pytest.approx((low, high - low))


def test_accuracies_ring_the_chosen_strength_and_are_stronger_to_the_right():
    for row in grid(drawn("accuracies"), 2):
        for axes, (method, strengths) in zip(row, METHODS.items(), strict=True):
            ring = lines(axes)[f"{method} chosen"]
            assert ring.get_xdata().tolist() == [strengths[2]]
            assert ring.get_ydata()[0] in lines(axes)[method].get_ydata()
            assert axes.xaxis_inverted() == (method == "svc")
    below = [axes.get_xlabel() for axes in grid(drawn("accuracies"), 2)[1]]
    strength = "strength $\\beta$"
    assert below == [strength, strength, "bound on\nsingular values", "weight decay"]
    ticks = grid(drawn("accuracies"), 2)[1, 2].get_xticklabels()
    assert [tick.get_text() for tick in ticks if tick.get_text()] == ["2", "0.5", "0.1"]


def test_accuracies_mark_count_and_leave_out_diverged_runs_and_missing_values():
    figure = drawn("accuracies")
    assert "Diverged (x): singular value clipping 3, weight decay 2." in bottom(figure)
    for row in grid(figure, 2):
        marked = {method: lines(axes).get("diverged") for axes, method in zip(row, METHODS)}
        assert marked["nd_l1"] is None and marked["nd_linf"] is None
        assert set(marked["svc"].get_xdata()) == {0.1} == set(marked["wd"].get_xdata())
        assert 0.1 not in lines(row[2])["svc"].get_xdata()
    table = accuracy_rows()
    table.loc[(table["method"] == "nd_l1") & (table["seed"] == 1), "robust"] = np.nan
    figure = regularization.accuracies(table)
    assert "Not measured and left out: 5 values." in bottom(figure)
    assert len(lines(grid(figure, 2)[1, 0])["nd_l1 seeds"].get_xdata()) == 10
    with pytest.raises(ValueError, match="runs, without diverged ones, has no rows"):
        regularization.accuracies(table.assign(status=BAD))


@pytest.mark.parametrize("number", [1, 2, 5])
def test_names_of_strengths_never_touch_however_many_methods_there_are(number):
    five = {"nd_l1": BETAS, "nd_linf": BETAS, "nd_spectral": BETAS, "svc": BOUNDS, "wd": BETAS}
    methods = dict(list(five.items())[-number:])
    figure = regularization.accuracies(accuracy_rows(methods), note=NOTE)
    boxes = [
        Text.get_window_extent(tick)
        for axes in grid(figure, 2)[1]
        for tick in [*axes.get_xticklabels(), axes.xaxis.label]
        if tick.get_text()
    ]
    assert len(boxes) >= 3 * number
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))


def test_curves_are_sums_of_weights_and_medians_of_batch_norms_per_strength():
    table, figure = norm_rows().query("norm == 'l1' and kind != 'other'"), drawn("curves")
    names = dict(zip(BETAS, (f"$10^{{{power}}}$" for power in range(-5, 0)), strict=True))
    for row, projected in zip(grid(figure, 2), (False, True), strict=True):
        for axes, bn, title in zip(row, (False, True), ("sum", "median"), strict=True):
            assert axes.get_title(loc="left").endswith(f"layers: {title}")
            assert ("BatchNorm projected" in axes.texts[0].get_text()) == projected
            part = table[(table["kind"] == "batch_norm") == bn]
            for strength, name in [(None, "plain"), *names.items()]:
                is_plain = part["method"] == "plain"
                same = (part["strength"] == strength) & (part["projected"] == projected)
                runs = part[is_plain if strength is None else same]
                total = runs.groupby(["epoch", "seed"])["value"].agg("median" if bn else "sum")
                mean = np.exp(np.log(total).groupby("epoch").mean())
                np.testing.assert_allclose(lines(axes)[name].get_ydata(), mean, err_msg=name)
            assert lines(axes)["plain"].get_linestyle() == ":"
            assert axes.get_yscale() == "log"


@pytest.mark.parametrize("method", ["nd_linf", "svc"])
def test_curves_are_the_darker_the_stronger_and_labeled_at_their_ends(method):
    axes = regularization.curves(norm_rows(method), norm="l1").axes[0]
    labels = [text.get_text() for text in axes.texts if text.get_gid() == "end label"]
    assert labels[-1] == "plain" and len(labels) == 6
    assert method == "nd_linf" or labels[:5] == ["2", "1.5", "1", "0.5", "0.1"]
    light = [sum(to_rgb(lines(axes)[label].get_color())) for label in labels]
    assert light == sorted(light, reverse=True)


def test_curves_without_batch_norm_or_projection_have_one_panel_of_one_column():
    figure = draw("curves", lambda t: t[(t["kind"] == "conv") & ~t["projected"]])
    assert len(figure.axes) == 1 and figure.get_figwidth() == 3.25


def test_curves_survive_a_method_whose_batch_norms_were_never_measured():
    def change(table):
        never = (table["kind"] == "batch_norm") & (table["method"] == "nd_linf")
        other = table[table["strength"] == 1e-2].assign(method="wd")
        return pd.concat([table.assign(value=table["value"].mask(never)), other])

    figure = draw("curves", change)
    assert [list(lines(axes)) for axes in grid(figure, 4)[:, 1]] == [
        ["plain"], ["plain"], ["0.01", "plain"], ["0.01", "plain"],
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["curves", "layers_over_time"])
def test_runs_that_end_early_or_in_nan_are_counted_as_diverged_and_left_out(name):
    def change(table):
        run = (table["strength"] == 1e-1) & ~table["projected"]
        late = run & (table["epoch"] == 6)
        table = table.assign(value=table["value"].mask(late & (table["seed"] == 1), np.inf))
        table.loc[(table["method"] == "plain") & (table["epoch"] == 3), "value"] = np.nan
        return table[~(late & (table["seed"] == 2))]

    figure = draw(name, change)
    assert rf"Diverged and left out: 2 {LABELS['nd_linf']}." in bottom(figure)
    assert f"Not measured and left out: {5 * 3} values." in bottom(figure)
    own = "plain" if name == "curves" else "0"
    assert lines(figure.axes[0])[own].get_xdata().tolist() == [0, 6]
    with pytest.raises(ValueError, match="norms, without diverged runs, has no rows"):
        draw(name, lambda table: table.assign(value=np.nan))


@pytest.mark.parametrize("name", ["curves", "layers_over_time"])
def test_norms_that_are_zero_are_counted_for_they_have_no_place_on_a_log_axis(name):
    def change(table):
        dead = (table["method"] == "plain") & (table["kind"] == "batch_norm")
        return table.assign(value=table["value"].mask(dead & (table["epoch"] == 6), 0.0))

    number = {"curves": 3, "layers_over_time": 6}[name]  # three seeds, of two layers each
    assert f"Zero and left out: {number} values." in bottom(draw(name, change))


def test_layers_over_time_has_a_line_per_layer_in_a_column_per_run():
    table, figure = norm_rows(), drawn("layers_over_time")
    columns = [("plain", None, False)] + [
        ("nd_linf", strength, projected)
        for strength in (1e-4, 1e-1)
        for projected in (False, True)
    ]
    names = [layer for layer, kind in LAYERS.items() if kind != "other"]
    colors = {}
    for column, (method, strength, projected) in zip(grid(figure, 2).T, columns, strict=True):
        said = column[0].texts[0].get_text()
        power = {None: "no penalty", 1e-4: "10^{-4}", 1e-1: "10^{-1}"}[strength]
        assert power in said and ("projected" in said) == projected
        for axes, bn in zip(column, (False, True), strict=True):
            kept = [layer for layer in names if (LAYERS[layer] == "batch_norm") == bn]
            assert list(lines(axes)) == [str(names.index(layer)) for layer in kept]
            for layer in kept:
                runs = table.query("method == @method and layer == @layer and norm == 'l1'")
                runs = runs[(runs["strength"] == strength) | (method == "plain")]
                runs = runs[runs["projected"] == projected].groupby("epoch")["value"]
                line = lines(axes)[str(names.index(layer))]
                np.testing.assert_allclose(line.get_ydata(), runs.agg(stats.gmean))
                assert colors.setdefault(layer, line.get_color()) == line.get_color()
    assert len({to_hex(color) for color in colors.values()}) == 5
    assert [t.get_text() for t in figure.legends[0].texts] == ["first layer", "last layer"]


def test_layers_over_time_takes_one_strength_and_refuses_unknown_or_too_many():
    alone = draw("layers_over_time", lambda t: t[~t["projected"]], strength=0.1)
    assert len(alone.axes) == 4
    with pytest.raises(ValueError, match=r"strength is '0.2'.*nearest is '0.1'"):
        draw("layers_over_time", strength=[0.2])
    with pytest.raises(ValueError, match="asks for 7 panels in a row: 5 at most"):
        draw("layers_over_time", strength=BETAS[:3])
