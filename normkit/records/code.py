"""What a result depends on in the code: the import closure of a module, hashed."""

import ast
import functools
import hashlib
import importlib.util
import threading
from pathlib import Path

__all__ = ["code_hashes", "normkit_imports", "syntax_tree"]

PACKAGE = "normkit"
_PARSING = threading.Lock()


@functools.cache
def code_hashes(*modules: str) -> dict[str, str]:
    """Hash every normkit module that `modules` import, directly or through others.

    The source is hashed as its syntax tree without docstrings, so comments, layout and prose
    change nothing; a changed constant, default or operator does. Nothing is imported. A process
    hashes once: it goes on running the code that it has loaded, whatever the files say later.

    Arguments:
        modules: dotted names inside the package.

    Returns:
        dotted name -> 16 hexadecimal digits, sorted by name.

    Raises:
        ModuleNotFoundError: if a name is no module of the package.

    Example:
        >>> found = code_hashes("normkit.records.store")
        >>> "normkit.records.files" in found, "normkit.training" in found
        (True, False)
    """
    found: dict[str, str] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name], needed = _module(name)
            waiting += needed
    return dict(sorted(found.items()))


@functools.cache
def _module(name: str) -> tuple[str, list[str]]:
    """The hash of a module, and which modules it cannot do without."""
    path = _path(name)
    if path is None:
        raise ModuleNotFoundError(f"module {name!r} is not part of {PACKAGE}")
    tree = syntax_tree(path.read_bytes())
    needed = normkit_imports(tree, name if path.stem == "__init__" else _parent(name))
    return _hash(tree), needed + ([_parent(name)] if "." in name else [])


def syntax_tree(source: str | bytes, mode: str = "exec") -> ast.Module | ast.Expression:
    """Parse Python, one thread at a time: CPython 3.11 counts the depth of all threads together.

    Raises:
        SyntaxError: if the source is not Python.
    """
    with _PARSING:
        return ast.parse(source, mode=mode)


def normkit_imports(tree: ast.AST, package: str = PACKAGE) -> list[str]:
    """Dotted names of the normkit modules that a syntax tree imports.

    Arguments:
        tree: of a module, or of a notebook's cells.
        package: what relative imports start from.
    """
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parent = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join(parent + ([node.module] if node.module else []))
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return [n for n in names if n.split(".")[0] == PACKAGE and _path(n) is not None]


def _parent(name: str) -> str:
    return name.rpartition(".")[0]


@functools.cache
def _root() -> Path:
    return Path(importlib.util.find_spec(PACKAGE).origin).parent


def _path(name: str) -> Path | None:
    inside = _root().joinpath(*name.split(".")[1:])
    for path in (inside / "__init__.py", inside.with_suffix(".py")):
        if path.is_file():
            return path
    return None


def _hash(tree: ast.Module) -> str:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, kinds) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return hashlib.sha256(ast.unparse(tree).encode()).hexdigest()[:16]
