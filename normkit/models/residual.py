"""What the residual nets share: kinds of shortcut, SkipInit, and the chain of stages."""

from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .parts import Plan, convolution_block, halve, initialized

__all__ = ["SHORTCUTS", "PadShortcut", "SkipInit", "chain", "padded", "shortcut"]

SHORTCUTS = ("conv1x1", "conv3x3", "pad", "all_conv1x1")


class SkipInit(nn.Module):
    r"""Multiplies its input by one learnable number that starts at zero.

    .. math:: y = \text{gain} \cdot x, \quad \text{gain} = 0 \text{ at initialization}

    In plain words: at the start a residual block passes on its shortcut alone, so the signal
    does not grow with depth even without a normalization.

    Source: De and Smith 2020, arXiv 2002.10444.

    Example:
        >>> SkipInit()(torch.ones(2)).tolist()
        [0.0, 0.0]
    """

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * x


class PadShortcut(nn.Module):
    """Matches a shortcut's shape without weights: keeps every stride-th pixel, adds zero channels.

    Source: He et al. 2016, arXiv 1512.03385, section 3.3, option A. The paper does not say
    where the zero channels go; half of them come first, as in the published weights.

    Arguments:
        in_channels: channels before.
        out_channels: channels after, at least as many.
        stride: 1 or 2.

    Shape:
        ``(N, in_channels, H, W)`` to ``(N, out_channels, ceil(H / stride), ceil(W / stride))``.

    Example:
        >>> PadShortcut(2, 4, 2)(torch.ones(1, 2, 5, 3))[0, :, 0, 0].tolist()
        [0.0, 1.0, 1.0, 0.0]
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        extra = out_channels - in_channels
        self.before, self.after = extra // 2, extra - extra // 2
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, self.before, self.after))


def padded(
    plan: Plan, inputs: int, outputs: int, size: int, stride: int = 1, *, groups: int = 1
) -> nn.Module:
    """Makes a convolution of odd kernel size that keeps the map, or halves it.

    Only a grouped one is asked for with ``groups``, which not every constructor takes.

    Example:
        >>> from normkit import models
        >>> models.build("resnet8", width=4).blocks[0].convolution1.padding
        (1, 1)
    """
    how = {"stride": stride, "padding": (size - 1) // 2, "bias": plan.bias}
    grouped = {} if groups == 1 else {"groups": groups}
    return plan.convolution(inputs, outputs, size, **how, **grouped)


def shortcut(plan: Plan, in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """Makes the identity, or where the shape changes a ``PadShortcut`` or a convolution.

    The normalization follows the convolution, except with preactivation. "all_conv1x1" (option
    C of He et al. 2016, arXiv 1512.03385) is a convolution also where the shape stays.

    Example:
        >>> from normkit import models
        >>> models.build("resnet8", width=4, shortcut="pad").blocks[1].shortcut
        PadShortcut()
    """
    if in_channels == out_channels and stride == 1 and plan.shortcut != "all_conv1x1":
        return nn.Identity()
    if plan.shortcut == "pad":
        return PadShortcut(in_channels, out_channels, stride)
    size = 3 if plan.shortcut == "conv3x3" else 1
    convolution = initialized(padded(plan, in_channels, out_channels, size, stride))
    layers = OrderedDict(convolution=convolution)
    if not plan.preactivation:
        layers["normalization"] = plan.normalization(out_channels)
    return nn.Sequential(layers)


def chain(
    plan: Plan,
    block: Callable[[Plan, int, int, int], nn.Module],
    stages: Sequence[tuple[int, int, bool]],
    *,
    stem: int,
) -> nn.Sequential:
    """Chains a 3x3 stem, stages of residual blocks, the average over the map and a linear head.

    A stride that would leave less than 2x2 pixels is 1. With preactivation the stem is a
    convolution alone, and a normalization and an activation, ``last``, end the chain.

    Arguments:
        block: called with the plan, channels before, channels after and stride.
        stages: of each the channels, the number of blocks, and whether the first halves the map.
        stem: channels of the stem.

    Example:
        >>> from normkit import models
        >>> [len(models.build(name, width=8).blocks) for name in ("resnet20", "regnetx_200mf")]
        [9, 13]
    """
    size, channels, blocks = plan.input_size, stem, []
    for width, depth, shrink in stages:
        stride, size = halve(size, up=True) if shrink else (1, size)
        for index in range(depth):
            blocks.append(block(plan, channels, width, stride if index == 0 else 1))
            channels = width
    first = convolution_block(plan, plan.in_channels, stem)
    layers = OrderedDict(
        normalize=plan.normalize,
        stem=first[:1] if plan.preactivation else first,
        blocks=nn.Sequential(*blocks),
    )
    if plan.preactivation:
        layers["last"] = nn.Sequential(
            OrderedDict(
                normalization=plan.normalization(channels), activation=plan.activation(channels)
            )
        )
    layers["pool"], layers["flatten"] = nn.AdaptiveAvgPool2d(1), nn.Flatten()
    layers["head"] = nn.Linear(channels, plan.num_classes)
    return nn.Sequential(layers)
