"""What ENorm refuses of numbers and names, before it looks at the network."""

import math
from collections.abc import Sequence
from numbers import Real

__all__ = ["check_choices", "classes_of", "factors_of"]

CHOICES = {
    "biases": ("rescale", "ignore"),
    "batch_norm": ("rescale", "ignore"),
    "variant": ("paper", "released"),
}


def classes_of(leaves: type | Sequence[type]) -> tuple[type, ...]:
    """Classes of modules, or a single one."""
    leaves = (leaves,) if isinstance(leaves, type) else tuple(leaves)
    if not all(isinstance(kind, type) for kind in leaves):
        raise ValueError(f"leaves is {leaves!r}; it must hold classes of modules")
    return leaves


def factors_of(c: float | Sequence[float], count: int) -> list[float]:
    """One c for each group of units; refused unless finite and above 0."""
    if not isinstance(c, Real | Sequence) or isinstance(c, str | bool):
        raise ValueError(f"c is {c!r}; it must be a number above 0, or one for each group")
    values = [c] * count if isinstance(c, Real) else list(c)
    if len(values) != count:
        raise ValueError(f"c has {len(values)} numbers, but the model has {count} groups of units")
    for value in values:
        if not (isinstance(value, Real) and 0 < value < math.inf):
            raise ValueError(f"c is {value!r}; it must be a finite number above 0")
    return [float(value) for value in values]


def check_choices(p: float, cycles: int, every: int, **names: str) -> None:
    """Refuse numbers out of range, and words that are not among `CHOICES`."""
    if not (isinstance(p, Real) and not isinstance(p, bool) and 1 <= p < math.inf):
        raise ValueError(f"p is {p!r}; it must be a finite number, 1 or more")
    for name, value in (("cycles", cycles), ("every", every)):
        if not (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
            raise ValueError(f"{name} is {value!r}; it must be a whole number of at least 1")
    for name, value in names.items():
        if value not in CHOICES[name]:
            accepted = " or ".join(map(repr, CHOICES[name]))
            raise ValueError(f"{name} is {value!r}; it must be {accepted}")
