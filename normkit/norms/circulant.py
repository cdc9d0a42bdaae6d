"""Spectral norms on the torus: one small matrix per frequency, the largest found and certified."""

__all__ = ["Bracket", "singular_values"]

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .davidson import dense_matrix
from .elimination import candidates
from .hermitian import gram, indefinite, lanczos, random_rows
from .interpolation import Gram
from .maps import LinearMap, in_float64
from .rules import measured_map
from .symbols import Symbol, half_grid, scaled, symbol_of

UNIT = 2.0**-53
DENSE = 512
TINY = 4
STEPS = 32
TRIES = 6


class Bracket(NamedTuple):
    """Two numbers between which a norm lies: `lower <= norm <= upper`.

    Example:
        >>> Bracket(1.0, 1.5).upper
        1.5
    """

    lower: float
    upper: float


def stretches(vectors: Tensor, images: Tensor) -> Tensor:
    """|A x| / |x| for each row x and its image; 0 for a row of zeros."""
    lengths = torch.linalg.vector_norm(vectors, dim=1).clamp(min=1e-300)
    return torch.linalg.vector_norm(images, dim=1) / lengths


def _close(blocks: Tensor, rows: Tensor | None, best: float, rtol: float) -> float:
    """The largest of `best` and the squared norms of float64 matrices (count, rows, columns).

    It is the squared length of an explicit product `x^H K`, and a Cholesky factor of
    `best (1 + rtol / 2)^2 I - K K^H` exists for every K.

    Arguments:
        rows: vectors x^H (count, n) to start from, n the smaller side; None: any.
    """
    blocks = blocks if blocks.shape[1] <= blocks.shape[2] else blocks.mT
    grams, size = gram(blocks), blocks.shape[1]
    waiting = torch.arange(len(blocks), device=blocks.device)
    if not grams.any():
        return best
    dense = size <= (DENSE if len(grams) == 1 and rows is None else TINY)
    rows = random_rows(grams).clone() if rows is None else rows.to(grams)
    for attempt in range(TRIES):
        if dense or attempt == TRIES - 1:
            rows[waiting] = torch.linalg.eigh(grams[waiting])[1][:, :, -1].conj()
        elif attempt:
            rows[waiting] = lanczos(grams[waiting], rows[waiting], STEPS)[1]
        images = (rows[waiting, None] @ blocks[waiting])[:, 0]
        best = max(best, *stretches(rows[waiting], images).square().tolist())
        shifted = -grams[waiting]
        shifted.diagonal(dim1=1, dim2=2).add_(best * (1 + rtol / 2) ** 2)
        waiting = waiting[indefinite(shifted)]
        if not len(waiting):
            return best
    raise ValueError(f"rtol {rtol} is finer than float64 can certify for this layer")


def _solved(symbol: Symbol, frequencies: Tensor, best: float, rtol: float) -> float:
    """The largest squared norm over these frequencies, each matrix certified by itself."""
    for block in symbol.at(frequencies, torch.float64):
        block = block.flatten(0, 1)
        if min(block.shape[1:]) == 1:
            best = max(best, block.abs().square().sum((1, 2)).max().item())
        else:
            best = _close(block, None, best, rtol)
    return best


def _searched(gram: Gram, best: float, rtol: float, rigorous: bool) -> float:
    """The largest squared norm of one group: found in float32, certified in float64."""
    symbol = gram.symbol
    frequencies, rows, level = candidates(gram, best)
    found, done = best, 0
    for block in symbol.at(frequencies, torch.float64):
        found = _close(block[:, 0], rows[done : done + len(block)], found, rtol)
        done += len(block)
    bound = found * (1 + rtol / 2) ** 2
    every = half_grid(symbol.grid)[0]
    if level > bound:
        return _solved(symbol, every, best, rtol)
    if rigorous:
        values = Gram(symbol, torch.float64)
        if values.error(bound) < found * rtol / 4:
            every = every[values.not_below(torch.arange(len(every)), bound)]
        return _solved(symbol, every, found, rtol)
    return found


