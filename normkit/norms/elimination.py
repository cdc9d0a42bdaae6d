"""Which frequencies may hold the largest norm: all but a few are ruled out by factorization."""

__all__ = ["Gram", "candidates"]

import functools
import math
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

import torch
from torch import Tensor

from .hermitian import gram, indefinite, lanczos, random_rows
from .symbols import Symbol, half_grid

UNIT = {torch.float32: 2.0**-24, torch.float64: 2.0**-53}
CHUNK = 2**19
PARTS = 4
LINES = 2**23
MERGED = 64
TABLE = 2**22
FEW = 24
STARTS = 8
ROUNDS = 3
STEPS = 8
RADII = (4, 2, 1)


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


def _product(left: Tensor, right: Tensor) -> Tensor:
    """Rows of a table of two axes from the tables of each."""
    return (left[:, None, :, None] * right[None, :, None, :]).flatten(2).flatten(0, 1)


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
        half, place, mirrored = half_grid(self.coarse)
        blocks = torch.cat([*replace(symbol, grid=self.coarse).at(half, dtype)])[:, 0]
        real = (2 * half % torch.tensor(self.coarse) == 0).all(1)
        self.samples = blocks.new_empty(len(half), self.size, self.size, dtype=dtype.to_complex())
        self.samples[real] = gram(blocks[real].real).to(self.samples)
        self.samples[~real] = gram(blocks[~real]).to(self.samples)
        self.values = self.samples[place.flatten()]
        self.values[mirrored.flatten()] = self.values[mirrored.flatten()].conj()
        many = self.size >= MERGED or math.prod(self.grid) * len(place.flatten()) > TABLE
        self._split(len(self.grid) - 1 if many else 0, symbol.taps.device, dtype)

    def _split(self, cut: int, device: torch.device, dtype: torch.dtype) -> None:
        """Tables of the axes before the cut, that number the lines, and of those after it."""
        tables = [_table(few, many).to(device, dtype) for few, many in zip(self.coarse, self.grid)]
        one = tables[0].new_ones(1, 1)
        parts = (functools.reduce(_product, part, one) for part in (tables[:cut], tables[cut:]))
        self.lines, self.points = parts
        radix = [math.prod(self.grid[axis + 1 :]) for axis in range(len(self.grid))]
        places = (self.frequencies * torch.tensor(radix, dtype=torch.int64)).sum(1)
        self.line, self.point = places // len(self.points), places % len(self.points)

    def _blocks(self, index: Tensor, sign: float) -> Iterator[tuple[Tensor, Tensor]]:
        """Places in the index, and `sign G` there."""
        chunk = max(1, CHUNK // self.size**2)
        if self.coarse == self.grid:
            places = self.line * len(self.points) + self.point
            for part in torch.arange(len(index)).split(chunk):
                yield part, sign * self.values[places[index[part]]]
            return
        width = self.points.shape[1]
        flat = torch.view_as_real(self.values).view(self.lines.shape[1], -1)
        entries = flat.shape[1] // width
        lines, which = self.line[index].unique(return_inverse=True)
        for group in lines.split(max(1, LINES // flat.shape[1])):
            along = (self.lines[group] @ flat).view(len(group), width, entries)
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
        unit, samples = UNIT[self.points.dtype], len(self.values)
        kappa = self.symbol.taps.abs().sum(3).square().sum().item()
        weight = math.prod(x.abs().sum(1).max().item() for x in (self.lines, self.points))
        sums = 8 * (taps + 32) + 16 * (max(rows, columns) + 8) + 4 * (samples + 32)
        widest = 2 * max(self.degrees) + 1
        factor = 8 * self.size * (self.size + 2) * level
        return unit * (kappa * (weight * sums + samples * (100 * widest + 64)) + factor)


class _Search:
    """The largest quotient found so far, and estimates of the norm at all frequencies."""

    def __init__(self, values: Gram, starts: int = STARTS):
        self.values, self.found = values, {}
        picks = torch.linspace(0, len(values.samples) - 1, starts).round().long().unique()
        chosen = values.samples[picks]
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


def _share(values: Gram, radius: int) -> float:
    """What share of the largest norm is certain within `radius` steps of where it is reached.

    For its top vector x, `x^H G x` is a trigonometric polynomial between 0 and M of degree D in
    each axis, so arccos(sqrt(x^H G x / M)) changes by at most D / 2 a radian (Bernstein, Szego):
    by eta = pi D / N a step. On a line of the grid M is at most `S / cos^2(eta / 2)`, S the
    largest norm of the grid, since a grid point is within half a step of the line's maximum; and
    a path from one frequency to another goes along such lines.
    """
    eta = max(math.pi * d / n for d, n in zip(values.degrees, values.grid, strict=True))
    angle = (radius + 0.5) * eta
    return (math.cos(angle) / math.cos(eta / 2)) ** 2 if angle < math.pi / 2 else 0.0


@lru_cache(maxsize=256)
def _balls(grid: tuple[int, ...], radius: int) -> tuple[Tensor, Tensor]:
    """Centers (frequencies) of balls that tile a grid of one or two axes, and what each holds."""
    frequencies, place, _ = half_grid(grid)
    factors = torch.tensor([1] if len(grid) == 1 else [radius, radius + 1])
    count = 2 * radius + 1 if len(grid) == 1 else 2 * radius * (radius + 1) + 1
    centers = ((frequencies * factors).sum(1) % count == 0).nonzero()[:, 0]
    steps = torch.ones([2 * radius + 1] * len(grid)).nonzero() - radius
    steps = steps[steps.abs().sum(1) <= radius]
    points = (frequencies[centers, None] + steps) % torch.tensor(grid)
    return centers, place[points.unbind(-1)]


def _covered(values: Gram, estimates: Tensor, level: float, margin: float) -> Tensor:
    """Which frequencies cannot hold the largest norm, because the norm nearby is too small.

    A test at the center of a ball discards it, the level being at most the largest norm of the
    grid. Large balls first; a size is given up where too few of its tests succeed.
    """
    covered = torch.zeros(len(values.frequencies), dtype=torch.bool)
    for radius in RADII if len(values.grid) <= 2 and values.size >= FEW else ():
        share = _share(values, radius)
        if share < 4 * margin:
            continue
        centers, members = _balls(values.grid, radius)
        hopeful = ~covered[centers] & (estimates[centers] < share * level)
        order = hopeful.nonzero()[:, 0]
        for part in (order[::STARTS], order[torch.arange(len(order)) % STARTS > 0]):
            failed = values.not_below(centers[part], (share - margin) * level)
            passed = part[~torch.isin(centers[part], failed)]
            covered[members[passed].flatten()] = True
            if len(passed) <= len(part) / 2:
                break
    return covered


def candidates(values: Gram, best: float) -> tuple[Tensor, Tensor, float]:
    """Frequencies that may hold a squared norm above `best`, rows to start from, and a level.

    The level is the largest of `best` and what the search reached. Everywhere else float32 tests,
    with a margin for their rounding, say that the squared norm is below it or not the largest.
    """
    margin, search = (160 + 4 * values.size) * UNIT[torch.float32], _Search(values)
    search.climb()
    level = max(best, *search.found.values()) * (1 - margin)
    covered = _covered(values, search.estimates.cpu(), level, margin)
    order = (~covered).nonzero()[:, 0]
    waiting = [order[:0]]
    for part in order.split(max(1, len(order) // PARTS, CHUNK // values.size**2)):
        failed = values.not_below(part, level)
        new = [place for place in failed.tolist() if place not in search.found][:STARTS]
        if new:
            search.look(torch.tensor(new), 2 * STEPS)
            level = max(level, max(search.found.values()) * (1 - margin))
        waiting.append(failed)
    index = values.not_below(torch.cat(waiting), level)
    rows = search.rows[search.source[index.to(search.source.device)]]
    return values.frequencies[index], rows, level * (1 + margin / 2)
