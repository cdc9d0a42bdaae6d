"""The convolutions by key, and the linear layers that go with them."""

import difflib
import functools
from collections.abc import Callable

from torch import nn

from .conv_norm import ConvNorm2d
from .orthogonal import oni, own
from .reparametrized import weight_centering, weight_norm, weight_norm_linear
from .scaled_ws import scaled_ws
from .spectral_normalization import spectral_norm

__all__ = ["CONVOLUTIONS", "conv", "conv_norm", "convolution", "linear"]


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


def conv_norm(
    in_channels: int,
    out_channels: int,
    kernel_size: int | tuple[int, int],
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] | str = 0,
    bias: bool = False,
    *,
    groups: int = 1,
    affine: bool = True,
    batch_norm: bool = True,
    filter_init: str = "delta",
    filter_gain: float = 1.0,
    variant: str = "paper",
) -> ConvNorm2d:
    """Makes a ``ConvNorm2d``, without a bias unless one is asked for; a net needs no other norm.

    Arguments: as for ``ConvNorm2d``.

    Shape:
        as ``nn.Conv2d``.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> layer, images = conv_norm(3, 4, 3, padding=1), torch.randn(2, 3, 8, 8)
        >>> before = layer(images)
        >>> layer.weight.data *= 7
        >>> torch.allclose(layer(images), before, atol=1e-4)  # blind to the size of the taps
        True
    """
    return ConvNorm2d(
        in_channels,
        out_channels,
        kernel_size,
        stride,
        padding,
        groups=groups,
        bias=bias,
        affine=affine,
        batch_norm=batch_norm,
        filter_init=filter_init,
        filter_gain=filter_gain,
        variant=variant,
    )


CONVOLUTIONS: dict[str, Callable[..., nn.Module]] = {
    "conv": conv,
    "weight_norm": weight_norm,
    "scaled_ws": scaled_ws,
    "weight_centering": weight_centering,
    "spectral_norm": spectral_norm,
    "oni": oni,
    "own": own,
    "conv_norm": conv_norm,
}

_HONORED = {
    "conv_norm": ("affine", "batch_norm", "filter_init", "filter_gain", "variant"),
    "oni": ("variant",),
    "spectral_norm": ("of",),
}


def convolution(
    key: str,
    *,
    affine: bool = True,
    batch_norm: bool = True,
    filter_init: str = "delta",
    filter_gain: float = 1.0,
    variant: str = "paper",
    of: str = "kernel",
) -> Callable[..., nn.Module]:
    """Looks up the constructor of a convolution.

    Arguments:
        key: one of ``CONVOLUTIONS``.
        affine: of "conv_norm", as the next three: whether it has a filter r.
        batch_norm: whether it brings a BatchNorm.
        filter_init: "delta" or "torch".
        filter_gain: how many times as large r starts.
        variant: of "conv_norm" and "oni": "paper", or "released" where the authors' code differs.
        of: of "spectral_norm": the norm of the flattened "kernel", or of the "operator".

    Returns:
        A constructor of ``in_channels, out_channels, kernel_size, stride=1, padding=0,
        bias=False, *, groups=1``.

    Raises:
        ValueError: if the key is unknown, or an option not one that it can honor.

    Example:
        >>> convolution("scaled_ws")(3, 4, 5).weight.mean().abs().item() < 1e-6
        True
        >>> convolution("oni", affine=False)
        Traceback (most recent call last):
        ...
        ValueError: convolution 'oni' has no option affine; it has: variant
    """
    if key not in CONVOLUTIONS:
        nearest = difflib.get_close_matches(str(key), CONVOLUTIONS, n=1, cutoff=0)[0]
        raise ValueError(
            f"there is no convolution {key!r}; the nearest is {nearest!r}, all are "
            f"{', '.join(CONVOLUTIONS)}"
        )
    given = {"affine": affine, "batch_norm": batch_norm, "filter_init": filter_init}
    given |= {"filter_gain": filter_gain, "variant": variant, "of": of}
    asked = {name: value for name, value in given.items() if value != _DEFAULTS[name]}
    for name in asked:
        if name not in _HONORED.get(key, ()):
            has = ", ".join(_HONORED.get(key, ())) or "none"
            raise ValueError(f"convolution {key!r} has no option {name}; it has: {has}")
    return functools.partial(CONVOLUTIONS[key], **asked) if asked else CONVOLUTIONS[key]


_DEFAULTS = dict(convolution.__kwdefaults__)


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
