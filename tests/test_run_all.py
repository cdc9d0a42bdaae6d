"""run_all.sh: what it does before there is a Python, and which one it takes."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "run_all.sh"
TOOLS = ("bash", "cat", "dirname", "env", "grep", "readlink", "rm", "tr", "uname")

pytestmark = pytest.mark.skipif(os.name == "nt", reason="a shell script")


@pytest.fixture
def bare(tmp_path):
    """A PATH with the tools that every system has, and no Python."""
    folder = tmp_path / "bare tools"
    folder.mkdir()
    for tool in TOOLS:
        (folder / tool).symlink_to(shutil.which(tool))
    return folder


def call(script, *words, path, cwd="/", **variables):
    offline = {"PIP_NO_INDEX": "1", "UV_OFFLINE": "1"}
    environment = {"PATH": str(path), "HOME": str(cwd), **offline, **variables}
    bash = shutil.which("bash")
    return subprocess.run(
        [bash, script, *words], env=environment, cwd=cwd, capture_output=True, text=True
    )


def copy_of(tmp_path, *files):
    folder = tmp_path / "a copy"
    folder.mkdir()
    for name in ("run_all.sh", "pyproject.toml", *files):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.mark.parametrize("script", [SCRIPT, ROOT / ".ci" / "run"], ids=["run_all.sh", ".ci/run"])
def test_a_script_is_sound_and_executable(script):
    subprocess.run(["bash", "-n", script], check=True)
    assert os.access(script, os.X_OK)


def test_help_needs_no_environment_and_names_every_option(bare, tmp_path):
    told = call(copy_of(tmp_path) / "run_all.sh", "--help", path=bare)
    assert told.returncode == 0 and not told.stderr
    for option in "--profile --only --set --jobs --device --force --list --test --help".split():
        assert option in told.stdout, option
    assert sorted(path.name for path in (tmp_path / "a copy").iterdir()) == [
        "pyproject.toml",
        "run_all.sh",
    ]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--profil", "smoke"], "there is no option '--profil'"),
        (["smoke"], "there is no option 'smoke'"),
        (["--only"], "--only takes a value"),
        (["--profile", "smoke", "--test"], "--test comes first"),
    ],
)
def test_a_wrong_option_is_refused_before_anything_is_made(bare, tmp_path, words, named):
    folder = copy_of(tmp_path)
    told = call(folder / "run_all.sh", *words, path=bare)
    assert told.returncode == 1 and named in told.stderr and told.stderr.count("\n") == 1
    assert not (folder / ".venv").exists()


def test_without_a_new_enough_python_one_sentence_says_so(bare, tmp_path):
    old = bare / "python3"
    old.write_text("#!/usr/bin/env bash\nexit 1\n")  # as 3.10 answers the question for 3.11
    old.chmod(0o755)
    folder = copy_of(tmp_path)
    told = call(folder / "run_all.sh", path=bare)
    assert told.returncode == 1
    assert told.stderr == (
        "run_all.sh: there is no Python 3.11 or newer on the PATH; install one, or uv, and start "
        "again\n"
    )
    assert not (folder / ".venv").exists()


@pytest.fixture
def active(bare):
    """The PATH of an active environment: the one of these tests, which has normkit from here."""
    scripts = Path(sysconfig.get_path("scripts"))
    if not (scripts / "python").exists():
        pytest.skip("the tests do not run in an environment with its own bin/python")
    return f"{scripts}{os.pathsep}{bare}"


def test_an_active_environment_is_taken_from_any_folder_and_through_a_link(active, tmp_path):
    link = tmp_path / "a link"
    link.symlink_to(SCRIPT)
    runs = {"NORMKIT_RUNS": str(tmp_path / "runs"), "NORMKIT_FIGURES": str(tmp_path / "figures")}
    told = call(link, "--list", "--profile", "smoke", path=active, cwd=tmp_path, **runs)
    assert told.returncode == 0, told.stderr
    assert "environment: " in told.stderr and "(active)" in told.stderr
    assert "never run" in told.stdout and "notebook" in told.stdout.splitlines()[0]


def test_exit_codes_pass_through(active, tmp_path):
    told = call(SCRIPT, "--only", "nothing", "--profile", "smoke", path=active, cwd=tmp_path)
    assert told.returncode == 2 and "'nothing'" in told.stderr


def test_the_test_command_passes_words_on(active, tmp_path):
    words = ["--test", "--version"]
    told = call(SCRIPT, *words, path=active, cwd=tmp_path)
    assert told.returncode == 0 and "pytest" in told.stdout + told.stderr, told.stderr


def test_an_environment_that_lacks_something_is_told_what(active, tmp_path):
    """A copy elsewhere: the active Python has no normkit from there, so it is not taken."""
    folder = copy_of(tmp_path, "README.md", "LICENSE")
    (folder / ".venv" / "bin").mkdir(parents=True)
    python = folder / ".venv" / "bin" / "python"
    python.write_text(f'#!/usr/bin/env bash\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    project = (folder / "pyproject.toml").read_text()
    (folder / "pyproject.toml").write_text(project.replace('"tqdm>=4.66"', '"tqdm>=9999"'))
    told = call(folder / "run_all.sh", "--list", path=active, cwd=tmp_path)
    assert told.returncode != 0
    assert f"environment: {python}" in told.stderr
    assert "it lacks: tqdm>=9999 normkit" in told.stderr
