"""The norms of a weight's rows and columns, and the scales that wait to be written."""

import torch
from torch import Tensor

from .units import Shape

__all__ = ["Weight", "scale_", "scales_of"]


def _blocks(tensor: Tensor, shape: Shape) -> Tensor:
    """A view of a weight as (groups, a, b, *taps), a and b outputs and inputs of a group."""
    groups = shape.groups
    return tensor.view(groups, tensor.shape[0] // groups, *tensor.shape[1:])


def _along(scale: Tensor, shape: Shape, side: str, dims: int) -> Tensor:
    """A scale of each channel as a factor of `_blocks`."""
    first = (side == "rows") != shape.transposed
    sizes = (-1, 1) if first else (1, -1)
    return scale.view(shape.groups, *sizes, *[1] * (dims - 2))


def scale_(tensor: Tensor, shape: Shape, rows: Tensor | None, columns: Tensor | None) -> None:
    """Multiply each row and each column of a weight, or of what belongs to it, in place.

    Example:
        >>> weight = torch.ones(2, 3)
        >>> scale_(weight, Shape("matrix"), torch.tensor([2.0, 3.0]), None)
        >>> weight.tolist()
        [[2.0, 2.0, 2.0], [3.0, 3.0, 3.0]]
    """
    if shape.kind != "matrix":
        if rows is not None:
            tensor.mul_(rows.to(tensor.dtype))
        return
    view = _blocks(tensor, shape)
    for scale, side in ((rows, "rows"), (columns, "columns")):
        if scale is not None:
            view.mul_(_along(scale.to(tensor.dtype), shape, side, tensor.dim()))


def scales_of(tensor: Tensor, power: float) -> Tensor:
    """What a scale is for a quantity that goes as this power of the weight."""
    return tensor if power == 1 else tensor.reciprocal() if power == -1 else tensor.pow(power)


class Weight:
    r"""The sums of the p-th powers along the rows and columns of a weight, as it is being scaled.

    .. math:: r_i = \rho_i^p \sum_j \kappa_j^p \, S_{ij}, \quad S_{ij} = \sum_t |W_{ijt}|^p

    In plain words: the weight is read once, its taps are summed, and what scales rows (rho) and
    columns (kappa) is kept aside until both are known; only then is the weight written.

    Arguments:
        tensor: (C_out, C_in / groups, *taps), or (C_in, C_out / groups, *taps) if transposed, or
            (C,) for a diagonal.
        shape: its layout.
        p: of the norm.

    Example:
        >>> weight = Weight(torch.tensor([[3.0, 4.0]]), Shape("matrix"), 2)
        >>> weight.read()
        >>> weight.sums("columns").tolist()
        [9.0, 16.0]
        >>> weight.scale("columns", torch.tensor([2.0, 1.0]), torch.tensor([4.0, 1.0]))
        >>> weight.sums("rows").tolist()
        [52.0]
    """

    def __init__(self, tensor: Tensor, shape: Shape, p: float):
        self.tensor, self.shape, self.p = tensor, shape, p
        half = tensor.dtype in (torch.float16, torch.bfloat16)
        self.dtype = torch.float32 if half else tensor.dtype
        self.powers: Tensor | None = None
        self.scales: dict[str, Tensor] = {}
        self._scaled: dict[str, Tensor] = {}

    def size(self, side: str) -> int:
        """How many channels a side has."""
        if self.shape.kind == "diagonal" or (side == "rows") != self.shape.transposed:
            return self.tensor.shape[0]
        return self.tensor.shape[1] * self.shape.groups

    def read(self, buffer: Tensor | None = None) -> None:
        """Compute S, (groups, outputs, inputs) of a group each; or (C,) for a diagonal."""
        tensor = self.tensor.detach().to(self.dtype)
        if self.p == 2:
            powers = torch.mul(tensor, tensor, out=buffer)
        else:
            powers = tensor.abs().pow_(self.p)
        if self.shape.kind == "matrix":
            powers = _blocks(powers, self.shape)
            powers = powers.sum(tuple(range(3, powers.dim()))) if powers.dim() > 3 else powers
            powers = powers.mT if self.shape.transposed else powers
        self.powers, self.scales, self._scaled = powers, {}, {}

    def sums(self, side: str) -> Tensor:
        """The sum of each row or column as it is scaled so far, (C,)."""
        if self.shape.kind == "diagonal":
            return self._times(self.powers, side)
        other = "columns" if side == "rows" else "rows"
        weights = self._scaled.get(other)
        matrix = self.powers if side == "rows" else self.powers.mT
        if weights is None:
            weights = matrix.new_ones(1).expand(matrix.shape[0] * matrix.shape[2])
        if len(matrix) == 1:
            return self._times(torch.mv(matrix[0], weights), side)
        blocks = weights.view(len(matrix), -1, 1)
        return self._times(torch.bmm(matrix, blocks).flatten(), side)

    def matrix(self) -> Tensor:
        """Every entry of S as it is scaled so far, (C_out, C_in), zero between groups."""
        dense = torch.block_diag(*self.powers)
        rows, columns = (self._scaled.get(side) for side in ("rows", "columns"))
        dense = dense if rows is None else dense * rows[:, None]
        return dense if columns is None else dense * columns

    def scale(self, side: str, scale: Tensor, power: Tensor) -> None:
        """Multiply a side by a scale, of which the p-th power is given, too."""
        before = side in self.scales
        self.scales[side] = self.scales[side] * scale if before else scale
        self._scaled[side] = self._scaled[side] * power if before else power

    def _times(self, sums: Tensor, side: str) -> Tensor:
        return sums * self._scaled[side] if side in self._scaled else sums
