"""Clipping of the singular values of convolutions and linear layers."""

__all__ = ["clip_singular_values_"]

import math
from dataclasses import replace

import pandas as pd
import torch
from torch import Tensor, nn

from normkit.norms.circulant import torus_bracket
from normkit.norms.hermitian import gram, indefinite
from normkit.norms.maps import Axis, LinearMap
from normkit.norms.rules import CONVOLUTIONS, TRANSPOSED
from normkit.norms.symbols import scaled

from .targets import check_bound, check_weights, layer_sizes, weight_map, written_layers
from .waves import Waves, waves_of

COLUMNS = ["layer", "kind", "norm", "before", "clipped", "after", "rounds", "factor", "status"]
RTOL = 1e-6
SMALL = 32
UNREACHED = "the forward pass never called this layer, so its input shape is unknown"


def _torus(layer: nn.Module, size: tuple[int, ...]) -> tuple[int, ...]:
    """The input size for which the torus is a multiple of the stride and holds the kernel."""
    if not isinstance(layer, CONVOLUTIONS + TRANSPOSED):
        return size
    sizes = []
    for n, k, s, d in zip(size, layer.kernel_size, layer.stride, layer.dilation, strict=True):
        least = -(-(d * (k - 1) + 1) // s)
        whole = isinstance(layer, TRANSPOSED)
        sizes.append(max(n, least) if whole else s * max(-(-n // s), least))
    return tuple(sizes)


def _excess(wide: Tensor, grams: Tensor, bound: float) -> tuple[float, Tensor]:
    """The largest singular value of some matrices, and what each has above the bound.

    With `K K^H = U L U^H` that is `U (1 - bound L^-1/2)_+ U^H K`, of a few columns of U.
    """
    values, vectors = torch.linalg.eigh(grams)
    sigma = values.clamp(min=0).sqrt()
    top = sigma.max().item()
    first = sigma.shape[1] - int((sigma > bound).any(0).sum())
    sigma, vectors = sigma[:, first:], vectors[:, :, first:]
    shares = (1 - bound / sigma.clamp(min=bound))[:, None]
    return top, (vectors * shares) @ (vectors.mH @ wide)


def _taken(waves: Waves, weight: Tensor, bound: float) -> tuple[float, Tensor]:
    """The largest singular value, 0 if none is above the bound, and what clipping takes.

    Only matrices above the bound are solved: `bound^2 I - K K^H` has a Cholesky factor at others.
    """
    top, taken = 0.0, torch.zeros_like(weight)
    for wave, blocks in waves.blocks(weight):
        wide = blocks if blocks.shape[1] <= blocks.shape[2] else blocks.mT
        grams = gram(wide)
        shifted = -grams
        shifted.diagonal(dim1=1, dim2=2).add_(min(bound, 2.0**30) ** 2)
        above = indefinite(shifted).to(wide.device)
        if above.any():
            norm, excess = _excess(wide[above], grams[above], bound)
            excess = excess if wide is blocks else excess.mT
            top, whole = max(top, norm), torch.zeros_like(blocks)
            whole[above] = excess
            taken += waves.adjoint(wave, whole, weight)
    return top, taken


def _norm(linear: LinearMap) -> float:
    """The largest singular value, or an upper end of it that is close."""
    if min(linear.weight.shape[1:3]) > SMALL:
        return torus_bracket(linear, [axis.size for axis in linear.axes], RTOL, False).upper
    weight = linear.weight.double()
    grams = (gram(blocks) for _, blocks in _waves(linear.axes, weight).blocks(weight))
    return math.sqrt(max(torch.linalg.eigvalsh(x)[:, -1].max().item() for x in grams))


def _waves(axes: tuple[Axis, ...], weight: Tensor) -> Waves:
    """The waves for a weight; small matrices are quickest all at once."""
    return waves_of(axes, min(weight.shape[1:3]) > SMALL, weight.dtype, str(weight.device))


def _look(linear: LinearMap, bound: float, clip: bool) -> tuple[float, Tensor | None]:
    """The norm on the torus, and what clipping takes from the weight, None if nothing."""
    if linear.weight.dtype in (torch.float16, torch.bfloat16):
        linear = replace(linear, weight=linear.weight.float())
    linear, scale = scaled(linear)
    if clip:
        weight = linear.weight
        top, taken = _taken(_waves(linear.axes, weight), weight, bound / scale)
        if top * scale > bound:
            return top * scale, taken * scale
    return _norm(linear) * scale, None


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
    Weights that several layers share are clipped for one after the other; a row tells what its
    layer left.

    Source: Sedghi, Gupta & Long, "The Singular Values of Convolutional Layers", ICLR 2019,
    https://arxiv.org/abs/1805.10408; every 100 steps in Liang & Huang, "Large Norms of CNN
    Layers Do Not Hurt Adversarial Robustness", AAAI 2021, https://arxiv.org/abs/2009.08435.

    Deviation: the authors' code ignores strides; here the frequencies that a stride aliases join
    in one wider matrix, so that the singular values are those of the strided layer. Only
    frequencies above the bound are solved, from `K K^H`: with float32 weights the result is off
    by about 1e-6 of what the weights were.

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
