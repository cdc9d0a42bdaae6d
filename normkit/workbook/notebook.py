"""The notebooks of a project: what they hold, how a user names them, what may be set in them."""

import ast
import difflib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..records.code import syntax_tree
from ..records.files import read_json

__all__ = ["Notebook", "find", "literal", "nearest", "select", "settings"]

# What reading a literal can raise: whatever it says, also {[]: 1}, 1 / 0, "a" / 2, a tower of (.
NO_LITERAL = (ArithmeticError, MemoryError, RecursionError, SyntaxError, TypeError, ValueError)


@dataclass(frozen=True)
class Notebook:
    """One notebook file: its cells by id, in order, its parameters' defaults and their types.

    Example:
        >>> Notebook(Path("notebooks/03_norm_decay.ipynb"), {}, {}, {}, {}).topic
        'norm_decay'
    """

    path: Path
    code: dict[str, str]
    text: dict[str, str]
    defaults: dict[str, Any]
    kinds: dict[str, str]

    @property
    def name(self) -> str:
        """The file's name without its ending: `03_norm_decay`."""
        return self.path.stem

    @property
    def topic(self) -> str:
        """The name without its number: the folder of its figures, the name of its paper."""
        number, _, rest = self.name.partition("_")
        return rest if number.isdigit() and rest else self.name


def find(project: Path) -> list[Notebook]:
    """The notebooks of a project's folder `notebooks`, sorted by name.

    Raises:
        ValueError: there is none, or a file is no notebook.
    """
    paths = sorted((project / "notebooks").glob("*.ipynb"))
    if not paths:
        raise ValueError(f"there are no notebooks in {project / 'notebooks'}")
    return [_read(path) for path in paths]


def select(notebooks: Sequence[Notebook], only: Iterable[str], claims: dict[str, str]):
    """The notebooks that `only` names, in their own order; all of them where it names none.

    Arguments:
        only: names (with or without number) or claims, several of them joined by commas or not.
        claims: id of a claim -> topic of the notebook that judges it.

    Raises:
        ValueError: an unknown name (the nearest is given), or a claim without a notebook.

    Example:
        >>> tour = Notebook(Path("00_tour.ipynb"), {}, {}, {}, {})
        >>> select([tour], ["tuor"], {})
        Traceback (most recent call last):
        ValueError: there is no notebook or claim 'tuor'; the nearest is 'tour'
    """
    known = {name: book for book in notebooks for name in (book.name, book.topic)}
    chosen = []
    for word in (word.strip() for part in only for word in part.split(",") if word.strip()):
        topic = claims.get(word, word)
        if topic in known:
            chosen.append(known[topic])
        elif word in claims:
            raise ValueError(f"claim {word!r} has no notebook here: {topic!r} is not there yet")
        else:
            raise ValueError(_unknown("notebook or claim", word, [*known, *claims]))
    return [book for book in notebooks if book in chosen or not chosen]


def settings(notebooks: Sequence[Notebook], texts: Iterable[str]) -> dict[str, dict[str, Any]]:
    """What `NOTEBOOK.parameter=value` asks for, checked: notebook's name -> parameters.

    A value is read as a Python literal (or a quotient of two numbers), else as a string; it must
    have the type that the parameter is declared with, else that of its default.

    Raises:
        ValueError: another form, an unknown notebook or parameter, or another type.

    Example:
        >>> tour = Notebook(Path("00_tour.ipynb"), {}, {}, {"radius": 0.1}, {"radius": "float"})
        >>> settings([tour], ["tour.radius=8/256"])
        {'00_tour': {'radius': 0.03125}}
    """
    known = {name: book for book in notebooks for name in (book.name, book.topic)}
    chosen: dict[str, dict[str, Any]] = {}
    for text in texts:
        target, equals, value = text.partition("=")
        name, dot, parameter = target.partition(".")
        if not (equals and dot):
            raise ValueError(f"--set {text!r} is not of the form NOTEBOOK.parameter=value")
        if name not in known:
            raise ValueError(_unknown("notebook to run", name, known))
        book = known[name]
        if parameter not in book.defaults:
            raise ValueError(_unknown(f"parameter of {book.name}", parameter, book.defaults))
        if parameter == "profile":
            raise ValueError(f"--set {text!r}: the profile is chosen with --profile")
        checked = _checked(target, value, book.kinds[parameter], book.defaults[parameter])
        chosen.setdefault(book.name, {})[parameter] = checked
    return chosen


