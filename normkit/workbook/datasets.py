"""The data sets a notebook used, and whether they are still what they were."""

import ast
import contextlib
import importlib
import itertools
import os
from collections.abc import Iterable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..records.files import read_json
from .notebook import Notebook
from .state import syntax, write

__all__ = ["fingerprints", "used"]


def used(notebook: Notebook, parameters: dict[str, Any]) -> tuple[str, ...]:
    """Names of the data sets that a notebook reads.

    A paper's notebook reads what `datasets(profile)` of the paper's module says; any other one
    those that its code cells and its parameters name.

    Arguments:
        notebook: the source.
        parameters: those that differ from the notebook's defaults.
    """
    from ..data import NAMES

    parameters = notebook.defaults | parameters
    module = f"normkit.papers.{notebook.topic}"
    if find_spec(module) is not None:
        return tuple(importlib.import_module(module).datasets(parameters["profile"]))
    nodes = (node for node in ast.walk(syntax(notebook)) if isinstance(node, ast.Constant))
    words = [node.value for node in nodes]
    words += [value for name, value in parameters.items() if name != "profile"]
    return tuple(name for name in NAMES if name in words)


def fingerprints(names: Iterable[str], cache: Path) -> dict[str, str | None]:
    """The fingerprint of each data set; None where it is missing or damaged.

    A data set is read again only if its files are not as old and as large as they were, so that
    nothing heavy is imported while nothing has changed.

    Arguments:
        names: of data sets.
        cache: a JSON file that keeps fingerprints with the files' sizes and times.
    """
    try:
        known = read_json(cache)
    except (OSError, ValueError):
        known = {}
    known = known if isinstance(known, dict) else {}
    found: dict[str, str | None] = {}
    for name in names:
        entry = known.get(name)
        if not _holds(entry):
            entry = known[name] = _measure(name)
            write(cache, known)
        found[name] = entry["fingerprint"]
    return found


def _holds(entry: Any) -> bool:
    """Whether it has the form that `_measure` gives it, and the files are as they were."""
    try:
        fingerprint, place, stamp = (entry[part] for part in ("fingerprint", "place", "stamp"))
        words = all(isinstance(word, str | None) for word in (fingerprint, place))
        return words and stamp == _stamp(place, len(stamp))
    except (OSError, ValueError, LookupError, TypeError):
        return False


def _measure(name: str) -> dict[str, Any]:
    from .. import data

    fingerprint = None
    with contextlib.suppress(OSError, ValueError):
        fingerprint = data.load(name, download=False).fingerprint()
    place = data.locate(name) if name in data.NAMES else None
    place = None if place is None else str(place.absolute())
    return {"fingerprint": fingerprint, "place": place, "stamp": _stamp(place)}


def _stamp(place: str | None, limit: int | None = None) -> list[Any]:
    """What tells whether the files are as they were; of no more than `limit` files, if given."""
    stamp: list[Any] = [os.environ.get("NORMKIT_DATA"), version("scikit-learn")]
    if place is not None:
        files = itertools.chain([Path(place)], Path(place).rglob("*"))
        regular = itertools.islice((path for path in files if path.is_file()), limit)
        existing = [(path, path.stat()) for path in sorted(regular)]
        stamp += [[str(path), info.st_size, info.st_mtime_ns] for path, info in existing]
    return stamp
