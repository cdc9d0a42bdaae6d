"""The pieces that the nets share: input normalization, blocks of one layer, He initialization."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = [
    "Activation",
    "Convolution",
    "Normalize",
    "Plan",
    "convolution_block",
    "dense_block",
    "halve",
    "initialized",
    "relu",
]


class Activation(nn.Module):
    """What stands where a ReLU would, and is none of torch's: the base class to inherit from.

    In plain words: a mark, so that what looks at activations finds them without a list of names.

    Example:
        >>> class Square(Activation):
        ...     def forward(self, x):
        ...         return x.square()
        >>> isinstance(Square(), Activation)
        True
    """


class Convolution(nn.Module):
    """What stands where a convolution would, and is none of torch's: the base class to inherit.

    In plain words: a mark, as `Activation` is one.

    Example:
        >>> class Blur(Convolution):
        ...     def forward(self, x):
        ...         return nn.functional.avg_pool2d(x, 3, 1)
        >>> isinstance(Blur(), Convolution)
        True
    """


def relu(num_features: int) -> nn.ReLU:
    """Makes a ReLU, the same for any number of features.

    Example:
        >>> relu(8)
        ReLU()
    """
    return nn.ReLU()


class Normalize(nn.Module):
    r"""Normalizes each channel of an image by a fixed mean and standard deviation.

    .. math:: y_c = (x_c - \text{mean}_c) / \text{std}_c

    In plain words: the first layer of a net, so that images stay in [0, 1] everywhere else and
    the radius of an attack is in units of pixels. The buffers are not part of the state dict, so
    that weights published without such a layer load unchanged.

    Arguments:
        mean: one number per channel, in units of pixels in [0, 1].
        std: one positive number per channel, in the same units.

    Shape:
        ``(N, C, H, W)`` to ``(N, C, H, W)``.

    Raises:
        ValueError: if the lengths differ or a standard deviation is not positive.

    Example:
        >>> layer = Normalize([0.5], [0.25])
        >>> layer(torch.tensor([0.25, 0.5, 1.0]).reshape(1, 1, 1, 3)).flatten().tolist()
        [-1.0, 0.0, 2.0]
        >>> layer.state_dict()
        OrderedDict()
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != len(std):
            raise ValueError(
                f"mean and std hold one number per channel, but mean has {len(mean)} "
                f"and std has {len(std)}"
            )
        if min(std) <= 0:
            raise ValueError(f"std must be positive in every channel, not {tuple(std)}")
        self.register_buffer("mean", torch.tensor(mean).reshape(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).reshape(-1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std

    def extra_repr(self) -> str:
        return f"mean={self.mean.flatten().tolist()}, std={self.std.flatten().tolist()}"


@dataclass(frozen=True)
class Plan:
    """What a net is built from, after ``build`` has checked it and filled in the defaults."""

    num_classes: int
    in_channels: int
    input_size: tuple[int, int]
    width: int
    depth: int | None
    normalization: Callable[..., nn.Module]
    convolution: Callable[..., nn.Module]
    linear: Callable[..., nn.Module]
    activation: Callable[[int], nn.Module]
    bias: bool
    shortcut: str
    skip_init: bool
    preactivation: bool
    activation_before_sum: bool
    normalize: nn.Module
    gate: Callable[[int], nn.Module] = nn.Identity


def initialized(layer: nn.Module) -> nn.Module:
    r"""Draws a plain layer's weights as He et al. do for a layer that feeds a ReLU.

    .. math:: w \sim N(0, 2 / \text{fan\_in}), \quad b = 0

    In plain words: the mean square of the signal is kept from layer to layer. Only a plain
    ``nn.Conv2d`` or ``nn.Linear`` is drawn; a layer of any other type, such as a parametrized or
    a normalized convolution, keeps the weights that its own constructor chose.

    Source: He et al. 2015, arXiv 1502.01852, section 2.2.

    Arguments:
        layer: the layer, changed in place and returned.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> x = torch.randn(8, 100).relu()
        >>> y = initialized(nn.Linear(100, 10000))(x).relu()
        >>> bool((y.square().mean() / x.square().mean() - 1).abs() < 0.05)
        True
    """
    # A parametrized layer is an instance of nn.Conv2d too, but its weight cannot be written.
    if type(layer) in (nn.Conv2d, nn.Linear):
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    return layer


def halve(size: tuple[int, int], *, up: bool) -> tuple[int, tuple[int, int]]:
    """Finds the stride that halves a map, or 1 where the map would get smaller than 2 x 2.

    In plain words: the nets of the papers are made for 32 x 32; on smaller images they stop
    shrinking in time, so that an instance normalization still has something to average.

    Arguments:
        size: height and width of the map, in pixels.
        up: whether odd sizes are rounded up (a strided convolution) or down (a max-pool).

    Returns:
        The stride, 1 or 2, and the size after it.

    Example:
        >>> halve((9, 32), up=True), halve((9, 32), up=False), halve((2, 32), up=True)
        ((2, (5, 16)), (2, (4, 16)), (1, (2, 32)))
    """
    half = tuple((n + up) // 2 for n in size)
    return (2, half) if min(half) >= 2 else (1, size)


def convolution_block(
    plan: Plan,
    in_channels: int,
    out_channels: int,
    *,
    kernel_size: int = 3,
    stride: int = 1,
    bias: bool = False,
    pool: bool = False,
) -> nn.Sequential:
    """Stacks convolution, normalization and activation, and a 2 x 2 max-pool if asked.

    The padding is 1. Also without a normalization the convolution has no bias unless one is
    asked for, here or by the plan, as in the papers.

    Example:
        >>> from normkit import models
        >>> [name for name, _ in models.build("vgg11", width=4).layers[0].named_children()]
        ['convolution', 'normalization', 'activation', 'pool']
    """
    convolution = plan.convolution(
        in_channels, out_channels, kernel_size, stride=stride, padding=1, bias=bias or plan.bias
    )
    layers = OrderedDict(
        convolution=initialized(convolution),
        normalization=plan.normalization(out_channels),
        activation=plan.activation(out_channels),
    )
    if pool:
        layers["pool"] = nn.MaxPool2d(2)
    return nn.Sequential(layers)


def dense_block(plan: Plan, in_features: int, out_features: int, *, bias: bool) -> nn.Sequential:
    """Stacks linear layer, normalization and activation.

    The last two are ones for images, which see each feature as a channel of one pixel.

    Example:
        >>> from normkit import models
        >>> [name for name, _ in models.build("mlp", width=4).layers[0].named_children()]
        ['linear', 'unflatten', 'normalization', 'activation', 'flatten']
    """
    linear = plan.linear(in_features, out_features, bias=bias or plan.bias)
    return nn.Sequential(
        OrderedDict(
            linear=initialized(linear),
            unflatten=nn.Unflatten(1, (out_features, 1, 1)),
            normalization=plan.normalization(out_features),
            activation=plan.activation(out_features),
            flatten=nn.Flatten(),
        )
    )
