"""README.md does what it says: its code runs as written, its links and names exist."""

import ast
import contextlib
import functools
import io
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import safetensors.torch
import torch
from torch import nn

from normkit import data, layers, models, papers, training, widgets
from normkit.__main__ import main
from normkit.widgets.claim_recipes import RECIPES

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()
KEY = "KEY_OR_CHECKPOINT"
COMPILED = {"dask_jobqueue": "needs a cluster under Slurm: the code is only compiled"}
SKIPPED = {
    "jupyter lab": "starts a server",
    "pip install": "needs a network",
    "dask scheduler": "starts a server",
    "dask worker": "waits for a scheduler on another machine",
}
TINY = ["epochs=1", "subset=64", "evaluation.images=16", "norms=", "final_norms="]
MORE = {  # words behind a line's own
    ("train",): [*TINY, *([] if data.locate("cifar10") else ["dataset=digits"])],
    ("layers", "resnet18"): ["--norms", "l1,linf"],
    ("run",): ["--list", "--only", "00_tour"],
}


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language, from top to bottom."""
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """The lines of the shell's blocks, and what stands in the text between backticks."""
    fenced = [line for block in blocks("bash") for line in block.splitlines()]
    plain = re.sub(r"^```.*?^```$", "", TEXT, flags=re.MULTILINE | re.DOTALL)
    spans = re.findall(r"`((?:\./run_all\.sh|python|benchmarks/)[^`]+)`", plain)
    return [" ".join(shlex.split(line, comments=True)) for line in [*fenced, *spans]]


PYTHON = blocks("python")
COMMANDS = list(dict.fromkeys(commands()))
OURS = [line for line in COMMANDS if line.startswith("python -m normkit ")]
SCRIPT = [line for line in COMMANDS if line.startswith("./run_all.sh")]
MEASURED = [line for line in COMMANDS if "benchmarks/" in line.split(" -")[0]]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """An empty folder to work in, and folders of its own for what is written."""
    monkeypatch.setenv("NORMKIT_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("NORMKIT_FIGURES", str(tmp_path / "figures"))
    monkeypatch.chdir(tmp_path)


def reader() -> dict:
    """What a reader has before a block: a net, an optimizer, images, a layer, a checkpoint."""
    torch.manual_seed(0)
    model = models.build("resnet8", width=8)
    batches = [(torch.rand(4, 3, 32, 32), torch.randint(10, (4,))) for _ in range(2)]
    with torch.no_grad():
        model.eval()
        model.head.bias -= model(batches[0][0]).mean(0)  # classes are close: attacks end soon
        labels = model(batches[0][0]).argmax(1)  # and no image is wrong before it is attacked
        model.train()
    other = models.build("resnet8", width=4)
    safetensors.torch.save_file(other.state_dict(), "checkpoint.safetensors")
    return {
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9),
        "batches": batches,
        "images": batches[0][0],
        "labels": labels,
        "conv": nn.Conv2d(3, 8, 3, padding=1),
        "epochs": 1,
    }


def imports(block: str) -> str:
    kinds = ast.Import | ast.ImportFrom
    kept = [node for node in ast.parse(block).body if isinstance(node, kinds)]
    return ast.unparse(ast.Module(kept, []))


def compiled_only(block: str) -> bool:
    return any(name in block for name in COMPILED)


def values(block: str, names: dict) -> dict[str, object]:
    """What each line that is an expression gives, as the block is executed from top to bottom."""
    found = {}
    for node in ast.parse(block).body:
        if isinstance(node, ast.Expr):
            code = compile(ast.Expression(node.value), "README.md", "eval")
            found[ast.unparse(node)] = value = eval(code, names)
            if isinstance(value, widgets.Explorer):
                value.panel.wait(60)  # as a notebook does that shows it
        else:
            exec(compile(ast.Module([node], []), "README.md", "exec"), names)
    return found


@functools.cache
def executed(block: str) -> tuple[dict, dict[str, object], str]:
    """The names after a block, its values, what it printed.

    What blocks above it have imported is at hand.
    """
    names, printed = reader(), io.StringIO()
    for above in PYTHON[: PYTHON.index(block)]:
        if not compiled_only(above):
            exec(imports(above), names)
    with contextlib.redirect_stdout(printed):
        found = values(block, names)
    return names, found, printed.getvalue()


