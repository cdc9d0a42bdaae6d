"""Equi-normalization of any network that torch.fx can trace."""

__all__ = ["ENorm"]

import math
from collections.abc import Sequence
from numbers import Real

import numpy as np
import pandas as pd
import torch
from torch import nn

from .carried import OptimizerState, check_optimizer
from .graph import find_units
from .groups import Group, group_units, left_out
from .rules import Options
from .sweep import Sweep

CHOICES = {
    "biases": ("rescale", "ignore"),
    "batch_norm": ("rescale", "ignore"),
    "variant": ("paper", "released"),
}


class ENorm:
    r"""Equi-normalization: hidden units rescaled so that the weights' norm is smallest.

    .. math:: d_i = \sqrt{\frac{\lVert \text{outgoing}_i \rVert_p}
        {c \, \lVert \text{incoming}_i \rVert_p}}, \quad
        \text{incoming}_i \leftarrow d_i \, \text{incoming}_i, \quad
        \text{outgoing}_i \leftarrow \text{outgoing}_i / d_i

    In plain words: behind a ReLU a unit may be made d times as large if all that reads it is made
    d times smaller; the function stays. Of all such networks one has the smallest energy, the sum
    of p-th powers of all weights, and a cycle of this over the units, in forward order and with
    norms as they then are, comes closer to it. Units are those of linear layers and convolutions
    (grouped, depth-wise and transposed ones, too); those that are summed share one scale, those
    that are concatenated keep their own. Behind a normalization the unit is the normalization's
    output, which its weight and bias scale.

    Source: Stock et al., "Equi-normalization of Neural Networks", ICLR 2019,
    https://arxiv.org/abs/1902.10416.

    Deviation: any network that torch.fx can trace, where the paper treats chains and residual
    blocks; buffers of the optimizer are rescaled for every layer. `variant="released"` balances
    all pairs but the last at once, with the norms from before the cycle, as the authors' code
    does: the same limit for those pairs, more slowly.

    Arguments:
        model: the network; a linear layer's input is taken to be (N, features).
        optimizer: SGD, Adam, AdamW, NAdam, RAdam, RMSprop or Adagrad, whose buffers move along;
            None leaves buffers alone and rescales gradients that are there.
        c: outgoing over incoming norm at the limit, one number or one for each of `groups`.
        p: of the norm, 1 or more.
        biases: "rescale", or "ignore" to leave them as they are, which changes the function.
        batch_norm: "rescale" its weight and bias, or "ignore" it: units pass through it as if it
            were not there, which changes the function, as the authors' code does.
        cycles: at each step.
        every: calls of `step` from one that acts to the next.
        variant: "paper" or "released".
        leaves: classes of modules that torch.fx shall not step into; their weights stay.

    Attributes:
        groups: one row per group of units: group, units, writers, readers, c.
        unbalanced: tensors that keep their scale, along which side, and why: tensor, side,
            channels, reason.

    Raises:
        TypeError: if the model is no module, or the optimizer of another class.
        ValueError: if an argument is out of range, torch.fx cannot trace the model, nothing can
            be balanced, or the optimizer holds other parameters.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).double()
        >>> x = torch.randn(5, 4).double()
        >>> before, enorm = net(x), ENorm(net)
        >>> energies = [enorm.energy()]
        >>> for _ in range(3):
        ...     enorm.step()
        ...     energies.append(enorm.energy())
        >>> energies == sorted(energies, reverse=True), torch.allclose(net(x), before, rtol=1e-12)
        (True, True)
        >>> bool((net[0].weight.norm(dim=1) / net[2].weight.norm(dim=0) - 1).abs().max() < 1e-12)
        True
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        c: float | Sequence[float] = 1.0,
        p: float = 2,
        biases: str = "rescale",
        batch_norm: str = "rescale",
        cycles: int = 1,
        every: int = 1,
        variant: str = "paper",
        leaves: tuple[type, ...] = (),
    ):
        if not isinstance(model, nn.Module):
            raise TypeError(f"model is a {type(model).__name__}, not a torch.nn.Module")
        _check(p, cycles, every, biases=biases, batch_norm=batch_norm, variant=variant)
        units = find_units(model, Options(batch_norm), tuple(leaves))
        self._groups, self._left = group_units(units, float(p)), left_out(units)
        if not self._groups:
            reasons = "; ".join(dict.fromkeys(f"{n} {why}" for n, _, _, why in self._left))
            raise ValueError(f"model has no hidden unit that can be rescaled: {reasons or 'none'}")
        self._c = _factors(c, len(self._groups))
        tensors = {id(m.weight): m.use.parameter for group in self._groups for m in group.members}
        parameters = list(tensors.values())
        if optimizer is not None:
            check_optimizer(optimizer, parameters)
        self._carried = OptimizerState(optimizer, parameters)
        self._sweep = Sweep(self._groups, self._carried, biases == "rescale")
        self.p, self.cycles, self.every, self.variant = float(p), cycles, every, variant
        self._calls = 0

    def step(self) -> None:
        """Balance the weights; call after the optimizer's step.

        Raises:
            RuntimeError: if there are gradients that no step of the optimizer has used.
        """
        self._calls += 1
        if self._calls % self.every:
            return
        self._carried.refuse_unspent()
        cycle = self._sweep.cycle if self.variant == "paper" else self._sweep.stale_cycle
        for _ in range(self.cycles):
            cycle(self._c)

    def energy(self) -> float:
        r"""The sum of p-th powers of all weights that take part, the k-th times c^(-p k).

        Where paths of different length meet, as in a residual network, there are no such factors
        unless c is 1: all are 1 then, and the energy may rise.
        """
        factors, total = self._depths(), 0.0
        for weight in self._sweep.weights:
            tensor = weight.tensor.detach().double()
            total += factors[id(weight)] * tensor.abs().pow(self.p).sum().item()
        return total

    def units(self) -> pd.DataFrame:
        """Every unit's norms: group, unit, incoming, outgoing, c."""
        tables = []
        for number, (group, c) in enumerate(zip(self._groups, self._c, strict=True)):
            norms = (x.double().cpu().numpy() ** (1 / self.p) for x in self._sweep.sides(group))
            columns = dict(zip(("incoming", "outgoing"), norms, strict=True))
            tables.append(pd.DataFrame({"group": number, "unit": range(group.count), **columns}))
            tables[-1]["c"] = c
        self._sweep.forget()
        return pd.concat(tables, ignore_index=True)

    def imbalance(self) -> pd.DataFrame:
        """How far each group is from its limit: group, units, dead, imbalance.

        The imbalance is the largest |log(outgoing / (c incoming))| of a unit; dead units have a
        norm that is zero, are left alone and not counted in it.
        """
        table, rows = self.units(), []
        for number, part in table.groupby("group"):
            alive = part[(part.incoming > 0) & (part.outgoing > 0)]
            logs = np.log(alive.outgoing / (alive.c * alive.incoming)).abs()
            dead = len(part) - len(alive)
            rows.append((number, len(part), dead, float(logs.max()) if len(logs) else 0.0))
        return pd.DataFrame(rows, columns=["group", "units", "dead", "imbalance"])

    def rescale_randomly(self, generator: torch.Generator, deviation: float = 1.0) -> None:
        """Multiply every unit by a log-normal number, of this deviation of the logarithm.

        The function stays, and so does the limit; for demonstrations and tests.
        """
        draws = [torch.randn(g.count, generator=generator) for g in self._groups]
        likes = [group.writers[0].use.parameter for group in self._groups]
        pairs = zip(draws, likes, strict=True)
        self._sweep.rescale([draw.mul(deviation).exp().to(like) for draw, like in pairs])

    @property
    def groups(self) -> pd.DataFrame:
        """One row per group of units: group, units, writers, readers, c."""
        rows = [
            (number, group.count, _names(group.writers), _names(group.readers), c)
            for number, (group, c) in enumerate(zip(self._groups, self._c, strict=True))
        ]
        return pd.DataFrame(rows, columns=["group", "units", "writers", "readers", "c"])

    @property
    def unbalanced(self) -> pd.DataFrame:
        """Tensors that keep their scale: tensor, side, channels, reason."""
        return pd.DataFrame(self._left, columns=["tensor", "side", "channels", "reason"])

    def _depths(self) -> dict[int, float]:
        """What each tensor counts in the energy; 1 for all if they contradict."""
        ones = dict.fromkeys(map(id, self._sweep.weights), 1.0)
        if all(c == 1 for c in self._c):
            return ones
        logs: dict[int, float] = {}
        waiting = list(zip(self._groups, self._c, strict=True))
        while waiting:
            known = [pair for pair in waiting if any(k in logs for k in _keys(pair[0]))]
            group, c = known[0] if known else waiting[0]
            waiting = [pair for pair in waiting if pair[0] is not group]
            if not _settle(logs, group, -self.p * math.log(c)):
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


def _names(members: tuple) -> str:
    return ", ".join(" = ".join(member.use.names) for member in members)


def _factors(c: float | Sequence[float], count: int) -> list[float]:
    values = [c] * count if isinstance(c, Real) else list(c)
    if len(values) != count:
        raise ValueError(f"c has {len(values)} numbers, but the model has {count} groups of units")
    for value in values:
        if not (isinstance(value, Real) and 0 < value < math.inf):
            raise ValueError(f"c is {value!r}; it must be a finite number above 0")
    return [float(value) for value in values]


def _check(p: float, cycles: int, every: int, **names: str) -> None:
    if not (isinstance(p, Real) and 1 <= p < math.inf):
        raise ValueError(f"p is {p!r}; it must be a finite number, 1 or more")
    for name, value in (("cycles", cycles), ("every", every)):
        if not (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
            raise ValueError(f"{name} is {value!r}; it must be a whole number of at least 1")
    for name, value in names.items():
        if value not in CHOICES[name]:
            accepted = " or ".join(map(repr, CHOICES[name]))
            raise ValueError(f"{name} is {value!r}; it must be {accepted}")
