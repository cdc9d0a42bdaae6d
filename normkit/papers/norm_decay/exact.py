"""ln.exact: the l1 and linf norms of random layers against their dense matrices."""

import dataclasses
import math
import random

import pandas as pd
import torch
from torch import Tensor, nn

from normkit import norms
from normkit.norms.rules import BATCH_NORMS, CONVOLUTIONS, TRANSPOSED

from ..profiles import choose
from .baselines import border_free, gathered
from ..measured import measuring_code

__all__ = ["KINDS", "Exactness", "dense_matrix", "exactness", "random_layers", "relative_error"]

KINDS = tuple(t.__name__ for t in (*CONVOLUTIONS, *TRANSPOSED, nn.Linear, nn.BatchNorm2d))
MODES = ("zeros", "zeros", "circular", "reflect", "replicate")


@dataclasses.dataclass(frozen=True)
class Exactness:
    """Random layers of every kind and geometry, measured in three ways against their matrix.

    Ways: "exact" (this library), "border_free" (the paper's formula, which holds away from
    borders) and, for the l1 norm of convolutions that the authors' code accepts, "released" (its
    index sets, taps numbered as it numbers them).

    Arguments:
        cases: number of layers.
        seed: of layers and weights.

    Example:
        >>> table = Exactness(cases=16).tables()["errors"]
        >>> bool((table[table.method == "exact"].error.abs() < 1e-12).all())
        True
    """

    cases: int = 2000
    seed: int = 0

    def dependencies(self) -> dict[str, str]:
        """The hashes of the code that is checked and of the code that checks."""
        return measuring_code(__name__, gathered.__module__)

    def tables(self) -> dict[str, pd.DataFrame]:
        """Table "errors", one row per case, norm and method.

        Columns: case, kind, norm, method, error (relative, signed), accepted (by the authors'
        code), unequal (the axes of a Conv2d differ in size, kernel, stride or padding).
        """
        rows = []
        for case, (layer, size) in enumerate(random_layers(self.cases, self.seed)):
            matrix = dense_matrix(layer, size).abs()
            taken, unequal = _accepted(layer, size), _unequal(layer, size)
            for norm, side in (("l1", 0), ("linf", 1)):
                wanted = matrix.sum(side).max().item()
                for method, found in _found(layer, size, norm, taken).items():
                    error = float(f"{relative_error(found, wanted):.3g}")
                    kind = type(layer).__name__
                    rows.append((case, kind, norm, method, error, taken, unequal))
        columns = ["case", "kind", "norm", "method", "error", "accepted", "unequal"]
        return {"errors": pd.DataFrame(rows, columns=columns)}


SETTINGS = {
    "smoke": Exactness(cases=80),
    "quick": Exactness(),
    "cifar10": Exactness(),
    "paper": Exactness(),
}


def exactness(profile: str) -> Exactness:
    """The random layers of a profile."""
    return choose(SETTINGS, profile)


def relative_error(found: float, wanted: float) -> float:
    """(found - wanted) / wanted; where wanted is zero, what was found."""
    return (found - wanted) / wanted if wanted else found


def random_layers(count: int, seed: int) -> list[tuple[nn.Module, tuple[int, ...]]]:
    """Layers in float64 and evaluation mode with spatial input sizes on which they run.

    *In plain words:* all kinds in turn; kernels, strides, paddings, dilations, groups, padding
    modes and sizes at random, unequal along the axes, inputs down to one pixel.

    Example:
        >>> [type(layer).__name__ for layer, _ in random_layers(8, seed=0)] == list(KINDS)
        True
    """
    draw, found = random.Random(seed), []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        while len(found) < count:
            layer, size = _random_layer(draw, len(found) % len(KINDS))
            try:
                layer(torch.zeros(1, _channels(layer), *size, dtype=torch.float64))
            except RuntimeError:
                continue  # torch says that the input is too small for the kernel or the padding
            found.append((layer, size))
    return found


