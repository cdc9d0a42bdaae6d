"""Nets without shortcuts: the VGG family, stacks of convolutions, a small CNN, an MLP."""

import itertools
from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from .parts import Plan, convolution_block, dense_block, halve

__all__ = ["cfg", "mlp", "small_cnn", "uniform", "vgg"]


def _stack(plan: Plan, layout: Sequence[tuple[int, bool]], *, pool: bool = False) -> nn.Sequential:
    """Chains one block for each (multiple of the width, whether the map is halved)."""
    size, channels, blocks = plan.input_size, plan.in_channels, []
    for multiple, shrink in layout:
        stride, size = halve(size, up=not pool) if shrink else (1, size)
        width = multiple * plan.width
        how = {"pool": stride == 2} if pool else {"stride": stride}
        blocks.append(convolution_block(plan, channels, width, **how))
        channels = width
    return nn.Sequential(
        OrderedDict(
            normalize=plan.normalize,
            layers=nn.Sequential(*blocks),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            head=nn.Linear(channels, plan.num_classes),
        )
    )


def vgg(plan: Plan, *, repeats: tuple[int, ...]) -> nn.Sequential:
    """Builds a VGG in CIFAR form: five stages of 3x3 convolutions, each ended by a max-pool.

    In plain words: the stages have 1, 2, 4, 8 and 8 times the width (64: the paper's net), and
    one linear head reads the average over the last map.

    Source: Simonyan and Zisserman 2015, arXiv 1409.1556, table 1 (A: VGG-11, D: VGG-16).

    Deviation: one linear head instead of three, and no bias. A pool that would leave less than
    2x2 pixels is skipped: on 32x32 images the fifth, in whose place the average stands.

    Arguments:
        repeats: convolutions in each stage.

    Shape:
        ``(N, in_channels, H, W)`` to ``(N, num_classes)``.

    Example:
        >>> from normkit import models
        >>> net = models.build("vgg11", width=4)
        >>> [block.convolution.out_channels for block in net.layers]
        [4, 8, 16, 16, 32, 32, 32, 32]
    """
    stages = zip((1, 2, 4, 8, 8), repeats, strict=True)
    layout = [(multiple, i == n - 1) for multiple, n in stages for i in range(n)]
    return _stack(plan, layout, pool=True)


def cfg(plan: Plan, *, multiples: tuple[int, ...], run: int) -> nn.Sequential:
    """Builds the plain CNN of 10, 20 or 40 convolutions that Beyond BatchNorm trains.

    In plain words: five runs of 3x3 convolutions, each of one width; the last of a run has
    stride 2, except in the fifth. With n/2 for stride 2, cfg_10 is 64, 64/2, 128, 128/2, 256,
    256/2, 512, 512/2, 512, 512; the runs of cfg_40 are four times as long, those of cfg_20
    twice, and its fourth stays at 256.

    Source: Lubana et al. 2021, arXiv 2106.05956, section 4, and the widths of its released code,
    https://github.com/EkdeepSLubana/BeyondBatchNorm.

    Deviation: a stride that would leave less than 2x2 pixels is 1: 8x8 images go 8, 4, 2 and
    stay there.

    Arguments:
        multiples: the width of each run, in units of the first.
        run: convolutions in each run.

    Shape:
        ``(N, in_channels, H, W)`` to ``(N, num_classes)``.

    Example:
        >>> from normkit import models
        >>> net = models.build("cfg_20", width=16, input_size=(8, 8))
        >>> len(net.layers), [i for i, b in enumerate(net.layers) if b.convolution.stride[0] == 2]
        (20, [3, 7])
    """
    layout = [(multiple, i == run - 1) for multiple in multiples for i in range(run)]
    layout[-1] = (multiples[-1], False)
    return _stack(plan, layout)


def uniform(plan: Plan) -> nn.Sequential:
    """Builds a stack of 3x3 convolutions of one width on a map that keeps its size.

    In plain words: nothing but depth varies along this net, so that a quantity against the
    layer's index shows what depth does.

    Shape:
        ``(N, in_channels, H, W)`` to ``(N, num_classes)``.

    Example:
        >>> from normkit import models
        >>> {b.convolution.stride for b in models.build("uniform", width=4, depth=9).layers}
        {(1, 1)}
    """
    return _stack(plan, [(1, False)] * plan.depth)


def small_cnn(plan: Plan) -> nn.Sequential:
    """Builds the small CNN that the literature on certified robustness attacks and verifies.

    In plain words: two 4x4 convolutions with stride 2 (16 and 32 channels), a hidden linear layer
    of 100 units and a linear head, all with biases; ``width`` scales 16, 32 and 100 alike.
    ``normalization=nn.Identity`` gives the published net, any other is put before each ReLU.

    Source: Wong and Kolter 2018, arXiv 1711.00851.

    Shape:
        ``(N, in_channels, H, W)`` to ``(N, num_classes)``, H and W at least 8.

    Example:
        >>> from normkit import models
        >>> net = models.build("small_cnn", normalization=nn.Identity)
        >>> [tuple(p.shape) for p in net.parameters() if p.ndim > 1]
        [(16, 3, 4, 4), (32, 16, 4, 4), (100, 2048), (10, 100)]
    """
    widths = (plan.in_channels, plan.width, 2 * plan.width)
    blocks = [
        convolution_block(plan, i, o, kernel_size=4, stride=2, bias=True)
        for i, o in itertools.pairwise(widths)
    ]
    height, width = plan.input_size
    hidden = max(1, round(100 * plan.width / 16))
    features = widths[-1] * (height // 4) * (width // 4)
    return nn.Sequential(
        OrderedDict(
            normalize=plan.normalize,
            layers=nn.Sequential(*blocks),
            flatten=nn.Flatten(),
            hidden=dense_block(plan, features, hidden, bias=True),
            head=nn.Linear(hidden, plan.num_classes),
        )
    )


def mlp(plan: Plan) -> nn.Sequential:
    """Builds a fully connected net of ``depth`` hidden layers of ``width`` units.

    In plain words: the net of ENorm's depth experiment, without any biases; its p square
    layers of 500 x 500 are ``depth=p + 1``.

    Source: Stock et al. 2019, arXiv 1902.10416, the fully connected nets on CIFAR-10.

    Deviation: the head keeps torch's default weights, as in every net here.

    Shape:
        ``(N, in_channels, H, W)`` to ``(N, num_classes)``.

    Example:
        >>> from normkit import models
        >>> net = models.build("mlp", depth=3, normalization=nn.Identity)
        >>> [tuple(p.shape) for p in net.parameters()]
        [(500, 3072), (500, 500), (500, 500), (10, 500)]
    """
    height, width = plan.input_size
    features = [plan.in_channels * height * width] + [plan.width] * plan.depth
    blocks = [dense_block(plan, i, o, bias=False) for i, o in itertools.pairwise(features)]
    return nn.Sequential(
        OrderedDict(
            normalize=plan.normalize,
            flatten=nn.Flatten(),
            layers=nn.Sequential(*blocks),
            head=nn.Linear(plan.width, plan.num_classes, bias=False),
        )
    )
