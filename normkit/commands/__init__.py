"""What the subcommands share: words that become values, values that become words, tables."""

import argparse
import difflib
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from typing import Any

__all__ = ["count", "nearest", "number", "plain", "several", "table"]


def nearest(word: str, known: Iterable[str]) -> str:
    """The known name that is most like `word`, in quotes."""
    return repr(difflib.get_close_matches(word, known, n=1, cutoff=0)[0])


def number(text: str) -> float:
    """A number or fraction that is not negative, such as an attack's 8/255."""
    try:
        value = float(Fraction(text.strip()))
    except (ValueError, ZeroDivisionError, OverflowError):
        value = -1.0
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number or fraction >= 0, like 8/255")
    return value


def count(text: str) -> int:
    """A whole number above 0."""
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def several(convert: Callable[[str], Any]) -> Callable[[str], tuple]:
    """What converts values between commas; `several(count)` takes an image's 3,32,32."""
    return lambda text: tuple(convert(word.strip()) for word in text.split(","))


def plain(value: Any) -> str:
    """A setting's value as it would be typed.

    Example:
        >>> [plain(value) for value in (8 / 255, 5e-4, None, True, (1 / 3, 2 / 3), ())]
        ['8/255', '0.0005', 'none', 'true', '1/3,2/3', '']
    """
    if isinstance(value, tuple):
        return ",".join(map(plain, value))
    if isinstance(value, float):
        forms = (f"{value:g}", str(Fraction(value).limit_denominator(10_000)))
        return next((form for form in forms if float(Fraction(form)) == value), repr(value))
    return "none" if value is None else str(value).lower()


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns under their names, numbers to the right and words to the left.

    Example:
        >>> print(table(["layer", "norm"], [["stem", "3.25"], ["head", "12"]]))
        layer  norm
        stem   3.25
        head     12
    """
    columns = []
    for cells in zip(header, *rows, strict=True):
        words = any(cell[:1].isalpha() for cell in cells[1:])
        width = max(map(len, cells))
        columns.append([cell.ljust(width) if words else cell.rjust(width) for cell in cells])
    return "\n".join("  ".join(line).rstrip() for line in zip(*columns))
