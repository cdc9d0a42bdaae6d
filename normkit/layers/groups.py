"""Normalizations of each image alone: over all channels, each channel, or groups of channels."""

import math

import torch.nn.functional as F
from torch import Tensor, nn

from .channelwise import check_maps, check_values

__all__ = [
    "VARIANTS",
    "GroupNorm",
    "check_groups",
    "check_variant",
    "divide",
    "group",
    "instance",
    "layer",
]

VARIANTS = ("paper", "released")


class GroupNorm(nn.GroupNorm):
    r"""Torch's group normalization, with a choice of variance, that refuses a single value.

    .. math:: y_{nchw} = \gamma_c \, \frac{x_{nchw} - \mu_{ng}}{\sqrt{s_{ng}^2 + \text{eps}}}
        + \beta_c

    In plain words: s^2 is the biased variance of the m values of a group ("paper") or the
    unbiased one ("released"). The second is torch's kernel too, with eps and gamma made smaller.
    With one value for each group the result is beta, whatever the input, so that is refused.

    Source: Wu and He 2018, arXiv 1803.08494, section 3; "released": the code of Lubana et al.
    2021, https://github.com/EkdeepSLubana/BeyondBatchNorm, which takes ``torch.var`` as it is.

    Deviation: none by default; "released" gives outputs smaller by sqrt((m - 1) / m), 0.8 %
    where 4 channels of 4 x 4 pixels are a group.

    Arguments:
        num_groups: number of groups; divides ``num_features``.
        num_features: channels.
        variant: "paper" or "released".

    Shape:
        ``(N, C, H, W)`` to the same.

    Raises:
        ValueError: in the forward pass, if the channels are others or a group has one value.

    Example:
        >>> import torch
        >>> images = torch.randn(2, 6, 4, 4)
        >>> y = GroupNorm(2, 6, variant="released")(images).reshape(4, 48)
        >>> torch.allclose(y.var(1), torch.ones(4), atol=1e-4)
        True
    """

    def __init__(self, num_groups: int, num_features: int, *, variant: str = "paper") -> None:
        check_variant(variant)
        super().__init__(num_groups, num_features)
        self.num_features, self.variant = num_features, variant

    def forward(self, x: Tensor) -> Tensor:
        check_maps(self, x)
        values = self.num_features // self.num_groups * math.prod(x.shape[2:])
        check_values(self, x, values)
        if self.variant == "paper":
            return super().forward(x)
        share = (values - 1) / values
        weight = self.weight * math.sqrt(share)
        return F.group_norm(x, self.num_groups, weight, self.bias, self.eps * share)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, variant={self.variant!r}"


def layer(num_features: int) -> GroupNorm:
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

    Raises:
        ValueError: in the forward pass, on a map of one channel and one pixel.

    Example:
        >>> import torch
        >>> images = torch.randn(4, 6, 5, 3)
        >>> torch.allclose(layer(6)(images), layer(6)(7 * images + 2), atol=1e-4)
        True
    """
    return GroupNorm(1, num_features)


def instance(num_features: int) -> nn.InstanceNorm2d:
    r"""Normalizes each channel of each image over its pixels.

    .. math:: y_{nchw} = \gamma_c \, \frac{x_{nchw} - \mu_{nc}}{\sqrt{\sigma_{nc}^2 + \text{eps}}}
        + \beta_c

    In plain words: the group normalization with as many groups as channels.

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
    num_features: int,
    *,
    groups: int | None = None,
    group_size: int | None = None,
    variant: str = "paper",
) -> GroupNorm:
    r"""Normalizes each group of channels of each image over its channels and pixels.

    .. math:: y_{nchw} = \gamma_c \, \frac{x_{nchw} - \mu_{ng}}{\sqrt{\sigma_{ng}^2 + \text{eps}}}
        + \beta_c, \quad g = \lfloor c \, G / C \rfloor, \; G = \text{groups}

    In plain words: between the layer normalization (one group) and the instance normalization
    (as many groups as channels).

    Source: Wu and He 2018, arXiv 1803.08494, section 3; 32 groups are its default.

    Deviation: where the default of 32 does not divide the channels, the greatest common divisor
    of both is used. For ``variant="released"`` see ``GroupNorm``.

    Arguments:
        num_features: channels.
        groups: number of groups.
        group_size: channels in each group, in place of ``groups``.
        variant: whose variance, "paper" (biased) or "released" (unbiased).

    Shape:
        ``(N, C, H, W)`` to ``(N, C, H, W)``.

    Raises:
        ValueError: if both are given, if the channels cannot be divided so or if there is no such
            variant; in the forward pass, if a group has one channel and the map one pixel.

    Example:
        >>> group(64).num_groups, group(48).num_groups, group(48, group_size=4).num_groups
        (32, 16, 12)
    """
    return GroupNorm(divide(num_features, groups, group_size), num_features, variant=variant)


def divide(num_features: int, groups: int | None, group_size: int | None) -> int:
    """Finds the number of groups that the channels are divided into.

    Raises:
        ValueError: if both are given or if the channels cannot be divided so.

    Example:
        >>> divide(12, None, 3), divide(12, None, None)
        (4, 4)
    """
    check_groups(groups, group_size)
    asked = "groups" if group_size is None else "group_size"
    divisor = groups or group_size or math.gcd(32, num_features)
    if num_features % divisor:
        valid = [d for d in range(1, num_features + 1) if num_features % d == 0]
        raise ValueError(
            f"{asked}={divisor} does not divide {num_features} channels; "
            f"{', '.join(map(str, valid))} do"
        )
    return divisor if group_size is None else num_features // divisor


def check_groups(groups: int | None, group_size: int | None) -> None:
    """Refuses groups that are no number of groups, whatever the channels.

    Raises:
        ValueError: if both are given, or one that is not a whole number of at least 1.
    """
    if groups is not None and group_size is not None:
        raise ValueError(
            f"groups or group_size may be given, not both: groups={groups}, "
            f"group_size={group_size}"
        )
    for argument, value in (("groups", groups), ("group_size", group_size)):
        whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
        if value is not None and not whole:
            raise ValueError(f"{argument} must be a whole number of at least 1, not {value!r}")


def check_variant(variant: str) -> None:
    """Refuses a variant that does not exist.

    Raises:
        ValueError: if it is not one of ``VARIANTS``.
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant must be one of {', '.join(VARIANTS)}, not {variant!r}")
