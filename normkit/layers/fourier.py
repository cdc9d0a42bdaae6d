"""The discrete Fourier transform of images as real matrix products, on any grid."""

import functools
import math
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["View", "analyze", "angles", "frequencies", "synthesize"]

_DENSE = 12  # up to this side one matrix per image beats two, one along each axis


class View(NamedTuple):
    """The pixels of a periodic grid at which images are given: start + step i, on each axis.

    Example:
        >>> View(grid=(6, 6), size=(2, 2), start=(-1, -1), step=(2, 2)).pixels(0).tolist()
        [-1.0, 1.0]
    """

    grid: tuple[int, int]
    size: tuple[int, int]
    start: tuple[int, int] = (0, 0)
    step: tuple[int, int] = (1, 1)

    def pixels(self, axis: int) -> Tensor:
        """The places along an axis, in float64."""
        count = torch.arange(self.size[axis], dtype=torch.float64)
        return self.start[axis] + self.step[axis] * count


def _split(n: int) -> tuple[int, list[int]]:
    """How many frequencies of an axis have another conjugate, and those that are their own."""
    return (n - 1) // 2, [0] if n % 2 else [0, n // 2]


@functools.lru_cache(maxsize=256)
def frequencies(grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """One frequency of each conjugate pair of a grid, and how many it stands for.

    Shape:
        (F, 2), integers as float64; (F,), 2 for a pair and 1 for a frequency that is its own.

    Example:
        >>> every, count = frequencies((3, 4))
        >>> len(every), int(count.sum())
        (7, 12)
    """
    (p, own_u), (q, own_v) = map(_split, grid)
    pairs_u, pairs_v = range(1, p + 1), range(1, q + 1)
    found = [(u, v) for v in pairs_v for u in pairs_u]
    found += [(u, -v) for v in pairs_v for u in pairs_u]
    found += [(u, v) for v in pairs_v for u in own_u]
    found += [(u, v) for v in own_v for u in pairs_u]
    own = [(u, v) for v in own_v for u in own_u]
    count = torch.full((len(found) + len(own),), 2.0, dtype=torch.float64)
    count[len(found) :] = 1.0
    return torch.tensor(found + own, dtype=torch.float64), count


def angles(grid: tuple[int, int], places: Tensor) -> Tensor:
    """The angle of each frequency's wave at each place of the grid, in radians.

    Shape:
        places (P, 2) -> (F, P)
    """
    turns = frequencies(grid)[0] / torch.tensor(grid, dtype=torch.float64)
    return 2 * math.pi * (turns @ places.to(torch.float64).mT)


def analyze(images: Tensor, view: View, *, weighted: bool = False) -> Tensor:
    r"""The Fourier transform of images on a grid, which is zero outside the view.

    .. math:: X_f = \sum_p x_p e^{-2 \pi i f \cdot p}

    In plain words: real and imaginary parts lie apart, and only one frequency of each conjugate
    pair is there, as real images need no more. It is a product by a constant matrix: on grids
    whose sides are not powers of two that is faster than an FFT.

    Arguments:
        images: on the view's pixels.
        view: where these pixels are.
        weighted: multiply each frequency by how many it stands for, over the size of the grid;
            the result is then that of the transpose of the inverse transform.

    Shape:
        (N, C, H, W) -> (2, F, N, C)

    Example:
        >>> view = View(grid=(5, 7), size=(3, 4))
        >>> images = torch.randn(2, 1, 3, 4, dtype=torch.float64)
        >>> parts = analyze(images, view)
        >>> energy = (frequencies(view.grid)[1] * parts.square().sum((0, 2, 3))).sum() / 35
        >>> bool(torch.isclose(energy, images.square().sum()))  # Parseval
        True
    """
    count = images.shape[:2]
    if max(view.grid) <= _DENSE:
        basis = _dense(view, weighted, images.dtype, images.device)
        pixels = images.permute(2, 3, 0, 1).reshape(basis.shape[1], math.prod(count))
        return torch.mm(basis, pixels).view(2, len(basis) // 2, *count)
    rows, columns = _separable(view, weighted, images.dtype, images.device)
    pixels = images.permute(3, 2, 0, 1).reshape(view.size[1], view.size[0] * math.prod(count))
    y = torch.mm(columns, pixels).view(len(columns), view.size[0], math.prod(count))
    return _joined(torch.matmul(rows, y), view.grid, weighted).unflatten(2, count)


def synthesize(parts: Tensor, view: View, *, weighted: bool = True) -> Tensor:
    r"""Images on a view from their Fourier transform: the transpose of `analyze`.

    .. math:: x_p = \frac{1}{n} \sum_f X_f e^{2 \pi i f \cdot p}

    In plain words: with weights it is the inverse transform, read off at the view's pixels only,
    so that a crop and a stride cost nothing.

    Arguments:
        parts: as `analyze` gives them.
        view: the pixels that are wanted.
        weighted: as for `analyze`.

    Shape:
        (2, F, N, C) -> (N, C, H, W), in the memory format channels_last

    Example:
        >>> images = torch.randn(2, 3, 3, 4, dtype=torch.float64)
        >>> whole = View(grid=(5, 7), size=(3, 4))
        >>> part = View(grid=(5, 7), size=(1, 2), start=(1, 0), step=(1, 2))
        >>> found = synthesize(analyze(images, whole), part)
        >>> torch.allclose(found, images[:, :, 1:2, ::2])
        True
    """
    count = parts.shape[2:]
    if max(view.grid) <= _DENSE:
        basis = _dense(view, weighted, parts.dtype, parts.device)
        waves = parts.reshape(len(basis), math.prod(count))
        pixels = torch.mm(basis.t(), waves).view(*view.size, *count)
        return pixels.permute(2, 0, 1, 3).contiguous().permute(0, 3, 1, 2)
    rows, columns = _separable(view, weighted, parts.dtype, parts.device)
    t = _parted(parts.flatten(2), view.grid, weighted)  # (n_w, n_h, N C)
    y = torch.matmul(rows.t(), t)  # (n_w, H, N C)
    y = y.view(len(columns), view.size[0] * math.prod(count))
    pixels = torch.mm(columns.t(), y).view(*view.size[::-1], *count)
    return pixels.permute(2, 1, 0, 3).contiguous().permute(0, 3, 1, 2)


@functools.lru_cache(maxsize=256)
def _dense(view: View, weighted: bool, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Cosines, then minus sines, of every frequency at every pixel: (2 F, H W)."""
    places = torch.cartesian_prod(view.pixels(0), view.pixels(1)).view(-1, 2)
    turned = angles(view.grid, places)
    basis = torch.stack([turned.cos(), -turned.sin()])
    if weighted:
        basis *= frequencies(view.grid)[1][:, None] / math.prod(view.grid)
    return basis.flatten(0, 1).to(device, dtype).contiguous()


@functools.lru_cache(maxsize=256)
def _separable(
    view: View, weighted: bool, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Cosines, sines and own frequencies' cosines along each axis: (n_h, H) and (n_w, W)."""
    bases = []
    for axis, n in enumerate(view.grid):
        count, own = _split(n)
        pairs = torch.arange(1, count + 1, dtype=torch.float64)
        turns = 2 * math.pi / n * view.pixels(axis)
        lines = [torch.outer(pairs, turns), torch.outer(torch.tensor(own).double(), turns)]
        basis = torch.cat([lines[0].cos(), lines[0].sin(), lines[1].cos()])
        basis *= 2**0.5 / n if weighted else 1.0
        bases.append(basis.to(device, dtype).contiguous())
    return bases[0], bases[1]


def _blocks(grid: tuple[int, int]) -> tuple[tuple[slice, ...], tuple[slice, ...], list]:
    """Cosines, sines and own frequencies along each axis, and the parts of the half spectrum."""
    (p, own_u), (q, own_v) = map(_split, grid)
    axes = tuple((slice(0, n), slice(n, 2 * n), slice(2 * n, None)) for n in (p, q))
    s, r = len(own_u), len(own_v)
    sizes = [(q, p), (q, p), (q, s), (r, p), (r, s)]
    ends = torch.tensor([0] + [a * b for a, b in sizes]).cumsum(0).tolist()
    parts = [(slice(*ends[i : i + 2]), size) for i, size in enumerate(sizes)]
    return *axes, parts


def _joined(t: Tensor, grid: tuple[int, int], weighted: bool) -> Tensor:
    """Real and imaginary parts (2, F, N C) from products of cosines and sines (n_w, n_h, N C)."""
    (c, s, o), (cw, sw, ow), parts = _blocks(grid)
    out = t.new_empty(2, parts[-1][0].stop, t.shape[2])
    (plus, minus, tall, wide, own), (iplus, iminus, itall, iwide, iown) = (
        [plane[cut].unflatten(0, size) for cut, size in parts] for plane in out
    )
    torch.sub(t[cw, c], t[sw, s], out=plus)
    torch.add(t[cw, c], t[sw, s], out=minus)
    torch.add(t[cw, s], t[sw, c], out=iplus).neg_()
    torch.sub(t[sw, c], t[cw, s], out=iminus)
    tall.copy_(t[cw, o])
    torch.neg(t[sw, o], out=itall)
    wide.copy_(t[ow, c])
    torch.neg(t[ow, s], out=iwide)
    own.copy_(t[ow, o])
    iown.zero_()
    if weighted:
        own.mul_(0.5)
    return out


def _parted(parts: Tensor, grid: tuple[int, int], weighted: bool) -> Tensor:
    """The transpose of `_joined`."""
    (c, s, o), (cw, sw, ow), cuts = _blocks(grid)
    (plus, minus, tall, wide, own), (iplus, iminus, itall, iwide, _) = (
        [plane[cut].unflatten(0, size) for cut, size in cuts] for plane in parts
    )
    t = parts.new_empty(grid[1], grid[0], parts.shape[2])
    torch.add(plus, minus, out=t[cw, c])
    torch.sub(minus, plus, out=t[sw, s])
    torch.add(iplus, iminus, out=t[cw, s]).neg_()
    torch.sub(iminus, iplus, out=t[sw, c])
    t[cw, o] = tall
    torch.neg(itall, out=t[sw, o])
    t[ow, c] = wide
    torch.neg(iwide, out=t[ow, s])
    t[ow, o] = own * 0.5 if weighted else own
    return t
