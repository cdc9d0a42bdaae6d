"""An approximate inverse for padded convolutions, from their waves on the torus."""

__all__ = ["wave_inverse"]

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import normalize

from .elimination import Gram
from .hermitian import random_rows, ritz_rows
from .maps import LinearMap
from .symbols import Symbol, half_grid, symbol_of

CHUNK = 2**20
STEPS = 24
WAVES = 4
BULK = 0.7
SHIFT = 1e-3


def _top_waves(symbol: Symbol, on_outputs: bool, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Squared norms (half grid, WAVES) and orthonormal vectors (half grid, WAVES, channels)."""
    gram, values, vectors = Gram(symbol, dtype), [], []
    steps = min(STEPS, 8 + gram.size // 16)
    wide = symbol.taps.shape[1] <= symbol.taps.shape[2]
    for part in torch.arange(len(gram.frequencies)).split(max(1, CHUNK // gram.size**2)):
        matrices = gram.at(part)
        squares, rows = ritz_rows(matrices, random_rows(matrices), steps, WAVES)
        if on_outputs and not wide:
            blocks = torch.cat(list(symbol.at(gram.frequencies[part], dtype)))[:, 0]
            rows = normalize(rows @ blocks.mT, dim=2)
        values.append(squares)
        vectors.append(rows if on_outputs and wide else rows.conj())
    return torch.cat(values), torch.cat(vectors)


def wave_inverse(linear: LinearMap, torus: list[int], on_outputs: bool) -> Callable:
    """An approximate inverse of `tau I - A A^T` or `tau I - A^T A`: that of the taps on the torus.

    There every frequency is by itself. Only a few top singular vectors v of each are kept: the
    inverse is `1 / (tau - lambda)` along each, and one smaller number for all else.
    """
    symbol = symbol_of(linear, torus)
    values, vectors = _top_waves(symbol, on_outputs, linear.weight.dtype)
    grid, dims = symbol.grid, tuple(range(-len(symbol.grid), 0))
    _, place, mirrored = half_grid(grid)
    place = place[..., : grid[-1] // 2 + 1]
    mirrored = mirrored[..., : place.shape[-1], None, None].to(vectors.device)
    vectors = torch.where(mirrored, vectors[place].conj(), vectors[place])
    tau = values.max() * (1 + SHIFT)
    rest = 1 / (tau - BULK * values[:, 0])
    along, rest = (1 / (tau - values) - rest[:, None])[place], rest[place]
    shape = linear.out_shape if on_outputs else linear.in_shape
    inside = (..., *(slice(size) for size in shape[1:]))

    def invert(x: Tensor) -> Tensor:
        waves = torch.fft.rfftn(x.view(-1, *shape), s=grid, dim=dims)
        waves = waves.movedim((0, 1), (-1, -2))  # (*grid, channels, count)
        shares = along[..., None] * (vectors.conj() @ waves)
        waves = rest[..., None, None] * waves + vectors.mT @ shares
        waves = waves.movedim((-1, -2), (0, 1))
        return torch.fft.irfftn(waves, s=grid, dim=dims)[inside].flatten(1)

    return invert
