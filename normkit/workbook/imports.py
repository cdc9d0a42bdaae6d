"""Which modules of normkit a notebook depends on, found without importing any of them."""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import normkit

from ..records import code_hashes
from ..records.code import normkit_imports, syntax_tree

__all__ = ["ROOT", "dependencies"]

ROOT = Path(normkit.__file__).parent
GATHERING = ("normkit.papers", "normkit.plots")


def dependencies(tree: ast.Module) -> dict[str, str]:
    """The modules that code imports, directly or through others, with their hashes.

    The packages `papers` and `plots` only gather modules that know nothing of one another: who
    uses one of them, or a name that they pass on, does not depend on its neighbors.

    Arguments:
        tree: the code cells of a notebook.

    Returns:
        dotted name -> hash of the syntax tree without docstrings.

    Example:
        >>> found = dependencies(ast.parse("from normkit import plots; plots.style"))
        >>> "normkit.plots.style" in found, "normkit.plots.norm_decay" in found
        (True, False)
    """
    found: set[str] = set()
    waiting = [*_imported(tree, "normkit")]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        parent = name.rpartition(".")[0]
        waiting += [parent] if parent else []
        if name not in GATHERING:
            waiting += _needed(name)
    return {name: value for name, value in code_hashes(*found).items() if name in found}


@functools.cache
def _needed(name: str) -> list[str]:
    """What a module imports, directly."""
    path = _file(name)
    package = name if path.stem == "__init__" else name.rpartition(".")[0]
    return list(_imported(_parse(path), package))


def _imported(tree: ast.AST, package: str) -> Iterator[str]:
    yield from normkit_imports(tree, package)
    for gathering in GATHERING:
        passed_on = None
        for name in _used(tree, gathering):
            passed_on = _passed_on(gathering) if passed_on is None else passed_on
            yield from passed_on.get(name, [])


def _used(tree: ast.AST, package: str) -> Iterator[str]:
    """Names taken from a package: imported from it, or attributes of it."""
    last = package.rpartition(".")[2]
    aliases = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in (package, last):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            named = [a for a in node.names if a.name in (package, last)]
            aliases |= {alias.asname or last for alias in named}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in (*aliases, package):
            yield node.attr


@functools.cache
def _passed_on(package: str) -> dict[str, list[str]]:
    """Name in a package's `__init__` -> the modules that its import statement reaches."""
    found = {}
    for node in _parse(_file(package)).body:
        for alias in node.names if isinstance(node, ast.ImportFrom) else ():
            single = ast.ImportFrom(node.module, [alias], node.level)
            found[alias.asname or alias.name] = normkit_imports(single, package)
    return found


def _file(name: str) -> Path:
    inside = ROOT.joinpath(*name.split(".")[1:])
    return inside / "__init__.py" if inside.is_dir() else inside.with_suffix(".py")


def _parse(path: Path) -> ast.Module:
    return syntax_tree(path.read_bytes())
