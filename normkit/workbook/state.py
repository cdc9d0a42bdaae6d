"""What an executed notebook depended on and what it left: the ground for calling it stale."""

import ast
import hashlib
import json
import sys
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..records import replace
from ..records.code import syntax_tree
from ..records.files import read_json
from .imports import ROOT, dependencies
from .notebook import Notebook

__all__ = ["inputs", "outputs", "read", "reasons", "syntax", "write"]

LIBRARIES = ("matplotlib", "numpy", "torch")
NEEDED = {"parameters", "code", "modules", "files", "text", "versions", "data", "figures"}


def inputs(notebook: Notebook, parameters: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Everything but the data that a notebook's result depends on, named and hashed.

    Arguments:
        notebook: the source.
        parameters: those that differ from the notebook's defaults.

    Returns:
        section -> name -> value. The sections are parameters, code and text (cells), modules
        (every module of normkit that the code cells import, directly or through others), files
        (what else lies beside those modules) and versions.
    """
    modules = dependencies(syntax(notebook))
    content = {
        "parameters": notebook.defaults | parameters,
        "code": {key: _sha(source.encode()) for key, source in notebook.code.items()},
        "modules": modules,
        "files": _beside(modules),
        "text": {key: _sha(source.encode()) for key, source in notebook.text.items()},
        "versions": {"python": "{}.{}".format(*sys.version_info)}
        | {name: version(name) for name in LIBRARIES},
    }
    return json.loads(json.dumps(content))


def outputs(folder: Path) -> dict[str, str]:
    """The files that a notebook left in its folder of figures: name -> hash."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): _sha(path.read_bytes()) for path in files}


def reasons(saved: dict[str, Any], now: dict[str, dict[str, Any]]) -> list[str]:
    """Why what was saved no longer holds, the most telling first; empty if it does.

    Arguments:
        saved: what `read` returned.
        now: the sections of `inputs`, and `data` and `figures`, as they are.

    Example:
        >>> before = {"state": "done", "modules": {"normkit.data": "a"}, "figures": {"x.png": "b"}}
        >>> reasons(before, {"modules": {"normkit.data": "c"}, "figures": {}})
        ['module normkit.data changed', 'figure x.png missing']
    """
    state = saved.get("state")
    if state is None:
        return ["never run"]
    if state != "done":
        return [state]
    found = [line for name in now for line in _differences(name, saved.get(name, {}), now[name])]
    if not found and list(saved["code"]) != list(now["code"]):
        return ["cells in another order"]
    return found


def read(path: Path) -> dict[str, Any]:
    """The state that `path` holds; empty where there is none, or none that can be read."""
    try:
        content = read_json(path)
        sound = isinstance(content["state"], str)
        sound &= all(isinstance(content[name], dict) for name in content if name != "state")
        sound &= content["state"] != "done" or content.keys() >= NEEDED
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}
    return content if sound else {}


def write(path: Path, content: dict[str, Any]) -> None:
    """Keep a state: all of it, or what was there before."""
    replace(path, json.dumps(content, indent=1))


def syntax(notebook: Notebook) -> ast.Module:
    """The code cells as one syntax tree; a cell that is not plain Python counts as empty."""
    body: list[ast.stmt] = []
    for source in notebook.code.values():
        try:
            body += syntax_tree(source).body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
    return ast.Module(body, [])


def _differences(section: str, old: dict[str, Any], new: dict[str, Any]) -> Iterable[str]:
    kind = {"code": "cell", "modules": "module", "files": "file", "text": "text of cell"}
    kind["data"] = "data set"
    for name in [*old, *(name for name in new if name not in old)]:
        before, after = old.get(name), new.get(name)
        if before == after and (name in old) == (name in new):
            continue
        if section in ("parameters", "versions"):
            what = "parameter " if section == "parameters" else ""
            yield f"{what}{name}: {before} -> {after}"
        elif section == "figures":
            if before is not None:
                yield f"figure {name} {'missing' if after is None else 'altered'}"
        else:
            what = "added" if before is None else "removed" if after is None else "changed"
            yield f"{kind[section]} {name} {what}"


def _beside(modules: Iterable[str]) -> dict[str, str]:
    folders = {ROOT.joinpath(*name.split(".")[1:]) for name in modules}
    folders = {folder if folder.is_dir() else folder.parent for folder in folders}
    files = [p for folder in sorted(folders) for p in sorted(folder.iterdir()) if p.is_file()]
    kept = [p for p in files if p.suffix not in (".py", ".pyc") and not p.name.startswith(".")]
    return {path.relative_to(ROOT).as_posix(): _sha(path.read_bytes()) for path in kept}


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
