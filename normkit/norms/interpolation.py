"""Gram matrices of a symbol at any frequency, interpolated from their values at a few."""

__all__ = ["Gram"]

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property, lru_cache, reduce

import torch
from torch import Tensor

from .hermitian import gram, indefinite
from .symbols import Symbol, half_grid

UNIT = {torch.float32: 2.0**-24, torch.float64: 2.0**-53}
CHUNK = 2**19
LINES = 2**23
MERGED = 64
TABLE = 2**22


@lru_cache(maxsize=256)
def _table(few: int, many: int) -> Tensor:
    """What each of a few points (columns) weighs in the value at each of many (rows).

    A trigonometric polynomial follows from its values on a grid of as many points as it has
    coefficients; each is weighed by the polynomial that is 1 there and 0 at the others.
    """
    if few == many:
        return torch.eye(many, dtype=torch.float64)
    turns = torch.arange(many)[:, None].double() / many - torch.arange(few).double() / few
    lags = torch.arange(1, (few + 1) // 2, dtype=torch.float64)
    return (1 + 2 * (2 * math.pi * turns[..., None] * lags).cos().sum(-1)) / few


class Gram:
    """`G(f) = K(f) K(f)^H` of one group at any frequency of the grid, from its values at a few.

    It is a trigonometric polynomial with as many coefficients as the taps have differences, so
    its values on the coarsest grid that resolves them determine it everywhere: those of large
    matrices along a line of the last axis first, and from these all frequencies on the line.
    """

    def __init__(self, symbol: Symbol, dtype: torch.dtype):
        self.symbol, self.grid = symbol, symbol.grid
        self.degrees = symbol.places.amax(0).tolist()
        self.size = min(symbol.taps.shape[1:3])
        self.frequencies = half_grid(self.grid)[0]
        self.coarse = tuple(min(2 * d + 1, n) for d, n in zip(self.degrees, self.grid))
        half = half_grid(self.coarse)[0]
        coarse, shape = replace(symbol, grid=self.coarse), (len(half), self.size, self.size)
        self.samples = symbol.taps.new_empty(shape, dtype=dtype.to_complex())
        real = (2 * half % torch.tensor(self.coarse) == 0).all(1)
        for kind in (real, ~real):
            for part in kind.nonzero()[:, 0].split(max(1, CHUNK // self.size**2)):
                blocks = torch.cat([*coarse.at(half[part], dtype)])[:, 0]
                blocks = blocks.real.contiguous() if kind is real else blocks
                self.samples[part] = gram(blocks).to(self.samples)
        many = self.size >= MERGED or math.prod(self.grid) * math.prod(self.coarse) > TABLE
        self._split(len(self.grid) - 1 if many else 0, symbol.taps.device, dtype)

    @cached_property
    def _flat(self) -> Tensor:
        """Real and imaginary parts of `G` on all of the coarse grid, those of a line in a row."""
        _, place, mirrored = half_grid(self.coarse)
        values = self.samples[place.flatten()]
        values.imag.mul_(1 - 2 * mirrored.view(-1, 1, 1).to(values.device, torch.int8))
        return torch.view_as_real(values).view(self.lines.shape[1], -1)

    def _split(self, cut: int, device: torch.device, dtype: torch.dtype) -> None:
        """Tables of the axes before the cut, that number the lines, and of those after it."""
        tables = [_table(few, many).to(device, dtype) for few, many in zip(self.coarse, self.grid)]
        one = tables[0].new_ones(1, 1)
        parts = (reduce(torch.kron, part, one) for part in (tables[:cut], tables[cut:]))
        self.lines, self.points = parts
        places = torch.arange(math.prod(self.grid)).view(self.grid)[self.frequencies.unbind(1)]
        self.line, self.point = places // len(self.points), places % len(self.points)

    def _blocks(self, index: Tensor, sign: float) -> Iterator[tuple[Tensor, Tensor]]:
        """Places in the index, and `sign G` there."""
        chunk = max(1, CHUNK // self.size**2)
        if self.coarse == self.grid:
            for part in torch.arange(len(index)).split(chunk):
                yield part, self.samples[index[part]].mul_(sign)
            return
        width = self.points.shape[1]
        entries = self._flat.shape[1] // width
        lines, which = self.line[index].unique(return_inverse=True)
        for group in lines.split(max(1, LINES // self._flat.shape[1])):
            along = (self.lines[group] @ self._flat).view(len(group), width, entries)
            for line, values in zip(group, along, strict=True):
                for part in (lines[which] == line).nonzero()[:, 0].split(chunk):
                    block = sign * self.points[self.point[index[part]]] @ values
                    shape = (len(part), self.size, self.size, 2)
                    yield part, torch.view_as_complex(block.view(shape))

    def at(self, index: Tensor) -> Tensor:
        """`G` at these frequencies."""
        matrices = self.samples.new_empty(len(index), self.size, self.size)
        for part, block in self._blocks(index, 1.0):
            matrices[part] = block
        return matrices

    def not_below(self, index: Tensor, level: float) -> Tensor:
        """Those of the frequencies at which no factor shows that `G` is below the level."""
        kept = [index[:0]]
        for part, block in self._blocks(index, -1.0):
            block.diagonal(dim1=1, dim2=2).add_(level)
            kept.append(index[part][indefinite(block).cpu()])
        return torch.cat(kept)

    def quotients(self, rows: Tensor) -> Tensor:
        """`x^H G(f) x` for each unit row `x^H` at each frequency (columns)."""
        _, place, mirrored = half_grid(self.coarse)
        both = torch.cat([rows, rows.conj()])
        values = ((both @ self.samples) * both.conj()).sum(2).real
        one, other = values[place.flatten()].chunk(2, dim=1)
        values = torch.where(mirrored.view(-1, 1).to(values.device), other, one)
        values = self.lines @ values.view(self.lines.shape[1], -1)
        values = self.points @ values.view(len(self.lines), self.points.shape[1], -1)
        return values[self.line, self.point].T

    def error(self, level: float) -> float:
        """A bound on what rounding can do to a test at this level, in units of G.

        With n rows, m columns, P taps, Q samples on a grid of at most q points an axis, kappa
        `|| sum_t |K_t| ||_F^2`, Lambda the largest sum of weights at a frequency, u the unit:
        `u kappa (Lambda (8 (P + 32) + 16 (m + 8) + 4 (Q + 32)) + Q (100 q + 64))` for G, and
        `8 n (n + 2) u level` for a factorization that succeeds (Rump, BIT 2006).
        """
        _, rows, columns, taps = self.symbol.taps.shape
        unit, samples = UNIT[self.points.dtype], math.prod(self.coarse)
        kappa = self.symbol.taps.abs().sum(3).square().sum().item()
        weight = math.prod(x.abs().sum(1).max().item() for x in (self.lines, self.points))
        sums = 8 * (taps + 32) + 16 * (max(rows, columns) + 8) + 4 * (samples + 32)
        widest = 2 * max(self.degrees) + 1
        factor = 8 * self.size * (self.size + 2) * level
        return unit * (kappa * (weight * sums + samples * (100 * widest + 64)) + factor)
