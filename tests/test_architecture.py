"""The house keeps its shape: imports point down, files and functions stay small."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import normkit

ROOT = Path(normkit.__file__).parent
PROJECT = ROOT.parent
SHELVES = {
    name: shelf
    for shelf, names in enumerate(
        [
            "norms data models attacks records plots",
            "layers penalties projections probes claims",
            "training",
            "sweep networks",
            "papers",
            "workbook widgets",
            "commands",
            "__main__",
        ]
    )
    for name in names.split()
}
FILES = sorted(ROOT.rglob("*.py"))


def _part(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def _imports(path: Path):
    """Absolute dotted names that a file imports, relative ones resolved."""
    package = ("normkit", *path.relative_to(ROOT).parent.parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down_never_sideways(path):
    mine = _part(path)
    for name in _imports(path):
        parts = name.split(".")
        if parts[0] != "normkit" or len(parts) < 2 or parts[1] == mine:
            continue
        if parts[1].startswith("__") and parts[1] != "__main__":
            continue
        assert mine != "__init__", f"{path.name} imports {name}"
        assert parts[1] in SHELVES, f"{path} imports {name}, which stands on no shelf"
        assert SHELVES[parts[1]] < SHELVES[mine], f"{path} imports {name}"


def test_every_part_stands_on_a_shelf():
    parts = {_part(path) for path in FILES} - {"__init__"}
    assert parts <= set(SHELVES), parts - set(SHELVES)


def test_figures_are_drawn_without_torch():
    code = "import sys, normkit.plots; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_is_small_documented_and_says_what_is_public(path):
    source = path.read_text()
    tree = ast.parse(source)
    assert ast.get_docstring(tree), "no module docstring"
    assert source.count("\n") <= 250, source.count("\n")
    assert max(map(len, source.splitlines())) <= 99
    assigned = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
    assert "__all__" in assigned or path.name == "__main__.py"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            docstring = ast.get_docstring(node, clean=False) or ""
            lines = node.end_lineno - node.lineno + 1 - (docstring.count("\n") + bool(docstring))
            assert lines <= 30, (node.name, lines)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_public_name_has_a_docstring(path):
    tree = ast.parse(path.read_text())
    named = [
        n
        for n in tree.body
        if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "__all__"
    ]
    public = set(ast.literal_eval(named[0].value)) if named else set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name in public:
            assert ast.get_docstring(node), node.name
