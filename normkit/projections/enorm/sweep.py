"""One cycle of balancing: every group of units in forward order, with fresh norms."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from .groups import Group, Member
from .units import Use
from .weights import Weight, scale_, scales_of

__all__ = ["Carried", "Sweep", "sums_of"]

Carried = Callable[[Use], list[tuple[Tensor, float]]]


def sums_of(members: Sequence[Member], weights: dict[int, Weight]) -> Tensor:
    """The sum of p-th powers over all members, one per unit."""
    parts = [member.gather(weights[id(member.use)].sums(member.side)) for member in members]
    total = parts[0]
    for part in parts[1:]:
        total = total + part.to(total)
    return total


class Sweep:
    r"""Balances the units of all groups, one group after another.

    .. math:: d_i = \left(\frac{\text{out}_i}{c^p \, \text{in}_i}\right)^{1/2p}

    In plain words: in and out are the sums of the p-th powers of what writes a unit and of what
    reads it. With d the weights that write are multiplied and those that read divided, which
    minimizes in d^p + out / (c d)^p. Units with a side that is zero are left alone. Where a
    tensor writes and reads units of one group, these are visited one by one.

    Arguments:
        groups: in forward order.
        p: of the norm.
        carried: gives the tensors that go with a parameter, each with the power of its scale.
        follow: whether biases are scaled.
    """

    def __init__(self, groups: Sequence[Group], p: float, carried: Carried, follow: bool):
        self.groups, self.p, self.carried, self.follow = groups, p, carried, follow
        self.weights: dict[int, Weight] = {}
        self.last: dict[int, int] = {}
        for number, group in enumerate(groups):
            for member in (*group.writers, *group.readers):
                use = member.use
                self.weights.setdefault(id(use), Weight(use.parameter, use.shape, p))
                self.last[id(use)] = number
        self._uses = {id(m.use): m.use for g in groups for m in (*g.writers, *g.readers)}
        self._buffers: list[Tensor] = []

    @torch.no_grad()
    def cycle(self, factors: Sequence[float]) -> None:
        """Balance every group once; its readers end c times as large as its writers."""
        self.forget()
        for number, (group, c) in enumerate(zip(self.groups, factors, strict=True)):
            self._read(group)
            if group.linked:
                scale, power = self._one_by_one(group, c)
            else:
                ingoing, outgoing = (
                    sums_of(members, self.weights) for members in (group.writers, group.readers)
                )
                scale, power = self._balance(ingoing, outgoing, c)
            self._apply(group, scale, power)
            self._write(number)

    @torch.no_grad()
    def stale_cycle(self, factors: Sequence[float]) -> None:
        """All groups but the last at once, with the norms that they had before the cycle."""
        self.forget()
        scales = []
        for group, c in zip(self.groups[:-1], factors, strict=False):
            self._read(group)
            scales.append(self._balance(*self.sides(group), c))
        for group, pair in zip(self.groups, scales, strict=False):
            self._apply(group, *pair)
        for number in range(len(self.groups)):
            self._write(number)

    @torch.no_grad()
    def sides(self, group: Group) -> tuple[Tensor, Tensor]:
        """The sums of p-th powers that write each unit of a group, and that read it.

        What connects a unit with itself is in neither: no scale changes it.
        """
        self._read(group)
        sums = [sums_of(members, self.weights) for members in (group.writers, group.readers)]
        if group.linked:
            between = sum(_between(pair, self.weights, group.count) for pair in group.linked)
            loops = torch.from_numpy(between.diagonal().copy()).to(sums[0])
            sums = [(total - loops.to(total)).clamp_(min=0) for total in sums]
        return tuple(sums)

    @torch.no_grad()
    def rescale(self, scales: Sequence[Tensor]) -> None:
        """Multiply each unit of each group by a positive number."""
        self.forget()
        for number, (group, scale) in enumerate(zip(self.groups, scales, strict=True)):
            self._read(group)
            self._apply(group, scale, scale.pow(self.p))
            self._write(number)

    def forget(self) -> None:
        """Drop what was read, so that the next look reads anew."""
        for weight in self.weights.values():
            weight.powers = None

    def _read(self, group: Group) -> None:
        for member in (*group.writers, *group.readers):
            weight = self.weights[id(member.use)]
            if weight.powers is None:
                buffer = self._buffer(weight)
                weight.read(buffer)
                if buffer is not None and weight.powers.data_ptr() != buffer.data_ptr():
                    self._buffers.append(buffer)

    def _buffer(self, weight: Weight) -> Tensor | None:
        """Room that another weight of the same form has left, for squares."""
        like = weight.tensor
        if self.p != 2 or like.dtype != weight.dtype:
            return None
        for number, free in enumerate(self._buffers):
            if _form(free) == _form(like):
                return self._buffers.pop(number)
        return torch.empty_like(like, requires_grad=False)

    def _balance(self, ingoing: Tensor, outgoing: Tensor, c: float) -> tuple[Tensor, Tensor]:
        """d and d^p of each unit; 1 where a side is zero."""
        ratio = outgoing.to(ingoing) / (ingoing * c**self.p)
        power = torch.where((ratio > 0) & (ratio < torch.inf), ratio, 1.0).sqrt_()
        return (power.sqrt() if self.p == 2 else power.pow(1 / self.p)), power

    def _apply(self, group: Group, scale: Tensor, power: Tensor) -> None:
        for member in group.writers:
            weight = self.weights[id(member.use)]
            weight.scale("rows", *_spread(member, scale, power, weight))
        inverse = scale.reciprocal(), power.reciprocal()
        for member in group.readers:
            weight = self.weights[id(member.use)]
            weight.scale("columns", *_spread(member, *inverse, weight))
        for member in group.followers if self.follow else ():
            rows = member.spread(scale.to(member.use.parameter.device))
            for tensor, exponent in [(member.use.parameter, 1), *self.carried(member.use)]:
                scale_(tensor, member.use.shape, scales_of(rows, exponent), None)

    def _write(self, number: int) -> None:
        """Write the weights that no later group scales."""
        for key, last in self.last.items():
            weight = self.weights[key]
            if last != number or weight.powers is None:
                continue
            use = self._uses[key]
            for tensor, exponent in [(use.parameter, 1), *self.carried(use)]:
                sides = (weight.scales.get(side) for side in ("rows", "columns"))
                found = (None if s is None else scales_of(s, exponent) for s in sides)
                scale_(tensor, use.shape, *found)
            if weight.powers.shape[1:] == weight.tensor.shape and self.p == 2:
                self._buffers.append(weight.powers.detach()[0])
            weight.powers = None

    def _one_by_one(self, group: Group, c: float) -> tuple[Tensor, Tensor]:
        """The scales of units that weights of their own group connect, one unit after another."""
        first = self.weights[id(group.writers[0].use)]
        between = sum(_between(pair, self.weights, group.count) for pair in group.linked)
        sums = [sums_of(m, self.weights).double().cpu() for m in (group.writers, group.readers)]
        ingoing, outgoing = (s.numpy() - between.sum(n) for s, n in zip(sums, (1, 0), strict=True))
        np.fill_diagonal(between, 0)
        power = np.ones(group.count)
        for unit in range(group.count):
            into = power[unit] * (max(ingoing[unit], 0) + between[unit] @ (1 / power))
            out = (max(outgoing[unit], 0) + between[:, unit] @ power) / power[unit]
            ratio = out / (into * c**self.p) if into > 0 else np.inf
            if 0 < ratio < np.inf:
                power[unit] *= np.sqrt(ratio)
        power = torch.from_numpy(power)
        return tuple(x.to(first.powers) for x in (power.pow(1 / self.p), power))


def _form(tensor: Tensor) -> tuple:
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.device


def _spread(member: Member, scale: Tensor, power: Tensor, weight: Weight) -> tuple[Tensor, ...]:
    """A scale and its power along the side of a weight, on its device and in its type."""
    return tuple(member.spread(x.to(weight.powers)) for x in (scale, power))


def _between(pair: tuple[Member, Member], weights: dict[int, Weight], count: int) -> np.ndarray:
    """The sums of p-th powers from each unit of a group (columns) to each (rows)."""
    writer, reader = pair
    matrix = weights[id(writer.use)].matrix().double().cpu().numpy()
    found = np.zeros((count, count))
    rows, columns = (_places(member) for member in pair)
    np.add.at(found, (rows[1][:, None], columns[1][None]), matrix[np.ix_(rows[0], columns[0])])
    return found


def _places(member: Member) -> tuple[np.ndarray, np.ndarray]:
    """Places along the side, and the unit at each."""
    places = np.arange(member.size) if member.places is None else member.places.numpy()
    blocks = np.repeat(np.arange(member.count), member.times)
    return places, blocks if member.units is None else member.units.numpy()
