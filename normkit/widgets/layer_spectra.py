"""Singular values of one layer by frequency: only as many as a view needs."""

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from normkit.norms.hermitian import gram, random_rows, ritz_rows
from normkit.norms.maps import LinearMap, in_float64
from normkit.norms.rules import measured_map
from normkit.norms.symbols import Symbol, half_grid, symbol_of

__all__ = ["affordable", "frequency_grid", "plain", "spectrum"]

ALL = 2**29  # multiplications, n^2 m each, up to which all singular values are computed
PART = 2**25  # the same, between two looks at whether anybody still waits
DIRECT, LARGEST = 64, 2**25  # taps up to which waves are summed; numbers of waves beyond which not
SMALL, MIDDLE, STEPS = 16, 64, 24

Each = Callable[[Sequence, str], Iterable]


def plain(items: Sequence, what: str) -> Iterable:
    """Go through the items, as `Ticket.each`, for nobody who waits."""
    return items


def _map(layer: nn.Module, size: tuple[int, ...]) -> LinearMap:
    """The taps on the torus; few enough of them that their waves fit in memory."""
    linear = in_float64(measured_map(layer, size, "circular"))
    taps = math.prod(linear.weight.shape[3:])
    waves = linear.weight.numel() // taps * math.prod(axis.size for axis in linear.axes)
    if taps > DIRECT and waves > LARGEST:
        raise ValueError(
            f"{type(layer).__name__} on a map of {'x'.join(map(str, size))} has {waves} numbers "
            f"by frequency, and at most {LARGEST} are made: choose a smaller input size"
        )
    return linear


def frequency_grid(layer: nn.Module, size: tuple[int, ...]) -> tuple[int, ...]:
    """How many frequencies the layer has along each axis of the torus.

    Example:
        >>> frequency_grid(nn.Conv2d(1, 1, 3, stride=2), (8, 6))
        (4, 3)
    """
    linear = measured_map(layer, size, "circular")
    return tuple(axis.size // axis.stride for axis in linear.axes)


def affordable(layer: nn.Module, size: tuple[int, ...]) -> bool:
    """Whether all singular values come within a few seconds on two cores.

    Example:
        >>> layer = nn.Conv2d(512, 512, 3)
        >>> affordable(layer, (1, 1)), affordable(layer, (64, 64))
        (True, False)
    """
    linear = measured_map(layer, size, "circular")
    groups, rows, columns = linear.weight.shape[:3]
    columns *= math.prod(axis.stride for axis in linear.axes)
    grid = [axis.size // axis.stride for axis in linear.axes]
    waves = math.prod(grid) / 2 if max(grid, default=0) > 2 else 1  # up to 2x2 all are real
    return waves * groups * min(rows, columns) ** 2 * max(rows, columns) <= ALL


@torch.inference_mode(False)
def spectrum(
    layer: nn.Module, size: tuple[int, ...], *, every: bool, each: Each = plain
) -> Tensor:
    """The singular values of a layer on the torus, a row per frequency, as `norms` has them.

    *In plain words:* of each pair of conjugate frequencies one is computed, the few that are
    their own partners in real numbers. All values are those of float64; the largest alone comes
    from products in float32, and is good to about five digits.

    Arguments:
        layer: a layer with a known linear map.
        size: its spatial input shape, which the strides divide.
        every: all values, as `norms.singular_values`, or the largest of each frequency.
        each: goes through (items, what), as `Ticket.each` does.

    Shape:
        (*frequency_grid(layer, size), values), largest first; values is 1 without `every`.

    Example:
        >>> from normkit import norms
        >>> layer = nn.Conv2d(3, 5, 3).double()
        >>> torch.allclose(spectrum(layer, (6, 7), every=True).flatten(0, 1),
        ...                norms.singular_values(layer, (6, 7)))
        True
    """
    linear = _map(layer, size)
    symbol = symbol_of(linear, [axis.size for axis in linear.axes])
    half, place, _ = half_grid(symbol.grid)
    if symbol.taps.shape[3] == 1:  # one tap: every frequency is the same
        half, place = half[:1], torch.zeros_like(place)
    own = (half * 2 % torch.tensor(symbol.grid, dtype=torch.int64) == 0).all(1)
    groups, rows, columns, _ = symbol.taps.shape
    step = max(1, PART // (groups * rows * columns * min(rows, columns)))
    parts = [
        (part, real)
        for real, which in ((True, own), (False, ~own))
        for part in which.nonzero()[:, 0].split(step)
        if len(part)
    ]
    width = groups * min(rows, columns) if every else 1
    found = torch.zeros(len(half), width, dtype=torch.float64)
    waves = _waves(symbol) if symbol.taps.shape[3] > DIRECT else None
    for part, real in each(parts, "parts of the spectrum"):
        blocks = _at(symbol, half[part], waves)
        found[part] = _values(blocks.real.contiguous() if real else blocks, every)
    return found[place]


def _waves(symbol: Symbol) -> Tensor:
    """The symbol at all frequencies at once: (*grid, groups, rows, columns)."""
    shape = symbol.taps.shape[:3]
    whole = symbol.taps.new_zeros(*shape, *symbol.grid)
    radix = [math.prod(symbol.grid[axis + 1 :]) for axis in range(len(symbol.grid))]
    index = (symbol.places % torch.tensor(symbol.grid) * torch.tensor(radix)).sum(1)
    whole.flatten(3).index_add_(3, index, symbol.taps)
    return torch.fft.fftn(whole, dim=tuple(range(3, whole.dim()))).movedim((0, 1, 2), (-3, -2, -1))


def _at(symbol: Symbol, frequencies: Tensor, waves: Tensor | None) -> Tensor:
    """Matrices (frequencies, groups, rows, columns)."""
    if waves is not None:
        return waves[tuple(frequencies.unbind(1))]
    return torch.cat(list(symbol.at(frequencies, torch.float64)))


def _values(blocks: Tensor, every: bool) -> Tensor:
    """Singular values (frequencies, values) of (frequencies, groups, rows, columns)."""
    flat = blocks.flatten(0, 1)
    size = min(flat.shape[1:])
    if every or size <= SMALL:
        values = torch.linalg.svdvals(flat)
    else:
        matrices = gram(flat.to(torch.complex64 if flat.is_complex() else torch.float32))
        if size <= MIDDLE:
            squares = torch.linalg.eigvalsh(matrices)[:, -1:]
        else:
            squares = ritz_rows(matrices, random_rows(matrices), STEPS, 1)[0]
        values = squares.clamp(min=0).sqrt()
    values = values.double().reshape(len(blocks), -1).sort(dim=1, descending=True).values
    return values if every else values[:, :1]
