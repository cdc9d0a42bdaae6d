"""Which frequencies may hold the largest norm: all but a few are ruled out by factorization."""

__all__ = ["candidates"]

import math
from functools import lru_cache

import torch
from torch import Tensor

from .hermitian import lanczos, random_rows
from .interpolation import CHUNK, UNIT, Gram
from .symbols import half_grid

PARTS = 4
FEW = 24
STARTS = 8
ROUNDS = 3
STEPS = 8
RADII = (4, 2, 1)


class _Search:
    """The largest quotient found so far, and estimates of the norm at all frequencies."""

    def __init__(self, values: Gram):
        self.values, self.found = values, {}
        picks = torch.linspace(0, len(values.samples) - 1, STARTS).round().long().unique()
        chosen = values.samples[picks]
        quotients, self.rows = lanczos(chosen, random_rows(chosen), STEPS)
        self.estimates, self.source = values.quotients(self.rows).max(0)
        if values.coarse == values.grid:  # the samples are all frequencies, in their order
            self.found = dict(zip(picks.tolist(), quotients.tolist(), strict=True))

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
    top = max(search.found, key=search.found.get)
    level = max(best, search.found[top]) * (1 - margin)
    covered = _covered(values, search.estimates.cpu(), level, margin)
    covered[top] = True
    order = (~covered).nonzero()[:, 0]
    waiting = [torch.tensor([top])]
    for part in order.split(max(1, len(order) // PARTS, CHUNK // values.size**2)):
        failed = values.not_below(part, level)
        if len(failed):
            search.look(failed[:STARTS], 2 * STEPS)
            level = max(level, max(search.found.values()) * (1 - margin))
        waiting.append(failed)
    index = values.not_below(torch.cat(waiting), level)
    rows = search.rows[search.source[index.to(search.source.device)]]
    return values.frequencies[index], rows, level * (1 + margin / 2)
