"""The symbol of a convolution on the torus, block by block, and its adjoint."""

__all__ = ["Wave", "Waves", "waves_of"]

import itertools
import math
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from normkit.norms.maps import Axis
from normkit.norms.symbols import half_grid

BLOCK = 2**21


class Wave(NamedTuple):
    """Some frequencies: the waves on which taps become matrices, and those that lead back.

    Shape:
        there, back: (frequencies, phases, taps), real where each frequency is its own conjugate
    """

    there: Tensor
    back: Tensor


class Waves(NamedTuple):
    """The frequencies of a torus, one of each conjugate pair.

    The pixels between two outputs of a strided convolution are channels of their own, its phases:
    so one wider matrix joins the frequencies that the stride aliases.
    """

    parts: list[Wave]
    phases: int

    def blocks(self, weight: Tensor) -> Iterator[tuple[Wave, Tensor]]:
        """Some frequencies and their matrices (frequencies x groups, rows, columns).

        Shape:
            weight: (groups, rows, columns / phases, *taps)
        """
        shape = weight.shape[:3]
        taps = weight.reshape(math.prod(shape), -1).mT
        step = max(1, BLOCK // (math.prod(shape) * self.phases))
        for whole in self.parts:
            for wave in map(Wave, *(table.split(step) for table in whole)):
                values = wave.there.flatten(0, 1) @ taps.to(wave.there.dtype)
                values = values.view(-1, self.phases, *shape).movedim(1, 3)
                yield wave, values.reshape(-1, shape[1], self.phases * shape[2])

    def adjoint(self, wave: Wave, blocks: Tensor, weight: Tensor) -> Tensor:
        """The taps, in the shape of `weight`, of matrices at some frequencies, zero elsewhere."""
        groups, rows, columns = weight.shape[:3]
        values = blocks.view(-1, groups, rows, self.phases, columns).movedim(3, 1)
        values = values.reshape(-1, groups * rows * columns)
        return (wave.back.flatten(0, 1).mT @ values).real.mT.reshape(weight.shape)


@lru_cache(maxsize=256)
@torch.inference_mode(False)
def waves_of(axes: tuple[Axis, ...], split: bool, dtype: torch.dtype, device: str) -> Waves:
    """The waves of a torus, which the strides divide and which is as large as the kernel.

    Where every tap has a place of its own phase, all frequencies have the same matrix: one stays.
    With `split`, frequencies that are their own conjugate are apart, in real arithmetic.
    """
    lines = [range(0, axis.taps * axis.dilation, axis.dilation) for axis in axes]
    taps = torch.tensor(list(itertools.product(*lines)), dtype=torch.int64)
    strides = torch.tensor([axis.stride for axis in axes], dtype=torch.int64)
    phases, phase = (taps % strides).unique(dim=0, return_inverse=True) if axes else (taps, [0])
    places = taps // strides
    grid = tuple(axis.size // axis.stride if places.any() else 1 for axis in axes)
    sizes, frequencies = torch.tensor(grid, dtype=torch.int64), half_grid(grid)[0]
    angles = -2 * math.pi * (frequencies.double() / sizes) @ places.double().mT
    landed = one_hot(torch.as_tensor(phase), len(phases)).double().mT
    there = torch.polar(torch.ones_like(angles), angles)[:, None] * landed
    own = (2 * frequencies % sizes == 0).all(1)
    back = there.conj() * (2 - own.double()).view(-1, 1, 1) / math.prod(grid)
    parts = []
    for chosen in (own, ~own) if split or own.all() else (own | True,):
        real = bool(own[chosen].all())
        tables = (x[chosen].real if real else x[chosen].resolve_conj() for x in (there, back))
        if chosen.any():
            kind = dtype if real else dtype.to_complex()
            parts.append(Wave(*(table.to(device, kind) for table in tables)))
    return Waves(parts, len(phases))
