"""Which frequencies may hold the largest norm: all but a few are ruled out by factorization."""

__all__ = ["Gram", "candidates"]

import math

import torch
from torch import Tensor

from .hermitian import gram, indefinite, lanczos, lower_blocks, random_rows
from .symbols import Symbol, half_grid

UNIT = {torch.float32: 2.0**-24, torch.float64: 2.0**-53}
CHUNK = 2**19
STARTS = 8
ROUNDS = 3
STEPS = 8


def _dirichlet(turns: Tensor, size: int) -> Tensor:
    """The trigonometric polynomial that is 1 at 0 and 0 at the other `size` points of a grid."""
    lags = torch.arange(1, (size + 1) // 2, dtype=torch.float64)
    return (1 + 2 * (2 * math.pi * turns[..., None] * lags).cos().sum(-1)) / size


class Gram:
    """`G(f) = K(f) K(f)^H` of one group at any frequency of the grid, from its values at a few.

    It is a trigonometric polynomial with as many coefficients as the taps have differences, so
    its values on the coarsest grid that resolves them determine it everywhere.
    """

    def __init__(self, symbol: Symbol, dtype: torch.dtype):
        spans = (symbol.places.amax(0) + 1).tolist()
        grid = tuple(min(2 * s - 1, n) for s, n in zip(spans, symbol.grid, strict=True))
        self.frequencies, _ = half_grid(symbol.grid)
        samples, _ = half_grid(grid)
        if len(samples) >= len(self.frequencies):
            grid, samples = symbol.grid, self.frequencies
        self.symbol, device = symbol, symbol.taps.device
        plus = self._interpolation(samples, grid, symbol.grid)
        minus = self._interpolation(-samples, grid, symbol.grid)
        minus[:, (2 * samples % torch.tensor(grid) == 0).all(1)] = 0
        self.even, self.odd = ((x.to(device, dtype)) for x in (plus + minus, plus - minus))
        coarse = Symbol(symbol.taps, symbol.places, grid)
        self.values = torch.cat([gram(block[:, 0]) for block in coarse.at(samples, dtype)])
        self.size = self.values.shape[1]
        self.rows = lower_blocks(self.size)
        parts = [self.values[:, rows, : rows.stop].flatten(1) for rows in self.rows]
        self.parts = [(part.real.contiguous(), part.imag.contiguous()) for part in parts]

    def _interpolation(self, samples: Tensor, coarse, fine) -> Tensor:
        """Weight of each sample (columns) in the value at each frequency (rows)."""
        weights = torch.ones(len(self.frequencies), len(samples), dtype=torch.float64)
        for axis, (few, many) in enumerate(zip(coarse, fine, strict=True)):
            here, there = self.frequencies[:, None, axis], samples[None, :, axis]
            if few == many:
                weights *= (here - there) % many == 0
            else:
                weights *= _dirichlet(here.double() / many - there.double() / few, few)
        return weights

    def error(self, level: float) -> float:
        """A bound on what rounding can do to a test at this level, in units of G.

        With n rows, m columns, P taps, Q samples on a grid of at most q points an axis, kappa
        `|| sum_t |K_t| ||_F^2`, Lambda the largest sum of weights at a frequency, u the unit:
        `u kappa (Lambda (8 (P + 32) + 16 (m + 8) + 2 (Q + 32)) + Q (100 q + 64))` for G, and
        `8 n (n + 2) u level` for a factorization that succeeds (Rump, BIT 2006).
        """
        _, rows, columns, taps = self.symbol.taps.shape
        unit, samples = UNIT[self.even.dtype], len(self.values)
        kappa = self.symbol.taps.abs().sum(3).square().sum().item()
        weight = (self.even.abs() + self.odd.abs()).sum(1).max().item()
        sums = 8 * (taps + 32) + 16 * (max(rows, columns) + 8) + 2 * (samples + 32)
        widest = max(2 * span + 1 for span in self.symbol.places.amax(0).tolist())
        factor = 8 * self.size * (self.size + 2) * level
        return unit * (kappa * (weight * sums + samples * (100 * widest + 64)) + factor)

    def lower(self, index: Tensor, sign: float = 1.0) -> Tensor:
        """Lower triangles of `sign G` at these frequencies; what is above them is arbitrary."""
        matrices = self.values.new_empty(len(index), self.size, self.size)
        even, odd = sign * self.even[index], sign * self.odd[index]
        for rows, (real, imag) in zip(self.rows, self.parts, strict=True):
            target = matrices[:, rows, : rows.stop]
            torch.complex((even @ real).view_as(target), (odd @ imag).view_as(target), out=target)
        return matrices

    def at(self, index: Tensor) -> Tensor:
        """`G` at these frequencies."""
        half = self.lower(index)
        return half.tril() + half.tril(-1).mH

    def quotients(self, rows: Tensor) -> Tensor:
        """`x^H G(f) x` for each unit row `x^H` at each frequency (columns)."""
        both = torch.cat([rows, rows.conj()])
        values = ((both @ self.values) * both.conj()).sum(2).real
        one, other = values.chunk(2, dim=1)
        return ((one + other).mT @ self.even.mT + (one - other).mT @ self.odd.mT) / 2

    def not_below(self, index: Tensor, level: float) -> Tensor:
        """Those of the frequencies at which no factor shows that `G` is below the level."""
        kept = [index[:0]]
        for part in index.split(max(1, CHUNK // self.size**2)):
            matrices = self.lower(part, -1.0)
            matrices.diagonal(dim1=1, dim2=2).add_(level)
            kept.append(part[indefinite(matrices)])
        return torch.cat(kept)


class _Search:
    """The largest quotient found so far, and estimates of the norm at all frequencies."""

    def __init__(self, values: Gram, starts: int = STARTS):
        self.values, self.found = values, {}
        picks = torch.linspace(0, len(values.values) - 1, starts).round().long().unique()
        chosen = values.values[picks]
        self.rows = lanczos(chosen, random_rows(chosen), STEPS)[1]
        self.estimates, self.source = values.quotients(self.rows).max(0)

    def look(self, index: Tensor, steps: int) -> None:
        """Lanczos at some frequencies, each from the vector that is best there so far."""
        quotients, rows = lanczos(self.values.at(index), self.rows[self.source[index]], steps)
        self.found |= dict(zip(index.tolist(), quotients.tolist(), strict=True))
        estimates, source = self.values.quotients(rows).max(0)
        better = estimates > self.estimates
        self.source = torch.where(better, source + len(self.rows), self.source)
        self.estimates = torch.where(better, estimates, self.estimates)
        self.rows = torch.cat([self.rows, rows])

    def climb(self) -> None:
        """Go where the estimates are largest until they are largest where one has been."""
        for _ in range(ROUNDS):
            order = self.estimates.argsort(descending=True)[: STARTS + len(self.found)]
            new = [place for place in order.tolist() if place not in self.found][:STARTS]
            if not new or self.found and self.estimates[new[0]] < max(self.found.values()):
                break
            self.look(torch.tensor(new), STEPS)
        self.look(torch.tensor([max(self.found, key=self.found.get)]), 3 * STEPS)


def candidates(symbol: Symbol, best: float) -> tuple[Tensor, Tensor, float]:
    """Frequencies that may hold a squared norm above `best`, rows to start from, and a level.

    Everywhere else a float32 factorization says that the squared norm is below the level, the
    largest of `best` and what the search reached, less a margin for that factorization's rounding.
    """
    values = Gram(symbol, torch.float32)
    margin = (160 + 4 * values.size) * UNIT[torch.float32]
    search = _Search(values)
    search.climb()
    level = max(best, *search.found.values()) * (1 - margin)
    waiting = []
    order = search.estimates.argsort(descending=True).cpu()
    for part in order.split(max(STARTS, CHUNK // values.size**2)):
        failed = values.not_below(part, level)
        new = [place for place in failed.tolist() if place not in search.found][:STARTS]
        if new:
            search.look(torch.tensor(new), 2 * STEPS)
            level = max(level, max(search.found.values()) * (1 - margin))
        waiting.append(failed)
    index = values.not_below(torch.cat(waiting), level)
    rows = search.rows[search.source[index.to(search.source.device)]]
    return values.frequencies[index], rows, level * (1 + margin / 2)
