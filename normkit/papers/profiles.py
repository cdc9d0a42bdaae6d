"""The four sizes at which everything can be run."""

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any, TypeVar

__all__ = ["PROFILES", "choose", "label"]

PROFILES = ("smoke", "quick", "cifar10", "paper")

Setting = TypeVar("Setting")


def choose(settings: Mapping[str, Setting], profile: str, **overrides: Any) -> Setting:
    """The setting of a profile, with every override that is not None in its place.

    Raises:
        ValueError: an unknown profile; the nearest one is named.
        TypeError: an override that the setting does not have.

    Example:
        >>> choose({"quick": None, "smoke": None}, "smok")
        Traceback (most recent call last):
        ...
        ValueError: profile 'smok' is not known; nearest: 'smoke'; accepted: quick, smoke
    """
    if profile not in settings:
        near = difflib.get_close_matches(profile, settings, n=1, cutoff=0)[0]
        names = ", ".join(settings)
        raise ValueError(f"profile {profile!r} is not known; nearest: {near!r}; accepted: {names}")
    given = {name: value for name, value in overrides.items() if value is not None}
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
    if "seeds" in given and (not given["seeds"] or len(set(given["seeds"])) < len(given["seeds"])):
        raise ValueError(f"seeds are {list(given['seeds'])}; give at least one, none twice")
    return dataclasses.replace(settings[profile], **given)


def label(profile: str, **overrides: Any) -> str:
    """The profile's name, and what was changed in it, for the scoreboard.

    Example:
        >>> label("quick", seeds=None, epochs=3), label("quick", seeds=None)
        ('quick, epochs=3', 'quick')
    """
    changed = [f"{name}={value}" for name, value in overrides.items() if value is not None]
    return ", ".join([profile, *changed])
