"""What each tensor counts in the energy that balancing lowers."""

import math
from collections.abc import Sequence

from .groups import Group

__all__ = ["depth_factors"]


def depth_factors(groups: Sequence[Group], factors: Sequence[float], p: float) -> dict[int, float]:
    """c^(-p k) for the k-th tensor of a chain, by the identity of its `Weight`.

    *In plain words:* a group's update lowers an energy in which what reads it counts c^-p times
    what writes it. Where paths of different length meet there is no such energy unless c is 1:
    all count 1 then.

    Arguments:
        groups: in forward order.
        factors: their c.
        p: of the norm.
    """
    ones = {id(member.weight): 1.0 for group in groups for member in group.members}
    if all(c == 1 for c in factors):
        return ones
    logs: dict[int, float] = {}
    waiting = list(zip(groups, factors, strict=True))
    while waiting:
        known = [pair for pair in waiting if any(k in logs for k in _keys(pair[0]))]
        group, c = known[0] if known else waiting[0]
        waiting = [pair for pair in waiting if pair[0] is not group]
        if not _settle(logs, group, -p * math.log(c)):
            return ones
    return {key: math.exp(value) for key, value in logs.items()}


def _settle(logs: dict[int, float], group: Group, step: float) -> bool:
    """Give the tensors of a group their factors; whether that contradicts none they have."""
    steps = [(id(member.weight), 0.0) for member in group.writers]
    steps += [(id(member.weight), step) for member in group.readers]
    bases = [logs[key] - more for key, more in steps if key in logs]
    base = bases[0] if bases else 0.0
    for key, more in steps:
        if abs(logs.setdefault(key, base + more) - base - more) > 1e-9:
            return False
    return True


def _keys(group: Group) -> list[int]:
    return [id(member.weight) for member in group.members]
