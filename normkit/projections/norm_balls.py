"""The projection of convolutions and linear layers on balls of their l1 or linf norm."""

__all__ = ["project_norms_"]

import math

import pandas as pd
import torch
from torch import Tensor, nn

from normkit.norms.rules import check_name

from .balls import Balls, balls_of, project_on_balls
from .targets import check_bound, check_weights, layer_sizes, written_layers

COLUMNS = ["layer", "kind", "norm", "before", "after", "changed"]
BLOCK = 2**17


def _hold(balls: Balls, bound: float) -> float:
    """Scale down the lines that rounding left above the bound; the largest sum then."""
    lines, step = balls.lines, torch.finfo(balls.linear.weight.dtype).eps
    while True:
        sums = balls.sums().double()
        over = sums > bound
        if not over.any():
            return sums.max().item()
        factors = bound / sums[over] * (1 - step)
        factors = factors.view(-1, *[1] * (lines.dim() - 2))
        lines[over] = (lines[over] * factors).to(lines.dtype)
        step = min(1.0, 2 * step)


def _project(balls: Balls, sums: Tensor, bound: float) -> tuple[int, float]:
    """Project the lines above the bound; how many those were, and the largest sum then.

    Only lines that could be above it, rounding included, are looked at in float64, a few at a
    time, which stay in the cache.
    """
    lines, count = balls.lines, 0
    entries, radius = lines[0, 0].numel(), bound * (1 - 2 * torch.finfo(lines.dtype).eps)
    near = sums.double() > bound * (1 - entries * torch.finfo(sums.dtype).eps)
    for part in near.nonzero().split(max(1, BLOCK // entries)) if near.any() else ():
        points = lines[part.unbind(1)].double()
        over = (balls.sums(points[None])[0] > bound) | (sums[part.unbind(1)].double() > bound)
        if over.any():
            points = project_on_balls(points[over], balls.uses, radius)
            lines[part[over].unbind(1)] = points.to(lines.dtype)
            count += int(over.sum())
    return count, _hold(balls, bound) if count else sums.max().item()


@torch.no_grad()
def project_norms_(
    model: nn.Module, bound: float, *, norm: str, input_size: tuple[int, ...] | None = None
) -> pd.DataFrame:
    """Bring the l1 or linf norm of every convolution and linear layer down to a bound, in place.

    `K[slice] <- argmin |X - K[slice]|_2  with  sum |X| <= bound`, for every slice that exceeds it

    *In plain words:* the norm is the largest absolute sum of a column (l1) or row (linf) of the
    layer's matrix, and each such sum is that of a slice of the kernel: one input (l1) or output
    (linf) channel, at those taps that meet in one pixel. Each slice that is too large moves to
    the nearest point of the l1 ball; the others stay as they are, bit for bit. The bound holds
    for the norm as `l1_norm` and `linf_norm` report it, rounding included. Weights used by
    several layers are projected for each of them; frozen ones are projected too.

    Source: Liang & Huang, "Large Norms of CNN Layers Do Not Hurt Adversarial Robustness",
    AAAI 2021, https://arxiv.org/abs/2009.08435; nearest point: Duchi et al., "Efficient
    Projections onto the l1-Ball", ICML 2008, found by the iteration of Michelot, J. Optim. Theory
    Appl. 1986.

    Deviation: every slice is projected, where the authors' code projects the largest alone. The
    radius is smaller than the bound by two units of rounding. Where slices overlap (a map
    smaller than the kernel) one is projected after another, which need not end in the nearest
    point; where taps add up before the modulus (reflected or repeated pixels), the sum of their
    moduli is bounded, which is more than was asked.

    Arguments:
        model: the network, or a single layer; in the mode it is in, which is left.
        bound: the largest norm wanted, above 0.
        norm: "l1" or "linf".
        input_size: shape (C, H, W) of one image, for borders as they are; it costs a forward
            pass of one image. None: the bound holds whatever the size of the input, for which
            maps with an inside are looked at, and with other padding than zeros also all smaller
            ones. A layer that the forward pass never calls is bound in that way, too.

    Shape:
        one row per layer: layer, kind, norm, before, after (the norm, on maps of any size where
        no input size is known), changed (how many channels were projected).

    Raises:
        TypeError: if the model is not a module.
        ValueError: if bound or norm are out of range, the model has nothing to project or does
            not take the input, or a layer has no known linear map, a weight that is computed, or
            weights that are not finite. Nothing has been changed then.

    Example:
        >>> from normkit.norms import l1_norm
        >>> layer = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        >>> _ = nn.init.normal_(layer.weight)
        >>> table = project_norms_(layer, 1.0, norm="l1")
        >>> table[["kind", "norm", "changed"]].values.tolist()
        [['conv', 'l1', 3]]
        >>> [0.999 < l1_norm(layer, (size, 9)).item() <= 1.0 for size in (4, 5, 32)]
        [True, True, True]
    """
    bound = check_bound(bound)
    check_name("norm", norm, ("l1", "linf"))
    layers = written_layers(model)
    sizes = {} if input_size is None else layer_sizes(model, layers, input_size)
    every = [balls_of(name, layer, sizes.get(name), norm) for name, layer in layers.items()]
    found = [balls.sums() for balls in every]
    for balls, sums in zip(every, found, strict=True):
        if not math.isfinite(sums.sum().item()):
            check_weights(balls.name, balls.layer, balls.linear)
    shared = len({x.linear.weight.untyped_storage().data_ptr() for x in every}) < len(every)
    before, changed, after = [sums.max().item() for sums in found], [0] * len(every), []
    again = True
    while again:
        if shared:
            found = [balls.sums() for balls in every]
        counts, after = zip(*map(_project, every, found, [bound] * len(every)), strict=True)
        changed = [max(pair) for pair in zip(changed, counts, strict=True)]
        again = shared and any(counts)
    kinds = [balls.linear.kind for balls in every]
    columns = (layers, kinds, [norm] * len(every), before, after, changed)
    return pd.DataFrame(zip(*columns, strict=True), columns=COLUMNS)
