"""Notebooks are clean sources, and each runs from top to bottom."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import normkit
from normkit.papers import CLAIMS

PROJECT = Path(normkit.__file__).parent.parent
NOTEBOOKS = sorted((PROJECT / "notebooks").glob("*.ipynb"))
NAMES = [path.stem for path in NOTEBOOKS]
# The profile "smoke" runs them all; here one that judges claims stands for the others.
EVERY = os.environ.get("NORMKIT_NOTEBOOKS") == "all"
JUDGED = ("convnorm", "enorm", "norm_decay", "beyond_batchnorm")
RUN = [path for path in NOTEBOOKS if EVERY or path.stem in ("00_tour", "02_enorm")]


def _cells(path: Path, kind: str) -> list[dict]:
    return [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == kind]


def test_the_notebooks_that_the_readme_names_are_there():
    readme = (PROJECT / "README.md").read_text()
    papers = {"01_convnorm", "02_enorm", "03_norm_decay", "04_beyond_batchnorm"}
    assert set(NAMES) == {"00_tour", *papers, "05_explore", "06_across_papers"}
    assert all(name in readme for name in NAMES), NAMES


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_a_notebook_is_a_clean_source(path):
    content = json.loads(path.read_text())
    assert content["metadata"]["kernelspec"]["name"] == "python3"
    assert content["nbformat"] == 4 and content["nbformat_minor"] >= 5
    ids = [cell["id"] for cell in content["cells"]]
    assert len(ids) == len(set(ids))
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) for name in ids), ids
    for cell in _cells(path, "code"):
        source = "".join(cell["source"])
        assert cell["outputs"] == [] and cell["execution_count"] is None, cell["id"]
        assert source.count("\n") < 15, f"{cell['id']} is longer than 15 lines"
        assert not re.search(r"^\s*[!%]", source, re.MULTILINE), cell["id"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_a_notebook_defines_no_class_and_at_most_one_function(path):
    nodes = [
        node
        for cell in _cells(path, "code")
        for node in ast.walk(ast.parse("".join(cell["source"])))
    ]
    assert not [node for node in nodes if isinstance(node, ast.ClassDef)]
    assert len([node for node in nodes if isinstance(node, ast.FunctionDef)]) <= 1


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_profile_is_the_first_parameter_and_quick_is_its_default(path):
    tagged = [c for c in _cells(path, "code") if "parameters" in c["metadata"].get("tags", [])]
    assert len(tagged) == 1
    first = ast.parse("".join(tagged[0]["source"])).body[0]
    assert ast.unparse(first) == "profile = 'quick'"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_a_title_comes_first_and_prose_has_no_gap_to_fill(path):
    cells = json.loads(path.read_text())["cells"]
    assert "".join(cells[0]["source"]).startswith("# ")
    assert "@@" not in path.read_text()


@pytest.mark.parametrize("path", RUN, ids=lambda path: path.stem)
def test_a_notebook_runs_at_smoke_size(path, tmp_path):
    places = {"NORMKIT_FIGURES": str(tmp_path / "figures"), "NORMKIT_RUNS": str(tmp_path / "runs")}
    places |= {"NORMKIT_JOBS": "1", "OMP_NUM_THREADS": "1"}  # a process takes longer to start
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", "--log-level", "ERROR"]
    command += [str(path), str(tmp_path / "out.ipynb"), "-p", "profile", "smoke"]
    done = subprocess.run(
        command, env=os.environ | places, cwd=path.parent, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    drawn = sorted((tmp_path / "figures" / "smoke").rglob("*.png"))
    assert drawn, "no figure was saved"
    for picture in drawn:
        assert picture.with_suffix(".pdf").is_file()
        assert len(pd.read_csv(picture.with_suffix(".csv"))) > 0, picture
    if path.stem in (f"0{i}_{name}" for i, name in enumerate(JUDGED, 1)):
        table = pd.read_csv(tmp_path / "figures" / "smoke" / "claims.csv")
        assert list(table.id) == [claim.id for claim in CLAIMS]
        judged = table[table.n > 0]
        for pattern in judged.evidence.str.split(", ").explode():
            assert list((tmp_path / "figures" / "smoke").glob(pattern)), pattern
        verdicts = {"not run", "reproduced", "not separable", "contradicted"}
        assert len(judged) > 0 and set(judged.verdict) <= verdicts