def block_with(text: str) -> str:
    [block] = [block for block in PYTHON if text in block]
    return block


@pytest.mark.parametrize("number", range(len(PYTHON)))
def test_a_block_of_python_runs_as_written(number):
    if compiled_only(PYTHON[number]):
        compile(PYTHON[number], "README.md", "exec")
        return
    _, found, _ = executed(PYTHON[number])
    for line, value in found.items():
        if isinstance(value, widgets.Explorer):
            assert value.panel.shown is not None, (line, value.panel.state.value)
            value.panel.close()
        if isinstance(value, pd.DataFrame) and "status" in value:
            assert (value.status == "ok").all(), (line, value)


def test_the_loop_trains_with_both_methods_and_prints_every_layer():
    names, _, printed = executed(block_with("epoch in range(epochs)"))
    assert all(name in printed for name in ("conv1", "fc", "linf")), printed
    assert not names["decay"].skipped and len(names["enorm"].groups)
    moved = names["optimizer"].state[names["model"].conv1.weight]["momentum_buffer"]
    assert moved.any()


def test_the_methods_that_do_not_go_together_say_so():
    names, _, _ = executed(block_with("model = layers.convert(resnet18(num_classes=10))"))
    with pytest.raises(ValueError, match="no hidden unit that can be rescaled"):
        names["projections"].ENorm(names["model"])
    decay = names["penalties"].NormDecay(names["model"], norm="linf")
    names["model"](names["images"]).sum().backward()
    with pytest.raises(ValueError, match="ConvNorm2d as executed is no convolution"):
        decay.step()


def test_projections_keep_the_bounds_of_their_block():
    names, _, _ = executed(block_with("project_norms_"))
    norms, model = names["norms"], names["model"]
    table = norms.layer_table(model, (3, 32, 32), norms=["linf"])
    bound = table[table.kind == "batch_norm"].value.max()
    assert bound <= 1 + 1e-6, bound
    spectral = norms.spectral_norm(model.stem.convolution, (32, 32), boundary="circular")
    assert spectral.upper <= 1 + 1e-2, spectral


def test_conv_norm_keeps_the_bounds_of_its_block():
    _, found, _ = executed(block_with("conv.core()"))
    [bracket] = [value for line, value in found.items() if "conv.core()" in line]
    assert 1 - 1e-4 <= bracket.lower <= bracket.upper <= 128**0.5, bracket


def test_adversarial_images_stay_in_the_ball():
    names, _, _ = executed(block_with("attacks.pgd"))
    reach = (names["adversarial"] - names["images"]).abs().max()
    assert 0 < reach <= 8 / 255 + 1e-6, reach


