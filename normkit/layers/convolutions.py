"""The convolutions by key, and the linear layers that go with them."""

import difflib
from collections.abc import Callable

from torch import nn

from .reparametrized import weight_centering, weight_norm, weight_norm_linear
from .scaled_ws import scaled_ws

__all__ = ["CONVOLUTIONS", "conv", "convolution", "linear"]


def conv(
    in_channels: int,
    out_channels: int,
    kernel_size: int | tuple[int, int],
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    bias: bool = False,
    *,
    groups: int = 1,
) -> nn.Conv2d:
    """Makes torch's convolution, without a bias unless one is asked for.

    Arguments:
        in_channels: as in ``nn.Conv2d``, like the others.
        out_channels: channels of the output.
        kernel_size: in pixels.
        stride: in pixels.
        padding: in pixels, with zeros.
        bias: whether a bias is added.
        groups: number of groups of channels that do not see each other.

    Shape:
        as ``nn.Conv2d``.

    Example:
        >>> conv(3, 4, 5, stride=2)
        Conv2d(3, 4, kernel_size=(5, 5), stride=(2, 2), bias=False)
    """
    return nn.Conv2d(
        in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=bias
    )


CONVOLUTIONS: dict[str, Callable[..., nn.Conv2d]] = {
    "conv": conv,
    "weight_norm": weight_norm,
    "scaled_ws": scaled_ws,
    "weight_centering": weight_centering,
}


def convolution(key: str) -> Callable[..., nn.Conv2d]:
    """Looks up the constructor of a convolution.

    Arguments:
        key: one of ``CONVOLUTIONS``.

    Returns:
        A constructor of ``in_channels, out_channels, kernel_size, stride=1, padding=0,
        bias=False, *, groups=1``.

    Raises:
        ValueError: if the key is unknown.

    Example:
        >>> convolution("scaled_ws")(3, 4, 5).weight.mean().abs().item() < 1e-6
        True
    """
    if key not in CONVOLUTIONS:
        nearest = difflib.get_close_matches(str(key), CONVOLUTIONS, n=1, cutoff=0)[0]
        raise ValueError(
            f"there is no convolution {key!r}; the nearest is {nearest!r}, all are "
            f"{', '.join(CONVOLUTIONS)}"
        )
    return CONVOLUTIONS[key]


def linear(key: str) -> Callable[..., nn.Linear]:
    """Looks up the constructor of the hidden linear layers that go with a convolution.

    In plain words: of the keys only "weight_norm" has a linear layer of its own; with any other
    they are plain.

    Arguments:
        key: one of ``CONVOLUTIONS``.

    Returns:
        A constructor of ``in_features, out_features, bias``.

    Raises:
        ValueError: if the key is unknown.

    Example:
        >>> linear("scaled_ws")(3, 4, bias=False)
        Linear(in_features=3, out_features=4, bias=False)
        >>> [round(norm, 4) for norm in linear("weight_norm")(3, 2).weight.norm(dim=1).tolist()]
        [1.0, 1.0]
    """
    return weight_norm_linear if convolution(key) is weight_norm else nn.Linear
