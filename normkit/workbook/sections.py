"""The sections of a notebook: what each claims, and the figures that it saves."""

import ast
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from ..records.code import syntax_tree
from ..records.files import read_json

__all__ = ["Section", "home", "sections"]

CLAIM = re.compile(r"\b[a-z]{2}\.[a-z]\w*")


@dataclass(frozen=True)
class Section:
    """One heading of a notebook, the claims that it names, and the figures saved below it.

    Arguments:
        title: of the heading.
        claims: their ids, in the title's order.
        figures: names without ending; a part that only a run knows is a `*`.
    """

    title: str
    claims: tuple[str, ...]
    figures: tuple[str, ...]


def sections(path: Path) -> list[Section]:
    """The sections of a notebook's source, in order; nothing is executed.

    A section goes from one heading of the first or second level to the next. A figure is what a
    code cell gives to `plots.save` as `folder / name`.

    Arguments:
        path: of the source, which is a sound notebook.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not JSON.

    Example:
        >>> import json, tempfile
        >>> code = "plots.save(figure, table, folder / f'curves_{net}')"
        >>> cells = [("markdown", "## cn.noise: wrong labels"), ("code", code)]
        >>> path = Path(tempfile.mkdtemp()) / "01_convnorm.ipynb"
        >>> cells = [{"cell_type": kind, "source": source} for kind, source in cells]
        >>> _ = path.write_text(json.dumps({"cells": cells}))
        >>> sections(path)[1]
        Section(title='cn.noise: wrong labels', claims=('cn.noise',), figures=('curves_*',))
    """
    found: list[tuple[str, list[str]]] = [("", [])]
    for cell in read_json(path)["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code":
            found[-1][1].extend(_saved(source))
        elif cell["cell_type"] == "markdown":
            prose = re.sub(r"^```.*?^```", "", source, flags=re.MULTILINE | re.DOTALL)
            titles = re.findall(r"^##? (.+)", prose, re.MULTILINE)
            found += [(title.strip(), []) for title in titles]
    return [Section(title, tuple(CLAIM.findall(title)), tuple(names)) for title, names in found]


def home(name: str, found: list[Section]) -> Section | None:
    """The section that saves the figure `name`: the one that spells out most of it, else None.

    Example:
        >>> whole, part = Section("a", (), ("curves",)), Section("b", (), ("curves*",))
        >>> home("curves", [part, whole]).title, home("curves_l1", [part, whole]).title
        ('a', 'b')
    """
    fits = [(f, s) for s in found for f in s.figures if fnmatchcase(name, f)]
    return max(fits, key=lambda fit: (fit[0] == name, len(fit[0])), default=(None, None))[1]


def _saved(source: str) -> list[str]:
    """The names that a cell saves figures by; none where it is not plain Python."""
    try:
        tree = syntax_tree(source)
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        saving = [call for call in calls if ast.unparse(call.func) == "plots.save"]
        places = [a for call in saving for a in call.args if isinstance(a, ast.BinOp)]
        inside = [p.right for p in places if ast.unparse(p.left) == "folder"]
        return [name for place in inside for name in dict.fromkeys(_names(place, tree))]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []


def _names(node: ast.expr, tree: ast.Module) -> list[str]:
    """What an expression can be: its constants as they are, all else a `*`."""
    match node:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.JoinedStr(values=parts):
            return ["".join(p) for p in itertools.product(*(_names(p, tree) for p in parts))]
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return [a + b for a in _names(left, tree) for b in _names(right, tree)]
        case ast.Tuple(elts=choices) | ast.List(elts=choices):
            return [name for choice in choices for name in _names(choice, tree)]
        case ast.Subscript(value=ast.Dict(values=choices)):
            return [name for choice in choices for name in _names(choice, tree)]
        case ast.Name(id=name):
            return [n for value in _given(name, tree) for n in _names(value, tree)] or ["*"]
    return ["*"]


def _given(name: str, tree: ast.Module) -> Iterator[ast.expr]:
    """What a cell assigns to a name, or lets it run through; not what uses the name itself."""
    for node in ast.walk(tree):
        pairs = []
        if isinstance(node, ast.Assign):
            pairs = [(target, node.value) for target in node.targets]
        elif isinstance(node, ast.For):
            pairs = [(node.target, node.iter)]
        for target, value in pairs:
            used = {n.id for n in ast.walk(value) if isinstance(n, ast.Name)}
            if isinstance(target, ast.Name) and target.id == name and name not in used:
                yield value
