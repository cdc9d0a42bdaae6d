"""Squeeze-and-excitation: residual branches that weigh their own channels, and SENet-18."""

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from .parts import Plan, initialized
from .resnets import resnet

__all__ = ["SqueezeExcitation", "senet"]


class SqueezeExcitation(nn.Module):
    r"""Multiplies each channel by a number in (0, 1) that all channels of the image decide.

    .. math:: y_{nchw} = x_{nchw} \, \text{sigmoid}\big(W_2 \, \text{ReLU}(W_1 z_n)\big)_c, \quad
        z_{nc} = \frac{1}{HW} \sum_{hw} x_{nchw}

    In plain words: two small linear layers see the average of each channel over the map, and open
    or close each channel. No normalization belongs here, so the ReLU stays one whatever
    activation the net has.

    Source: Hu et al. 2018, arXiv 1709.01507, equations 2 to 4, with 16 channels a hidden unit.

    Deviation: at least 4 hidden units, as many as 64 channels have: with a single one the
    gate of a narrow net may be off for every image.

    Arguments:
        channels: channels of the map.
        bias: whether the linear layers have a bias; the paper found none to be better.

    Shape:
        ``(N, C, H, W)`` to the same.

    Example:
        >>> gate = SqueezeExcitation(32)
        >>> x = torch.randn(2, 32, 5, 7)
        >>> openings = gate(x) / x
        >>> torch.allclose(openings, openings[:, :, :1, :1], atol=1e-5)
        True
        >>> bool((0 < openings).all() and (openings < 1).all())
        True
    """

    def __init__(self, channels: int, *, bias: bool = False) -> None:
        super().__init__()
        hidden = max(channels // 16, 4)
        self.reduce = initialized(nn.Linear(channels, hidden, bias=bias))
        self.activation = nn.ReLU()
        self.expand = nn.Linear(hidden, channels, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        opening = torch.sigmoid(self.expand(self.activation(self.reduce(x.mean((2, 3))))))
        return x * opening[:, :, None, None]


def senet(plan: Plan, *, stages: int, blocks: int) -> nn.Sequential:
    """Builds a residual net with preactivation whose branches end in squeeze-and-excitation.

    In plain words: four stages of two blocks are SENet-18; without the ``gate`` of each block it
    is ResNet-18 with ``preactivation``, and it takes the same kinds of ``shortcut``, and
    ``skip_init`` behind the gate.

    Source: Hu et al. 2018, arXiv 1709.01507, section 3.3; the blocks of He et al. 2016, arXiv
    1603.05027.

    Deviation: preactivation and a stem for small images, where the paper's nets have neither.

    Arguments, Shape: as ``resnet``.

    Example:
        >>> from normkit import models
        >>> senet18 = models.build("senet18", width=8).state_dict()
        >>> resnet18 = models.build("resnet18", width=8, preactivation=True).state_dict()
        >>> [name for name in senet18 if name not in resnet18][:2]
        ['blocks.0.gate.reduce.weight', 'blocks.0.gate.expand.weight']
    """
    gate = partial(SqueezeExcitation, bias=plan.bias)
    return resnet(replace(plan, preactivation=True, gate=gate), stages=stages, blocks=blocks)
