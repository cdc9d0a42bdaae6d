"""RegNetX-200MF in CIFAR form: bottlenecks whose 3x3 convolutions see groups of 8 channels."""

from torch import Tensor, nn

from .parts import Plan, initialized
from .residual import SkipInit, chain, padded, shortcut

__all__ = ["Bottleneck", "regnetx"]

GROUP_WIDTH = 8


class Bottleneck(nn.Module):
    r"""Adds a 1x1, a grouped 3x3 and a 1x1 convolution to a shortcut, the X block of RegNet.

    .. math:: y = \phi\big(s(x) + g \cdot N_3(W_3 \, \phi(N_2(W_2 \, \phi(N_1(W_1 x)))))\big)

    In plain words: all have as many channels as the output (a bottleneck ratio of 1); only the
    first and the third mix channels of different groups. N, phi, s and g are as in ``Block``;
    ``activation3`` comes after the sum.

    Source: Radosavovic et al. 2020, arXiv 2003.13678, the X block.

    Arguments:
        plan: the net's plan, for its constructors and its flags.
        in_channels: channels of the input.
        out_channels: channels of the output, a multiple of 8.
        stride: stride of the second convolution and of the shortcut.

    Shape:
        ``(N, in_channels, H, W)`` to ``(N, out_channels, ceil(H / stride), ceil(W / stride))``.

    Example:
        >>> from normkit import models
        >>> block = models.build("regnetx_200mf").blocks[-1]
        >>> block.convolution2.in_channels, block.convolution2.weight.shape
        (368, torch.Size([368, 8, 3, 3]))
    """

    def __init__(self, plan: Plan, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        groups = out_channels // GROUP_WIDTH
        self.convolution1 = initialized(padded(plan, in_channels, out_channels, 1))
        self.normalization1 = plan.normalization(out_channels)
        self.activation1 = plan.activation(out_channels)
        grouped = padded(plan, out_channels, out_channels, 3, stride, groups=groups)
        self.convolution2 = initialized(grouped)
        self.normalization2 = plan.normalization(out_channels)
        self.activation2 = plan.activation(out_channels)
        self.convolution3 = initialized(padded(plan, out_channels, out_channels, 1))
        self.normalization3 = plan.normalization(out_channels)
        self.skip_init = SkipInit() if plan.skip_init else nn.Identity()
        self.shortcut = shortcut(plan, in_channels, out_channels, stride)
        self.activation3 = plan.activation(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.activation1(self.normalization1(self.convolution1(x)))
        y = self.activation2(self.normalization2(self.convolution2(y)))
        y = self.normalization3(self.convolution3(y))
        return self.activation3(self.skip_init(y) + self.shortcut(x))


def regnetx(plan: Plan) -> nn.Sequential:
    """Builds RegNetX-200MF with a stem for small images.

    In plain words: 1, 1, 4 and 7 blocks of 24, 56, 152 and 368 channels behind a 3x3 stem of 32;
    the third stage and the fourth halve the map. ``width`` is the first stage's, and is rounded to
    the nearest multiple of 8, at least 8; the other numbers keep their ratio to it, rounded
    likewise. The ``convolution`` constructor is called with ``groups``, too.

    Source: Radosavovic et al. 2020, arXiv 2003.13678, the smallest of its models.

    Deviation: the stem and the first two stages have stride 1 instead of 2, as 32x32 images need
    it. A stride that would leave less than 2x2 pixels is 1.

    Shape:
        ``(N, in_channels, H, W)`` to ``(N, num_classes)``.

    Example:
        >>> from normkit import models
        >>> net = models.build("regnetx_200mf", width=8)
        >>> list(dict.fromkeys(block.convolution3.out_channels for block in net.blocks))
        [8, 16, 48, 120]
    """
    first = _multiple(plan.width, 1)
    stem, *widths = (_multiple(n * first, 24) for n in (32, 24, 56, 152, 368))
    stages = zip(widths, (1, 1, 4, 7), (False, False, True, True), strict=True)
    return chain(plan, Bottleneck, list(stages), stem=stem)


def _multiple(numerator: int, denominator: int) -> int:
    """The multiple of the group width that is nearest to a quotient, above 0, upwards if tied."""
    unit = GROUP_WIDTH * denominator
    return GROUP_WIDTH * max(1, (2 * numerator + unit) // (2 * unit))
