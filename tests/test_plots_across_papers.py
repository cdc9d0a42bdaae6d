"""Figures over all methods show the numbers given, and the same bytes each time."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from normkit.papers import across_papers as source
from normkit.plots import across_papers, save
from normkit.plots.style import LABELS


def scores():
    draw = np.random.default_rng(0)
    rows = [
        (method, seed, measure, value)
        for method in source.METHODS
        for seed in range(3)
        for measure, value in zip(source.COLUMNS, draw.uniform(0.1, 9, 12), strict=True)
    ]
    table = pd.DataFrame(rows, columns=["method", "seed", "measure", "value"])
    table.loc[table.measure == "robust", "value"] /= 10
    return table


SCORES = scores()
FOUND = source.correlations(SCORES)
COSTS = SCORES[SCORES.measure == "l1"].rename(columns={"value": "ratio"})
TURNED = pd.DataFrame({
    "departure": ["stale norms", "labels"], "what": "clean accuracy", "effect": [0.02, -0.3],
    "low": [-0.02, -0.35], "high": [0.06, -0.25], "n": 3,
})  # fmt: skip
FIGURES = {
    "ranks": lambda: across_papers.ranks(source.ranks(SCORES), note="digits"),
    "predict": lambda: across_papers.predict(SCORES, FOUND, note="digits"),
    "cost": lambda: across_papers.cost(COSTS, note="digits"),
    "departures": lambda: across_papers.departures(TURNED, note="digits"),
}


@pytest.mark.parametrize("name", FIGURES)
def test_drawing_and_saving_again_give_the_same_bytes(name, tmp_path):
    first, second = (save(FIGURES[name](), SCORES, tmp_path / folder) for folder in "ab")
    assert [p.read_bytes()[200:] for p in first] != [] and first[1].read_bytes() != b""
    again = save(FIGURES[name](), SCORES, tmp_path / "a")
    assert [p.read_bytes() for p in again] == [p.read_bytes() for p in first]
    assert second[2].read_bytes() == first[2].read_bytes()


@pytest.mark.parametrize("name", FIGURES)
def test_nothing_is_clipped_and_the_note_stands_last(name):
    figure = FIGURES[name]()
    box, renderer = figure.bbox, FigureCanvasAgg(figure).get_renderer()
    for axes in figure.axes:
        if axes.get_label() == "<colorbar>":
            continue  # it has ticks beyond its end, which are not drawn
        for text in [axes.title, axes.xaxis.label, *axes.get_yticklabels()]:
            if text.get_text() and text.get_visible():
                seen = text.get_window_extent(renderer)
                assert seen.x0 >= box.x0 - 1 and seen.x1 <= box.x1 + 1, text.get_text()
                assert seen.y0 >= box.y0 - 1 and seen.y1 <= box.y1 + 1, text.get_text()
    assert figure._supxlabel.get_text().endswith("digits")


def test_the_heat_map_has_every_method_by_its_robust_rank():
    ranks = source.ranks(SCORES)
    axes = FIGURES["ranks"]().axes[0]
    robust = ranks[ranks.measure == "robust"].set_index("method")["rank"]
    names = [text.get_text() for text in axes.get_yticklabels()]
    assert names == [LABELS[m] for m in robust.sort_values(kind="stable").index]
    assert len(axes.texts) == 2 * 19 * 12


def test_a_cell_says_that_all_runs_diverged():
    ranks = source.ranks(SCORES)
    lost = (ranks.method == "oni") & (ranks.measure == "clean")
    axes = across_papers.ranks(ranks.assign(value=ranks.value.mask(lost))).axes[0]
    assert [text.get_text() for text in axes.texts].count("diverged") == 1
    assert len(axes.texts) == 2 * 19 * 12 - 1


def test_each_panel_names_its_correlation_and_has_a_dot_per_method():
    figure = FIGURES["predict"]()
    for axes, found in zip(figure.axes, FOUND.itertuples(), strict=True):
        assert len(axes.collections[0].get_offsets()) == 19
        assert f"{found.effect:.2f}".replace("-", "\N{MINUS SIGN}") in axes.get_xlabel()


def test_a_switch_that_surely_changes_something_lies_beyond_the_line():
    axes = FIGURES["departures"]().axes[0]
    at = [line.get_xdata()[0] for line in axes.lines[:2]]
    assert at == pytest.approx([0.5, -6.0])
    assert [text.get_text() for text in axes.texts][0].endswith("n = 3")


def test_an_empty_table_is_refused():
    with pytest.raises(ValueError, match="nothing to draw|no rows|empty"):
        across_papers.cost(COSTS[:0])
