"""The runner: what it refuses, what it calls stale, what it leaves behind."""

import ast
import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from normkit import workbook
from normkit.__main__ import main
from normkit.workbook import datasets, state
from normkit.workbook.imports import dependencies

PARAMETERS = """profile = "quick"
seeds = [0, 1]
radius = 8 / 255
device = "auto"
label = "a"
epochs: int | None = None
places: list[int] | None = None
"""
DRAW = """import os
from pathlib import Path
from normkit.plots import style
folder = Path(os.environ["NORMKIT_FIGURES"]) / profile / "alpha"
folder.mkdir(parents=True, exist_ok=True)
(folder / "x.csv").write_text(f"{profile} {seeds} {radius} {os.environ['NORMKIT_JOBS']}")
"""


def write(folder, name, *sources, parameters=PARAMETERS):
    tags = {"tags": ["parameters"]}
    cells = [
        new_markdown_cell("# Title", id="title"),
        new_code_cell(parameters, id="parameters", metadata=tags),
        *(new_code_cell(source, id=f"step-{i}") for i, source in enumerate(sources)),
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    (folder / "notebooks").mkdir(exist_ok=True)
    path = folder / "notebooks" / f"{name}.ipynb"
    nbformat.write(new_notebook(cells=cells, metadata=kernel), path)
    return path


def enter(folder, patch):
    (folder / "run_all.sh").touch()
    patch.chdir(folder)
    for variable in ("FIGURES", "RUNS", "DATA", "JOBS"):
        patch.delenv(f"NORMKIT_{variable}", raising=False)


def run(*words):
    """Exit code, standard output, standard error of `python -m normkit run`."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(["run", *words])
    return code, out.getvalue(), err.getvalue()


@pytest.fixture
def project(tmp_path, monkeypatch):
    enter(tmp_path, monkeypatch)
    write(tmp_path, "01_alpha", DRAW)
    write(tmp_path, "03_norm_decay", "x = 1", parameters='profile = "quick"\nn = 3\n')
    return tmp_path


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """A project after a run with one good notebook, one that raises, one whose kernel dies."""
    folder = tmp_path_factory.mktemp("a project")
    with pytest.MonkeyPatch.context() as patch:
        enter(folder, patch)
        write(folder, "01_alpha", DRAW)
        write(folder, "02_beta", "1 / 0", "print('later')")
        write(folder, "03_gamma", "import os", "os._exit(7)")
        words = ["--set", "alpha.seeds=[3]", "--set", "alpha.radius=1/4", "--jobs", "3"]
        yield folder, run("--profile", "smoke", *words)


def done(project, name="alpha", **changes):
    """Mark a notebook as executed in profile smoke, without executing it."""
    folders = workbook.Folders()
    [task] = workbook.plan(folders, "smoke", only=[name])
    figures = folders.figures / "smoke" / task.notebook.topic
    figures.mkdir(parents=True, exist_ok=True)
    (figures / "x.png").write_bytes(b"picture")
    saved = state.inputs(task.notebook, task.parameters)
    saved |= {"state": "done", "data": {}, "figures": state.outputs(figures)} | changes
    state.write(folders.kept("smoke") / f"{task.notebook.name}.json", saved)
    return folders.kept("smoke") / f"{task.notebook.name}.json"


def reasons(**options):
    [task] = workbook.plan(workbook.Folders(), "smoke", only=["alpha"], **options)
    return list(task.reasons)


BAD = {
    "profile": (["--profile", "smok"], ["'smok'", "'smoke'"]),
    "notebook": (["--only", "alpa"], ["'alpa'", "'alpha'"]),
    "claim": (["--only", "ln.densty"], ["'ln.densty'", "'ln.density'"]),
    "claim without notebook": (["--only", "en.energy"], ["'en.energy'", "'enorm'"]),
    "form": (["--set", "alpha.seeds"], ["NOTEBOOK.parameter=value"]),
    "set notebook": (["--set", "alpa.seeds=[1]"], ["'alpa'", "'alpha'"]),
    "set not selected": (["--only", "alpha", "--set", "norm_decay.n=4"], ["'norm_decay'"]),
    "parameter": (["--set", "alpha.sees=[1]"], ["'sees'", "'seeds'", "01_alpha"]),
    "type list": (["--set", "alpha.seeds=3"], ["alpha.seeds", "list", "[0, 1]", "'3'"]),
    "type item": (["--set", "alpha.seeds=['a']"], ["alpha.seeds", "[0, 1]"]),
    "type float": (["--set", "alpha.radius=wide"], ["alpha.radius", "float", "'wide'"]),
    "type bool": (["--set", "norm_decay.n=True"], ["norm_decay.n", "int", "'True'"]),
    "declared type": (["--set", "alpha.epochs=abc"], ["alpha.epochs", "int or None", "'abc'"]),
    "declared list": (["--set", "alpha.places=3"], ["alpha.places", "list[int] or None", "'3'"]),
    "profile by set": (["--set", "alpha.profile=smoke"], ["--profile"]),
    "jobs": (["--jobs", "0"], ["--jobs", "0", "1 or more"]),
    "device": (["--device", "cud"], ["'cud'", "'cuda'"]),
}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_exist_is_refused_in_one_sentence_before_any_work(project, case):
    words, named = BAD[case]
    code, out, err = run(*(["--profile", "smoke"] if case != "profile" else []), *words)
    assert code == 2 and not out and err.count("\n") == 1, err
    assert all(name in err for name in named), err
    assert not (project / "runs").exists() and not (project / "figures").exists()


def test_a_notebook_is_found_by_name_by_topic_and_by_claim(project):
    for word in ("03_norm_decay", "norm_decay", "ln.density"):
        code, out, _ = run("--list", "--profile", "smoke", "--only", word)
        assert code == 0 and "03_norm_decay" in out and "01_alpha" not in out, word
    _, out, _ = run("--list", "--profile", "smoke", "--only", "alpha,ln.density")
    assert "03_norm_decay" in out and "01_alpha" in out


def test_values_take_the_type_of_the_default(project):
    words = ["alpha.radius=1", "alpha.label=7", "alpha.seeds=[]", "alpha.epochs=3"]
    words += ["alpha.places=[2]"]
    [task] = workbook.plan(workbook.Folders(), "smoke", only=["alpha"], settings=words)
    given = {"radius": 1.0, "label": "7", "seeds": [], "epochs": 3, "places": [2]}
    assert task.parameters == {"profile": "smoke"} | given
    assert isinstance(task.parameters["radius"], float)


def test_a_device_is_given_only_to_notebooks_that_have_one(project):
    tasks = workbook.plan(workbook.Folders(), "smoke", device="cpu")
    assert [task.parameters.get("device") for task in tasks] == ["cpu", None]


@pytest.mark.parametrize(
    ("text", "named"),
    [("{", "not a notebook"), ('{"cells": []}', "'profile'"), ("[1]", "not a notebook")],
)
def test_a_file_that_is_no_notebook_is_named(project, text, named):
    (project / "notebooks" / "07_odd.ipynb").write_text(text)
    code, _, err = run("--profile", "smoke")
    assert code == 2 and "07_odd.ipynb" in err and named in err


def test_nothing_is_stale_after_a_run(project):
    assert reasons() == ["never run"]
    done(project)
    assert reasons() == []
    assert reasons(force=True) == ["forced"]


def test_every_change_is_named(project):
    path = done(project)
    saved = json.loads(path.read_text())

    def after(section, name, value):
        changed = json.loads(json.dumps(saved))
        changed[section][name] = value
        path.write_text(json.dumps(changed))
        return reasons()

    assert after("code", "step-0", "old") == ["cell step-0 changed"]
    assert after("code", "gone", "old") == ["cell gone removed"]
    assert after("text", "title", "old") == ["text of cell title changed"]
    assert after("modules", "normkit.plots.style", "old") == ["module normkit.plots.style changed"]
    assert after("files", "plots/normkit.mplstyle", "old") == [
        "file plots/normkit.mplstyle changed"
    ]
    assert after("versions", "torch", "1.0")[0].startswith("torch: 1.0 -> ")
    assert after("data", "digits", "old") == ["data set digits changed"]
    assert after("figures", "x.png", "old") == ["figure x.png altered"]
    assert after("figures", "y.png", "old") == ["figure y.png missing"]
    assert after("parameters", "seeds", [5]) == ["parameter seeds: [5] -> [0, 1]"]


def test_edits_of_the_notebook_are_seen(project):
    done(project)
    write(project, "01_alpha", DRAW + "# more")
    assert reasons() == ["cell step-0 changed"]
    write(project, "01_alpha", DRAW, "new = 1")
    assert reasons() == ["cell step-1 added"]


def test_cells_in_another_order_are_a_change(project):
    write(project, "01_alpha", "x = 1", "y = 2")
    path = done(project)
    saved = json.loads(path.read_text())
    saved["code"] = dict(reversed(saved["code"].items()))
    path.write_text(json.dumps(saved))
    assert reasons() == ["cells in another order"]


def test_a_parameter_set_once_is_seen_when_it_is_gone(project):
    done(project)
    assert reasons(settings=["alpha.seeds=[0]"]) == ["parameter seeds: [0, 1] -> [0]"]


def test_a_list_says_why_and_executes_nothing(project):
    done(project)
    (project / "figures/smoke/alpha/x.png").unlink()
    write(project, "01_alpha", DRAW + "#")
    code, out, _ = run("--list", "--profile", "smoke")
    assert code == 0
    assert "cell step-0 changed (+1 more)" in out and "never run" in out
    assert not (project / "figures/smoke/alpha/x.csv").exists()


def test_an_unreadable_state_means_never_run(project):
    done(project).write_text('{"state": "do')
    assert reasons() == ["never run"]


def test_a_notebook_depends_on_what_it_imports_and_not_on_its_neighbors():
    def modules(source):
        return set(dependencies(ast.parse(source)))

    assert not modules("import numpy")
    own = modules("from normkit.plots import norm_decay, save")
    assert {"normkit.plots.norm_decay", "normkit.plots.style"} <= own
    assert "normkit.plots.beyond_batchnorm" not in own
    assert modules("import normkit.plots as p\np.norm_decay, p.save") == own
    assert modules("from normkit import plots\nplots.norm_decay, plots.save") == own
    paper = modules("from normkit.papers import norm_decay")
    assert {"normkit.training.loop", "normkit.papers.norm_decay"} <= paper
    assert not [name for name in paper if "beyond_batchnorm" in name]


def test_the_data_sets_of_a_notebook_are_those_it_names(project):
    write(project, "05_own", "from normkit import data\ndata.load('digits')")
    [book] = [book for book in workbook.find(project) if book.topic == "own"]
    assert datasets.used(book, {"profile": "cifar10"}) == ("digits",)
    assert datasets.used(book, {"profile": "quick", "label": "mnist"}) == ("digits", "mnist")


def test_data_are_read_again_only_when_their_files_changed(project, monkeypatch):
    cache = project / "data.json"
    first = datasets.fingerprints(["digits", "mnist"], cache)
    assert len(first["digits"]) == 64 and first["mnist"] is None, "mnist is not there"
    kept = json.loads(cache.read_text())
    kept["digits"]["fingerprint"] = "kept"
    cache.write_text(json.dumps(kept))
    assert datasets.fingerprints(["digits"], cache) == {"digits": "kept"}
    monkeypatch.setenv("NORMKIT_DATA", str(project))
    assert datasets.fingerprints(["digits"], cache) == {"digits": first["digits"]}


def test_parameters_reach_the_notebook(executed):
    folder, _ = executed
    assert (folder / "figures/smoke/alpha/x.csv").read_text() == "smoke [3] 0.25 3"


def test_one_failure_does_not_stop_the_others_and_is_told_whole(executed):
    folder, (code, out, err) = executed
    assert code == 1
    states = {line.split()[0]: line.split()[1] for line in out.splitlines() if line[:1] == "0"}
    assert states == {"01_alpha": "ran", "02_beta": "failed", "03_gamma": "failed"}
    assert "cell step-0: ZeroDivisionError: division by zero" in err
    assert "cell step-1: the kernel died" in err
    for name in ("02_beta", "03_gamma"):
        copy = folder / "runs/workbook/smoke" / f"{name}.ipynb"
        assert f"executed notebook: {copy}" in err
        assert nbformat.read(copy, 4).cells


def test_the_closing_lines_say_where_the_figures_are_and_count_the_verdicts(executed):
    folder, (_, out, _) = executed
    assert f"figures: {folder / 'figures' / 'smoke'}" in out
    assert "33 not run" in out and (folder / "figures/smoke/claims.md").is_file()


def test_only_whole_files_are_left(executed):
    folder, _ = executed
    kept = sorted(path.name for path in (folder / "runs/workbook/smoke").iterdir())
    names = ("01_alpha", "02_beta", "03_gamma")
    assert kept == [f"{name}.{ending}" for name in names for ending in ("ipynb", "json")]
    assert "outputs" not in (folder / "notebooks/01_alpha.ipynb").read_text() or not any(
        cell.get("outputs") for cell in nbformat.read(folder / "notebooks/01_alpha.ipynb", 4).cells
    ), "the source stays as it is"


def test_a_failed_notebook_runs_again_and_says_so(executed):
    _, out, _ = run("--list", "--profile", "smoke", "--only", "beta")
    assert "would run" in out and "the last run failed (cell step-0: ZeroDivisionError" in out


def test_a_second_run_executes_nothing_and_does_not_import_torch(executed):
    words = ["run", "--profile", "smoke", "--only", "alpha", "--set", "alpha.seeds=[3]"]
    words += ["--set", "alpha.radius=.25"]
    program = f"import sys; from normkit.__main__ import main; code = main({words}); "
    program += "sys.exit(code or 'torch' in sys.modules or 'papermill' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "up to date" in result.stdout


def test_a_kernel_that_does_not_start_is_tried_once_more(project, monkeypatch):
    flaky = project / "flaky.py"
    flaky.write_text(
        "import pathlib, runpy, sys\n"
        f"path = pathlib.Path({str(project / 'starts')!r})\n"
        "path.write_text(path.read_text() + 'x' if path.exists() else 'x')\n"
        "if len(path.read_text()) == 1: sys.exit(1)\n"
        "runpy.run_module('ipykernel_launcher', run_name='__main__')\n"
    )
    spec = project / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True)
    argv = [sys.executable, str(flaky), "-f", "{connection_file}"]
    spec.write_text(json.dumps({"argv": argv, "display_name": "flaky", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(project))
    code, _, err = run("--profile", "smoke", "--only", "norm_decay", "--jobs", "1")
    assert code == 0, err
    assert (project / "starts").read_text() == "xx"


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_stopped_leaves_no_process_and_no_result(project, how):
    source = f"open({str(project / 'pid')!r}, 'w').write(str(os.getpid()))\n"
    write(project, "02_slow", f"import os, time\n{source}time.sleep(60)")
    words = [sys.executable, "-m", "normkit", "run", "--profile", "smoke", "--only", "slow"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as runner:
        file = project / "pid"
        wait_for(lambda: runner.poll() is not None or file.exists() and file.read_text(), 60)
        runner.send_signal(how)
        said = runner.communicate(timeout=30)[0]
    assert file.exists(), said
    assert runner.returncode == (143 if how == signal.SIGTERM else -how)
    kernel = int((project / "pid").read_text())
    wait_for(lambda: not alive(kernel), 15)
    kept = [path.name for path in (project / "runs/workbook/smoke").iterdir()]
    assert kept == ["02_slow.json"]
    _, out, _ = run("--list", "--profile", "smoke", "--only", "slow")
    assert "the last run did not finish" in out


def wait_for(condition, seconds):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)


def alive(process):
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("variable", ["NORMKIT_FIGURES", "NORMKIT_RUNS"])
def test_a_folder_that_cannot_be_written_is_named_before_any_work(project, monkeypatch, variable):
    (project / "file").touch()
    monkeypatch.setenv(variable, str(project / "file" / "folder"))
    code, out, err = run("--profile", "smoke")
    assert code == 1 and not out
    assert err.count("\n") == 1 and variable in err and str(project / "file") in err


def test_a_run_is_forced_only_where_it_is_asked_for(project):
    done(project)
    done(project, "norm_decay")
    tasks = workbook.plan(workbook.Folders(), "smoke", only=["alpha"], force=True)
    assert [task.reasons for task in tasks] == [("forced",)]
    assert [task.reasons for task in workbook.plan(workbook.Folders(), "smoke")] == [(), ()]


SLEEP = """import json, os, time
from pathlib import Path
start = time.time()
time.sleep(3)
told = [start, time.time(), os.environ.get("NORMKIT_PLACES")]
Path(os.environ["NORMKIT_RUNS"], f"{label}.json").write_text(json.dumps(told))
"""


def test_two_notebooks_are_executed_at_a_time_and_share_their_places(tmp_path, monkeypatch):
    enter(tmp_path, monkeypatch)
    for index, letter in enumerate("abc"):
        given = PARAMETERS.replace('label = "a"', f'label = "{letter}"')
        write(tmp_path, f"0{index}_{letter}", SLEEP, parameters=given)
    code, out, err = run("--profile", "smoke")
    assert code == 0, err
    seen = [json.loads((tmp_path / "runs" / f"{letter}.json").read_text()) for letter in "abc"]
    busy = [sum(start <= at < end for start, end, _ in seen) for at, _, _ in seen]
    assert max(busy) == 2
    assert len({places for *_, places in seen}) == 1 and seen[0][2] is not None
    assert [line[:4] for line in out.splitlines()[1:4]] == ["00_a", "01_b", "02_c"]
    assert not os.path.exists(seen[0][2])
