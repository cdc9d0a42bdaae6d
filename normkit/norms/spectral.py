"""The spectral norm of a layer's operator as a bracket, and the stable rank that follows."""

__all__ = ["Bracket", "spectral_norm", "stable_rank"]

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from .absolute import operator_frobenius
from .circulant import UNIT, Bracket, stretches, symbol_bracket, torus_bracket
from .davidson import WIDTH, dense_matrix, flat_operator, random_starts, ritz_vector
from .interpolation import Gram
from .maps import Axis, LinearMap, in_float64
from .rules import measured_map
from .symbols import scaled, symbol_of
from .waves import wave_inverse

SMALL = 256
SMALL_ENTRIES = 2**21
LIGHT = 2**22


def _exact_torus(axis: Axis) -> int | None:
    """Size of the torus on which the axis is the operator itself, if there is one."""
    if axis.mode == "circular" and axis.outputs * axis.stride == axis.size:
        return axis.size
    if axis.before == axis.after == 0 and axis.reach <= axis.stride:
        return axis.outputs * axis.stride
    return None


def _enclosing_torus(axis: Axis) -> tuple[int, float]:
    """Size of a torus that holds the axis as a part, and the most that padding can stretch it.

    With zeros, positions on both sides of the input are discarded, so they may overlap; other
    padding is a map of its own, of norm sqrt(the most often that one pixel is shown).
    """
    if axis.mode == "zeros":
        extent, stretch = axis.size + min(max(axis.before, axis.after), axis.reach - 1), 1.0
    else:
        extent = axis.before + axis.size + axis.after
        shown = [axis.pixel(n) for n in range(-axis.before, axis.size + axis.after)]
        stretch = math.sqrt(max(map(shown.count, set(shown))))
    return -(-extent // axis.stride) * axis.stride, stretch


def _wave_grid(linear: LinearMap, torus) -> list[int] | None:
    """Frequencies an axis of the torus, if the map is so nearly one on it that these help."""
    grid = [n // axis.stride for n, axis in zip(torus, linear.axes, strict=True)]
    fits = all(a.outputs <= n and a.mode == "zeros" for a, n in zip(linear.axes, grid))
    return grid if fits and len(linear.weight) == 1 else None


def _top_vector(linear: LinearMap, grid: list[int] | None, gram: Gram | None, rtol: float):
    """An input (1, size) that the operator stretches most, as far as an iteration finds it."""
    apply, adjoint = flat_operator(linear, linear.weight, WIDTH)
    strided = any(axis.stride > 1 for axis in linear.axes)
    on_outputs = strided or linear.weight.shape[1] <= linear.weight.shape[2]
    invert = wave_inverse(linear, gram, grid, on_outputs) if gram else None
    if gram and on_outputs:
        start = random_starts(math.prod(linear.out_shape), linear.weight)
        return adjoint(ritz_vector(lambda y: apply(adjoint(y)), start, rtol / 8, invert))
    start = random_starts(math.prod(linear.in_shape), linear.weight)
    return ritz_vector(lambda x: adjoint(apply(x)), start, rtol / 8, invert)


def _rayleigh(linear: LinearMap, stretch: float, vector: Tensor, rigorous: bool) -> float:
    """A lower bound: |A x| / |x| in float64 for an input x.

    With `rigorous` it is lowered by `(n + 16) u`, relative, for lengths of n entries, and by
    `2 (T + 16) u stretch sqrt(max row sum |K| max column sum |K|)` for sums of T products: more
    than rounding can do.
    """
    vector = vector.double()
    image = linear.forward(vector.view(-1, *linear.in_shape), linear.weight.double()).flatten(1)
    lower = stretches(vector, image).item()
    if rigorous:
        weight = linear.weight
        sums = [weight.abs().flatten(3).sum((side, 3)).max().item() for side in (1, 2)]
        terms, entries = weight[0, 0].numel(), max(image.shape[1], vector.shape[1])
        lower *= 1 - (entries + 16) * UNIT
        lower -= 2 * (terms + 16) * UNIT * stretch * math.sqrt(math.prod(sums))
    return max(0.0, lower)


def _dense_bracket(linear: LinearMap, rtol: float, rigorous: bool) -> Bracket:
    """Bracket from the operator's matrix; rigorous: also for the sums where taps fold together."""
    linear = in_float64(linear, cpu=rigorous)
    matrix = dense_matrix(linear, linear.weight)[None]
    lower, upper = torus_bracket(replace(linear, weight=matrix, axes=()), (), rtol, rigorous)
    error = 0.0
    if rigorous and linear.axes[0].mode != "zeros":
        spread = operator_frobenius(replace(linear, weight=linear.weight.abs())).item()
        error = 2 * linear.weight[0, 0].numel() * UNIT * spread
    return Bracket(max(0.0, lower - error), upper + error)


def check_rtol(rtol: float) -> None:
    """Refuse an accuracy that float64 cannot give or that says nothing."""
    if not 1e-12 <= rtol <= 0.1:
        raise ValueError(f"rtol {rtol!r} is outside 1e-12 to 0.1")


@torch.inference_mode(False)
def bracket(linear: LinearMap, rtol: float, rigorous: bool = False) -> Bracket:
    """Bracket of the spectral norm of a linear map."""
    check_rtol(rtol)
    if linear.weight.aminmax() == (0.0, 0.0):
        return Bracket(0.0, 0.0)
    exact = [_exact_torus(axis) for axis in linear.axes]
    if None not in exact:
        return torus_bracket(linear, exact, rtol, rigorous)
    inputs, outputs = math.prod(linear.in_shape), math.prod(linear.out_shape)
    if min(inputs, outputs) <= SMALL and inputs * outputs <= SMALL_ENTRIES:
        return _dense_bracket(linear, rtol, rigorous)
    torus, factors = zip(*(_enclosing_torus(axis) for axis in linear.axes), strict=True)
    stretch, grid = math.prod(factors), _wave_grid(linear, torus)
    linear, scale = scaled(linear, rigorous)
    symbol = symbol_of(linear, torus)
    gram = Gram(symbol.reduced(), torch.float32) if grid else None
    upper = symbol_bracket(symbol, rtol, rigorous, gram).upper * stretch
    upper *= 1 + 8 * UNIT * rigorous
    work = linear.weight.numel() * math.prod(axis.outputs for axis in linear.axes)
    light = rtol < 1e-5 or work < LIGHT
    weight = linear.weight.double() if light else linear.weight.float()
    vector = _top_vector(replace(linear, weight=weight), grid, gram, rtol)
    lower = _rayleigh(linear, stretch, vector, rigorous) * scale
    return Bracket(lower, max(lower, upper * scale))


def spectral_norm(
    layer: nn.Module,
    input_size,
    *,
    boundary: str = "zero",
    rtol: float = 1e-5,
    rigorous: bool = False,
) -> Bracket:
    """A bracket of the spectral norm of a layer's operator: its largest singular value.

    `||A||_2 = max |A x| / |x|`

    *In plain words:* the most that the layer can lengthen an input. The lower end is reached by
    an explicit input. The upper end is that of the taps on a torus that holds the operator as a
    part; the gap between them belongs to the border, and small operators close it. On the torus
    all frequencies but a few are ruled out by a factorization in float32, with a margin for its
    rounding, which is evidence; `rigorous=True` repeats it in float64, with all rounding bounded,
    which is proof.

    Source: Sedghi, Gupta & Long, ICLR 2019, https://arxiv.org/abs/1805.10408 (torus); Davidson,
    J. Comput. Phys. 1975 (lower end as executed); Rump, BIT 2006 (factorization as proof).

    Arguments:
        layer: a layer with a known linear map.
        input_size: its spatial input shape in pixels, 1 to 3 numbers; ignored for Linear and
            BatchNorm.
        boundary: "zero" for the operator as executed, "circular" for the taps on the torus.
        rtol: relative accuracy, 1e-12 to 0.1; on the torus `upper <= lower (1 + rtol)`. As
            executed, `lower` has converged to it from two random starts.
        rigorous: widen the bracket by a bound on all rounding (on the CPU, in float64), so that
            it holds by arithmetic alone; how close `lower` comes is still up to the starts.

    Shape:
        two floats.

    Raises:
        TypeError: if the layer has no known linear map or integer weights.
        ValueError: if rtol is out of range, the weights are not finite, the input does not fit,
            or a stride does not divide the torus.

    Example:
        >>> layer = nn.Conv2d(4, 6, 3, padding=1)
        >>> executed = spectral_norm(layer, (9, 8))
        >>> circular = spectral_norm(layer, (10, 9), boundary="circular")
        >>> executed.lower <= circular.upper <= circular.lower * (1 + 1e-5)
        True
    """
    return bracket(measured_map(layer, input_size, boundary), rtol, rigorous)


def rank_bracket(frobenius: float, sigma: Bracket) -> Bracket:
    """Bracket of the stable rank; 0 for the operator that is zero."""
    if sigma.upper == 0:
        return Bracket(0.0, 0.0)
    upper = (frobenius / sigma.lower) ** 2 if sigma.lower else math.inf
    return Bracket((frobenius / sigma.upper) ** 2, upper)


def stable_rank(
    layer: nn.Module,
    input_size,
    *,
    boundary: str = "zero",
    rtol: float = 1e-5,
    rigorous: bool = False,
) -> Bracket:
    """A bracket of the stable rank of a layer's operator.

    `||A||_F^2 / ||A||_2^2`

    *In plain words:* how many directions the layer stretches about as much as the one that it
    stretches most. The bracket is the spectral norm's, so `upper`, which has the converged end of
    that in its denominator, is the value to quote.

    Source: Rudelson & Vershynin, "Sampling from large matrices", J. ACM 2007,
    https://arxiv.org/abs/math/0503442.

    Arguments:
        layer, input_size, boundary, rtol, rigorous: as in `spectral_norm`; a BatchNorm's rank
            counts the pixels of input_size, where it is given.

    Shape:
        two floats.

    Raises:
        TypeError, ValueError: as in `spectral_norm`.

    Example:
        >>> layer = nn.Linear(4, 4, bias=False).double()
        >>> _ = nn.init.orthogonal_(layer.weight)
        >>> round(stable_rank(layer, None).upper, 9)
        4.0
    """
    linear = measured_map(layer, input_size, boundary)
    sigma = bracket(linear, rtol, rigorous)
    return rank_bracket(operator_frobenius(in_float64(linear)).item(), sigma)
