"""An approximate inverse for padded convolutions, from their waves on the torus."""

__all__ = ["wave_inverse"]

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import normalize

from .hermitian import random_rows, ritz_rows
from .interpolation import Gram
from .maps import LinearMap
from .symbols import half_grid

CHUNK = 2**20
STEPS = 20
WAVES = 4
BULK = 0.7
SHIFT = 0.25


def _top_waves(gram: Gram, on_outputs: bool) -> tuple[Tensor, Tensor]:
    """Squared norms (half grid, WAVES) and orthonormal vectors (half grid, WAVES, channels)."""
    symbol, values, vectors = gram.symbol, [], []
    steps = min(STEPS, 6 + gram.size // 16)
    wide = symbol.taps.shape[1] <= symbol.taps.shape[2]
    for part in torch.arange(len(gram.frequencies)).split(max(1, CHUNK // gram.size**2)):
        matrices = gram.at(part)
        squares, rows = ritz_rows(matrices, random_rows(matrices), steps, WAVES)
        if on_outputs and not wide:
            blocks = torch.cat(list(symbol.at(gram.frequencies[part], squares.dtype)))[:, 0]
            rows = normalize(rows @ blocks.to(rows.dtype).mT, dim=2)
        values.append(squares)
        vectors.append(rows if on_outputs and wide else rows.conj())
    return torch.cat(values), torch.cat(vectors)


def _at_all(gram: Gram, grid: list[int], vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Each frequency's place in the half grid, and its vectors, as a real transform has them."""
    sizes = [*grid[:-1], grid[-1] // 2 + 1]
    every = torch.ones(sizes).nonzero() * torch.tensor(gram.symbol.factors)
    where = (every % torch.tensor(gram.grid)).unbind(1)
    _, place, mirrored = half_grid(gram.grid)
    place, mirrored = place[where].view(sizes), mirrored[where].view(*sizes, 1, 1)
    vectors = vectors[place]
    return place, torch.where(mirrored.to(vectors.device), vectors.conj(), vectors)


def wave_inverse(linear: LinearMap, gram: Gram, grid: list[int], on_outputs: bool) -> Callable:
    """An approximate inverse of `tau I - A A^T` or `tau I - A^T A`: that of the taps on the torus.

    There every frequency is by itself. Only a few top singular vectors v of each are kept: the
    inverse is `1 / (tau - lambda)` along each, and one smaller number for all else.
    """
    values, vectors = _top_waves(gram, on_outputs)
    place, vectors = _at_all(gram, grid, vectors)
    tau = values.max() * (1 + SHIFT * (math.pi / min(grid)) ** 2)
    rest = 1 / (tau - BULK * values[:, -1])
    along, rest = (1 / (tau - values) - rest[:, None])[place], rest[place]
    shape = linear.out_shape if on_outputs else linear.in_shape
    dims, inside = tuple(range(2, 2 + len(grid))), (..., *(slice(size) for size in shape[1:]))

    def invert(x: Tensor) -> Tensor:
        waves = torch.fft.rfftn(x.view(-1, *shape).to(values), s=grid, dim=dims)
        waves = waves.movedim((0, 1), (-2, -1)).contiguous()  # (*grid, count, channels)
        shares = along[..., None, :] * (waves @ vectors.mH)
        waves = rest[..., None, None] * waves + shares @ vectors
        waves = torch.fft.irfftn(waves.movedim((-2, -1), (0, 1)), s=grid, dim=dims)
        return waves[inside].flatten(1).to(x)

    return invert
