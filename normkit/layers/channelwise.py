"""What the layers over maps share: mean and variance with a cheap gradient, gamma and beta."""

import math

import torch
from torch import Tensor, nn

__all__ = [
    "Channelwise",
    "check_maps",
    "check_values",
    "moments",
    "scale_and_shift",
    "spread",
    "track_",
    "track_variance_",
    "wide",
]


class _Moments(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, over_images: bool) -> tuple[Tensor, Tensor]:
        mean = _mean(x, over_images)
        return mean, _mean((x - spread(mean, x)).square(), over_images)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.save_for_backward(inputs[0], output[0])
        ctx.values = _values(*inputs)

    @staticmethod
    def backward(ctx, grad_mean: Tensor, grad_var: Tensor) -> tuple[Tensor, None]:
        x, mean = ctx.saved_tensors
        slope = grad_var * (2 / ctx.values)
        offset = grad_mean / ctx.values - slope * mean
        return x * spread(slope, x) + spread(offset, x), None


def _values(x: Tensor, over_images: bool) -> int:
    return math.prod(x.shape[2:]) * (len(x) if over_images else 1)


def _mean(x: Tensor, over_images: bool) -> Tensor:
    # Summed over images first, x is read straight through whatever the size of the maps.
    total = x.sum(0, keepdim=True) if over_images else x
    return total.sum((2, 3), keepdim=True) / _values(x, over_images)


def spread(values: Tensor, x: Tensor) -> Tensor:
    """Repeats in memory what is one number for each channel, once for each pixel of an image.

    In plain words: torch then reads x and the numbers straight through, which on a CPU is faster
    than to look up one number for the few pixels of each map. On a GPU nothing is repeated.

    Arguments:
        values: one number for each channel, or for each channel of each image.
        x: maps.

    Shape:
        ``(C,)`` or ``(1, C, 1, 1)`` to ``(1, C, H, W)``, in x's memory format, or on a GPU to
        ``(1, C, 1, 1)``; ``(N, C, 1, 1)`` stays.

    Example:
        >>> spread(torch.tensor([3.0, 4.0]), torch.zeros(7, 2, 1, 3)).tolist()
        [[[[3.0, 3.0, 3.0]], [[4.0, 4.0, 4.0]]]]
    """
    values = values.reshape(1, -1, 1, 1) if values.ndim == 1 else values
    if len(values) != 1 or x.device.type != "cpu":
        return values
    last = x.is_contiguous(memory_format=torch.channels_last)
    order = torch.channels_last if last else torch.contiguous_format
    return values.expand(1, *x.shape[1:]).contiguous(memory_format=order)


def moments(x: Tensor, *, over_images: bool = False) -> tuple[Tensor, Tensor]:
    r"""Finds mean and biased variance of each channel over the pixels of one or of all images.

    .. math:: \mu = \frac{1}{n} \sum x, \quad \sigma^2 = \frac{1}{n} \sum (x - \mu)^2

    In plain words: ``torch.var_mean``, but cheaper on a CPU, as is its gradient, one pass over x.
    It can be differentiated twice.

    Arguments:
        x: maps, of a floating type.
        over_images: whether over all images together.

    Shape:
        ``(N, C, H, W)`` to twice ``(N, C, 1, 1)``, or ``(1, C, 1, 1)`` over images.

    Example:
        >>> x = torch.randn(4, 3, 5, 7) + 2
        >>> var, mean = torch.var_mean(x, (0, 2, 3), correction=0, keepdim=True)
        >>> found = moments(x, over_images=True)
        >>> torch.allclose(found[0], mean), torch.allclose(found[1], var)
        (True, True)
    """
    if x.device.type != "cpu":
        axes = (0, 2, 3) if over_images else (2, 3)
        return torch.var_mean(x, axes, correction=0, keepdim=True)[::-1]
    return _Moments.apply(x, over_images)


