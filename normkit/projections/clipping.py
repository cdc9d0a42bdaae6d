"""Clipping of the singular values of convolutions and linear layers."""

__all__ = ["clip_singular_values_"]

import math
from dataclasses import replace

import pandas as pd
import torch
from torch import Tensor, nn

from normkit.norms.circulant import symbol_bracket
from normkit.norms.hermitian import gram
from normkit.norms.interpolation import UNIT, Gram
from normkit.norms.maps import LinearMap
from normkit.norms.rules import CONVOLUTIONS, TRANSPOSED
from normkit.norms.symbols import Symbol, half_grid, scaled, symbol_of

from .targets import check_bound, check_weights, layer_sizes, weight_map, written_layers

COLUMNS = ["layer", "kind", "norm", "before", "clipped", "after", "rounds", "factor", "status"]
RTOL = 1e-6
SMALL = 32
STEEP = 4.0
UNREACHED = "the forward pass never called this layer, so its input shape is unknown"


def _torus(layer: nn.Module, size: tuple[int, ...]) -> tuple[int, ...]:
    """The input size for which the torus is a multiple of the stride and holds the kernel."""
    if not isinstance(layer, CONVOLUTIONS + TRANSPOSED):
        return size
    outputs = []
    for n, k, s, d in zip(size, layer.kernel_size, layer.stride, layer.dilation, strict=True):
        least = -(-(d * (k - 1) + 1) // s)
        outputs.append(max(n, least) if isinstance(layer, TRANSPOSED) else max(-(-n // s), least))
    if isinstance(layer, TRANSPOSED):
        return tuple(outputs)
    return tuple(n * s for n, s in zip(outputs, layer.stride, strict=True))


def _landing(linear: LinearMap, torus: list[int]) -> tuple[Tensor, Tensor]:
    """For each tap, the phase and the place at which the symbol has it."""
    taps = linear.weight.shape[3:]
    marks = torch.arange(1.0, math.prod(taps) + 1).view(1, 1, 1, *taps)
    landed = symbol_of(replace(linear, weight=marks), torus).taps[0, 0]
    where = landed.nonzero()
    return where[landed[where.unbind(1)].argsort()].unbind(1)


def _excess(blocks: Tensor, bound: float) -> tuple[float, Tensor]:
    """The largest singular value of some matrices, and what each has above the bound.

    With `K K^H = U L U^H` that is `U (1 - bound L^-1/2)_+ U^H K`, of a few columns of U. What
    float32 does to `K K^H` is magnified by the cube of norm over bound.

    Shape:
        blocks: (count, rows, columns)
    """
    wide = blocks if blocks.shape[1] <= blocks.shape[2] else blocks.mT
    values, vectors = torch.linalg.eigh(gram(wide))
    sigma = values.clamp(min=0).sqrt()
    top = sigma.max().item()
    if top > STEEP * bound and sigma.dtype == torch.float32:
        double = blocks.to(torch.complex128 if blocks.is_complex() else torch.float64)
        return _excess(double, bound)
    count = int((sigma > bound).any(0).sum())
    sigma, vectors = sigma[:, len(sigma[0]) - count :], vectors[:, :, len(sigma[0]) - count :]
    shares = (1 - bound / sigma.clamp(min=bound))[:, None]
    excess = (vectors * shares) @ (vectors.mH @ wide)
    return top, excess if wide is blocks else excess.mT


def _suspects(symbol: Symbol, bound: float) -> list[tuple[slice, Tensor, Gram | None]]:
    """Groups, and for each the frequencies at which its norm may be above the bound."""
    groups, rows, columns, taps = symbol.taps.shape
    if taps == 1:
        return [(slice(None), symbol.places[:1], None)]
    if min(rows, columns) <= SMALL:
        return [(slice(None), half_grid(symbol.grid)[0], None)]
    margin = (160 + 4 * min(rows, columns)) * UNIT[torch.float32]
    level, found = min(bound**2, 2.0**60) * (1 - margin), []
    for group in range(groups):
        values = Gram(symbol.group(group), torch.float32)
        index = values.not_below(torch.arange(len(values.frequencies)), level)
        found.append((slice(group, group + 1), values.frequencies[index], values))
    return found


def _taken(symbol: Symbol, frequencies: Tensor, bound: float) -> tuple[float, Tensor]:
    """The largest singular value at some frequencies, and what clipping there takes from the taps.

    A frequency stands for its conjugate too, unless it is its own.
    """
    grid, places = torch.tensor(symbol.grid), symbol.places.double()
    taken, top = torch.zeros_like(symbol.taps), 0.0
    own = (2 * frequencies % grid == 0).all(1)
    for count, part in ((1, frequencies[own]), (2, frequencies[~own])):
        angles = 2 * math.pi * (part / grid.double()) @ places.mT
        done = 0
        for block in symbol.at(part, taken.dtype) if len(part) else ():
            block = block.real.contiguous() if count == 1 else block
            norm, excess = _excess(block.flatten(0, 1), bound)
            excess, turns = excess.reshape(len(block), -1), angles[done : done + len(block)].mT
            done, top = done + len(block), max(top, norm)
            weighed = turns.cos().to(excess.real) @ excess.real
            if count == 2:
                weighed -= turns.sin().to(weighed) @ excess.imag
            taken += count * weighed.mT.view_as(taken).to(taken.dtype)
    return top, taken / math.prod(symbol.grid)


def _norm(symbol: Symbol) -> float:
    """The largest singular value, or an upper end of it that is close."""
    if symbol.taps.shape[3] > 1 and min(symbol.taps.shape[1:3]) <= SMALL:
        blocks = symbol.at(half_grid(symbol.grid)[0], torch.float64)
        grams = (gram(block.flatten(0, 1)) for block in blocks)
        return math.sqrt(max(torch.linalg.eigvalsh(x)[:, -1].max().item() for x in grams))
    return symbol_bracket(symbol, RTOL, False).upper


def _look(linear: LinearMap, bound: float, clip: bool) -> tuple[float, Tensor | None]:
    """The norm on the torus, and what clipping takes from the weight, None if nothing."""
    half = linear.weight.dtype in (torch.float16, torch.bfloat16)
    linear = replace(linear, weight=linear.weight.float()) if half else linear
    linear, scale = scaled(linear)
    torus = [axis.size for axis in linear.axes]
    symbol = symbol_of(linear, torus).reduced()
    if not clip:
        return _norm(symbol) * scale, None
    top, taken, level = 0.0, torch.zeros_like(symbol.taps), bound / scale
    for part, frequencies, _ in (found := _suspects(symbol, level)):
        if len(frequencies):
            norm, taken[part] = _taken(replace(symbol, taps=symbol.taps[part]), frequencies, level)
            top = max(top, norm)
    if top <= level:
        return (top if found[0][2] is None else _norm(symbol)) * scale, None
    phase, place = _landing(linear, torus)
    inputs = linear.weight.shape[2]
    taken = taken.unflatten(2, (-1, inputs))[:, :, phase, :, place]
    return top * scale, taken.movedim(0, -1).reshape(linear.weight.shape) * scale


def _clip(linear: LinearMap, bound: float, alternate: int) -> tuple:
    """Clip a layer; its norm before, when clipped and after, the rounds, the factor at the end."""
    rounds, most, factor = 0, max(1, alternate), 1.0
    before, taken = _look(linear, bound, True)
    norm = before
    while taken is not None:
        linear.weight.copy_(linear.weight - taken)
        rounds += 1
        norm, taken = _look(linear, bound, rounds < most)
        if norm <= bound * (1 + RTOL):
            break
    if alternate and norm > bound * (1 + RTOL):
        factor = bound / norm
        linear.weight.mul_(factor)
        norm = bound
    return before, min(bound, before), norm, rounds, factor


@torch.no_grad()
def clip_singular_values_(
    model: nn.Module, bound: float, input_size: tuple[int, ...], *, alternate: int = 0
) -> pd.DataFrame:
    """Clip the singular values of every convolution and linear layer to a bound, in place.

    `K^(f) = U S V^H -> U min(S, bound) V^H` at each frequency f of the torus, then back to taps

    *In plain words:* on a torus the layer is one small matrix for each frequency. Those with a
    singular value above the bound lose what is above; the taps that result fill the whole map,
    and only the k x k of the kernel are kept. That raises the norm above the bound again, by how
    much the table says; with `alternate` it ends at the bound. Padding is ignored, the torus is
    the layer's input rounded up to a multiple of the stride and at least as large as the kernel.

    Source: Sedghi, Gupta & Long, "The Singular Values of Convolutional Layers", ICLR 2019,
    https://arxiv.org/abs/1805.10408; every 100 steps in Liang & Huang, "Large Norms of CNN
    Layers Do Not Hurt Adversarial Robustness", AAAI 2021, https://arxiv.org/abs/2009.08435.

    Deviation: the authors' code ignores strides; here the frequencies that a stride aliases join
    in one wider matrix, so that the singular values are those of the strided layer. Only
    frequencies above the bound are solved, which changes nothing.

    Arguments:
        model: the network, or a single layer; in the mode it is in, which is left.
        bound: the largest singular value wanted, above 0.
        input_size: shape (C, H, W) of one image; it costs a forward pass of one image.
        alternate: 0 for one clipping and truncation. Else both in turn, at most so many times,
            until the norm is at most `bound (1 + 1e-6)`: the method of alternating projections
            (both sets are convex), which comes near to a kernel in both of them, though not the
            nearest; if it is still above, the layer is scaled by bound / norm.

    Shape:
        one row per layer: layer, kind, norm, before, clipped (the norm when clipped, with all
        taps of the map), after (with those of the kernel), rounds (how often it was clipped),
        factor (by which it was scaled), status: "ok", or why it is as it was.

    Raises:
        TypeError: if the model is not a module.
        ValueError: if bound or alternate are out of range, the model has nothing to clip or does
            not take the input, or a layer has no known linear map, a weight that is computed, or
            weights that are not finite. Nothing has been changed then.

    Example:
        >>> from normkit.norms import singular_values
        >>> layer = nn.Conv2d(3, 5, 3, bias=False).double()
        >>> table = clip_singular_values_(layer, 0.5, (3, 8, 9), alternate=100)
        >>> bool(0.499 < singular_values(layer, (8, 9)).max() < 0.5 * (1 + 1e-6))
        True
    """
    bound = check_bound(bound)
    if isinstance(alternate, bool) or not isinstance(alternate, int) or alternate < 0:
        raise ValueError(f"alternate {alternate!r} is not a whole number, 0 or more")
    layers = written_layers(model)
    sizes, maps = layer_sizes(model, layers, input_size), {}
    for name, layer in layers.items():
        if name in sizes or not isinstance(layer, CONVOLUTIONS + TRANSPOSED):
            torus = _torus(layer, sizes.get(name))
            maps[name] = weight_map(name, layer, torus, "spectral", "circular")
            check_weights(name, layer, maps[name])
    rows = []
    for name in layers:
        kind, found, status = "conv", (math.nan,) * 3 + (0, 1.0), UNREACHED
        if name in maps:
            kind, found, status = maps[name].kind, _clip(maps[name], bound, alternate), "ok"
        rows.append((name, kind, "spectral", *found, status))
    return pd.DataFrame(rows, columns=COLUMNS)