def dense_matrix(layer: nn.Module, size: tuple[int, ...]) -> Tensor:
    """The matrix A of `layer(x) = A x + b`, by passing every unit vector through the layer.

    Example:
        >>> dense_matrix(nn.Linear(3, 2).double(), ()).shape
        torch.Size([2, 3])
    """
    shape = (_channels(layer), *size)
    units = torch.eye(math.prod(shape), dtype=torch.float64).view(-1, *shape)
    with torch.no_grad():
        return (layer(units) - layer(torch.zeros_like(units[:1]))).flatten(1).mT


def _channels(layer: nn.Module) -> int:
    if isinstance(layer, nn.Linear):
        return layer.in_features
    return layer.num_features if isinstance(layer, BATCH_NORMS) else layer.in_channels


def _random_layer(draw: random.Random, kind: int) -> tuple[nn.Module, tuple[int, ...]]:
    if kind < 6:
        return _random_convolution(draw, kind)
    if kind == 6:
        return nn.Linear(draw.randint(1, 9), draw.randint(1, 9), dtype=torch.float64), ()
    layer = nn.BatchNorm2d(draw.randint(1, 5), dtype=torch.float64).eval()
    for values in (layer.weight, layer.bias, layer.running_mean):
        nn.init.normal_(values)
    nn.init.uniform_(layer.running_var, 0.1, 2)
    return layer, (draw.randint(1, 3), draw.randint(1, 3))


def _random_convolution(draw: random.Random, kind: int) -> tuple[nn.Module, tuple[int, ...]]:
    dims = kind % 3 + 1

    def several(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw.randint(low, high) for _ in range(dims))

    groups = draw.choice((1, 1, 1, 2, 3))
    channels = [groups * draw.randint(1, 4 if groups == 1 else 2) for _ in range(2)]
    kernel, stride, dilation, padding = several(1, 5), several(1, 4), several(1, 3), several(0, 4)
    size = several(1, 9 if dims < 3 else 4)
    form = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    if kind >= 3:
        extra = [draw.randint(0, max(s, d) - 1) for s, d in zip(stride, dilation, strict=True)]
        form |= {"output_padding": tuple(extra)}
    elif kind == 1 and draw.random() < 0.5:  # what the authors' code measures, half of it square
        form = {"stride": stride, "padding": several(0, 2)}
        if draw.random() < 0.5:
            kernel, size = kernel[:1] * 2, size[:1] * 2
            form = {name: value[:1] * 2 for name, value in form.items()}
    else:
        form |= {"padding_mode": draw.choice(MODES)}
        if draw.random() < 0.15:  # of even kernels torch warns that it copies the input
            kernel = tuple(k // 2 * 2 + 1 for k in kernel)
            form |= {"padding": draw.choice(("same", "valid")), "stride": (1,) * dims}
    make = (*CONVOLUTIONS, *TRANSPOSED)[kind]
    return make(*channels, kernel, dtype=torch.float64, **form), size


def _found(layer: nn.Module, size: tuple, norm: str, accepted: bool) -> dict[str, float]:
    exact = norms.l1_norm if norm == "l1" else norms.linf_norm
    found = {"exact": exact(layer, size).item(), "border_free": border_free(layer, norm)}
    if norm == "l1" and accepted:
        geometry = (size, layer.stride, layer.padding)
        found["released"] = gathered(layer.weight.detach(), *geometry, swapped=True)
    return found


def _accepted(layer: nn.Module, size: tuple[int, ...]) -> bool:
    """Whether the authors' code measures this layer: its own condition, in our words."""
    if not isinstance(layer, nn.Conv2d) or isinstance(layer.padding, str):
        return False
    plain = layer.groups == 1 and layer.dilation == (1, 1) and layer.padding_mode == "zeros"
    sides = zip(size, layer.kernel_size, layer.stride, layer.padding, strict=True)
    return plain and all(k + math.ceil(p / s) * s - p <= n for n, k, s, p in sides)


def _unequal(layer: nn.Module, size: tuple[int, ...]) -> bool:
    if not isinstance(layer, nn.Conv2d) or isinstance(layer.padding, str):
        return False
    return any(len(set(v)) > 1 for v in (size, layer.kernel_size, layer.stride, layer.padding))