def literal(text: str) -> Any:
    """A Python literal or a quotient of two numbers; anything else is the string itself.

    Example:
        >>> literal("[0, 1]"), literal("1/4"), literal("group")
        ([0, 1], 0.25, 'group')
    """
    try:
        return _value(syntax_tree(text.strip(), "eval").body)
    except NO_LITERAL:
        return text


def nearest(word: str, known: Iterable[str]) -> str:
    """The known name that is most like `word`, in quotes."""
    return repr(difflib.get_close_matches(word, list(known), n=1, cutoff=0)[0])


def _read(path: Path) -> Notebook:
    try:
        content = read_json(path)
        cells = {cell.get("id", f"cell-{i}"): cell for i, cell in enumerate(content["cells"])}
        if len(cells) < len(content["cells"]):
            raise ValueError("two cells have one id")
        source = {key: _text(key, cell["source"]) for key, cell in cells.items()}
        code = {key: source[key] for key, cell in cells.items() if cell["cell_type"] == "code"}
        tagged = [k for k in code if "parameters" in cells[k].get("metadata", {}).get("tags", [])]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a notebook: {error!r}") from None
    text = {key: source[key] for key in cells if key not in code}
    try:
        defaults, kinds = _assignments(code[tagged[0]]) if tagged else ({}, {})
        json.dumps(defaults)
    except NO_LITERAL as error:
        raise ValueError(f"{path}: cell {tagged[0]} must assign literals: {error}") from None
    if "profile" not in defaults:
        raise ValueError(f"{path} has no parameter 'profile' in a cell tagged 'parameters'")
    return Notebook(path, code, text, defaults, kinds)


def _text(key: str, source: list[str] | str) -> str:
    """A cell's source in one piece; an error if it, or the cell's id, is no text."""
    if not isinstance(key, str) or not isinstance(source, list | str):
        raise TypeError(f"cell {key!r} has no text")
    whole = "".join(source)
    f"{key}{whole}".encode()  # half a surrogate pair is an error here, not where it is hashed
    return whole


def _assignments(source: str) -> tuple[dict[str, Any], dict[str, str]]:
    """The names that a cell assigns literals to, and the types that they may have."""
    values: dict[str, Any] = {}
    kinds: dict[str, str] = {}
    for node in syntax_tree(source).body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [target.id for target in targets if isinstance(target, ast.Name)]
            values |= dict.fromkeys(names, _value(node.value))
            declared = ast.unparse(node.annotation) if isinstance(node, ast.AnnAssign) else ""
            kinds |= {name: declared or _kind(values[name]) for name in names}
    return values, kinds


def _kind(value: Any) -> str:
    """The type of a default, as an annotation would say it; empty where it does not tell."""
    if isinstance(value, list | tuple):
        return f"list[{_kind(value[0])}]" if value else "list"
    return "" if value is None else type(value).__name__


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        return ast.literal_eval(node.left) / ast.literal_eval(node.right)
    return ast.literal_eval(node)


def _checked(target: str, text: str, kind: str, default: Any) -> Any:
    value = literal(text)
    choices = [choice.strip() for choice in kind.split("|") if choice.strip()]
    if not any(_is(value, choice) for choice in choices) and "str" in choices:
        value = text
    if choices and not any(_is(value, choice) for choice in choices):
        such = "" if default is None else f" such as {default!r}"
        raise ValueError(f"{target} takes {' or '.join(choices)}{such}, not {text!r}")
    return float(value) if "float" in choices and type(value) is int else value


def _is(value: Any, kind: str) -> bool:
    if kind.startswith("list"):
        inner = kind[5:-1]
        return isinstance(value, list | tuple) and all(not inner or _is(v, inner) for v in value)
    if kind == "float" and type(value) is int:
        return True
    return kind == ("None" if value is None else type(value).__name__)


def _unknown(what: str, word: str, known: Iterable[str]) -> str:
    known = list(known)
    hint = f"; the nearest is {nearest(word, known)}" if known else ""
    return f"there is no {what} {word!r}{hint}"