def symbol_bracket(
    whole: Symbol, rtol: float, rigorous: bool, gram: Gram | None = None
) -> Bracket:
    """Bracket of the largest norm of a symbol; `gram` is of its reduced form, if known.

    Both ends are the same where the largest norm is that of a vector or of a single small
    matrix. With `rigorous`, the ends move by `8 n (n + m + 8) u`, relative, for n x m matrices
    (n <= m) and u = 2^-53: more than rounding can do to the product K K^H, to a factorisation
    that succeeds (Rump, "Verification of positive definiteness", BIT 2006) and to the quotient;
    and by `2 (P + 32) u || sum_t |K_t| ||_F`, more than it can do to a symbol of P taps.
    """
    symbol = gram.symbol if gram else whole.reduced()
    groups, *shape, taps = symbol.taps.shape
    size, width = sorted(shape)
    best = 0.0
    if taps == 1 or size <= TINY:
        every = half_grid(symbol.grid)[0] if taps > 1 else symbol.places
        best = _solved(symbol, every, best, rtol)
    else:
        largest_first = symbol.taps.abs().amax((1, 2, 3)).argsort(descending=True)
        for group in largest_first.tolist():
            values = gram or Gram(symbol.group(group), torch.float32)
            best = _searched(values, best, rtol, rigorous)
    lower, slack, error = math.sqrt(best), 0.0, 0.0
    closed = size == 1 or (groups == taps == 1 and size <= DENSE)
    upper = lower if closed and not rigorous else lower * (1 + 0.75 * rtol)
    if rigorous:
        slack = 8 * size * (size + width + 8) * UNIT
        total = torch.linalg.vector_norm(whole.taps.abs().sum(3)).item()
        count = whole.taps.shape[3]
        error = 2 * (count + 32) * UNIT * total * (count > 1)
    lower, upper = lower * (1 - slack) - error, upper * (1 + slack) + error
    return Bracket(max(0.0, lower), upper)


def torus_bracket(linear: LinearMap, torus, rtol: float, rigorous: bool) -> Bracket:
    """Bracket of the spectral norm of the taps on a torus, which the strides divide."""
    linear, scale = scaled(linear, rigorous)
    lower, upper = symbol_bracket(symbol_of(linear, torus), rtol, rigorous)
    return Bracket(lower * scale, upper * scale)


def _circular_values(linear: LinearMap) -> Tensor:
    """All singular values of a circulant map, a row per frequency."""
    linear = in_float64(linear)
    symbol = symbol_of(linear, [axis.size for axis in linear.axes])
    half, place, _ = half_grid(symbol.grid)
    half = half if symbol.taps.shape[3] > 1 else half[:1]
    values = torch.cat([torch.linalg.svdvals(b) for b in symbol.at(half, torch.float64)])
    _, outputs, inputs = linear.weight.shape[:3]
    count = min(outputs, inputs * math.prod(axis.stride for axis in linear.axes))
    values = torch.nn.functional.pad(values, (0, count - values.shape[2]))
    rows, place = values.flatten(1).sort(dim=1, descending=True).values, place.flatten()
    return rows[place] if len(half) > 1 else rows.expand(len(place), -1)


@torch.inference_mode(False)
def singular_values(layer: nn.Module, input_size, *, boundary: str = "circular") -> Tensor:
    """All singular values of a layer's operator, in float64.

    `sigma(K^(f))` for every frequency f of the torus, K^ the Fourier transform of the taps.

    *In plain words:* how much the layer can stretch each wave, channel mixture by channel mixture.

    Source: Sedghi, Gupta & Long, "The Singular Values of Convolutional Layers", ICLR 2019,
    https://arxiv.org/abs/1805.10408, theorem 6.

    Deviation: a stride joins the frequencies that it aliases, so there are fewer rows and up to
    `min(C_out, C_in stride^2)` values in each.

    Arguments:
        layer: a layer with a known linear map.
        input_size: its spatial input shape in pixels, 1 to 3 numbers; ignored for Linear and
            BatchNorm.
        boundary: "circular" for the taps on the torus; "zero" for the operator as executed,
            solved as one dense matrix, therefore for small operators only.

    Shape:
        (frequencies, values), descending in the last axis; one row where there is no torus.

    Raises:
        TypeError: if the layer has no known linear map or integer weights.
        ValueError: if the weights are not finite, the input does not fit, a stride does not
            divide it, or a dense matrix would be too large.

    Example:
        >>> layer = nn.Conv2d(3, 5, 3, bias=False).double()
        >>> values = singular_values(layer, (6, 7))
        >>> values.shape
        torch.Size([42, 3])
        >>> bool(torch.isclose(values.square().sum(), 42 * layer.weight.square().sum()))
        True
    """
    linear = measured_map(layer, input_size, boundary)
    if boundary == "zero" and linear.axes:
        linear = in_float64(linear)
        return torch.linalg.svdvals(dense_matrix(linear, linear.weight))[None]
    return _circular_values(linear)
