"""What the workbook and the scoreboard read is right, or refused with the file's name."""

import copy
import json
import os

import pytest

from normkit import claims
from normkit.workbook import datasets, notebook, state


@pytest.mark.parametrize("source", ["x = {[]: 1}", "x = 1 / 0", "x = 'a' / 2", "x = {1, 2}",
                                    "x = " + "(" * 9000, "x = b'a'", "x = 10 ** 9"])  # fmt: skip
def test_parameters_that_are_no_plain_values_are_refused_with_the_notebooks_name(tmp_path, source):
    book(tmp_path, source)
    with pytest.raises(ValueError, match="01_one.ipynb: cell p must assign literals"):
        notebook.find(tmp_path)


@pytest.mark.parametrize("text", ["{[]: 1}", "1 / 0", "'a' / 2", "(" * 9000, "\0"])
def test_a_setting_that_is_no_literal_is_the_string_itself(text):
    assert notebook.literal(text) == text


@pytest.mark.parametrize(
    "change",
    [
        lambda cells: cells.append(copy.deepcopy(cells[0])),
        lambda cells: cells[0].update(source="\ud800"),
        lambda cells: cells[0].update(source={"a": 1}),
        lambda cells: cells[0].update(id=3),
        lambda cells: cells[0].pop("cell_type"),
        lambda cells: cells[0].update(metadata=[]),
    ],
)
def test_a_notebook_that_lies_is_refused_by_name(tmp_path, change):
    book(tmp_path, "", change)
    with pytest.raises(ValueError, match="01_one.ipynb is not a notebook"):
        notebook.find(tmp_path)


def book(folder, source, change=lambda cells: None):
    cell = {"id": "p", "cell_type": "code", "metadata": {"tags": ["parameters"]}}
    cells = [cell | {"source": f'profile = "quick"\n{source}'}]
    change(cells)
    path = folder / "notebooks" / "01_one.ipynb"
    path.parent.mkdir()
    path.write_text(json.dumps({"cells": cells}))


@pytest.mark.parametrize("place", ["/", 3, ["a"]])
def test_a_cache_that_names_another_place_is_not_searched_and_not_believed(tmp_path, place):
    cache = tmp_path / "data.json"
    datasets.fingerprints(["digits"], cache)
    sound = json.loads(cache.read_text())
    lie = copy.deepcopy(sound)
    lie["digits"] |= {"fingerprint": "lie", "place": place}
    cache.write_text(json.dumps(lie))
    found = datasets.fingerprints(["digits"], cache)
    assert found == {"digits": sound["digits"]["fingerprint"]}


def test_a_data_set_that_is_no_longer_known_has_no_fingerprint(tmp_path):
    assert datasets.fingerprints(["eigits"], tmp_path / "data.json") == {"eigits": None}


@pytest.mark.parametrize("text", ["[]", "3", '{"state": 3}', '{"state": "done"}', "[" * 99_999])
def test_a_state_that_lies_is_none(tmp_path, text):
    (tmp_path / "state.json").write_text(text)
    assert state.reasons(state.read(tmp_path / "state.json"), {}) == ["never run"]


@pytest.mark.parametrize("text", ["", "id\n1\n", "\xff", "a,b\n1,2,3\n", "pipe", "hole"])
def test_a_scoreboard_that_lies_is_refused_by_name(tmp_path, text):
    path = tmp_path / "quick" / "claims.csv"
    path.parent.mkdir()
    if text == "pipe":
        os.mkfifo(path)
    else:
        path.write_text(text if text != "hole" else "")
    if text == "hole":
        os.truncate(path, 1 << 29)
    with pytest.raises(ValueError, match="claims.csv is no"):
        claims.compare(tmp_path, ["a.b"])
