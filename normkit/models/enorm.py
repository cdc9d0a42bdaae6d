"""The nets of ENorm's experiments beside the MLP: fully convolutional, and an auto-encoder."""

import itertools
import math
from collections import OrderedDict

from torch import nn

from .parts import Plan, dense_block, halve, initialized
from .residual import padded

__all__ = ["autoencoder", "fully_conv"]


def fully_conv(plan: Plan, *, released: bool = False) -> nn.Sequential:
    """Builds the fully convolutional net of ENorm: nine convolutions and an average, no more.

    In plain words: three 3x3 convolutions of the width w, three of 2w, each three ended by a 3x3
    max-pool with stride 2, a 3x3 and a 1x1 convolution of 5w/2 (128, 256 and 320: the paper's
    net), and in the head's place a 1x1 convolution to one map for each class, whose average is
    the logit. A ReLU follows every convolution but the last; the normalization stands behind the
    third and the sixth alone. ``released`` puts the activation behind the last one, too, so that
    no logit can be negative.

    Source: Gitman and Ginsburg 2017, arXiv 1709.08145, as Stock et al. 2019, arXiv 1902.10416,
    use it; ``released`` is the latter's code, https://github.com/facebookresearch/enorm.

    Deviation: a pool that would leave less than 2x2 pixels is skipped. All convolutions, the last
    too, are of the plan's kind and start from He's normal weights.

    Arguments:
        released: whether the activation follows the last convolution.

    Shape:
        ``(N, in_channels, H, W)`` to ``(N, num_classes)``.

    Example:
        >>> from normkit import models
        >>> net = models.build("fully_conv")
        >>> [block.convolution.out_channels for block in net.layers], net.head.kernel_size
        ([128, 128, 128, 256, 256, 256, 320, 320], (1, 1))
        >>> import torch
        >>> net = models.build("fully_conv_released", width=8)
        >>> bool(net(torch.rand(5, 3, 32, 32)).min() >= 0)
        True
    """
    w, last = plan.width, max(1, 5 * plan.width // 2)
    layout = [(w, 3, False), (w, 3, False), (w, 3, True)]
    layout += [(2 * w, 3, False), (2 * w, 3, False), (2 * w, 3, True)]
    layout += [(last, 3, False), (last, 1, False)]
    size, channels, blocks = plan.input_size, plan.in_channels, []
    for width, kernel, ends in layout:
        stride, size = halve(size, up=True) if ends else (1, size)
        blocks.append(_block(plan, channels, width, kernel, normalized=ends, pool=stride == 2))
        channels = width
    head = initialized(padded(plan, channels, plan.num_classes, 1))
    if released:
        activation = plan.activation(plan.num_classes)
        head = nn.Sequential(OrderedDict(convolution=head, activation=activation))
    return nn.Sequential(
        OrderedDict(
            normalize=plan.normalize,
            layers=nn.Sequential(*blocks),
            head=head,
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
        )
    )


def _block(
    plan: Plan, inputs: int, outputs: int, kernel: int, *, normalized: bool, pool: bool
) -> nn.Sequential:
    layers = OrderedDict(
        convolution=initialized(padded(plan, inputs, outputs, kernel)),
        normalization=plan.normalization(outputs) if normalized else nn.Identity(),
        activation=plan.activation(outputs),
    )
    if pool:
        layers["pool"] = nn.MaxPool2d(3, stride=2, padding=1)
    return nn.Sequential(layers)


def autoencoder(plan: Plan) -> nn.Sequential:
    """Builds a fully connected auto-encoder: images in, images of the same shape out.

    In plain words: hidden layers of w, w/2, w/4 and w/8 units, the last of which is the code, and
    back the same way (1000, 500, 250 and 125 by default). Normalization and activation follow
    every hidden layer but the code, which is linear, as is the output. There are no classes, so
    ``num_classes`` is not used.

    Source: Hinton and Salakhutdinov 2006, doi 10.1126/science.1127647, whose net for MNIST
    (784-1000-500-250-30) Stock et al. 2019, arXiv 1902.10416, train from scratch.

    Deviation: the code has w/8 units, 125 by default, where theirs has 30, so that one number
    scales the net. The output layer keeps torch's default weights, as every head here.

    Shape:
        ``(N, in_channels, H, W)`` to the same.

    Example:
        >>> import torch
        >>> from normkit import models
        >>> net = models.build("autoencoder", in_channels=1, input_size=(28, 28))
        >>> [layer.out_features for layer in net.modules() if isinstance(layer, nn.Linear)]
        [1000, 500, 250, 125, 250, 500, 1000, 784]
        >>> net(torch.rand(2, 1, 28, 28)).shape
        torch.Size([2, 1, 28, 28])
    """
    shape = (plan.in_channels, *plan.input_size)
    halves = [max(1, plan.width // 2**times) for times in range(4)]
    widths = [math.prod(shape), *halves, *halves[-2::-1]]
    blocks = [dense_block(plan, i, o, bias=False) for i, o in itertools.pairwise(widths)]
    code = len(halves) - 1
    blocks[code] = blocks[code][:1]
    return nn.Sequential(
        OrderedDict(
            normalize=plan.normalize,
            flatten=nn.Flatten(),
            layers=nn.Sequential(*blocks),
            head=nn.Linear(plan.width, math.prod(shape), bias=plan.bias),
            unflatten=nn.Unflatten(1, shape),
        )
    )
