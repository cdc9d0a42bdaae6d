"""Which taps add up in the rows and columns of a convolution: what its geometry alone says."""

__all__ = ["TapSums", "tap_sums"]

import math
from collections import Counter, defaultdict
from functools import lru_cache, reduce
from typing import NamedTuple

import torch
from torch import Tensor

from .maps import Axis

Pattern = tuple[tuple[int, ...], ...]
MERGED = 2**16


@lru_cache(maxsize=4096)
def _patterns(axis: Axis, rows: bool) -> tuple[Pattern, ...]:
    """What single outputs (rows) or single pixels (columns) of the axis see.

    A pattern lists, for each entry of that row or column, the taps that add up in it. One is left
    out where another uses the same taps at least as often and adds none up, so is the larger.
    """
    entries = defaultdict(list)
    for output, pixel, tap in axis.reads():
        entries[output, pixel].append(tap)
    lines = defaultdict(list)
    for (output, pixel), taps in entries.items():
        lines[output if rows else pixel].append(tuple(taps))
    patterns = {tuple(sorted(line)) for line in lines.values()} or {()}
    uses = {pattern: Counter(tap for taps in pattern for tap in taps) for pattern in patterns}
    plain = [pattern for pattern in patterns if all(len(taps) == 1 for taps in pattern)]
    return tuple(
        pattern
        for pattern in sorted(patterns)
        if not any(pattern != other and uses[pattern] <= uses[other] for other in plain)
    )


class TapSums(NamedTuple):
    """Which taps add up along each axis.

    before: matrices (entries, taps) to apply before the modulus, empty where no taps add up.
    after: matrices (patterns, entries) to apply after it, small ones as a single product.
    whole: True if every tap counts once in the only pattern of each axis.
    """

    before: list[Tensor]
    after: list[Tensor]
    whole: bool


@lru_cache(maxsize=4096)
@torch.inference_mode(False)
def tap_sums(
    axes: tuple[Axis, ...], rows: bool, dtype: torch.dtype, device: torch.device
) -> TapSums:
    """The sums that a geometry asks for, kept on the device of the weights."""
    before, after = [], []
    for axis in axes:
        patterns, taps = _patterns(axis, rows), range(axis.taps)
        entries = sorted({entry for pattern in patterns for entry in pattern})
        if all(len(entry) == 1 for entry in entries):
            entries = [(tap,) for tap in taps]
        parts = [[float(tap in entry) for tap in taps] for entry in entries]
        before.append(torch.tensor(parts, dtype=dtype, device=device))
        counts = [[float(pattern.count(entry)) for entry in entries] for pattern in patterns]
        after.append(torch.tensor(counts, dtype=dtype, device=device))
    if all(torch.equal(parts, parts.new_ones(len(parts)).diag()) for parts in before):
        before = []
    whole = not before and all(len(counts) == 1 and bool((counts == 1).all()) for counts in after)
    if after and math.prod(counts.numel() for counts in after) <= MERGED:
        after = [reduce(torch.kron, after)]
    return TapSums(before, after, whole)
