"""Spectral norms on the torus: one small matrix per frequency, the largest found and certified."""

__all__ = ["Bracket", "singular_values"]

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .lanczos import dense_matrix, random_starts, ritz_vectors
from .maps import LinearMap, in_float64
from .rules import measured_map

UNIT = 2.0**-53
BLOCK = 2**21
DENSE = 512


class Bracket(NamedTuple):
    """Two numbers between which a norm lies: `lower <= norm <= upper`.

    Example:
        >>> Bracket(1.0, 1.5).upper
        1.5
    """

    lower: float
    upper: float


def float64_weight(linear: LinearMap, rigorous: bool = False) -> tuple[Tensor, float]:
    """The weights in float64, scaled exactly to at most one, and the scale (a power of two).

    Rigorous bounds need the CPU's way to sum.
    """
    weight = in_float64(linear, cpu=rigorous).weight
    scale = math.ldexp(1.0, math.frexp(weight.abs().max().item())[1])
    return weight / scale, scale


def _polyphase(linear: LinearMap, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Taps (P, groups, outputs, inputs x phases) and their positions (P, axes) at stride one.

    The pixels between two outputs become channels of their own, so that a strided convolution
    is an unstrided one on the coarser grid.
    """
    if not linear.axes:
        return weight[None], torch.zeros(1, 0, dtype=torch.int64)
    lines = [range(0, axis.taps * axis.dilation, axis.dilation) for axis in linear.axes]
    places = torch.tensor(list(itertools.product(*lines)), dtype=torch.int64)
    strides = torch.tensor([axis.stride for axis in linear.axes], dtype=torch.int64)
    radix = [math.prod(strides.tolist()[:dim]) for dim in range(len(strides))]
    phase = (places % strides * torch.tensor(radix, dtype=torch.int64)).sum(1)
    coarse, index = (places // strides).unique(dim=0, return_inverse=True)
    groups, outputs, inputs = weight.shape[:3]
    shape = (len(coarse), groups, outputs, int(strides.prod()), inputs)
    taps = weight.new_zeros(shape)
    taps[index, :, :, phase] = weight.flatten(3).movedim(-1, 0)
    return taps.flatten(3), coarse


def _half_grid(grid: list[int]) -> tuple[Tensor, Tensor]:
    """One frequency of each conjugate pair, and every frequency's place among them."""
    shape = torch.tensor(grid, dtype=torch.int64)
    every = torch.tensor(list(itertools.product(*map(range, grid))), dtype=torch.int64)
    radix = [math.prod(grid[dim + 1 :]) for dim in range(len(grid))]
    radix = torch.tensor(radix, dtype=torch.int64)
    own, mirror = (every * radix).sum(1), (-every % shape * radix).sum(1)
    kept, place = torch.minimum(own, mirror).unique(return_inverse=True)
    return every[kept], place


def _symbols(taps: Tensor, coarse: Tensor, grid: list[int], frequencies: Tensor) -> Iterator:
    """Blocks (frequencies, groups, outputs, inputs) of `sum_t taps[t] exp(-2 pi i f t / grid)`."""
    if len(taps) == 1:
        yield taps
        return
    common = math.lcm(*grid)
    turns = frequencies * torch.tensor([common // n for n in grid]) @ coarse.mT % common
    angles = turns.to(taps) * (2 * math.pi / common)
    flat = taps.flatten(1)
    for part in angles.split(max(1, BLOCK // flat.shape[1])):
        parts = torch.complex(part.cos() @ flat, -part.sin() @ flat)
        yield parts.unflatten(1, taps.shape[1:])


def _estimate(gram: Tensor, steps: int = 6) -> Tensor:
    """Rayleigh quotients after a few steps of the power method: guesses, from below."""
    vectors = random_starts(gram.shape[1], gram)[:1].mT.expand(len(gram), -1, 1)
    for _ in range(steps):
        lengths = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
        vectors = gram @ (vectors / lengths.clamp(min=1e-300))
    return torch.linalg.vector_norm(vectors, dim=1)[:, 0]


def stretches(vectors: Tensor, images: Tensor) -> Tensor:
    """|A x| / |x| for each row x and its image; 0 for a row of zeros."""
    lengths = torch.linalg.vector_norm(vectors, dim=1).clamp(min=1e-300)
    return torch.linalg.vector_norm(images, dim=1) / lengths


def _top(matrix: Tensor, gram: Tensor, rtol: float, dense: bool) -> float:
    """Squared length of a unit vector times the matrix, its top left singular vector to rtol."""
    if dense:
        vectors = torch.linalg.eigh(gram)[1][:, -1:].mT
    else:
        start = random_starts(len(gram), gram)
        vectors = ritz_vectors(lambda x: x @ gram.mT, start, rtol / 100)
    images = vectors.conj() @ matrix
    return float(stretches(vectors, images).max() ** 2)


def _above(gram: Tensor, bound: float) -> Tensor:
    """Where no Cholesky factor of `bound I - gram` shows that all eigenvalues are below bound."""
    shifted = -gram
    shifted.diagonal(dim1=1, dim2=2).add_(bound)
    return torch.linalg.cholesky_ex(shifted)[1] != 0


def _scan(block: Tensor, best: float, rtol: float) -> float:
    """The largest squared norm of a block and of what came before, shown to be the largest."""
    if not block.any():
        return best
    gram = block @ block.mH
    guess = _estimate(gram)
    waiting, tried = torch.arange(len(gram), device=gram.device), set()
    while True:
        if best:
            waiting = waiting[_above(gram[waiting], best * (1 + rtol / 2) ** 2)]
        if not len(waiting):
            return best
        pick = int(waiting[guess[waiting].argmax()])
        if (pick, True) in tried:
            raise ValueError(f"rtol {rtol} is finer than float64 can certify for this layer")
        dense = len(gram[pick]) <= DENSE or (pick, False) in tried
        best = max(best, _top(block[pick], gram[pick], rtol, dense))
        tried.add((pick, dense))


def largest(blocks, rtol: float, rigorous: bool = False) -> Bracket:
    """Bracket of the largest spectral norm in blocks (count, rows, columns) of float64 matrices.

    The lower end is an explicit quotient |M x| / |x|; the upper end is `lower (1 + rtol / 2)`,
    for which a Cholesky factor of `upper^2 I - M M^H` exists for every matrix M. A single small
    matrix, or one of a single row, is solved to rounding instead. With `rigorous`, both ends move
    by `8 n (n + m + 8) u`, relative, for n x m matrices (n <= m) and u = 2^-53: more than what
    rounding can do to the product M M^H, to a factorisation that succeeds (Rump, "Verification of
    positive definiteness", BIT 2006) and to the quotient.
    """
    best, total, size, width = 0.0, 0, 1, 1
    for block in blocks:
        block = block if block.shape[1] <= block.shape[2] else block.mH
        total, (size, width) = total + len(block), block.shape[1:]
        best = _scan(block, best, rtol)
    lower = math.sqrt(best)
    if rigorous:
        slack = 8 * size * (size + width + 8) * UNIT
        return Bracket(lower * (1 - slack), lower * (1 + rtol / 2) * (1 + slack))
    closed = size == 1 or (total == 1 and size <= DENSE)
    return Bracket(lower, lower if closed else lower * (1 + rtol / 2))


def torus_bracket(linear: LinearMap, torus: list[int], rtol: float, rigorous: bool) -> Bracket:
    """Bracket of the spectral norm of the taps on a torus, which the strides divide.

    With `rigorous`, the ends also move by `2 (P + 32) u || sum_t |K_t| ||_F`, more than rounding
    can do to a symbol of P taps.
    """
    weight, scale = float64_weight(linear, rigorous)
    taps, coarse = _polyphase(linear, weight)
    grid = [n // axis.stride for n, axis in zip(torus, linear.axes, strict=True)]
    every, _ = _half_grid(grid) if len(taps) > 1 else (coarse[:0], None)
    blocks = (block.flatten(0, 1) for block in _symbols(taps, coarse, grid, every))
    lower, upper = largest(blocks, rtol, rigorous)
    error = 0.0
    if rigorous and len(taps) > 1:
        total = torch.linalg.vector_norm(taps.abs().sum(0)).item()
        error = 2 * (len(taps) + 32) * UNIT * total
    return Bracket(max(0.0, lower - error) * scale, (upper + error) * scale)


def _circular_values(linear: LinearMap) -> Tensor:
    """All singular values of a circulant map, a row per frequency."""
    weight, scale = float64_weight(linear)
    taps, coarse = _polyphase(linear, weight)
    grid = [axis.outputs for axis in linear.axes]
    half, place = _half_grid(grid)
    values = [torch.linalg.svdvals(block) for block in _symbols(taps, coarse, grid, half)]
    rows = torch.cat(values).flatten(1).sort(dim=1, descending=True).values
    return scale * (rows[place] if len(taps) > 1 else rows.expand(len(place), -1))


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
        weight, scale = float64_weight(linear)
        return scale * torch.linalg.svdvals(dense_matrix(linear, weight))[None]
    return _circular_values(linear)
