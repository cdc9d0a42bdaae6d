"""The look of all figures, their labels, and files that are the same every time."""

import ast
from itertools import product
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image
from scipy import stats

import normkit.plots
from normkit.plots import save, style
from normkit.plots.marks import end_labels, finish, picture
from normkit.plots.style import COLORS, LABELS, MARKERS, Picture
from normkit.plots.tables import mean_interval

TABLE = pd.DataFrame(product(("conv1", "conv2"), range(3)), columns=["layer", "seed"])
TABLE["value"] = np.random.default_rng(0).normal(size=6)


def test_the_interval_is_the_t_interval():
    values = np.random.default_rng(1).normal(size=5)
    expected = [values.mean(), *stats.t.interval(0.95, 4, values.mean(), stats.sem(values))]
    np.testing.assert_allclose(mean_interval(values), expected)
    np.testing.assert_allclose(np.log(mean_interval(np.exp(values), log=True)), expected)


def test_direct_labels_move_as_little_as_needed():
    axes = picture(3.25, 2).subplots()
    axes.set(xlim=(0, 1), ylim=(0, 1))
    end_labels(axes, [(1, y, str(y), "#111111") for y in (0.9, 0.31, 0.3)])
    finish(axes.figure)
    far, upper, lower = (text.xyann[1] for text in axes.texts)
    assert far == pytest.approx(0)
    assert upper == pytest.approx(-lower), "two neighbours share the way"
    assert upper > 0


@pytest.mark.parametrize("keys", [
    "none batch layer instance group filter_response variance mean_centering evonorm_b0 "
    "evonorm_s0",
    "conv weight_norm scaled_ws weight_centering spectral_norm oni own conv_norm",
    "none batch layer instance group scaled_ws weight_norm", "plain pgd trades alp",
    "l1 linf bracket power_method gram_iteration fft_svd", "exact border_free released",
    "none batch spectral_norm oni ocnn conv_norm", "none batch group weight_norm enorm",
    "none batch group weight_norm_batch path_sgd enorm enorm_batch",
    "none batch group enorm enorm_batch released_enorm",
])  # fmt: skip
def test_colors_and_markers_are_distinct_wherever_methods_meet(keys):
    for values in (COLORS, MARKERS, LABELS):
        assert len({values[key] for key in keys.split()}) == len(keys.split())


def test_style_is_the_sheet_alone_and_leaves_the_users_settings_as_they_were():
    with matplotlib.rc_context({"font.size": 13, "axes.grid": True}):
        before = dict(matplotlib.rcParams)
        with style():
            assert matplotlib.rcParams["font.size"] == 7
            assert not matplotlib.rcParams["axes.grid"]
        assert dict(matplotlib.rcParams) == before


def test_the_csv_holds_every_digit_and_does_not_depend_on_the_order_of_rows(tmp_path):
    table = TABLE.assign(mixed=TABLE["layer"].where(TABLE["seed"] > 0))
    csv = save(Picture(), table, tmp_path / "a")[2]
    shuffled = save(Picture(), table.sample(frac=1, random_state=0), tmp_path / "b")[2]
    assert csv.read_bytes() == shuffled.read_bytes()
    read = pd.read_csv(csv, dtype=str)
    assert read["value"].map(float).tolist() == table["value"].tolist()
    assert read["layer"].tolist() == table["layer"].tolist()


def test_files_carry_configuration_and_versions_and_no_date(tmp_path):
    files = save(Picture(), TABLE, tmp_path / "a.b.png", configuration="f00")
    assert [path.name for path in files] == ["a.b.pdf", "a.b.png", "a.b.csv"]
    assert sorted(tmp_path.iterdir()) == sorted(files)
    with Image.open(files[1]) as image:
        content, information = files[0].read_bytes(), image.info
    version = f"matplotlib {matplotlib.__version__}"
    assert b"configuration f00" in content and version.encode() in content
    assert b"Date" not in content
    assert information["Configuration"] == "f00" and version in information["Software"]


class Undrawable(Figure):
    def savefig(self, *args, **settings):
        raise RuntimeError("drawn")


def test_a_folder_that_cannot_be_written_is_named_before_anything_is_drawn(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OSError, match=r"cannot write figures to .*file.*a folder that can be"):
        save(Undrawable(), TABLE, tmp_path / "file" / "figure")


def test_a_failed_drawing_leaves_the_earlier_files_whole(tmp_path):
    paths = save(Picture(), TABLE, tmp_path / "a")
    before = {path: path.read_bytes() for path in paths}
    with pytest.raises(RuntimeError, match="drawn"):
        save(Undrawable(), TABLE, tmp_path / "a")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_plots_import_neither_torch_nor_the_rest_of_normkit():
    folder = Path(normkit.plots.__file__).parent
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert name.split(".")[0] not in ("torch", "torchvision"), path
                assert name.split(".")[0] != "normkit" or "plots" in name, path
    assert (folder / "normkit.mplstyle").is_file()
