"""Every figure of ConvNorm: legible, named, the same bytes each time, and what it refuses."""

from itertools import combinations, product

import numpy as np
import pandas as pd
import pytest
from convnorm_tables import METHODS, MORE, NOTE, PARTS, TABLES, bottom, draw, drawn
from matplotlib.text import Text

from normkit.plots.style import COLORS, LABELS, MARKERS

ORDER = ("attack", "dataset", "claim", "part")
AVERAGED = [name for name, rows in TABLES.items() if "seed" in rows()]
SCORED = [name for name in AVERAGED if name not in ("spectral", "curves", "gan")]
every_figure = pytest.mark.parametrize("name", TABLES)


def shuffled(table):
    """Mix the rows, but for those columns whose order is that of panels or rows."""
    mixed = table.sample(frac=1, random_state=0)
    for column in [key for key in reversed(ORDER) if key in table]:
        order = list(dict.fromkeys(table[column]))
        mixed = mixed.sort_values(column, key=lambda keys: keys.map(order.index), kind="stable")
    return mixed


@pytest.mark.parametrize(("name", "seeds"), [*product(TABLES, [3]), *product(AVERAGED, [1])])
def test_nothing_is_clipped_and_no_words_touch(name, seeds):
    figure = drawn(name) if seeds == 3 else draw(name, lambda table: table[table["seed"] == 1])
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert min(box.x0, box.y0, width - box.x1, height - box.y1) > -0.01, box
    found = [text for axes in figure.axes for text in (*axes.texts, axes._left_title)]
    found += [axis.label for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]
    for axes in figure.axes if name not in ("spectral", "isometry") else ():
        low, high = axes.get_xlim()
        labels = axes.get_xticklabels() if axes.get_xlabel() else []
        found += [text for text in labels if low <= text.get_position()[0] <= high]
    boxes = [Text.get_window_extent(text) for text in found if text.get_text().strip()]
    boxes += [legend.get_window_extent() for legend in figure.legends]
    for one, other in combinations(boxes, 2):
        assert not one.padded(-1).overlaps(other) or not one.width * other.width, (one, other)


@every_figure
def test_every_figure_names_its_axes_and_its_uncertainty_and_ends_with_the_note(name):
    figure = drawn(name)
    assert bottom(figure).endswith(NOTE) and "  " not in bottom(figure)
    labels = [axes.get_xlabel() for axes in figure.axes if axes.has_data()]
    assert labels[-1], "the lowest panel at the right says what its x axis is"
    if name in AVERAGED:
        assert "3 seeds" in bottom(figure) or "to 4 seeds" in bottom(figure)
        assert "95 % t interval" in bottom(figure)
        one = draw(name, lambda table: table[table["seed"] == 1])
        assert "1 seed" in bottom(one) and "95 %" not in bottom(one)


@every_figure
def test_drawing_again_gives_the_same_picture_in_any_order_of_rows(name):
    first, other = (figure._repr_mimebundle_() for figure in (drawn(name), draw(name, shuffled)))
    assert first == other


@every_figure
def test_missing_columns_empty_tables_and_rows_that_occur_twice_are_refused(name):
    for column in TABLES[name]():
        with pytest.raises(ValueError, match=f"table lacks the column {column}: it has"):
            draw(name, lambda table, column=column: table.drop(columns=column))
    with pytest.raises(ValueError, match="table has no rows"):
        draw(name, lambda table: table[:0])
    with pytest.raises(ValueError, match="table has several rows for "):
        draw(name, lambda table: pd.concat([table, table]))


@pytest.mark.parametrize(("name", "column", "value", "said"), [
    *((name, "method", "conv_norn", "method is 'conv_norn'.*nearest is 'conv_norm'")
      for name in TABLES if name in [*AVERAGED, "samples"]),
    ("concept", "panel", "kernal", "panel is 'kernal'.*nearest is 'kernel'"),
    ("concept", "value", -1.0, "panel 'spectrum', has the gain -1: gains must be positive"),
    ("concept", "value", np.nan, "panel 'kernel', lacks a value"),
    ("spectral", "out_channels", range(72), "has .* at position 0: it needs one layer"),
    ("isometry", "position", 0, "table has several rows"),
    ("isometry", "state", "then", "state is 'then'"), ("noise", "kind", "odd", "kind is 'odd'"),
    ("robust", "source", "there", "source is 'there'"),
    ("blackbox", "source", "bach", "source is 'bach'.*nearest is 'batch'"),
    ("samples", "value", 1.5, r"value is 1.5: values of images must be in \[0, 1\]"),
    ("scale", "place", "digit", "place is 'digit'.*nearest is 'digits'"),
])  # fmt: skip
def test_what_a_figure_does_not_know_is_refused_by_name(name, column, value, said):
    with pytest.raises(ValueError, match=said):
        draw(name, lambda table: table.assign(**{column: value}))


@pytest.mark.parametrize("name", SCORED)
def test_a_table_of_diverged_runs_alone_is_refused_and_a_status_is_heeded(name):
    with pytest.raises(ValueError, match="without diverged runs, has no rows"):
        draw(name, lambda table: table.assign(accuracy=np.nan))
    assert "Diverged" in bottom(draw(name, lambda table: table.assign(
        status=np.where(table["method"].eq("batch") & table["seed"].eq(0), "lost", "ok"))))


def test_the_keys_that_meet_differ_in_color_marker_and_label():
    for keys in (PARTS, [*METHODS, *MORE], ["batch", "conv_norm", *MORE[1:]]):
        for values in (COLORS, MARKERS, LABELS):
            assert len({values[key] for key in keys}) == len(keys), keys
