"""Figures about computing norms show the errors and times that they are given."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from normkit.plots import norm_checks, save
from normkit.plots.style import COLORS

NOTE = "one thread of a processor"
SECONDS = {"l1": 1e-4, "linf": 2e-4, "bracket": 0.02, "gram_iteration": 0.3, "fft_svd": 0.5}


def error_rows():
    """Half of the layers off by 1, 10 or 100 %; the exact ones by rounding or not at all."""
    rows = []
    for kind, norm, case in product(("Conv2d", "Linear"), ("linf", "l1"), range(8)):
        row = {"case": case, "kind": kind, "norm": norm}
        off = 0.0 if case % 2 or kind == "Linear" else -(10.0 ** (case % 3 - 2))
        rows.append({**row, "method": "exact", "error": 2e-16 * (case % 2)})
        rows.append({**row, "method": "border_free", "error": off})
    return pd.DataFrame(rows)


def time_rows():
    return pd.DataFrame([
        {"layer": layer, "method": method, "repetition": i, "seconds": factor * value * 2.0 ** i}
        for (layer, factor), (method, value), i in product(
            (("3x3 a", 1), ("5x5 b", 10)), SECONDS.items(), range(3))
        if i == 0 or method != "gram_iteration"
    ])  # fmt: skip


def bottom(figure):
    return figure.get_supxlabel().replace("\n", " ")


@pytest.fixture(params=["errors", "times"])
def drawn(request):
    table = error_rows() if request.param == "errors" else time_rows()
    return getattr(norm_checks, request.param)(table, note=NOTE), table


def test_nothing_is_clipped_and_every_axis_says_what_it_shows(drawn):
    figure, _ = drawn
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert min(box.x0, box.y0, width - box.x1, height - box.y1) > -0.01, box
    assert all(axes.get_xlabel() for axes in figure.axes) and bottom(figure).endswith(NOTE)


def test_saving_twice_gives_the_same_bytes(drawn, tmp_path):
    figure, table = drawn
    first = [path.read_bytes() for path in save(figure, table, tmp_path / "a")]
    assert first == [path.read_bytes() for path in save(figure, table, tmp_path / "a")]


def test_errors_draws_every_layer_and_says_how_many_are_wrong():
    figure, table = norm_checks.errors(error_rows()), error_rows()
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        r"$\ell_1$ norm", r"$\ell_\infty$ norm"
    ]  # fmt: skip
    axes = figure.axes[0]
    dots = [line for line in axes.lines if line.get_label() in COLORS]
    assert [line.get_label() for line in dots] == ["exact", "border_free"] * 2
    for line, kind in zip(dots, ["Conv2d", "Conv2d", "Linear", "Linear"], strict=True):
        part = table[(table.kind == kind) & (table.norm == "l1")]
        values = part[part.method == line.get_label()].error.abs().clip(1e-17)
        np.testing.assert_allclose(sorted(line.get_xdata()), sorted(values))
        assert to_hex(line.get_color()) == COLORS[line.get_label()].lower()
    assert [text.get_text() for text in axes.texts] == ["0 %", "50 %", "0 %", "0 %"]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["Conv2d", "Linear"]
    assert "8 layers of each kind" in bottom(figure)


def test_a_rare_error_is_not_rounded_to_none():
    rare = pd.DataFrame({"case": range(300), "kind": "Conv2d", "norm": "l1", "method": "exact"})
    rare["error"] = [0.1] + [0.0] * 299
    assert norm_checks.errors(rare).axes[0].texts[0].get_text() == "< 1 %"


def test_an_error_that_is_no_number_counts_as_wrong():
    rows = {"case": [0, 1], "kind": "Conv2d", "norm": "l1", "method": "exact"}
    figure = norm_checks.errors(pd.DataFrame({**rows, "error": [0.0, np.nan]}))
    assert figure.axes[0].texts[0].get_text() == "50 %"


def test_times_draws_geometric_means_in_milliseconds_and_names_the_interval():
    figure = norm_checks.times(time_rows())
    (axes,) = figure.axes
    drawn = {line.get_label(): line for line in axes.lines if line.get_label() in COLORS}
    assert set(drawn) == set(SECONDS)
    for method, line in drawn.items():
        middle = 1e3 * SECONDS[method] * (1 if method == "gram_iteration" else 2)
        np.testing.assert_allclose(line.get_xdata(), [middle, 10 * middle])
        assert np.round(line.get_ydata()).tolist() == [0, 1]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["3x3 a", "5x5 b"]
    assert axes.get_xscale() == "log"
    assert "1 to 3 repetitions. Bar: 95 % t interval, from 3" in bottom(figure)
    few = norm_checks.times(time_rows().query("repetition == 0"))
    assert "too few for an interval" in bottom(few)


@pytest.mark.parametrize("name", ["errors", "times"])
def test_a_bad_table_is_named_before_anything_is_drawn(name):
    table = error_rows() if name == "errors" else time_rows()
    draw = getattr(norm_checks, name)
    with pytest.raises(ValueError, match="table lacks the column method"):
        draw(table.drop(columns="method"))
    with pytest.raises(ValueError, match="the nearest is 'fft_svd'"):
        draw(table.assign(method="fft_svdd"))
