"""The Fourier picture of a convolution: one small matrix, the symbol, for each frequency."""

__all__ = ["Symbol", "half_grid", "scaled", "symbol_of"]

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from .maps import LinearMap, in_float64

BLOCK = 2**21


@dataclass(frozen=True, eq=False)
class Symbol:
    """Taps on a torus at stride one: `sum_t taps[t] exp(-2 pi i f . places[t] / grid)`.

    Frequency f of the torus of a layer is frequency `f * factors % grid` here.

    Shape:
        taps: (groups, rows, columns, P), places: (P, axes)
    """

    taps: Tensor
    places: Tensor
    grid: tuple[int, ...]
    factors: tuple[int, ...]

    def at(self, frequencies: Tensor, dtype: torch.dtype) -> Iterator[Tensor]:
        """Blocks (frequencies, groups, rows, columns) of the symbol, computed in a precision."""
        flat = self.taps.flatten(0, 2).to(dtype).mT
        if len(flat) == 1:
            yield flat.view(1, *self.taps.shape[:3]).expand(len(frequencies), -1, -1, -1)
            return
        common = math.lcm(*self.grid)
        steps = torch.tensor([common // n for n in self.grid])
        turns = frequencies * steps @ self.places.mT % common
        angles = turns.to(flat.device, torch.float64) * (2 * math.pi / common)
        for part in angles.split(max(1, BLOCK // flat.shape[1])):
            real, imag = part.cos().to(dtype) @ flat, -part.sin().to(dtype) @ flat
            yield torch.complex(real, imag).unflatten(1, self.taps.shape[:3])

    def group(self, index: int) -> "Symbol":
        """The symbol of one group."""
        return replace(self, taps=self.taps[index : index + 1])

    def reduced(self) -> "Symbol":
        """A symbol with the same set of matrices on the smallest grid.

        Taps that meet on the torus are added up; where all places are multiples of a number, as
        with a dilation, the grid visits each matrix once.
        """
        places, grid, factors = self.places.clone(), list(self.grid), list(self.factors)
        for axis, size in enumerate(self.grid):
            step = math.gcd(*places[:, axis].tolist()) or size
            common = math.gcd(step, size)
            grid[axis], factors[axis] = size // common, step // common
            places[:, axis] = places[:, axis] // step % grid[axis]
        if not grid:
            return self
        distinct, index = places.unique(dim=0, return_inverse=True)
        if len(distinct) == len(places):
            return Symbol(self.taps, places, tuple(grid), tuple(factors))
        shape = (*self.taps.shape[:3], len(distinct))
        taps = self.taps.new_zeros(shape, dtype=torch.float64)
        taps = taps.index_add_(3, index.to(taps.device), self.taps.double())
        return Symbol(taps, distinct, tuple(grid), tuple(factors))


@lru_cache(maxsize=256)
def half_grid(grid: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """One frequency of each conjugate pair; every frequency's place among them; which are not."""
    shape = torch.tensor(grid, dtype=torch.int64)
    every = torch.ones(grid, dtype=torch.int64).nonzero()
    radix = [math.prod(grid[dim + 1 :]) for dim in range(len(grid))]
    radix = torch.tensor(radix, dtype=torch.int64)
    own, mirror = (every * radix).sum(1), (-every % shape * radix).sum(1)
    kept, place = torch.minimum(own, mirror).unique(return_inverse=True)
    return every[kept], place.view(grid), (own > mirror).view(grid)


def scaled(linear: LinearMap, rigorous: bool = False) -> tuple[LinearMap, float]:
    """The map with weights of at most about one, divided by a power of two, and that power.

    Rigorous bounds need float64, where the division is exact, and the CPU's way to sum.
    """
    linear = in_float64(linear, cpu=True) if rigorous else linear
    weight = linear.weight.detach()
    range_ = math.frexp(torch.finfo(weight.dtype).max)[1] - 1
    exponent = math.frexp(torch.stack(weight.aminmax()).abs().max().item())[1]
    scale = math.ldexp(1.0, min(max(exponent, 1 - range_), range_))
    return replace(linear, weight=weight / scale), scale


def symbol_of(linear: LinearMap, torus) -> Symbol:
    """The symbol of a convolution on a torus that its strides divide.

    The pixels between two outputs become channels of their own (the polyphase form), so that a
    strided convolution is an unstrided one on the coarser grid.
    """
    weight = linear.weight
    weight = weight.flatten(3) if linear.axes else weight[..., None]
    lines = [range(0, axis.taps * axis.dilation, axis.dilation) for axis in linear.axes]
    places = torch.tensor(list(itertools.product(*lines)), dtype=torch.int64)
    strides = torch.tensor([axis.stride for axis in linear.axes], dtype=torch.int64)
    grid = tuple(n // axis.stride for n, axis in zip(torus, linear.axes, strict=True))
    if (strides == 1).all():
        return Symbol(weight, places, grid, (1,) * len(grid))
    phases, phase = (places % strides).unique(dim=0, return_inverse=True)
    coarse, index = (places // strides).unique(dim=0, return_inverse=True)
    groups, outputs, inputs = weight.shape[:3]
    taps = weight.new_zeros(groups, outputs, len(phases), inputs, len(coarse))
    taps[:, :, phase, :, index] = weight.movedim(3, 0)
    return Symbol(taps.flatten(2, 3), coarse, grid, (1,) * len(grid))
