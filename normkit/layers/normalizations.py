"""The normalization layers by key: none, batch, layer, instance, group."""

import difflib
import math
from collections.abc import Callable
from functools import partial

from torch import nn

__all__ = ["NORMALIZATIONS", "group", "instance", "layer", "normalization"]


def layer(num_features: int) -> nn.GroupNorm:
    r"""Normalizes each image over all its channels and pixels.

    .. math:: y_{nchw} = \gamma_c \, \frac{x_{nchw} - \mu_n}{\sqrt{\sigma_n^2 + \text{eps}}}
        + \beta_c

    In plain words: the group normalization with one group.

    Source: Ba et al. 2016, arXiv 1607.06450, in the form that Wu and He 2018, arXiv 1803.08494,
    section 3, give it for images.

    Arguments:
        num_features: channels.

    Shape:
        ``(N, C, H, W)`` to ``(N, C, H, W)``.

    Example:
        >>> import torch
        >>> images = torch.randn(4, 6, 5, 3)
        >>> torch.allclose(layer(6)(images), layer(6)(7 * images + 2), atol=1e-4)
        True
    """
    return nn.GroupNorm(1, num_features)


def instance(num_features: int) -> nn.InstanceNorm2d:
    r"""Normalizes each channel of each image over its pixels.

    .. math:: y_{nchw} = \gamma_c \, \frac{x_{nchw} - \mu_{nc}}{\sqrt{\sigma_{nc}^2 + \text{eps}}}
        + \beta_c

    In plain words: the group normalization with as many groups as channels, but one that refuses
    a map of a single pixel. There the definition gives zero whatever the input, so a group
    normalization would silently cut the net in two.

    Source: Ulyanov et al. 2017, arXiv 1607.08022, with the affine part of batch normalization and
    no running statistics.

    Arguments:
        num_features: channels.

    Shape:
        ``(N, C, H, W)`` to ``(N, C, H, W)``, with at least two pixels.

    Raises:
        ValueError: in the forward pass, on a map of one pixel.

    Example:
        >>> import torch
        >>> images = torch.randn(4, 6, 5, 3)
        >>> scale = torch.rand(4, 6, 1, 1) + 1
        >>> torch.allclose(instance(6)(images), instance(6)(scale * images), atol=1e-4)
        True
    """
    return nn.InstanceNorm2d(num_features, affine=True)


def group(
    num_features: int, *, groups: int | None = None, group_size: int | None = None
) -> nn.GroupNorm:
    r"""Normalizes each group of channels of each image over its channels and pixels.

    .. math:: y_{nchw} = \gamma_c \, \frac{x_{nchw} - \mu_{ng}}{\sqrt{\sigma_{ng}^2 + \text{eps}}}
        + \beta_c, \quad g = \lfloor c \, G / C \rfloor, \; G = \text{groups}

    In plain words: between the layer normalization (one group) and the instance normalization
    (as many groups as channels).

    Source: Wu and He 2018, arXiv 1803.08494, section 3; 32 groups are its default.

    Deviation: where the default of 32 does not divide the channels, the greatest common divisor
    of both is used.

    Arguments:
        num_features: channels.
        groups: number of groups.
        group_size: channels in each group, in place of ``groups``.

    Shape:
        ``(N, C, H, W)`` to ``(N, C, H, W)``.

    Raises:
        ValueError: if both are given or if the channels cannot be divided so.

    Example:
        >>> group(64).num_groups, group(48).num_groups, group(48, group_size=4).num_groups
        (32, 16, 12)
    """
    _check_groups(groups, group_size)
    asked = "groups" if group_size is None else "group_size"
    divisor = groups or group_size or math.gcd(32, num_features)
    if num_features % divisor:
        valid = [d for d in range(1, num_features + 1) if num_features % d == 0]
        raise ValueError(
            f"{asked}={divisor} does not divide {num_features} channels; "
            f"{', '.join(map(str, valid))} do"
        )
    return nn.GroupNorm(divisor if group_size is None else num_features // divisor, num_features)


def _check_groups(groups: int | None, group_size: int | None) -> None:
    if groups is not None and group_size is not None:
        raise ValueError(
            f"groups or group_size may be given, not both: groups={groups}, "
            f"group_size={group_size}"
        )
    for argument, value in (("groups", groups), ("group_size", group_size)):
        whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
        if value is not None and not whole:
            raise ValueError(f"{argument} must be a whole number of at least 1, not {value!r}")


NORMALIZATIONS: dict[str, Callable[[int], nn.Module]] = {
    "none": nn.Identity,
    "batch": nn.BatchNorm2d,
    "layer": layer,
    "instance": instance,
    "group": group,
}


def normalization(
    key: str, *, groups: int | None = None, group_size: int | None = None
) -> Callable[[int], nn.Module]:
    """Looks up the constructor of a normalization layer.

    Arguments:
        key: one of ``NORMALIZATIONS``.
        groups: number of groups, for "group" only.
        group_size: channels in each group, for "group" only, in place of ``groups``.

    Returns:
        A constructor of one argument, ``num_features``.

    Raises:
        ValueError: if the key is unknown, or the options are not ones that it can honor. Whether
            the groups divide the channels is checked when a layer is made.

    Example:
        >>> normalization("group", groups=3)(12).num_groups
        3
    """
    if key not in NORMALIZATIONS:
        nearest = difflib.get_close_matches(str(key), NORMALIZATIONS, n=1, cutoff=0)[0]
        raise ValueError(
            f"there is no normalization {key!r}; the nearest is {nearest!r}, all are "
            f"{', '.join(NORMALIZATIONS)}"
        )
    if groups is None and group_size is None:
        return NORMALIZATIONS[key]
    _check_groups(groups, group_size)
    if key != "group":
        given = f"groups={groups}" if groups is not None else f"group_size={group_size}"
        raise ValueError(f"normalization {key!r} has no groups, so {given} must be left out")
    return partial(group, groups=groups, group_size=group_size)
