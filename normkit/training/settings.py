"""Configurations from text and from plain values, every field checked."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

from .config import TrainConfig

__all__ = ["from_dict", "from_settings", "field_names"]


def field_names(kind: type = TrainConfig, prefix: str = "") -> list[str]:
    """Every setting of a configuration; those of a nested part are named with a dot.

    Example:
        >>> [name for name in field_names() if name.startswith("adversary")][:2]
        ['adversary.kind', 'adversary.epsilon']
    """
    names = []
    for name, hint in typing.get_type_hints(kind).items():
        nested = dataclasses.is_dataclass(hint)
        names += field_names(hint, f"{prefix}{name}.") if nested else [prefix + name]
    return names


def from_dict(values: Mapping[str, Any], kind: type = TrainConfig) -> Any:
    """The configuration whose plain values stand in a record.

    Raises:
        ValueError: a field that configurations do not have.

    Example:
        >>> config = TrainConfig(epochs=3)
        >>> from_dict(dataclasses.asdict(config)) == config
        True
    """
    hints = typing.get_type_hints(kind)
    for name in values:
        if name not in hints:
            raise ValueError(_unknown(name, list(hints)))
    made = {}
    for name, value in values.items():
        if dataclasses.is_dataclass(hints[name]):
            value = from_dict(value, hints[name])
        made[name] = tuple(value) if isinstance(value, list) else value
    return kind(**made)


def from_settings(settings: Iterable[str], base: TrainConfig | None = None) -> TrainConfig:
    """A configuration from `field=value` texts, on top of a base.

    Numbers may be fractions (`8/255`), several values are separated by commas, `none` is None.

    Arguments:
        settings: such as `"adversary.kind=pgd"`.
        base: what is not said; default `TrainConfig()`.

    Raises:
        ValueError: no `=`, an unknown field (the nearest is named), or a value of another type.

    Example:
        >>> from_settings(["adversary.kind=pgd", "adversary.epsilon=8/255"]).adversary.epsilon
        0.03137254901960784
        >>> from_settings(["epoch=3"])
        Traceback (most recent call last):
        ...
        ValueError: setting 'epoch' is not known; nearest: 'epochs'
    """
    values = dataclasses.asdict(base or TrainConfig())
    hints = _hints()
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise ValueError(f"setting {setting!r} has no value; write it as field=value")
        if name not in hints:
            raise ValueError(_unknown(name, list(hints)))
        part, _, field = name.rpartition(".")
        (values[part] if part else values)[field] = _convert(name, text.strip(), hints[name])
    return from_dict(values)


def _hints(kind: type = TrainConfig, prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, hint in typing.get_type_hints(kind).items():
        nested = dataclasses.is_dataclass(hint)
        found |= _hints(hint, f"{prefix}{name}.") if nested else {prefix + name: hint}
    return found


def _convert(name: str, text: str, hint: Any) -> Any:
    if isinstance(hint, types.UnionType):
        if text.lower() == "none":
            return None
        hint = next(h for h in typing.get_args(hint) if h is not types.NoneType)
    try:
        if typing.get_origin(hint) is tuple:
            item = typing.get_args(hint)[0]
            return tuple(_convert(name, t.strip(), item) for t in text.split(",") if t.strip())
        if hint is bool:
            return {"true": True, "false": False, "1": True, "0": False}[text.lower()]
        return float(Fraction(text)) if hint is float else hint(text)
    except (ValueError, KeyError, ZeroDivisionError, OverflowError):
        wanted = {bool: "true or false", int: "a whole number", float: "a number or fraction"}
        message = f"{name} is {text!r}; it must be {wanted.get(hint, hint)}"
        raise ValueError(message) from None


def _unknown(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1, cutoff=0)[0]
    return f"setting {name!r} is not known; nearest: {near!r}"
