"""What others compute: the published ways to a convolution's norms, written out small."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "border_free",
    "fft_svd",
    "gathered",
    "gram_iteration",
    "grid_power",
    "plain_sums",
    "power_method",
    "symbol",
]

STEPS = 500


def symbol(weight: Tensor, size: tuple[int, int], stride: tuple[int, int] = (1, 1)) -> Tensor:
    """The matrices of a two-dimensional convolution on the torus, one per frequency, all of them.

    A stride joins the frequencies that it aliases into one wider matrix. Taps beyond the edge of
    a small torus come in again on the other side.

    Source: Sedghi, Gupta & Long, ICLR 2019, https://arxiv.org/abs/1805.10408, theorem 6.

    Shape:
        weight (C_out, C_in, k, k) to (frequencies, C_out, C_in x strides), complex.

    Example:
        >>> symbol(torch.ones(1, 1, 1, 1), (2, 3)).shape
        torch.Size([6, 1, 1])
    """
    if any(k > n for k, n in zip(weight.shape[2:], size, strict=True)):
        excess = [(-k) % n for k, n in zip(weight.shape[2:], size, strict=True)]
        weight = F.pad(weight, (0, excess[1], 0, excess[0]))
        weight = weight.unflatten(3, (-1, size[1])).sum(3).unflatten(2, (-1, size[0])).sum(2)
    waves = torch.fft.fft2(weight, s=size)
    if stride == (1, 1):
        return waves.permute(2, 3, 0, 1).flatten(0, 1)
    aliases = waves.unflatten(3, (stride[1], -1)).unflatten(2, (stride[0], -1))
    joined = aliases.permute(3, 5, 0, 1, 2, 4).flatten(3).flatten(0, 1)
    return joined / math.sqrt(math.prod(stride))


def fft_svd(
    weight: Tensor, size: tuple[int, int], stride: tuple[int, int] = (1, 1)
) -> tuple[float, int]:
    """Largest singular value on the torus by a full SVD at every frequency, and 1 (one pass).

    Source: Sedghi, Gupta & Long, ICLR 2019, https://arxiv.org/abs/1805.10408.

    Example:
        >>> fft_svd(torch.full((1, 1, 3, 3), 1.0), (6, 6))[0]
        9.0
    """
    return torch.linalg.svdvals(symbol(weight, size, stride)).max().item(), 1


def gram_iteration(
    weight: Tensor, size: tuple[int, int], stride: tuple[int, int] = (1, 1), rtol: float = 1e-6
) -> tuple[float, int]:
    r"""Upper bound of the spectral norm on the torus by repeated Gram products, and their number.

    $G_0 = \hat K$, $G_{i+1} = G_i^* G_i$, bound $\max_f \|G_n(f)\|_F^{2^{-n}}$

    *In plain words:* squaring a matrix n times leaves its largest singular value alone on the
    stage. Every matrix is divided by its Frobenius norm first, and the logarithms of the divisors
    kept, so that nothing leaves the range of floats. It stops when a product lowers the bound by
    less than rtol; what is left to gain is then about as much.

    Source: Delattre, Barthelemy, Araujo & Allauzen, "Efficient Bound of Lipschitz Constant for
    Convolutional Layers by Gram Iteration", ICML 2023, https://arxiv.org/abs/2305.16173,
    algorithm 3.
    Deviation: the number of products follows from rtol instead of being given.

    Example:
        >>> round(gram_iteration(torch.full((1, 1, 3, 3), 1.0), (6, 6))[0], 5)
        9.0
    """
    gram = symbol(weight, size, stride)
    gram = (gram if gram.shape[1] >= gram.shape[2] else gram.mH).resolve_conj().contiguous()
    left = gram.mH
    logs = torch.zeros(len(gram), dtype=torch.float64, device=weight.device)
    last = math.inf
    for products in range(64):
        length = torch.linalg.vector_norm(torch.view_as_real(gram).flatten(1), dim=1)
        bound = ((logs + length.double().log()) * 0.5**products).max().exp().item()
        if last - bound <= rtol * bound:
            break
        last = bound
        gram /= length.clamp(min=1e-30)[:, None, None]
        logs = 2 * (logs + length.double().log())
        gram = left @ gram
        left = gram  # it is its own adjoint from now on, and multiplies faster so
    return bound, products


def _power(apply: Callable, adjoint: Callable, start: Tensor, steps: int) -> Tensor:
    """|A x| of each (unit) row x after that many steps of the power method on A* A."""
    x, sides = start, tuple(range(1, start.dim()))
    for _ in range(steps):
        x = adjoint(apply(x))
        x = x / torch.linalg.vector_norm(x, dim=sides, keepdim=True).clamp(min=1e-30)
    return torch.linalg.vector_norm(apply(x).flatten(1), dim=1)


def power_method(layer: nn.Conv2d, size: tuple[int, int], steps: int = STEPS) -> tuple[float, int]:
    """The power method through the layer as executed: convolution and transposed convolution.

    Source: Virmaux & Scaman, NeurIPS 2018, https://arxiv.org/abs/1805.10965, algorithm 2; with
    500 steps the comparison of Liang & Huang, AAAI 2021, whose stop test float32 never meets.

    Example:
        >>> layer = nn.Conv2d(1, 1, 1, bias=False)
        >>> _ = nn.init.constant_(layer.weight, 3.0)
        >>> power_method(layer, (4, 4), steps=2)
        (3.0, 2)
    """
    weight, padding, stride = layer.weight.detach(), layer.padding, layer.stride
    rest = [
        (n + 2 * p - k) % s
        for n, p, k, s in zip(size, padding, layer.kernel_size, stride, strict=True)
    ]
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(1, layer.in_channels, *size, generator=generator).to(weight)
    lengths = _power(
        lambda x: F.conv2d(x, weight, None, stride, padding, groups=layer.groups),
        lambda y: F.conv_transpose2d(
            y, weight, None, stride, padding, output_padding=rest, groups=layer.groups
        ),
        start,
        steps,
    )
    return lengths.item(), steps


def grid_power(
    weight: Tensor, size: tuple[int, int], stride: tuple[int, int] = (1, 1), steps: int = STEPS
) -> tuple[float, int]:
    """The power method on the torus, at every frequency at once; the largest of their values.

    Example:
        >>> round(grid_power(torch.full((1, 1, 3, 3), 1.0), (6, 6), steps=2)[0], 5)
        9.0
    """
    matrices = symbol(weight, size, stride).contiguous()
    transposed = matrices.mH.contiguous()
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(len(matrices), matrices.shape[2], 1, generator=generator).to(matrices)
    lengths = _power(lambda x: matrices @ x, lambda y: transposed @ y, start, steps)
    return lengths.max().item(), steps


def plain_sums(weight: Tensor, norm: str) -> float:
    """The paper's formula without index sets: the largest sum of |K| over an axis of channels.

    Source: Liang & Huang, AAAI 2021, https://arxiv.org/abs/2009.08435.
    """
    return weight.abs().sum((0, 2, 3) if norm == "l1" else (1, 2, 3)).max().item()


def gathered(
    weight: Tensor,
    size: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    *,
    swapped: bool = False,
) -> float:
    """The l1 norm by the paper's index sets: one gather of taps for each set, then the largest.

    *In plain words:* a set holds the taps through which one pixel is read: every stride-th one
    of as many neighboring taps as there are places to put the kernel.

    Source: Liang & Huang, AAAI 2021, https://arxiv.org/abs/2009.08435; `swapped` numbers the taps
    of a kernel column by column, though it lies in memory row by row, as the authors' code does
    (https://github.com/youweiliang/norm_robustness): wrong where sides or strides are unequal.

    Example:
        >>> gathered(torch.ones(1, 1, 3, 3), (8, 8), (2, 2), (1, 1))  # taps 0 and 2 of each axis
        4.0
    """
    sets, flat = [], weight.abs().flatten(2)
    for n, k, s, p in zip(size, weight.shape[2:], stride, padding, strict=True):
        reach = min(k, n + 2 * p - k + 1)
        firsts = [(i, i + j) for i in range(k - reach + 1) for j in range(min(s, reach))]
        sets.append([torch.arange(first, start + reach, s) for start, first in firsts])
    rows, columns = weight.shape[2:]
    sums = []
    for y in sets[0]:
        for x in sets[1]:
            taps = x[:, None] * rows + y if swapped else y[:, None] * columns + x
            sums.append(flat[:, :, taps.flatten()].sum((0, 2)).max())
    return torch.stack(sums).max().item()


def border_free(layer: nn.Module, norm: str) -> float:
    """The l1 or linf norm of any layer by the paper's formula: as if there were no borders.

    `linf = max_i sum |K[i]|`, `l1 = max_j max over classes of taps modulo the stride`

    *In plain words:* what the norm would be if every tap fell on a pixel. Dilation and groups,
    which the paper leaves out, are put in.

    Source: Liang & Huang, AAAI 2021, https://arxiv.org/abs/2009.08435.

    Example:
        >>> layer = nn.Conv1d(1, 1, 3, padding=1)
        >>> _ = nn.init.constant_(layer.weight, 1.0)
        >>> border_free(layer, "linf")  # on two pixels, the third tap always falls outside
        3.0
    """
    if isinstance(layer, nn.modules.batchnorm._BatchNorm):
        return (layer.weight / (layer.running_var + layer.eps).sqrt()).abs().max().item()
    weight = layer.weight.detach().abs()
    if isinstance(layer, nn.Linear):
        return weight.sum(0 if norm == "l1" else 1).max().item()
    weight = weight.unflatten(0, (layer.groups, -1))  # (groups, outputs, inputs, *taps)
    if (norm == "linf") != layer.transposed:
        return weight.sum(2).flatten(2).sum(2).max().item()
    sums = weight.sum(1)
    for dim, (step, spread) in enumerate(zip(layer.stride, layer.dilation, strict=True), 2):
        classes = torch.arange(sums.shape[dim]) * spread % step
        members = (classes == torch.arange(step)[:, None]).to(sums)
        sums = (sums.movedim(dim, -1) @ members.mT).movedim(-1, dim)
    return sums.max().item()
