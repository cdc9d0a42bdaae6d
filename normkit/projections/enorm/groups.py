"""Groups of hidden units that the same weights write and read."""

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from .units import ENDS, Units, Use
from .weights import Weight

__all__ = ["Group", "Member", "group_units", "left_out"]


class Member:
    """Where the units of a group stand along one side of a tensor.

    Arguments:
        use: of the tensor.
        weight: its norms, None for a bias.
        side: "rows" (it writes the units) or "columns" (it reads them).
        places: along that side, ascending.
        units: which unit of the group stands at each place.
        count: of the group's units.
    """

    def __init__(
        self,
        use: Use,
        weight: Weight | None,
        side: str,
        places: np.ndarray,
        units: np.ndarray,
        count: int,
    ):
        self.use, self.weight, self.side, self.count = use, weight, side, count
        self.size = len(use.rows if side == "rows" else use.columns)
        self.places = None if len(places) == self.size else torch.from_numpy(places)
        self.times = len(units) // count
        blocks = np.repeat(np.arange(count), self.times)
        self.units = None if np.array_equal(blocks, units) else torch.from_numpy(units)
        self.plain = self.places is None and self.units is None and self.times == 1

    def gather(self, sums: Tensor) -> Tensor:
        """The sums of a side, one per unit of the group."""
        if self.plain:
            return sums
        if self.places is not None:
            sums = sums[self.places.to(sums.device)]
        if self.units is not None:
            return sums.new_zeros(self.count).index_add_(0, self.units.to(sums.device), sums)
        return sums.view(self.count, -1).sum(1)

    def spread(self, values: Tensor) -> Tensor:
        """One value per unit of the group, at its places along the side; 1 elsewhere."""
        if self.plain:
            return values
        if self.units is not None:
            values = values[self.units.to(values.device)]
        elif self.times > 1:
            values = values.repeat_interleave(self.times)
        if self.places is None:
            return values
        whole = values.new_ones(self.size)
        whole[self.places.to(values.device)] = values
        return whole

    def standing(self) -> tuple[np.ndarray, np.ndarray]:
        """Places along the side, and the unit at each."""
        places = np.arange(self.size) if self.places is None else self.places.numpy()
        blocks = np.repeat(np.arange(self.count), self.times)
        return places, blocks if self.units is None else self.units.numpy()


class Group:
    """Hidden units, and the tensors that write them, read them, and follow them.

    `linked` are the tensors that do both, so that the units cannot be balanced side by side.
    """

    def __init__(self, count: int, members: Sequence[Member]):
        def chosen(side: str, bias: bool) -> tuple[Member, ...]:
            found = (m for m in members if m.side == side)
            return tuple(m for m in found if (m.use.shape.kind == "bias") == bias)

        self.count = count
        self.writers, self.readers = chosen("rows", False), chosen("columns", False)
        self.followers = chosen("rows", True)
        self.members = self.writers + self.readers
        pairs = itertools.product(self.writers, self.readers)
        self.linked = [(w, r) for w, r in pairs if w.weight is r.weight]


def group_units(units: Units, p: float) -> list[Group]:
    """All units that can be balanced, those with the same tensors together, in forward order."""
    classes, reasons = units.classes()
    sides = [(use, side) for use in units.uses.values() for side in ("rows", "columns")]
    sides = [(use, side) for use, side in sides if getattr(use, side) is not None]
    found = [classes[getattr(use, side)] for use, side in sides]
    total = int(classes.max(initial=-1)) + 1
    uses = np.zeros((total, len(sides)), dtype=bool)
    for column, members in enumerate(found):
        uses[members, column] = True
    writes = np.array([_writes(*side) for side in sides], dtype=bool)
    reads = np.array([side == "columns" for _, side in sides], dtype=bool)
    free = uses[:, writes].any(1) & uses[:, reads].any(1)
    free[list(reasons)] = False
    chosen = np.flatnonzero(free)
    if not len(chosen):
        return []
    kinds, kind = np.unique(uses[chosen], axis=0, return_inverse=True)
    kept = {id(use): Weight(use, p) for use in units.uses.values() if use.shape.kind != "bias"}
    grouped = [
        _group(sides, found, kept, pattern, chosen[kind.reshape(-1) == number])
        for number, pattern in enumerate(kinds)
    ]
    return [group for _, group in sorted(grouped, key=lambda pair: pair[0])]


def _writes(use: Use, side: str) -> bool:
    return side == "rows" and use.shape.kind != "bias"


def _group(
    sides: list, found: list, kept: dict[int, Weight], pattern: np.ndarray, chosen: np.ndarray
) -> tuple[tuple, Group]:
    """The group of some classes, and its place in forward order: that of its first writer."""
    numbers = np.flatnonzero(pattern).tolist()
    first = next(number for number in numbers if _writes(*sides[number]))
    inside = np.flatnonzero(np.isin(found[first], chosen))
    order = found[first][inside]
    order = order[np.sort(np.unique(order, return_index=True)[1])]
    unit = np.full(max(f.max() for f in found) + 1, -1)
    unit[order] = np.arange(len(order))
    members = []
    for number in numbers:
        use, side = sides[number]
        local = unit[found[number]]
        places = np.flatnonzero(local >= 0)
        weight = kept.get(id(use))
        members.append(Member(use, weight, side, places, local[places], len(order)))
    return (first, int(inside[0])), Group(len(order), members)


def left_out(units: Units, model: nn.Module) -> list[tuple[str, str, int, str]]:
    """Tensor, side, number of channels and reason, for all that keeps its scale.

    The ends of the network are not told of, for tensors that take part on their other side. A
    tensor of a layer that no rule knows has the side "whole".
    """
    classes, reasons = units.classes()
    free = np.ones(int(classes.max(initial=-1)) + 1, dtype=bool)
    free[list(reasons)] = False
    used: dict[str, np.ndarray] = {"rows": np.zeros_like(free), "columns": np.zeros_like(free)}
    for use in units.uses.values():
        for side, marked in used.items():
            numbers = getattr(use, side)
            if numbers is not None and (side == "columns" or use.shape.kind != "bias"):
                marked[classes[numbers]] = True
    rows = []
    for use in units.uses.values():
        told = _sides(use, classes, reasons, used)
        whole = sum(count for *_, count, _ in told) == sum(
            len(s) for s in (use.rows, use.columns) if s is not None
        )
        whole = whole and use.shape.kind != "bias"
        rows += [row for row in told if whole or row[-1] not in ENDS]
    for name, parameter in model.named_parameters():
        if id(parameter) not in units.uses:
            path = name.rpartition(".")[0]
            kind = type(model.get_submodule(path)).__name__
            count = parameter.shape[0] if parameter.dim() else 1
            rows.append((name, "whole", count, f"belongs to {path!r} ({kind}), not rescaled"))
    return rows


def _sides(use: Use, classes: np.ndarray, reasons: dict[int, str], used: dict) -> list[tuple]:
    rows, name = [], " = ".join(use.names)
    for side, numbers in (("output", use.rows), ("input", use.columns)):
        why: dict[str, int] = {}
        for found in classes[numbers].tolist() if numbers is not None else ():
            reason = reasons.get(found)
            if reason is None and not used["columns"][found]:
                reason = "is read by no weight"
            if reason is None and not used["rows"][found]:
                reason = "is written by no weight"
            if reason is not None:
                why[reason] = why.get(reason, 0) + 1
        rows += [(name, side, count, reason) for reason, count in why.items()]
    return rows


