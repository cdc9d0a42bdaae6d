"""One cycle of balancing: every group of units in forward order, with fresh norms."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from .groups import Group, Member
from .weights import Weight, move_

__all__ = ["Carried", "Sweep"]

Carried = Callable[[Tensor], list[tuple[Tensor, int]]]


class Sweep:
    r"""Balances the units of all groups, one group after another.

    .. math:: d_i = \left(\frac{\text{out}_i}{c^p \, \text{in}_i}\right)^{1/2p}

    In plain words: in and out are the sums of the p-th powers of what writes a unit and of what
    reads it. With d the weights that write are multiplied and those that read divided, which
    minimizes in d^p + out / (c d)^p. Units with a side that is zero are left alone. Where a
    tensor writes and reads units of one group, these are visited one by one.

    Arguments:
        groups: in forward order.
        carried: gives the tensors that go with a parameter, each with the power of its scale.
        follow: whether biases are scaled.
    """

    def __init__(self, groups: Sequence[Group], carried: Carried, follow: bool):
        self.groups, self.carried, self.follow = groups, carried, follow
        self.weights: list[Weight] = []
        for number, group in enumerate(groups):
            for member in group.members:
                member.weight.last[member.side] = number
                if member.weight not in self.weights:
                    self.weights.append(member.weight)
            for writer, _ in group.linked:
                writer.weight.linked = True
        self.p = self.weights[0].p
        self._buffers: dict[tuple, list[Tensor]] = {}

    @torch.no_grad()
    def cycle(self, factors: Sequence[float]) -> None:
        """Balance every group once; its readers end c times as large as its writers."""
        self.forget()
        try:
            for number, (group, c) in enumerate(zip(self.groups, factors, strict=True)):
                self._read(group)
                if group.linked:
                    scale, power = self._one_by_one(group, c)
                else:
                    scale, power = self._balance(_sums(group.writers), _sums(group.readers), c)
                self._apply(number, scale, power)
        except BaseException:  # interrupted: what was scaled so far is written, the function kept
            for weight in self.weights:
                weight.write(self.carried(weight.tensor))
            raise

    @torch.no_grad()
    def stale_cycle(self, factors: Sequence[float]) -> None:
        """All groups but the last at once, with the norms that they had before the cycle."""
        self.forget()
        pairs = [
            self._balance(*self.sides(group), c)
            for group, c in zip(self.groups, factors, strict=True)
        ]
        pairs[-1] = tuple(map(torch.ones_like, pairs[-1]))
        for number, pair in enumerate(pairs):
            self._apply(number, *pair)

    @torch.no_grad()
    def sides(self, group: Group) -> tuple[Tensor, Tensor]:
        """The sums of p-th powers that write each unit of a group, and that read it.

        What connects a unit with itself is in neither: no scale changes it.
        """
        self._read(group)
        ingoing, outgoing = _sums(group.writers), _sums(group.readers)
        if not group.linked:
            return ingoing, outgoing
        loops = torch.from_numpy(_between(group).diagonal().copy()).to(ingoing)
        return tuple((total - _on(loops, total)).clamp_(min=0) for total in (ingoing, outgoing))

    @torch.no_grad()
    def rescale(self, scales: Sequence[Tensor]) -> None:
        """Multiply each unit of each group by a positive number."""
        self.forget()
        for number, (group, scale) in enumerate(zip(self.groups, scales, strict=True)):
            self._read(group)
            self._apply(number, scale, scale.pow(self.p))

    def forget(self) -> None:
        """Drop what was read, so that the next look reads anew."""
        for weight in self.weights:
            weight.forget()

    def _read(self, group: Group) -> None:
        for member in group.members:
            if not member.weight.known:
                member.weight.read(self._buffer(member.weight))

    def _buffer(self, weight: Weight) -> Tensor | None:
        """Room for the squares of a linear layer's weight, which another had before."""
        like = weight.tensor
        if not weight.flat or self.p != 2 or like.dtype != weight.dtype:
            return None
        free = self._buffers.setdefault((like.shape, like.dtype, like.device), [])
        return free.pop() if free else torch.empty_like(like, requires_grad=False)

    def _keep(self, weight: Weight, powers: Tensor | None) -> None:
        """Let another weight have the room of this one's squares."""
        if powers is not None and weight.flat:
            form = powers.shape, powers.dtype, powers.device
            self._buffers.setdefault(form, []).append(powers)

    def _balance(self, ingoing: Tensor, outgoing: Tensor, c: float) -> tuple[Tensor, Tensor]:
        """d and d^p of each unit; 1 where a side is zero, or not a number."""
        ratio = _on(outgoing, ingoing) / ingoing
        ratio = ratio if c == 1 else ratio.div_(c**self.p)
        power = ratio.sqrt_().log_().nan_to_num_(0.0, 0.0, 0.0).exp_()
        return (power.sqrt() if self.p == 2 else power.pow(1 / self.p)), power

    def _apply(self, number: int, scale: Tensor, power: Tensor) -> None:
        """Scale a group; what no later group scales is settled, or written."""
        group = self.groups[number]
        inverse = scale.reciprocal(), power.reciprocal()
        for members, pair in ((group.writers, (scale, power)), (group.readers, inverse)):
            for member in members:
                weight = member.weight
                if not member.plain or weight.tensor.device != scale.device:
                    spread = tuple(member.spread(_on(x, weight.tensor)) for x in pair)
                    weight.scale(member.side, *spread)
                else:
                    weight.scale(member.side, *pair)
        for member in group.followers if self.follow else ():
            bias = member.use.parameter
            rows = member.spread(_on(scale, bias))
            for tensor, exponent in ((bias.detach(), 1), *self.carried(bias)):
                move_(tensor, rows, exponent)
        for member in group.members[::-1]:  # readers first: what was read last is still at hand
            if member.weight.known:
                self._leave(number, member.weight)

    def _leave(self, number: int, weight: Weight) -> None:
        """Compute what later groups need of a weight, or write it, as soon as that can be."""
        rows, columns = weight.last["rows"] > number, weight.last["columns"] > number
        if not rows and not columns:
            self._keep(weight, weight.powers)
            weight.write(self.carried(weight.tensor))
        elif rows != columns and weight.powers is not None and not weight.linked:
            self._keep(weight, weight.settle("columns" if rows else "rows"))

    def _one_by_one(self, group: Group, c: float) -> tuple[Tensor, Tensor]:
        """The scales of units that weights of their own group connect, one unit after another."""
        between, like = _between(group), group.writers[0].weight.powers
        both = (group.writers, group.readers)
        sums = (_sums(members).double().cpu().numpy() for members in both)
        ingoing, outgoing = (s - between.sum(n) for s, n in zip(sums, (1, 0), strict=True))
        np.fill_diagonal(between, 0)
        power = np.ones(group.count)
        for unit in range(group.count):
            into = power[unit] * (max(ingoing[unit], 0) + between[unit] @ (1 / power))
            out = (max(outgoing[unit], 0) + between[:, unit] @ power) / power[unit]
            ratio = out / (into * c**self.p) if into > 0 else np.inf
            if 0 < ratio < np.inf:
                power[unit] *= np.sqrt(ratio)
        power = torch.from_numpy(power)
        return tuple(x.to(like) for x in (power.pow(1 / self.p), power))


def _sums(members: Sequence[Member]) -> Tensor:
    """The sum of p-th powers over all members, one per unit."""
    total = members[0].gather(members[0].weight.sums(members[0].side))
    for member in members[1:]:
        total = total + _on(member.gather(member.weight.sums(member.side)), total)
    return total


def _on(tensor: Tensor, like: Tensor) -> Tensor:
    """A tensor on another one's device."""
    return tensor if tensor.device == like.device else tensor.to(like.device)


def _between(group: Group) -> np.ndarray:
    """The sums of p-th powers from each unit of a group (columns) to each (rows)."""
    found = np.zeros((group.count, group.count))
    for writer, reader in group.linked:
        matrix = writer.weight.matrix().double().cpu().numpy()
        rows, columns = writer.standing(), reader.standing()
        places = (rows[1][:, None], columns[1][None])
        np.add.at(found, places, matrix[np.ix_(rows[0], columns[0])])
    return found
