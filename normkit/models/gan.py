"""The two nets of a small generative adversarial network: noise to images, images to a number."""

from collections import OrderedDict
from collections.abc import Callable

from torch import nn

from .checks import check_numbers
from .parts import Normalize, initialized

__all__ = ["coarsest", "discriminator", "generator"]


def coarsest(input_size: tuple[int, int]) -> tuple[int, tuple[int, int]]:
    """Finds how often an image is halved until a side is odd or at most 4, and what is left.

    Arguments:
        input_size: height and width of an image in pixels.

    Returns:
        How often, at least once, and the height and width after it.

    Raises:
        ValueError: if it cannot be halved once.

    Example:
        >>> coarsest((8, 8)), coarsest((32, 32)), coarsest((28, 28))
        ((1, (4, 4)), (3, (4, 4)), (2, (7, 7)))
    """
    (height, width), times = input_size, 0
    while min(height, width) > 4 and height % 2 == width % 2 == 0:
        height, width, times = height // 2, width // 2, times + 1
    if not times:
        raise ValueError(
            f"images of {input_size[0]}x{input_size[1]} pixels cannot be halved; height and width "
            "must be even and above 4"
        )
    return times, (height, width)


def generator(
    *,
    latent: int,
    out_channels: int,
    input_size: tuple[int, int],
    width: int,
    normalization: Callable[..., nn.Module] = nn.BatchNorm2d,
) -> nn.Sequential:
    """Builds the net that turns noise into images in [0, 1].

    In plain words: a linear layer makes a coarse map of many channels; each transposed
    convolution doubles the map and halves the channels, down to ``width`` at full size; a 3x3
    convolution and a sigmoid make the image. Normalization and a ReLU stand behind all but the
    last. On 32x32 images with ``width=64`` it is the CNN of SNGAN: 4x4 with 512 channels, 256,
    128, 64.

    Source: Miyato et al. 2018, arXiv 1802.05957, table 3 (a).

    Deviation: a sigmoid for their tanh, as images here are in [0, 1]; torch's default weights.

    Arguments:
        latent: numbers in a noise vector.
        out_channels: channels of an image.
        input_size: height and width of an image in pixels, even and above 4.
        width: channels of the map at full size.
        normalization: constructor called with ``num_features``.

    Shape:
        ``(N, latent)`` to ``(N, out_channels, H, W)``.

    Raises:
        ValueError: a number below 1, or images that cannot be halved.

    Example:
        >>> import torch
        >>> net = generator(latent=5, out_channels=3, input_size=(16, 8), width=4)
        >>> images = net(100 * torch.randn(2, 5))
        >>> images.shape, bool(0 <= images.min() and images.max() <= 1)
        (torch.Size([2, 3, 16, 8]), True)
    """
    check_numbers(latent=latent, out_channels=out_channels, **{"width of the generator": width})
    times, (height, breadth) = coarsest(input_size)
    coarse, blocks = width * 2**times, []
    for outputs in (coarse // 2**i for i in range(1, times + 1)):
        made = nn.ConvTranspose2d(2 * outputs, outputs, 4, stride=2, padding=1, bias=False)
        blocks.append(_block(made, normalization(outputs), nn.ReLU()))
    return nn.Sequential(
        OrderedDict(
            linear=nn.Linear(latent, coarse * height * breadth, bias=False),
            unflatten=nn.Unflatten(1, (coarse, height, breadth)),
            normalization=normalization(coarse),
            activation=nn.ReLU(),
            layers=nn.Sequential(*blocks),
            head=nn.Conv2d(width, out_channels, 3, padding=1),
            squash=nn.Sigmoid(),
        )
    )


def _block(layer: nn.Module, normalization: nn.Module, activation: nn.Module) -> nn.Sequential:
    parts = OrderedDict(convolution=layer, normalization=normalization, activation=activation)
    return nn.Sequential(parts)


def discriminator(
    *,
    in_channels: int,
    input_size: tuple[int, int],
    width: int,
    convolution: Callable[..., nn.Module] = nn.Conv2d,
    normalization: Callable[..., nn.Module] = nn.Identity,
    linear: Callable[..., nn.Module] = nn.Linear,
    bias: bool = True,
) -> nn.Sequential:
    """Builds the net that gives an image in [0, 1] one number, above 0 for "real".

    In plain words: on each size of map a 3x3 convolution, then one with stride 2, which halves
    it; the channels double from size to size, and the last, coarsest map has one convolution
    more. Normalization and a leaky ReLU of slope 0.1 follow each; one linear layer reads the last
    map. On 32x32 images with ``width=64`` the widths are those of SNGAN's CNN: 64, 128, 256, 512.

    Source: Miyato et al. 2018, arXiv 1802.05957, table 3 (b).

    Deviation: 3x3 convolutions with stride 2, where theirs are 4x4, as a filter behind them has
    a middle then.

    Arguments:
        in_channels: channels of an image.
        input_size: height and width of an image in pixels, even and above 4.
        width: channels of the first map.
        convolution: constructor called with ``in_channels, out_channels, kernel_size`` and the
            keywords ``stride``, ``padding``, ``bias``; plain ones start from He's normal weights.
        normalization: constructor called with ``num_features``.
        linear: constructor of the last layer, called with ``in_features, out_features``.
        bias: whether convolutions have one.

    Shape:
        ``(N, in_channels, H, W)`` to ``(N, 1)``.

    Raises:
        ValueError: a number below 1, or images that cannot be halved.

    Example:
        >>> net = discriminator(in_channels=3, input_size=(32, 32), width=64)
        >>> [(part.out_channels, part.stride[0]) for part in net.modules() if isinstance(
        ...     part, nn.Conv2d)]
        [(64, 1), (64, 2), (128, 1), (128, 2), (256, 1), (256, 2), (512, 1)]
    """
    check_numbers(in_channels=in_channels, **{"width of the discriminator": width})
    times, (height, breadth) = coarsest(input_size)
    layout = [(width * 2 ** (i // 2), 1 + i % 2) for i in range(2 * times + 1)]
    channels, blocks = in_channels, []
    for outputs, stride in layout:
        made = convolution(channels, outputs, 3, stride=stride, padding=1, bias=bias)
        blocks.append(_block(initialized(made), normalization(outputs), nn.LeakyReLU(0.1)))
        channels = outputs
    return nn.Sequential(
        OrderedDict(
            normalize=Normalize((0.5,) * in_channels, (0.5,) * in_channels),
            layers=nn.Sequential(*blocks),
            flatten=nn.Flatten(),
            head=linear(channels * height * breadth, 1),
        )
    )
