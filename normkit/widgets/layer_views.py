"""The tables behind the pictures of one layer: spectra, channels, kernels, growth with the map."""

import math
from collections.abc import Callable, Iterable, Sequence

import pandas as pd
import torch
from torch import Tensor, nn

from normkit import norms
from normkit.layers import ConvNorm2d, inverse_root, own_grid
from normkit.layers.fourier import frequencies as half_frequencies
from normkit.norms.rules import BATCH_NORMS, CONVOLUTIONS, TRANSPOSED, evaluation, measured_map

from .layer_norms import kind_of, measure
from .layer_spectra import affordable, plain, spectrum

__all__ = [
    "channels", "fitting", "frequencies", "growth", "kernels", "kernels_of",
    "reach", "sides", "values",
]  # fmt: skip

POINTS = 800  # of a sorted curve
TILES, ENTRIES = (12, 24), (64, 128)  # shown of a convolution, of a matrix
ZERO = 2.0**-46
GROWTH = (4, 6, 8, 12, 16, 24, 32, 48, 64)
WORK = 2**27  # multiplications of one pass through a layer, up to which its norm is iterated for

Size = tuple[int, ...]
Each = Callable[[Sequence, str], Iterable]


def reach(layer: nn.Module) -> int:
    """How many pixels the kernel spans along its longest axis; 1 of a layer without a kernel.

    Example:
        >>> reach(nn.Conv2d(1, 1, (3, 1), dilation=2)), reach(nn.Linear(1, 1))
        (5, 1)
    """
    if not isinstance(layer, (*CONVOLUTIONS, *TRANSPOSED, ConvNorm2d)):
        return 1
    return max(d * (k - 1) + 1 for k, d in zip(layer.kernel_size, layer.dilation, strict=True))


