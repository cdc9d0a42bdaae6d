"""The list of everything that `train --set` takes, made from the configuration itself."""

import dataclasses
import inspect
import re
import textwrap
from typing import Any

__all__ = ["field_list"]


def field_list() -> str:
    """Every field with its default, and below it what it means.

    Example:
        >>> print(field_list().splitlines()[0])
        dataset=digits
    """
    from normkit import training

    lines = []
    for name, value, meaning in _fields(training.TrainConfig):
        lines += [f"{name}={value}", *_wrapped(_with_names(meaning))]
    return "\n".join(lines)


def _fields(kind: type, prefix: str = "") -> list[tuple[str, str, str]]:
    from .text import plain

    meanings = _arguments(kind)
    found = []
    for field in dataclasses.fields(kind):
        if dataclasses.is_dataclass(field.default):
            found += _fields(type(field.default), f"{prefix}{field.name}.")
        else:
            found.append((prefix + field.name, plain(field.default), meanings.get(field.name, "")))
    return found


def _arguments(kind: type) -> dict[str, str]:
    """The lines of a docstring's list of arguments, by name."""
    text = (inspect.getdoc(kind) or "").partition("Arguments:\n")[2].partition("\n\n")[0]
    entries = re.split(r"^    (?=\w+: )", text, flags=re.MULTILINE)[1:]
    pairs = (entry.partition(": ") for entry in entries)
    return {name: " ".join(meaning.split()) for name, _, meaning in pairs}


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, 90, initial_indent="    ", subsequent_indent="    ")


def _with_names(meaning: str) -> str:
    """The names themselves where the meaning says in which list they stand."""
    for reference, names in _lists().items():
        listed = ", ".join(names)
        meaning = re.sub(rf"a (name|key) of `{reference}`", f"one of {listed}", meaning)
        meaning = meaning.replace(f"`{reference}`", listed)
    return meaning.replace("`", "")


def _lists() -> dict[str, Any]:
    from normkit import data, layers, models, probes
    from normkit.training.config import NORMS

    return {
        "data.NAMES": data.NAMES,
        "data.AUGMENTATIONS": data.AUGMENTATIONS,
        "models.NAMES": models.NAMES,
        "layers.NORMALIZATIONS": layers.NORMALIZATIONS,
        "layers.CONVOLUTIONS": layers.CONVOLUTIONS,
        "probes.PROBES": probes.PROBES,
        "NORMS": NORMS,
    }