def quietly(words: list[str]) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of a command."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main(words)
        except SystemExit as stop:
            status = stop.code
    return status, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder of runs that holds a single small one."""
    folder = tmp_path_factory.mktemp("trained")
    words = ["train", "--store", str(folder), "--set", *TINY, "width=4"]
    status, _, err = quietly(words)
    assert status == 0, err
    return folder


@pytest.mark.parametrize("line", OURS)
def test_a_command_of_ours_runs(line, trained, tmp_path, monkeypatch):
    shutil.copytree(trained, tmp_path / "runs")
    [key] = [path.name for path in trained.iterdir() if not path.name.startswith(".")]
    words = line.replace(KEY, key).split()[3:]
    more = sum((MORE[start] for start in MORE if tuple(words[: len(start)]) == start), [])
    if words[0] == "train":
        asked = training.from_settings(words[2:])  # the line's own words are a configuration
        assert asked != training.TrainConfig()
    if words[0] == "run":
        monkeypatch.chdir(ROOT)
    status, out, err = quietly([*words, *more])
    assert status == 0 and out, err
    if words[0] == "train":
        assert "1 of 1 epochs, ok" in out
    if "--csv" in words:
        assert len(pd.read_csv(words[words.index("--csv") + 1])) > 20


@pytest.fixture
def stand_in(tmp_path):
    """A Python that lacks nothing and prints the words that it is given."""
    path = tmp_path / "bin" / "python"
    path.parent.mkdir()
    path.write_text('#!/usr/bin/env bash\n[ "$1" = - ] || printf "%s\\n" "$@"\n')
    path.chmod(0o755)
    return path


@pytest.mark.skipif(os.name == "nt", reason="a shell script")
@pytest.mark.parametrize("line", SCRIPT)
def test_the_script_takes_its_options_and_passes_them_on(line, stand_in, monkeypatch):
    words = line.split()[1:]
    path = f"{stand_in.parent}{os.pathsep}{os.environ['PATH']}"
    given = {"PATH": path, "HOME": str(Path.cwd())}
    told = subprocess.run(
        [ROOT / "run_all.sh", *words], env=given, capture_output=True, text=True
    )
    assert told.returncode == 0, told.stderr
    if "--help" in words:
        assert "--profile" in told.stdout
        return
    passed = told.stdout.split()
    if "--test" in words:
        assert passed[:2] == ["-m", "pytest"]
        return
    assert passed == ["-m", "normkit", "run", *words]
    monkeypatch.chdir(ROOT)
    one = [] if {"--only", "--set"} & {*words} else ["--only", "00_tour"]
    status, out, err = quietly([*passed[2:], *one, "--list"])
    assert status == 0 and "notebook" in out, err
    assert "would run" in out and "hours" in out, out


@pytest.mark.parametrize("line", MEASURED)
def test_a_benchmark_is_there_and_takes_its_options(line, monkeypatch, capsys):
    words = line.removeprefix("python ").split()
    monkeypatch.setattr(sys, "argv", [*words, "--help"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(ROOT / words[0]), run_name="__main__")
    assert stop.value.code == 0, capsys.readouterr().err


def test_every_line_of_the_shell_is_run_or_left_out_for_a_reason():
    left = [line for line in COMMANDS if line not in {*OURS, *SCRIPT, *MEASURED}]
    unknown = [line for line in left if not line.startswith(tuple(SKIPPED))]
    assert not unknown, unknown
    unused = [start for start in SKIPPED if not any(line.startswith(start) for line in left)]
    assert not unused, unused
    assert all(any(name in block for block in PYTHON) for name in COMPILED)


def test_every_link_and_picture_is_there():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", TEXT) if "://" not in link]
    gone = [link for link in links if not (ROOT / link.partition("#")[0]).exists()]
    assert len(links) > 20 and not gone, gone
    places = [link.split("#") for link in links if "#" in link]
    lost = [place for file, place in places if f'id="{place}"' not in (ROOT / file).read_text()]
    assert not lost, lost


def test_every_file_notebook_and_profile_is_there():
    notebooks = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    named = set(re.findall(r"`(?:notebooks/)?(\d\d_\w+)(?:\.ipynb)?`", TEXT))
    assert named and named <= notebooks, named - notebooks
    files = re.findall(r"`((?:[\w/]+/)?[\w.]+\.(?:py|sh|yml|cff|ipynb))`", TEXT)
    gone = [name for name in files if not (ROOT / name).is_file()]
    assert files and not gone, gone
    rows = re.findall(r"^\| `(\w+)`(?: \(default\))? \|", TEXT, re.MULTILINE)
    assert {row for row in rows if row[0].isdigit()} == notebooks
    assert [row for row in rows if not row[0].isdigit()] == list(papers.PROFILES)


def listed(title: str, end: str) -> list[str]:
    """The names between backticks from a title to an end."""
    return re.findall(r"`(\w+)`", TEXT.partition(f"{title}: ")[2].partition(end)[0])


def test_the_normalizations_and_convolutions_are_all_of_them():
    assert sorted(listed("Normalizations", ";")) == sorted(layers.NORMALIZATIONS)
    assert sorted(listed("convolutions", ";")) == sorted(layers.CONVOLUTIONS)


@pytest.mark.parametrize("name", listed("nets", ", of any width"))
def test_a_net_has_that_name_and_any_width(name):
    images = torch.rand(2, 3, 32, 32)
    widths = [models.build(name, width=width)(images).shape[0] for width in (8, 16)]
    assert widths == [2, 2]


def test_the_readme_counts_claims_right():
    assert f"The verdicts on all {len(papers.CLAIMS)} claims" in TEXT
    assert f"any of {len(RECIPES)} claims judged again" in TEXT