def scale_and_shift(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    r"""Multiplies each channel by a number and adds another, in x's type.

    .. math:: y_{nchw} = \text{scale}_c \, x_{nchw} + \text{shift}_c

    Arguments:
        x: maps.
        scale: one number for each channel.
        shift: likewise.

    Shape:
        ``(N, C, H, W)``, ``(C,)``, ``(C,)`` to ``(N, C, H, W)``.

    Example:
        >>> scale_and_shift(torch.ones(1, 2, 1, 1), torch.tensor([3., 4]), torch.ones(2)).flatten()
        tensor([4., 5.])
    """
    return torch.addcmul(spread(shift, x), x, spread(scale, x)).to(x.dtype)


def track_(running: Tensor, value: Tensor, momentum: float) -> None:
    """Moves a running average towards a value, in place and without a gradient.

    Example:
        >>> running = torch.ones(1)
        >>> track_(running, torch.tensor([3.0]), 0.1)
        >>> running
        tensor([1.2000])
    """
    running.mul_(1 - momentum).add_(value.detach(), alpha=momentum)


def track_variance_(layer: nn.Module, x: Tensor, var: Tensor) -> None:
    r"""Moves a layer's ``running_var`` towards the unbiased variance of each channel of a batch.

    .. math:: r \leftarrow (1 - m) \, r + m \, \frac{n}{n - 1} \, \sigma^2

    Arguments:
        layer: has ``num_features``, ``running_var`` and ``momentum`` (m).
        x: the maps, with n values for each channel.
        var: the biased variance of each channel of x.

    Raises:
        ValueError: if n is below 2.

    Example:
        >>> x = torch.rand(4, 3, 5, 7)
        >>> ours, torchs = Channelwise(3, affine=True), nn.BatchNorm2d(3)
        >>> ours.running_var, ours.momentum = torch.ones(3), torchs.momentum
        >>> track_variance_(ours, x, moments(x, over_images=True)[1].flatten())
        >>> _ = torchs(x)
        >>> torch.allclose(ours.running_var, torchs.running_var)
        True
    """
    values = x.numel() // layer.num_features
    check_values(layer, x, values)
    track_(layer.running_var, var * (values / (values - 1)), layer.momentum)


def wide(x: Tensor) -> Tensor:
    """Gives a tensor of float32 at least, so that sums over many half-precision values are right.

    Example:
        >>> wide(torch.ones(2, dtype=torch.bfloat16)).dtype
        torch.float32
    """
    return x.to(torch.promote_types(x.dtype, torch.float32))


def check_maps(layer: nn.Module, x: Tensor) -> None:
    """Refuses what is not maps of the layer's ``num_features`` channels.

    Raises:
        ValueError: if the shape is not ``(N, num_features, H, W)``, or the type not floating.
    """
    channels = layer.num_features
    if not x.is_floating_point():
        name = type(layer).__name__
        raise ValueError(f"{name} takes maps of a floating type, not {x.dtype}; divide by 255")
    if x.ndim != 4 or x.shape[1] != channels:
        raise ValueError(
            f"{type(layer).__name__} takes maps of shape (N, {channels}, H, W), not "
            f"{tuple(x.shape)}"
        )


def check_values(layer: nn.Module, x: Tensor, values: int) -> None:
    """Refuses a mean or variance over a single value: it says nothing about the others.

    Raises:
        ValueError: if values is below 2.
    """
    if values < 2:
        raise ValueError(
            f"{type(layer).__name__} needs at least 2 values for each mean and variance, but "
            f"maps of shape {tuple(x.shape)} have {values}"
        )


class Channelwise(nn.Module):
    """A layer over maps with gamma and beta for each channel: the base class to inherit from.

    In plain words: gamma is ``weight``, from 1, and beta is ``bias``, from 0, as torch has them.
    Without ``affine`` they stay there, are no parameters and not part of the state dict.

    Arguments:
        num_features: channels.
        affine: whether gamma and beta are trained.

    Example:
        >>> Channelwise(3, affine=True).bias
        Parameter containing:
        tensor([0., 0., 0.], requires_grad=True)
    """

    def __init__(self, num_features: int, affine: bool) -> None:
        super().__init__()
        self.num_features, self.affine = num_features, affine
        for name, start in (
            ("weight", torch.ones(num_features)),
            ("bias", torch.zeros(num_features)),
        ):
            if affine:
                self.register_parameter(name, nn.Parameter(start))
            else:
                self.register_buffer(name, start, persistent=False)

    def extra_repr(self) -> str:
        return f"{self.num_features}, affine={self.affine}"
