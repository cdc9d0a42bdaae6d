"""Residual nets in CIFAR form: 3x3 stem, basic blocks, three or four stages."""

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .parts import Plan, convolution_block, halve, initialized

__all__ = ["SHORTCUTS", "Block", "PadShortcut", "PreactivationBlock", "SkipInit", "resnet"]

SHORTCUTS = ("conv1x1", "conv3x3", "pad")


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


class Block(nn.Module):
    r"""Adds two 3x3 convolutions to a shortcut, the basic block of He et al.

    .. math:: y = \phi\big(s(x) + g \cdot N_2(W_2 \, \phi(N_1(W_1 x)))\big)

    In plain words: N is the normalization, phi the activation, s the identity unless the shape
    changes, and g is 1, or a ``SkipInit``. ``activation2`` comes after the sum: hook it to see
    the block. With ``activation_before_sum`` it ends the branch instead, before g.

    Source: He et al. 2016, arXiv 1512.03385, figure 2.

    Arguments:
        plan: the net's plan, for its constructors, its kind of shortcut and its flags.
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: stride of the first convolution and of the shortcut.

    Shape:
        ``(N, in_channels, H, W)`` to ``(N, out_channels, ceil(H / stride), ceil(W / stride))``.

    Example:
        >>> from normkit import models
        >>> block = models.build("resnet8", width=2, skip_init=True).blocks[0]
        >>> x = torch.rand(3, 2, 5, 7)
        >>> torch.equal(block(x), x)
        True
    """

    def __init__(self, plan: Plan, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.before_sum = plan.activation_before_sum
        first = _convolution(plan, in_channels, out_channels, 3, stride)
        second = _convolution(plan, out_channels, out_channels, 3)
        self.convolution1 = initialized(first)
        self.normalization1 = plan.normalization(out_channels)
        self.activation1 = plan.activation(out_channels)
        self.convolution2 = initialized(second)
        self.normalization2 = plan.normalization(out_channels)
        self.skip_init = SkipInit() if plan.skip_init else nn.Identity()
        self.shortcut = _shortcut(plan, in_channels, out_channels, stride)
        if isinstance(self.shortcut, nn.Sequential):
            self.shortcut.add_module("normalization", plan.normalization(out_channels))
        self.activation2 = plan.activation(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.activation1(self.normalization1(self.convolution1(x)))
        y = self.normalization2(self.convolution2(y))
        if self.before_sum:
            return self.skip_init(self.activation2(y)) + self.shortcut(x)
        return self.activation2(self.skip_init(y) + self.shortcut(x))


class PreactivationBlock(nn.Module):
    r"""Adds two 3x3 convolutions to a shortcut, each after its normalization and activation.

    .. math:: y = s(x) + g \cdot W_2 \, \phi(N_2(W_1 \, \phi(N_1 x)))

    In plain words: nothing stands on the way from block to block, so the signal adds up freely;
    a convolutional shortcut starts from the activated input.

    Source: He et al. 2016, arXiv 1603.05027, figure 4 (e).

    Arguments, Shape: as ``Block``.

    Example:
        >>> from normkit import models
        >>> net = models.build("resnet8", width=2, skip_init=True, preactivation=True)
        >>> x = torch.randn(3, 2, 5, 7)
        >>> torch.equal(net.blocks[0](x), x)
        True
    """

    def __init__(self, plan: Plan, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.normalization1 = plan.normalization(in_channels)
        self.activation1 = plan.activation(in_channels)
        self.convolution1 = initialized(_convolution(plan, in_channels, out_channels, 3, stride))
        self.normalization2 = plan.normalization(out_channels)
        self.activation2 = plan.activation(out_channels)
        self.convolution2 = initialized(_convolution(plan, out_channels, out_channels, 3))
        self.skip_init = SkipInit() if plan.skip_init else nn.Identity()
        self.shortcut = _shortcut(plan, in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.activation1(self.normalization1(x))
        through = self.shortcut(y if isinstance(self.shortcut, nn.Sequential) else x)
        y = self.activation2(self.normalization2(self.convolution1(y)))
        return through + self.skip_init(self.convolution2(y))


def _convolution(plan: Plan, inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Module:
    padding = (size - 1) // 2
    return plan.convolution(inputs, outputs, size, stride=stride, padding=padding, bias=plan.bias)


def _shortcut(plan: Plan, in_channels: int, out_channels: int, stride: int) -> nn.Module:
    if in_channels == out_channels and stride == 1:
        return nn.Identity()
    if plan.shortcut == "pad":
        return PadShortcut(in_channels, out_channels, stride)
    size = 1 if plan.shortcut == "conv1x1" else 3
    convolution = _convolution(plan, in_channels, out_channels, size, stride)
    return nn.Sequential(OrderedDict(convolution=initialized(convolution)))


def resnet(plan: Plan, *, stages: int, blocks: int) -> nn.Sequential:
    """Builds a residual net: 3x3 stem, stages that double the width and halve the map, a head.

    In plain words: three stages of n blocks are ResNet-8, -20 and -56 (6n + 2 layers), four
    stages of two blocks are ResNet-18 with a stem for small images. With ``SkipInit`` every
    residual branch starts at zero.

    Source: He et al. 2016, arXiv 1512.03385, section 4.2 (three stages) and table 1 (four).

    Deviation: the convolutional shortcuts, not option A, are the default. A stride that would
    leave less than 2x2 pixels is 1: in ResNet-18 the last one on 8x8 images. With preactivation
    the stem is a convolution alone, and a normalization and an activation, ``last``, end the
    chain, as in arXiv 1603.05027.

    Arguments:
        stages: number of widths.
        blocks: residual blocks of each width.

    Shape:
        ``(N, in_channels, H, W)`` to ``(N, num_classes)``.

    Example:
        >>> from normkit import models
        >>> net = models.build("resnet20", shortcut="pad")
        >>> round(sum(p.numel() for p in net.parameters()) / 1e6, 2)
        0.27
    """
    size, channels, chain = plan.input_size, plan.width, []
    block = PreactivationBlock if plan.preactivation else Block
    for stage in range(stages):
        width = plan.width * 2**stage
        stride, size = halve(size, up=True) if stage else (1, size)
        for index in range(blocks):
            chain.append(block(plan, channels, width, stride if index == 0 else 1))
            channels = width
    stem = convolution_block(plan, plan.in_channels, plan.width)
    last = OrderedDict(
        normalization=plan.normalization(channels), activation=plan.activation(channels)
    )
    layers = OrderedDict(
        normalize=plan.normalize,
        stem=stem[:1] if plan.preactivation else stem,
        blocks=nn.Sequential(*chain),
        last=nn.Sequential(last),
        pool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
        head=nn.Linear(channels, plan.num_classes),
    )
    if not plan.preactivation:
        del layers["last"]
    return nn.Sequential(layers)
