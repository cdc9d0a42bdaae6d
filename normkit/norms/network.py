"""A whole network: the product of its layers' spectral norms, and what it surely stretches."""

__all__ = ["LipschitzBound", "lipschitz_lower_bound", "spectral_product"]

import math
from collections.abc import Callable
from itertools import chain
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor, nn
from torch.func import functional_call

from .rules import evaluation
from .spectral import Bracket

WARMUP, POLISH = 10, 50
NEAR = 1e-4


def spectral_product(table: pd.DataFrame) -> Bracket:
    """The product of the spectral norms of a network's layers, as a bracket.

    `prod_l ||A_l||_2`

    *In plain words:* a plain chain of these layers, each used once, with activations and pooling
    that stretch nothing between them, cannot lengthen a change of its input by more than `upper`:
    there it bounds the Lipschitz constant. It does not where paths meet (residual sums,
    concatenation, attention) or overlapping windows are pooled, and what has no weights, such as
    an input divided by its standard deviation, is not in the table. `lower` is what is sure of
    the product, and says nothing about the network.

    Source: Szegedy et al., "Intriguing properties of neural networks", ICLR 2014, section 4.3,
    https://arxiv.org/abs/1312.6199.

    Arguments:
        table: what `layer_table` returns, the spectral norm among its norms.

    Shape:
        two floats.

    Raises:
        ValueError: if the table has no spectral norms, or a layer's could not be measured.

    Example:
        >>> row = {"norm": "spectral", "layer": "0", "lower": 2.0, "upper": 2.5, "status": "ok"}
        >>> spectral_product(pd.DataFrame([row, row]))
        Bracket(lower=4.0, upper=6.25)
    """
    rows = table[table.norm == "spectral"]
    if rows.empty:
        raise ValueError("table has no spectral norms; measure them with norms=('spectral',)")
    unknown = rows[rows.lower.isna() | rows.upper.isna()].layer
    if len(unknown):
        named = ", ".join(map(repr, unknown[:3])) + ", ..." * (len(unknown) > 3)
        raise ValueError(
            f"table has no spectral norm for {len(unknown)} of {len(rows)} layers ({named}), so "
            "there is no product; drop these rows where the layers do not matter"
        )
    return Bracket(math.prod(rows.lower), math.prod(rows.upper))


class LipschitzBound(NamedTuple):
    """A lower bound on a Lipschitz constant, and the two inputs that prove it.

    `value = |f(first) - f(second)| / |first - second|`, in float64.

    Example:
        >>> bound = lipschitz_lower_bound(nn.Linear(3, 2), torch.rand(1, 3))
        >>> bound.first.dtype
        torch.float64
    """

    value: float
    first: Tensor
    second: Tensor


