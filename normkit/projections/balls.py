"""The balls on which lines of weights are projected, one for each pattern of taps."""

__all__ = ["Balls", "balls_of", "project_on_balls", "weighted_l1_ball"]

import itertools
from functools import lru_cache, reduce
from typing import NamedTuple

import torch
from torch import Tensor, nn

from normkit.norms.absolute import absolute_sums
from normkit.norms.maps import Axis, LinearMap
from normkit.norms.patterns import tap_sums
from normkit.norms.rules import CONVOLUTIONS, TRANSPOSED, linear_map

from .targets import weight_map

CLOSE = 1e-14


@lru_cache(maxsize=4096)
def _axis_uses(axes: tuple[Axis, ...], rows: bool) -> Tensor:
    """How often each tap (columns) counts in each pattern (rows) that occurs on one of the axes.

    Patterns that another one contains are left out.
    """
    uses = []
    for axis in axes:
        before, after, _ = tap_sums((axis,), rows, torch.float64, torch.device("cpu"))
        uses.append(after[0] @ before[0] if before else after[0])
    uses = torch.cat(uses).unique(dim=0)
    inside = (uses[:, None] <= uses).all(2).fill_diagonal_(False)
    return uses[~inside.any(1)]


class Balls(NamedTuple):
    """The bounds on one layer's weights: `sum_t uses[p, t] |K[line, t]| <= bound` for each p.

    Arguments:
        linear: its weight is a view of the layer's parameter.
        rows: whether a line is a row of the kernel's channels, or a column.
        uses: how often each tap counts in each pattern.
        exact: whether the layer's norm is that of `linear`, or of all input sizes at once.

    Shape:
        uses: (patterns, taps)
    """

    name: str
    layer: nn.Module
    linear: LinearMap
    norm: str
    rows: bool
    uses: Tensor
    exact: bool

    @property
    def lines(self) -> Tensor:
        """A view (groups, lines, channels, *taps) of the weight."""
        weight = self.linear.weight
        return weight if self.rows else weight.transpose(1, 2)

    def sums(self, lines: Tensor | None = None) -> Tensor:
        """The largest absolute sum (groups, lines) of each line, of these or of the layer's."""
        lines = self.lines if lines is None else lines
        lines = lines if lines.dtype == torch.float64 else lines.float()
        if self.exact:
            weight = lines if self.rows else lines.transpose(1, 2)
            linear = LinearMap("conv", weight, self.linear.axes, self.linear.transposed)
            return absolute_sums(linear, self.norm).amax(2)
        moduli = lines.abs().sum(2).flatten(2)
        return (moduli @ self.uses.to(moduli).mT).amax(2)


def _any_size(name: str, layer: nn.Module, norm: str) -> list[LinearMap]:
    """The layer's map at input sizes that together show every pattern of taps there can be.

    With zero padding a map with an inside shows them all, the others being parts of these. Other
    padding also folds small maps, so there every size up to that one counts, of each axis.
    """
    if not isinstance(layer, CONVOLUTIONS + TRANSPOSED):
        return [weight_map(name, layer, None, norm)]
    dims, geometry = len(layer.kernel_size), (layer.kernel_size, layer.stride, layer.dilation)
    pads = layer.padding if isinstance(layer.padding, tuple) else (0,)
    reach = max(d * (k - 1) + s + 1 for k, s, d in zip(*geometry, strict=True))
    enough = 2 * (reach + max(pads))
    maps = [weight_map(name, layer, (enough,) * dims, norm)]
    small = range(1, enough) if layer.padding_mode != "zeros" else ()
    for axis, size in itertools.product(range(dims), small):
        sizes = [enough] * dims
        sizes[axis] = size
        try:
            maps.append(linear_map(layer, tuple(sizes)))
        except ValueError:
            continue
    return maps


def balls_of(name: str, layer: nn.Module, size, norm: str) -> Balls:
    """The balls of a layer on an input of this size; None: on any input."""
    maps = _any_size(name, layer, norm) if size is None else [weight_map(name, layer, size, norm)]
    linear = maps[0]
    rows = (norm == "linf") != linear.transposed
    axes = zip(*(each.axes for each in maps), strict=True)
    parts = [_axis_uses(tuple(dict.fromkeys(sizes)), rows) for sizes in axes]
    uses = reduce(torch.kron, parts, torch.ones(1, 1, dtype=torch.float64))
    return Balls(name, layer, linear, norm, rows, uses.to(linear.weight.device), len(maps) == 1)


def weighted_l1_ball(points: Tensor, weights: Tensor, radius: float) -> Tensor:
    """The nearest points with `sum_j weights_j |x_j| <= radius`, the weights above 0.

    They are `sign(x) max(|x| - theta weights, 0)`. The weighted sum of the moduli falls with
    theta and is convex and piecewise linear, so Newton's method from 0 rises to theta and gets
    there in a finite number of steps; a point in the ball has theta 0 and stays as it is.

    Shape:
        points: (N, m), weights: (m,), to (N, m)
    """
    moduli, squares = points.abs(), weights.square()
    theta = points.new_zeros(len(points), 1)
    while True:
        kept = torch.addmm(moduli, theta, weights[None], alpha=-1).clamp_(min=0)
        excess = kept @ weights - radius
        steps = excess.clamp(min=0) / (kept.sign() @ squares).clamp(min=1)
        higher = theta + steps[:, None]
        if not ((excess > CLOSE * radius) & (higher > theta)[:, 0]).any():
            return kept.copysign_(points)
        theta = higher


def project_on_balls(lines: Tensor, uses: Tensor, radius: float) -> Tensor:
    """Lines of weights projected on the ball of each pattern, one pattern after another.

    A projection shrinks moduli and raises none, so the balls before it still hold.

    Shape:
        lines: (N, channels, *taps)
    """
    points = lines.flatten(2) if lines.dim() > 2 else lines[..., None]
    for use in uses:
        taps = use.nonzero()[:, 0]
        part = points[:, :, taps]
        weights = use[taps].repeat(part.shape[1])
        points[:, :, taps] = weighted_l1_ball(part.flatten(1), weights, radius).view_as(part)
    return points.view_as(lines)
