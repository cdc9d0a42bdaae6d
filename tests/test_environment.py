"""environment.yml says for conda what pyproject.toml says for pip."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
RENAMED = {"torch": "pytorch", "matplotlib": "matplotlib-base"}


@pytest.fixture(scope="module")
def environment():
    return yaml.safe_load((ROOT / "environment.yml").read_text())


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_every_dependency_stands_in_both_files_with_the_same_bound(environment, project):
    split = [re.match(r"([\w-]+)(.*)", need).groups() for need in project["dependencies"]]
    wanted = {RENAMED.get(name, name) + bound for name, bound in split}
    wanted |= {"pip", f"python{project['requires-python']}"}
    assert {need for need in environment["dependencies"] if isinstance(need, str)} == wanted


def test_conda_takes_packages_from_conda_forge_alone(environment):
    assert environment["channels"] == ["conda-forge", "nodefaults"]


def test_pip_adds_only_this_folder(environment):
    assert environment["dependencies"][-1] == {"pip": ["-e ."]}


def test_every_requirement_is_of_the_form_that_run_all_reads(project):
    every = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    odd = [need for need in every if not re.fullmatch(r"[\w-]+>=[\d.]+", need)]
    assert not odd, f"run_all.sh compares names and lower bounds only: {odd}"