def _frozen(model: nn.Module, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """The model as a function of its input alone, in one precision; the model is not touched."""
    tensors = chain(model.named_parameters(), model.named_buffers())
    state = {
        name: x.detach().to(dtype, copy=True) if x.is_floating_point() else x.detach().clone()
        for name, x in tensors
    }
    return lambda x: functional_call(model, state, (x,)).flatten(1)


def _unit(x: Tensor, otherwise: Tensor) -> Tensor:
    """Each of a batch scaled to length one; what cannot be is replaced."""
    lengths = torch.linalg.vector_norm(x.flatten(1), dim=1).view(-1, *[1] * (x.dim() - 1))
    return torch.where((lengths > 0) & lengths.isfinite(), x / lengths, otherwise)


def _climb(
    f: Callable, x: Tensor, v: Tensor, length: float, step_size: float, steps: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The largest `|f(x + length v) - f(x)| / length` met on the way, its x, and its unit v.

    The gradient in v is `J^T u` with J at the far end and u the direction of the difference, so
    that to point v along it is a step of the power method; the gradient in x is the difference of
    `J^T u` between the two ends, which is not zero where a net of ReLU bends between them.
    """
    best = x.new_full((len(x),), -1.0), x, v
    for _ in range(steps + 1):
        x, v = x.detach().requires_grad_(), v.detach().requires_grad_()
        far, near = f(torch.cat([x + length * v, x])).chunk(2)
        quotients = torch.linalg.vector_norm(far - near, dim=1) / length
        along = torch.autograd.grad(quotients.sum(), (x, v))
        now = [part.detach() for part in (quotients, x, v)]
        better = now[0] > best[0]
        spread = better.view(-1, *[1] * (x.dim() - 1))
        best = tuple(map(torch.where, (better, spread, spread), now, best))
        x = (now[1] + step_size * _unit(along[0], torch.zeros_like(x))).clamp(0, 1)
        v = _unit(along[1], now[2])
    return best


def _polish(f: Callable, x: Tensor, v: Tensor, length: float) -> LipschitzBound:
    """The bound at x, half a length or a length further: with the second input near the first."""
    starts = torch.stack([x + part * length * v for part in (0, 0.5, 1)]).clamp(0, 1)
    found, x, v = _climb(f, starts, v.expand_as(starts), NEAR, 0.0, POLISH)
    top = found.argmax()
    first, second = x[top], x[top] + NEAR * v[top]
    images = f(torch.stack([first, second]))
    value = (images[1] - images[0]).norm() / (second - first).norm()
    return LipschitzBound(value.item(), first, second)


def _check(images: Tensor, steps: int, step_size: float | None) -> None:
    if images.dim() < 2 or not images.numel() or not images.is_floating_point():
        raise ValueError(
            f"images of {images.dtype} and shape {tuple(images.shape)} are no floating-point "
            "batch (N, ...) of at least one"
        )
    if not 0 <= images.min() <= images.max() <= 1:
        raise ValueError(f"images reach from {images.min():g} to {images.max():g}, not in [0, 1]")
    if not (isinstance(steps, int) and steps >= 0):
        raise ValueError(f"steps {steps!r} is not a whole number, 0 or more")
    if step_size is not None and not 0 < step_size < math.inf:
        raise ValueError(f"step_size {step_size!r} is not a length above 0")


@torch.inference_mode(False)
@torch.enable_grad()
def lipschitz_lower_bound(
    model: nn.Module,
    images: Tensor,
    *,
    steps: int = 50,
    step_size: float | None = None,
    generator: torch.Generator | None = None,
) -> LipschitzBound:
    """A lower bound on a network's Lipschitz constant in l2, by gradient ascent from images.

    `sup |f(x) - f(y)| / |x - y| >= |f(first) - f(second)| / |first - second|`

    *In plain words:* two inputs for which the outputs move far, looked for by climbing that
    quotient from real images inside [0, 1] and then letting the second input come near to the
    first, where the best direction is the top singular vector of the Jacobian. Any two inputs
    prove their quotient, and it is computed from these two in float64, so only how good it is
    depends on the search. Next to `spectral_product` it shows what that product gives away. The
    model is measured in evaluation mode and left as it was found.

    Source: power method on the Jacobian, Virmaux & Scaman, "Lipschitz regularity of deep neural
    networks", NeurIPS 2018, https://arxiv.org/abs/1805.10965.

    Deviation: the Jacobian of a ReLU net is constant but for jumps, so its norm has no gradient
    to climb; the quotient of two inputs a step apart has.

    Arguments:
        model: maps images to outputs, each image apart; the outputs' l2 norm is over all of them.
        images: where to start, in [0, 1], as many as go through the model at once, twice.
        steps: how many steps, each one forward and one backward pass; 0 stays within one
            step of them.
        step_size: the length of a step and of the quotient climbed, in l2 over all pixels of one
            image, in units of the pixel range; None for `0.02 sqrt(pixels)`, 5/255 of each.
        generator: a generator on the CPU for the first directions; None always draws the same.

    Shape:
        images (N, ...); first and second of one image's shape. `second` may leave [0, 1] by 1e-4.

    Raises:
        ValueError: if an argument is out of range, or the outputs are not finite.

    Example:
        >>> layer = nn.Linear(5, 3).double()
        >>> bound = lipschitz_lower_bound(layer, torch.rand(2, 5))
        >>> sigma = torch.linalg.matrix_norm(layer.weight, 2).item()
        >>> abs(bound.value / sigma - 1) < 1e-6
        True
    """
    _check(images, steps, step_size)
    step_size = step_size or 0.02 * math.sqrt(images[0].numel())
    generator = generator or torch.Generator().manual_seed(0)
    own = next((p for p in model.parameters() if p.is_floating_point()), images)
    dtype = torch.promote_types(own.dtype, torch.float32)
    x = images.detach().to(own.device, dtype, copy=True)
    v = torch.randn(x.shape, generator=generator).to(x)
    with evaluation(model):
        f = _frozen(model, dtype)
        _, x, v = _climb(f, x, _unit(v, v), step_size, 0.0, WARMUP)
        found, x, v = _climb(f, x, v, step_size, step_size, steps)
        top = found.nan_to_num(-1.0).argmax()
        bound = _polish(_frozen(model, torch.float64), x[top].double(), v[top].double(), step_size)
    if not math.isfinite(bound.value):
        raise ValueError("outputs of the model are not finite on these images")
    return bound
