"""What makes up a layer's norm: the taps of its largest sum, or its top singular vectors."""

__all__ = ["LargestStretch", "LargestSums"]

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from normkit.norms.absolute import absolute_sums
from normkit.norms.davidson import random_starts
from normkit.norms.maps import Axis, LinearMap
from normkit.norms.patterns import tap_sums

TURNS = 20


def _slope(linear: LinearMap, norm: str, pattern: int) -> Tensor:
    """The sub-gradient of one sum of a map with a single line, by its taps."""
    with torch.enable_grad():
        weight = linear.weight.detach().requires_grad_()
        sums = absolute_sums(replace(linear, weight=weight), norm)
        return torch.autograd.grad(sums[0, 0, pattern], weight)[0]


@lru_cache(maxsize=4096)
@torch.inference_mode(False)
def _uses(
    axes: tuple[Axis, ...], transposed: bool, norm: str, pattern: int, dtype, device
) -> Tensor:
    """How often a sum uses each tap: its slope where no weight is negative."""
    taps = (axis.taps for axis in axes)
    weight = torch.ones(1, 1, 1, *taps, dtype=dtype, device=device)
    return _slope(LinearMap("conv", weight, axes, transposed), norm, pattern)[0, 0, 0]


class LargestSums:
    """The taps of a layer's largest absolute sum, at this step and at those before.

    `G <- memory G;  G[largest sum] <- its sub-gradient, sign(K[taps])`

    All sums of one line overwrite the same slice of G, so G is kept as the slices of the lines
    visited, each with its last visit: its factor is `memory^(steps since)`. A slice whose factor
    fell below the rounding of a fresh one is dropped.

    Arguments:
        norm: "l1" or "linf".
        memory: what one step leaves of G.
    """

    def __init__(self, norm: str, memory: float):
        self.norm, self.memory, self.lines, self._shape = norm, memory, {}, None

    def look(self, linear: LinearMap) -> tuple[Tensor, Tensor]:
        """The largest sum and its place, the first of several, without waiting for the device."""
        sums = absolute_sums(linear, self.norm)
        self._shape = sums.shape
        return tuple(sums.flatten().max(0))

    def remember(self, linear: LinearMap, place: int, now: int) -> None:
        """Let the sum at this place overwrite what is known of its line."""
        _, lines, patterns = self._shape
        (group, line), pattern = divmod(place // patterns, lines), place % patterns
        rows = (self.norm == "linf") != linear.transposed
        index = (group, line) if rows else (group, slice(None), line)
        part, before = linear.weight[index].detach(), self.lines.pop((group, line), None)
        sums = tap_sums(linear.axes, rows, part.dtype, part.device)
        geometry = (linear.axes, linear.transposed, self.norm, pattern, part.dtype, part.device)
        if sums.before:
            alone = replace(linear, weight=part[None, None] if rows else part[None, :, None])
            signs = _slope(alone, self.norm, pattern).view(part.shape)
        else:
            signs = part.sign() if sums.whole else part.sign() * _uses(*geometry)
        if before and not sums.whole:
            last, _, old = before
            faded = old.to(part) * self.memory ** (now - last)
            signs = torch.where(_uses(*geometry) > 0, signs, faded)
        self.lines[group, line] = (now, index, signs)

    def state_dict(self) -> dict[str, Any]:
        """G, as plain values and tensors."""
        kept = self.lines.items()
        return {"lines": [(*line, len(at) == 2, last, part) for line, (last, at, part) in kept]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from that G."""
        self.lines = {}
        for group, line, rows, last, part in state["lines"]:
            index = (group, line) if rows else (group, slice(None), line)
            self.lines[group, line] = (last, index, part)

    def terms(self, linear: LinearMap, now: int) -> Iterator[tuple]:
        """Index, factor and slice of every part of G."""
        least = torch.finfo(linear.weight.dtype).eps
        for line, (last, index, part) in list(self.lines.items()):
            factor = self.memory ** (now - last)
            if factor < least:
                del self.lines[line]
            else:
                yield index, factor, part


class LargestStretch:
    """The gradient of a layer's largest singular value, by power iteration from step to step.

    `d sigma = u^T dA v,  u = A v / |A v|`

    The first step turns v some times, each later one once, from where it was: weights move little
    between two steps.
    """

    def __init__(self):
        self.vector, self._next, self.gradient = None, None, None

    def look(self, linear: LinearMap) -> tuple[Tensor, Tensor]:
        """|A v| at the vector of the step before, a lower bound; there is but one place."""
        weight, shape, vector = linear.weight.detach(), linear.in_shape, self.vector
        if vector is None or vector.shape != shape:
            vector = random_starts(torch.Size(shape).numel(), weight)[0].view(shape)
            vector = vector / torch.linalg.vector_norm(vector)
            for _ in range(TURNS):
                _, vector, _ = self._turn(linear, weight, vector)
        value, self._next, self.gradient = self._turn(linear, weight, vector.to(weight))
        return value, value.new_zeros((), dtype=torch.long)

    @staticmethod
    def _turn(linear: LinearMap, weight: Tensor, vector: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """|A v|, the unit vector along A^T A v (v itself if that is zero), and d|A v| / dK."""
        with torch.enable_grad():
            weight, vector = (x.detach().requires_grad_() for x in (weight, vector))
            value = torch.linalg.vector_norm(linear.forward(vector[None], weight))
            along, gradient = torch.autograd.grad(value, (vector, weight))
        length = torch.linalg.vector_norm(along)
        return value.detach(), torch.where(length > 0, along / length, vector.detach()), gradient

    def remember(self, linear: LinearMap, place: int, now: int) -> None:
        """Keep the vector for the next step."""
        self.vector = self._next

    def state_dict(self) -> dict[str, Any]:
        """The vector."""
        return {"vector": self.vector}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from that vector."""
        self.vector = state["vector"]

    def terms(self, linear: LinearMap, now: int) -> Iterator[tuple]:
        """The whole gradient, as index, factor and slice."""
        gradient, self.gradient = self.gradient, None
        yield (), 1.0, gradient
