"""The norms of a weight's rows and columns, and the scales that wait to be written."""

import torch
from torch import Tensor

from .units import Use

__all__ = ["Weight", "move_"]

OTHER = {"rows": "columns", "columns": "rows"}


def move_(tensor: Tensor, factor: Tensor, power: int) -> None:
    """Multiply a tensor by a power (1, -1 or -2) of a factor, in place.

    Example:
        >>> square = torch.tensor([8.0])
        >>> move_(square, torch.tensor([2.0]), -2)
        >>> square.item()
        2.0
    """
    if power < 0:
        factor = factor.reciprocal()
    if power == -2:
        factor = factor.square()
    tensor.mul_(factor if factor.dtype == tensor.dtype else factor.to(tensor.dtype))


class Weight:
    r"""The sums of the p-th powers along the rows and columns of a weight, as it is being scaled.

    .. math:: r_i = \rho_i^p \sum_j \kappa_j^p \, S_{ij}, \quad S_{ij} = \sum_t |W_{ijt}|^p

    In plain words: the weight is read once, its taps are summed, and what scales rows (rho) and
    columns (kappa) is kept aside until both are known; only then is the weight written. S is
    dropped as soon as one side is settled, so that the squares of linear layers share a buffer.

    Arguments:
        use: the parameter, (C_out, C_in / groups, *taps), or (C_in, C_out / groups, *taps) if
            transposed, or (C,) for a diagonal; and its layout.
        p: of the norm.

    Example:
        >>> import numpy as np
        >>> from normkit.projections.enorm.units import Shape
        >>> tensor = torch.tensor([[3.0, 4.0]])
        >>> weight = Weight(Use(tensor, Shape("matrix"), np.arange(1), np.arange(2)), 2)
        >>> weight.read()
        >>> weight.sums("columns").tolist()
        [9.0, 16.0]
        >>> weight.scale("columns", torch.tensor([2.0, 1.0]), torch.tensor([4.0, 1.0]))
        >>> weight.sums("rows").tolist()
        [52.0]
    """

    def __init__(self, use: Use, p: float):
        self.use, self.tensor, self.shape, self.p = use, use.parameter, use.shape, p
        self.flat = self.shape.kind == "matrix" and self.shape.groups == 1
        self.flat = self.flat and self.tensor.dim() == 2
        self.last = {"rows": -1, "columns": -1}
        self.linked = False
        self.forget()

    @property
    def dtype(self) -> torch.dtype:
        """In which sums are taken: single precision for half, the weight's own else."""
        half = self.tensor.dtype in (torch.float16, torch.bfloat16)
        return torch.float32 if half else self.tensor.dtype

    def forget(self) -> None:
        """Drop what was read, computed and meant to be written."""
        self.powers: Tensor | None = None
        self.known = False
        self._sums: dict[str, Tensor] = {}
        self._scales: dict[str, Tensor] = {}
        self._scaled: dict[str, Tensor] = {}

    def read(self, buffer: Tensor | None = None) -> None:
        """Compute S: (C_out, C_in) of a linear layer, (groups, outputs, inputs) of a group each
        of a convolution, (C,) of a diagonal."""
        tensor = self.tensor.detach()
        tensor = tensor if tensor.dtype == self.dtype else tensor.to(self.dtype)
        if self.p == 2:
            powers = torch.mul(tensor, tensor, out=buffer)
        else:
            powers = tensor.abs().pow_(self.p)
        if self.shape.kind == "matrix" and not self.flat:
            powers = self._blocks(powers)
            powers = powers.sum(tuple(range(3, powers.dim()))) if powers.dim() > 3 else powers
            powers = powers.mT if self.shape.transposed else powers
        self.powers, self.known = powers, True

    def settle(self, side: str) -> Tensor:
        """Note that a side will not be scaled again: what is left are the sums of the other."""
        other, powers = OTHER[side], self.powers
        self._sums[other], self.powers = self._along(other), None
        return powers

    def sums(self, side: str) -> Tensor:
        """The sum of each row or column as it is scaled so far, (C,)."""
        sums = self._sums[side] if side in self._sums else self._along(side)
        return sums * self._scaled[side] if side in self._scaled else sums

    def _along(self, side: str) -> Tensor:
        """Sums over the other side, as that one is scaled."""
        powers, weights = self.powers, self._scaled.get(OTHER[side])
        if self.shape.kind == "diagonal":
            return powers
        if weights is None:
            return powers.sum(-1 if side == "rows" else -2).flatten()
        powers = powers if side == "rows" else powers.mT
        if self.flat:
            return torch.mv(powers, weights)
        return torch.bmm(powers, weights.view(powers.shape[0], -1, 1)).flatten()

    def matrix(self) -> Tensor:
        """Every entry of S as it is scaled so far, (C_out, C_in), zero between groups."""
        dense = self.powers if self.flat else torch.block_diag(*self.powers)
        rows, columns = (self._scaled.get(side) for side in OTHER)
        dense = dense if rows is None else dense * rows[:, None]
        return dense if columns is None else dense * columns

    def scale(self, side: str, scale: Tensor, power: Tensor) -> None:
        """Multiply a side by a scale, of which the p-th power is given, too."""
        before = side in self._scales
        self._scales[side] = self._scales[side] * scale if before else scale
        self._scaled[side] = self._scaled[side] * power if before else power

    def write(self, others: list[tuple[Tensor, int]]) -> None:
        """Scale the weight, and each other tensor of its form by a power of what it is scaled."""
        factors = [self._factor(side, scale) for side, scale in self._scales.items()]
        if len(factors) == 2 and not self.flat:  # the taps are many, the pairs of channels few
            factors = [factors[0] * factors[1]]
        whole = self.flat or self.shape.kind == "diagonal"
        for tensor, power in ((self.tensor, 1), *others):
            tensor = tensor if whole else self._blocks(tensor)
            for factor in factors:
                move_(tensor, factor, power)
        self.forget()

    def _factor(self, side: str, scale: Tensor) -> Tensor:
        """A scale of each channel as it meets the weight, or its blocks."""
        if self.shape.kind == "diagonal":
            return scale
        if self.flat:
            return scale[:, None] if side == "rows" else scale
        first = (side == "rows") != self.shape.transposed
        sizes = (-1, 1) if first else (1, -1)
        return scale.view(self.shape.groups, *sizes, *[1] * (self.tensor.dim() - 2))

    def _blocks(self, tensor: Tensor) -> Tensor:
        """A view (groups, a, b, *taps), a and b outputs and inputs of a group."""
        groups = self.shape.groups
        return tensor.view(groups, tensor.shape[0] // groups, *tensor.shape[1:])