def fitting(layer: nn.Module, own: Size, side: int) -> Size:
    """The map of the layer's own shape whose first side is this, as the stride needs it.

    *In plain words:* other sides keep their ratio to the first, and each is rounded up to a
    multiple of the stride. A Linear and a BatchNorm have no map.

    Example:
        >>> fitting(nn.Conv2d(1, 1, 3, stride=2), (8, 16), 7), fitting(nn.Linear(1, 1), (), 7)
        ((8, 14), ())
    """
    if kind_of(layer) in ("linear", "batch_norm") or not own:
        return ()
    steps = layer.stride if isinstance(layer, CONVOLUTIONS) else (1,) * len(own)
    whole = (max(1, round(side * n / own[0])) for n in own)
    return tuple(-(-n // step) * step for n, step in zip(whole, steps, strict=True))


def sides(layer: nn.Module, own: Size) -> tuple[int, int]:
    """The smallest and the largest side of a map that a slider offers.

    Example:
        >>> sides(nn.Conv2d(1, 1, 3), (8, 8)), sides(nn.Conv2d(1, 1, 3), (1, 1))
        ((3, 64), (1, 64))
    """
    first = own[0] if own else 1
    return min(reach(layer), first), max(64, first)


def frequencies(layer: nn.Module, size: Size, each: Each = plain) -> pd.DataFrame:
    """The largest singular value at each frequency, in cycles per output pixel.

    Columns: fy, fx (without fy for one axis), value; zero stands in the middle.

    Example:
        >>> table = frequencies(nn.Conv2d(2, 3, 3), (4, 4))
        >>> table["fy"].unique().tolist(), len(table)
        ([-0.5, -0.25, 0.0, 0.25], 16)
    """
    found = torch.fft.fftshift(spectrum(layer, size, every=False, each=each)[..., 0])
    lines = [torch.fft.fftshift(torch.fft.fftfreq(n)) for n in found.shape]
    places = torch.cartesian_prod(*lines).reshape(-1, len(lines))
    table = pd.DataFrame(places.numpy().astype(float), columns=["fz", "fy", "fx"][-len(lines) :])
    return table.assign(value=found.flatten().tolist())


def values(layer: nn.Module, size: Size, each: Each = plain) -> pd.DataFrame:
    """The singular values of a layer, sorted; of a ConvNorm also those before filter and scale.

    *In plain words:* where all of them would take minutes, those are taken that are the largest
    of their frequency. Of long curves some hundreds of points are kept, the two ends among them.

    Columns: curve ("layer" or "core"), which ("all" or "largest of each frequency"), rank (from
    1), count, value.

    Raises:
        ValueError: a matrix without frequencies is too large.

    Example:
        >>> table = values(nn.Conv2d(2, 3, 3), (4, 4))
        >>> table["count"].iloc[0], bool(table["value"].is_monotonic_decreasing)
        (np.int64(32), True)
    """
    parts = [("layer", layer)]
    if isinstance(layer, ConvNorm2d):
        parts.append(("core", layer.core()))
    every, tables = affordable(layer, size), []
    if not every and not size:
        rows, columns = measured_map(layer, size).weight.shape[1:3]
        raise ValueError(f"a matrix of {rows} x {columns} is too large to show its spectrum here")
    for curve, part in parts:
        found = spectrum(part, size, every=every, each=each).flatten()
        found = found.sort(descending=True).values
        ranks = torch.linspace(0, len(found) - 1, min(POINTS, len(found))).round().long()
        table = pd.DataFrame({"rank": (ranks + 1).tolist(), "value": found[ranks].tolist()})
        which = "all" if every else "largest of each frequency"
        tables.append(table.assign(curve=curve, which=which, count=len(found)))
    table = pd.concat(tables, ignore_index=True)
    return table[["curve", "which", "rank", "count", "value"]]


@torch.no_grad()
def channels(layer: nn.Module, size: Size) -> pd.DataFrame:
    """Norm and condition number of each output channel, before ConvNorm and after it.

    *In plain words:* a 2-D convolution's taps alone, at stride 1 on ConvNorm's grid H + k - 1, and
    divided there by their own spectrum, as the layer does if it is a ConvNorm and as one with
    eps = 0 would do. Any other layer has the numbers of `norms.channel_norms`, and no after.

    Columns: state ("before" or "after"), channel, norm, condition.

    Example:
        >>> table = channels(nn.Conv2d(3, 4, 3), (6, 6))
        >>> after = table[table["state"] == "after"]
        >>> bool((after["condition"] - 1).abs().max() < 1e-9)
        True
    """
    if not isinstance(layer, nn.Conv2d | ConvNorm2d):
        one = norms.channel_norms(layer, size), norms.channel_condition_numbers(layer, size)
        return _states({"before": one})
    measured_map(layer, size, "zero" if isinstance(layer, nn.Conv2d) else "circular")
    with evaluation(layer):
        taps = layer.weight.detach()
        grid = own_grid(size, layer.kernel_size, layer.dilation)
        if isinstance(layer, ConvNorm2d):
            root = layer.root(taps, grid).double()
        else:
            root = inverse_root(taps.double(), grid, dilation=layer.dilation)
    lengths = _lengths(taps.double(), grid, layer.dilation)
    every = half_frequencies(grid)[0].long()
    lengths = lengths[:, every[:, 0], every[:, 1]]
    return _states({"before": _extremes(lengths), "after": _extremes(lengths * root.mT)})


def _lengths(taps: Tensor, grid: tuple[int, int], dilation: tuple[int, int]) -> Tensor:
    """The length of each output channel's taps at each frequency: (C_out, *grid).

    Orthogonal mixtures of the inputs change nothing, so more inputs than taps become as many.
    """
    count, inputs, *kernel = taps.shape
    if inputs > math.prod(kernel):
        taps = torch.linalg.qr(taps.flatten(2), mode="r").R.reshape(count, -1, *kernel)
    spread = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    wide = taps.new_zeros(*taps.shape[:2], *spread)
    wide[:, :, :: dilation[0], :: dilation[1]] = taps
    return torch.linalg.vector_norm(torch.fft.fft2(wide, s=grid), dim=1)


def _extremes(lengths: Tensor) -> tuple[Tensor, Tensor]:
    smallest, largest = lengths.aminmax(dim=1)
    return largest, torch.where(smallest > ZERO * largest, largest / smallest, math.inf)


def _states(found: dict[str, tuple[Tensor, Tensor]]) -> pd.DataFrame:
    tables = [
        pd.DataFrame({"state": state, "norm": norm.tolist(), "condition": condition.tolist()})
        for state, (norm, condition) in found.items()
    ]
    table = pd.concat([part.rename_axis("channel").reset_index() for part in tables])
    return table[["state", "channel", "norm", "condition"]].reset_index(drop=True)


@torch.no_grad()
def kernels(layer: nn.Module) -> pd.DataFrame:
    """The first kernels of a convolution, or the first entries of a matrix.

    Columns: output, input (of its group), row, column (of the tap, 0 of a matrix), value.

    Example:
        >>> len(kernels(nn.Conv2d(2, 50, 3))), len(kernels(nn.Linear(2, 3)))
        (216, 6)
    """
    with evaluation(layer):
        taps = layer.weight.detach()
    if isinstance(layer, TRANSPOSED):
        taps = taps.transpose(0, 1)
    most = TILES if taps.dim() > 2 else ENTRIES
    taps = taps[: most[0], : most[1]]
    rows = taps.shape[2] if taps.dim() > 3 else 1
    taps = taps.reshape(*taps.shape[:2], rows, -1)
    if not taps.isfinite().all():
        raise ValueError(f"weights of {type(layer).__name__} hold values that are not finite")
    places = torch.ones(taps.shape).nonzero().tolist()
    table = pd.DataFrame(places, columns=["output", "input", "row", "column"])
    return table.assign(value=taps.flatten().tolist())


def kernels_of(layer: nn.Module) -> tuple[int, int]:
    """How many outputs, and inputs (of a group), the kernels of a layer have.

    Example:
        >>> kernels_of(nn.Conv2d(4, 8, 3, groups=2)), kernels_of(nn.ConvTranspose1d(3, 5, 2))
        ((8, 2), (5, 3))
    """
    with evaluation(layer):  # a parametrization computes the weight when it is read
        rows, columns = layer.weight.shape[:2]
    return (columns, rows) if isinstance(layer, TRANSPOSED) else (rows, columns)


def growth(
    layer: nn.Module, own: Size, norm: str, side: int, kept: Callable = measure, each: Each = plain
) -> pd.DataFrame:
    """One norm of a layer on maps of several sides, this one among them.

    *In plain words:* as executed; a ConvNorm on its own torus, where its spectral norm is known at
    any size. Where one pass through the layer is very long, its spectral norm is left out.

    Columns: side, size, value, lower, upper, status, chosen.

    Example:
        >>> table = growth(nn.Conv2d(1, 1, 3, padding=1), (8, 8), "frobenius", 8)
        >>> bool(table["value"].is_monotonic_increasing), table.loc[table["chosen"], "side"].item()
        (True, 8)
    """
    boundary = "circular" if isinstance(layer, ConvNorm2d) else "zero"
    every = sorted({reach(layer), *(n for n in GROWTH if n > reach(layer)), side})
    weights = sum(weight.numel() for weight in layer.parameters())
    rows = []
    for at in each(every, "input sizes"):
        size = fitting(layer, own, at)
        long = norm in ("spectral", "stable_rank") and weights * math.prod(size) > WORK
        found = (*(math.nan,) * 3, "left out for its time") if long else None
        found = kept(layer, size, norm, boundary) if found is None else found
        rows.append((at, "x".join(map(str, size)), *found, at == side))
    return pd.DataFrame(
        rows, columns=["side", "size", "value", "lower", "upper", "status", "chosen"]
    )
