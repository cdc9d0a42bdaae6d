"""ConvNorm's operation: a convolution whose output channels are isometries on a periodic grid."""

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .fourier import View, analyze, angles, synthesize
from .inverse_root import own_grid, tap_places

__all__ = ["Analysis", "Synthesis", "cast_device", "normalized_convolution"]

_LARGEST = 2**27  # numbers in the transformed taps above which they are not worth their memory


def normalized_convolution(
    x: Tensor,
    weight: Tensor,
    root: Tensor,
    *,
    stride: tuple[int, int] = (1, 1),
    before: tuple[int, int] = (0, 0),
    outputs: tuple[int, int],
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
) -> Tensor:
    r"""The convolution of ConvNorm, read off at some pixels of its periodic grid.

    .. math:: \hat z_k = F^{-1} V_k F z_k, \quad z_k = \sum_j a_{k,j} * x_j

    In plain words: the full convolution of the image, whose every frequency is divided by the
    length of the taps at that frequency. For whole layers there is no convolution in space at
    all: image and taps are transformed, multiplied, and transformed back to just the pixels that
    are wanted. Layers with groups, or whose transformed taps would take too much memory,
    convolve in space and multiply after. The first way has no second derivatives.

    Source: Liu et al. 2021, arXiv 2103.00673, section 2.2.

    Arguments:
        x: images.
        weight: the taps a, of the type of x.
        root: V, as `inverse_root` gives it for the grid of `own_grid`.
        stride: pixels between outputs.
        before: pixels by which the first output's first tap stands before the image.
        outputs: height and width of the output.
        dilation: pixels between taps.
        groups: groups of channels that do not see each other.

    Shape:
        (N, C_in, H, W) -> (N, C_out, H', W')
    """
    size = tuple(x.shape[2:])
    grid = own_grid(size, weight.shape[2:], dilation)
    image = View(grid, size)
    output = View(grid, outputs, tuple(-n for n in before), stride)
    if groups == 1 and 2 * len(root) * weight[:, :, 0, 0].numel() <= _LARGEST:
        return _InFourier.apply(x, weight, root, (image, output, dilation))
    return _in_space(x, weight, root, output, dilation, groups)


def _in_space(
    x: Tensor, weight: Tensor, root: Tensor, output: View, dilation: tuple, groups: int
) -> Tensor:
    """The full convolution, its transform multiplied by V, and the wanted pixels."""
    reach = tuple(d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True))
    z = F.conv2d(x, weight, padding=reach, dilation=dilation, groups=groups)
    whole = View(output.grid, output.grid, tuple(-n for n in reach))
    parts = Analysis.apply(z, whole, False) * root[:, None]
    return Synthesis.apply(parts, output, True)


def _plainly(backward: Callable) -> Callable:
    """A backward pass that autocast does not reach: it may run inside where forward did not."""

    @functools.wraps(backward)
    def run(ctx, gradient: Tensor) -> tuple:
        with torch.autocast(cast_device(gradient), enabled=False):
            return backward(ctx, gradient)

    return run


def cast_device(tensor: Tensor) -> str:
    """The kind of device on which autocast would act for a tensor; meta tensors have none.

    Example:
        >>> cast_device(torch.empty(1, device="meta"))
        'cpu'
    """
    return "cpu" if tensor.is_meta else tensor.device.type


class Analysis(torch.autograd.Function):
    """`analyze` with gradients, whose transpose is `synthesize`; takes images, view, weighted.

    Example:
        >>> images = torch.randn(1, 1, 16, 16, dtype=torch.float64, requires_grad=True)
        >>> view = View(grid=(18, 18), size=(16, 16))
        >>> torch.autograd.gradcheck(lambda x: Analysis.apply(x, view, False), images)
        True
    """

    @staticmethod
    def forward(ctx, images: Tensor, view: View, weighted: bool) -> Tensor:
        ctx.how = view, weighted
        return analyze(images, view, weighted=weighted)

    @staticmethod
    @_plainly
    def backward(ctx, gradient: Tensor) -> tuple:
        return Synthesis.apply(gradient, *ctx.how), None, None


class Synthesis(torch.autograd.Function):
    """`synthesize` with gradients, whose transpose is `analyze`; takes parts, view, weighted.

    Example:
        >>> parts = torch.randn(2, 164, 1, 1, dtype=torch.float64, requires_grad=True)
        >>> view = View(grid=(18, 18), size=(2, 3))
        >>> torch.autograd.gradcheck(lambda x: Synthesis.apply(x, view, True), parts)
        True
    """

    @staticmethod
    def forward(ctx, parts: Tensor, view: View, weighted: bool) -> Tensor:
        ctx.how = view, weighted
        return synthesize(parts, view, weighted=weighted)

    @staticmethod
    @_plainly
    def backward(ctx, gradient: Tensor) -> tuple:
        return Analysis.apply(gradient, *ctx.how), None, None


@functools.lru_cache(maxsize=256)
def _tap_waves(
    grid: tuple, kernel_size: tuple, dilation: tuple, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Cosines and sines of every frequency at every tap, which is read against it: (2 F, P)."""
    turned = angles(grid, tap_places(kernel_size, dilation))
    return torch.cat([turned.cos(), turned.sin()]).to(device, dtype).contiguous()


class _InFourier(torch.autograd.Function):
    """The whole layer in the Fourier domain; V is a constant."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, root: Tensor, how: tuple) -> Tensor:
        image, output, dilation = how
        waves = _tap_waves(image.grid, tuple(weight.shape[2:]), dilation, x.dtype, x.device)
        taps = torch.mm(waves, weight.flatten(0, 1).flatten(1).t().contiguous())
        taps = taps.view(2, len(root), *weight.shape[:2]).mul_(root[:, :, None])
        seen = analyze(x, image)
        made = _product(seen, taps.transpose(2, 3))
        ctx.save_for_backward(seen, taps, root)
        ctx.how = image, output, dilation, tuple(weight.shape)
        return synthesize(made, output)

    @staticmethod
    @once_differentiable
    @_plainly
    def backward(ctx, gradient: Tensor) -> tuple:
        (seen, taps, root), (image, output, dilation, shape) = ctx.saved_tensors, ctx.how
        back = analyze(gradient, output, weighted=True)
        of_x = of_weight = None
        if ctx.needs_input_grad[0]:
            parts = _product(back, taps, conjugated=True)
            of_x = synthesize(parts, image, weighted=False)
        if ctx.needs_input_grad[1]:
            parts = _product(back.transpose(2, 3), seen, conjugated=True)
            parts *= root[:, :, None]
            waves = _tap_waves(image.grid, shape[2:], dilation, parts.dtype, parts.device)
            of_weight = torch.mm(waves.t().contiguous(), parts.view(len(waves), -1))
            of_weight = of_weight.t().reshape(shape)
        return of_x, of_weight, None, None


def _product(a: Tensor, b: Tensor, conjugated: bool = False) -> Tensor:
    """The matrix product of complex a and b, which may be conjugated, at each frequency.

    Shape:
        (2, F, n, m), (2, F, m, p) -> (2, F, n, p)
    """
    made = a.new_empty(2, a.shape[1], a.shape[2], b.shape[3])
    sign = 1 if conjugated else -1
    torch.bmm(a[0], b[0], out=made[0])
    made[0].baddbmm_(a[1], b[1], alpha=sign)
    torch.bmm(a[1], b[0], out=made[1])
    made[1].baddbmm_(a[0], b[1], alpha=-sign)
    return made
