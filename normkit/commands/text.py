"""Values and tables as text."""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any

__all__ = ["plain", "table"]


def plain(value: Any) -> str:
    """A setting's value as it would be typed.

    Example:
        >>> [plain(value) for value in (8 / 255, 5e-4, None, True, (1 / 3, 2 / 3), ())]
        ['8/255', '0.0005', 'none', 'true', '1/3,2/3', '']
    """
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ",".join(map(plain, value))
    if isinstance(value, float) and float(f"{value:g}") != value:
        fraction = Fraction(value).limit_denominator(10_000)
        return str(fraction) if float(fraction) == value else repr(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns under their names, numbers to the right and words to the left.

    Example:
        >>> print(table(["layer", "norm"], [["stem", "3.25"], ["head", "12"]]))
        layer  norm
        stem   3.25
        head     12
    """
    rows = [list(row) for row in rows]
    columns = []
    for name, *cells in zip(header, *rows, strict=True):
        right = bool(cells) and all(_numeric(cell) for cell in cells)
        width = max(len(cell) for cell in (name, *cells))
        columns.append([c.rjust(width) if right else c.ljust(width) for c in (name, *cells)])
    return "\n".join("  ".join(line).rstrip() for line in zip(*columns))


def _numeric(cell: str) -> bool:
    try:
        float(cell.split("..")[0].replace(",", "") or "0")
    except ValueError:
        return cell == "-"
    return True
