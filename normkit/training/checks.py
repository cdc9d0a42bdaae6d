"""What makes a configuration acceptable, field by field."""

import difflib
import math
import types
import typing
from collections.abc import Sequence
from typing import Any

__all__ = ["known", "not_negative", "positive", "typed"]


def typed(config: Any) -> None:
    """Refuse a field whose value is not of its annotated type; a whole number is a float, too.

    Raises:
        TypeError: the field, its value and the type that it must have.
    """
    for name, hint in typing.get_type_hints(type(config)).items():
        value = getattr(config, name)
        if not _fits(value, hint):
            wanted = hint.__name__ if isinstance(hint, type) else str(hint)
            raise TypeError(f"{type(config).__name__}.{name} is {value!r}; it must be {wanted}")


def _fits(value: Any, hint: Any) -> bool:
    if isinstance(hint, types.UnionType):
        return any(_fits(value, choice) for choice in typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        item = typing.get_args(hint)[0]
        return isinstance(value, tuple) and all(_fits(part, item) for part in value)
    if hint in (int, float):
        numbers = (int, float) if hint is float else int
        return isinstance(value, numbers) and not isinstance(value, bool)
    return isinstance(value, hint)


def known(field: str, value: Any, accepted: Sequence[str]) -> None:
    """Refuse a name that is not accepted; the nearest one is named."""
    if value not in accepted:
        near = difflib.get_close_matches(str(value), accepted, n=1, cutoff=0)[0]
        names = ", ".join(accepted)
        raise ValueError(f"{field} {value!r} is not known; nearest: {near!r}; accepted: {names}")


def positive(config: Any, prefix: str, fields: Sequence[str]) -> None:
    """Refuse a value that is not above 0, or not finite; None passes."""
    for name in fields:
        value = getattr(config, name)
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"{prefix}{name} is {value}; it must be above 0 and finite")


def not_negative(config: Any, prefix: str, fields: Sequence[str]) -> None:
    """Refuse a value below 0, or one that is not finite."""
    for name in fields:
        value = getattr(config, name)
        if not 0 <= value < math.inf:
            raise ValueError(f"{prefix}{name} is {value}; it must not be negative, and finite")
