"""Equi-normalization of any network that torch.fx can trace."""

__all__ = ["ENorm"]

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import nn

from .arguments import check_choices, classes_of, factors_of
from .carried import OptimizerState, check_optimizer
from .energy import depth_factors
from .graph import find_units, owners, refuse_replaced
from .groups import group_units, left_out
from .rules import Options
from .sweep import Sweep
from .units import ENDS


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
        model: the network. Images are taken to be batches, a linear layer's input to be
            (N, features), and hooks to look only. It is traced in both modes, so where a forward
            pass draws random numbers to choose its way, only the way drawn is seen.
        optimizer: SGD, Adam, AdamW, NAdam, RAdam, RMSprop or Adagrad, whose buffers move along;
            None leaves buffers alone and rescales gradients that are there. Of weights that it
            does not hold nothing is moved along.
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
        check_choices(p, cycles, every, biases=biases, batch_norm=batch_norm, variant=variant)
        units = find_units(model, Options(batch_norm), classes_of(leaves))
        self._groups, self._left = group_units(units, float(p)), left_out(units, model)
        if not self._groups:
            raise ValueError(f"model has no hidden unit that can be rescaled: {_why(self._left)}")
        self._c = factors_of(c, len(self._groups))
        members = [member for group in self._groups for member in group.members]
        parameters = list({id(m.weight): m.use.parameter for m in members}.values())
        if optimizer is not None:
            check_optimizer(optimizer, parameters)
        self._carried = OptimizerState(optimizer, parameters)
        self._owners, self._calls = owners(model, parameters), 0
        self._sweep = Sweep(self._groups, self._carried, biases == "rescale")
        self.p, self.cycles, self.every, self.variant = float(p), cycles, every, variant

    def step(self) -> None:
        """Balance the weights; call after the optimizer's step.

        Raises:
            RuntimeError: if there are gradients that no step of the optimizer has used, or a
                weight is another tensor than it was.
        """
        self._calls += 1
        if self._calls % self.every:
            return
        refuse_replaced(self._owners)
        self._carried.refuse_unspent()
        cycle = self._sweep.cycle if self.variant == "paper" else self._sweep.stale_cycle
        for _ in range(self.cycles):
            cycle(self._c)

    def state_dict(self) -> dict[str, int]:
        """How often `step` was called, which decides when it acts."""
        return {"calls": self._calls}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on with that count."""
        self._calls = state["calls"]

    def energy(self) -> float:
        r"""The sum of p-th powers of all weights that take part, the k-th times c^(-p k).

        Where paths of different length meet, as in a residual network, there are no such factors
        unless c is 1: all are 1 then, and the energy may rise.
        """
        factors, total = depth_factors(self._groups, self._c, self.p), 0.0
        for weight in self._sweep.weights:
            tensor = weight.tensor.detach().double()
            total += factors[id(weight)] * tensor.abs().pow(self.p).sum().item()
        return total

    def units(self) -> pd.DataFrame:
        """Every unit's norms: group, unit, incoming, outgoing, c."""
        self._sweep.forget()
        counts = [group.count for group in self._groups]
        sides = [self._sweep.sides(group) for group in self._groups]
        self._sweep.forget()
        ingoing, outgoing = (
            np.concatenate([side.double().cpu().numpy() for side in part]) ** (1 / self.p)
            for part in zip(*sides, strict=True)
        )
        unit = np.concatenate([np.arange(count) for count in counts])
        group, c = (np.repeat(values, counts) for values in (range(len(counts)), self._c))
        columns = {"group": group, "unit": unit, "incoming": ingoing, "outgoing": outgoing, "c": c}
        return pd.DataFrame(columns)

    def imbalance(self) -> pd.DataFrame:
        """How far each group is from its limit: group, units, dead, imbalance.

        The imbalance is the largest |log(outgoing / (c incoming))| of a unit; dead units have a
        norm that is zero, are left alone and not counted in it.
        """
        table = self.units()
        dead = (table.incoming == 0) | (table.outgoing == 0)
        ratio = (table.outgoing / (table.c * table.incoming)).where(~dead, 1.0)
        table = table.assign(dead=dead, imbalance=np.log(ratio).abs())
        columns = {"units": ("unit", "size"), "dead": ("dead", "sum")}
        columns["imbalance"] = ("imbalance", "max")
        return table.groupby("group", as_index=False).agg(**columns)

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


def _why(left: list[tuple]) -> str:
    """The first reasons, those of the network's ends last."""
    told = [f"{name} {why}" for name, _, _, why in left if why not in ENDS]
    told = list(dict.fromkeys(told + [f"{name} {why}" for name, _, _, why in left]))
    more = f"; and {len(told) - 3} more" if len(told) > 3 else ""
    return "; ".join(told[:3]) + more if told else "it has no weights"


def _names(members: tuple) -> str:
    return ", ".join(" = ".join(member.use.names) for member in members)
