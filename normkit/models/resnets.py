"""Residual nets in CIFAR form: 3x3 stem, basic blocks, three or four stages."""

from torch import Tensor, nn

from .parts import Plan, initialized
from .residual import SkipInit, chain, padded, shortcut

__all__ = ["Block", "PreactivationBlock", "resnet"]


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
        >>> import torch
        >>> from normkit import models
        >>> block = models.build("resnet8", width=2, skip_init=True).blocks[0]
        >>> x = torch.rand(3, 2, 5, 7)
        >>> torch.equal(block(x), x)
        True
    """

    def __init__(self, plan: Plan, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.before_sum = plan.activation_before_sum
        first = padded(plan, in_channels, out_channels, 3, stride)
        second = padded(plan, out_channels, out_channels, 3)
        self.convolution1 = initialized(first)
        self.normalization1 = plan.normalization(out_channels)
        self.activation1 = plan.activation(out_channels)
        self.convolution2 = initialized(second)
        self.normalization2 = plan.normalization(out_channels)
        self.skip_init = SkipInit() if plan.skip_init else nn.Identity()
        self.shortcut = shortcut(plan, in_channels, out_channels, stride)
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
    a convolutional shortcut starts from the activated input. A ``gate`` of the plan stands behind
    the second convolution.

    Source: He et al. 2016, arXiv 1603.05027, figure 4 (e).

    Arguments, Shape: as ``Block``.

    Example:
        >>> import torch
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
        self.convolution1 = initialized(padded(plan, in_channels, out_channels, 3, stride))
        self.normalization2 = plan.normalization(out_channels)
        self.activation2 = plan.activation(out_channels)
        self.convolution2 = initialized(padded(plan, out_channels, out_channels, 3))
        self.gate = plan.gate(out_channels)
        self.skip_init = SkipInit() if plan.skip_init else nn.Identity()
        self.shortcut = shortcut(plan, in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.activation1(self.normalization1(x))
        through = self.shortcut(y if isinstance(self.shortcut, nn.Sequential) else x)
        y = self.activation2(self.normalization2(self.convolution1(y)))
        return through + self.skip_init(self.gate(self.convolution2(y)))


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
    block = PreactivationBlock if plan.preactivation else Block
    widths = [(plan.width * 2**stage, blocks, stage > 0) for stage in range(stages)]
    return chain(plan, block, widths, stem=plan.width)
