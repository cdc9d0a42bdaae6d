"""The normalization layers by key."""

import difflib
from collections.abc import Callable
from functools import partial

from torch import nn

from .batch_statistics import MeanCentering, VarianceNorm
from .evonorm import EvoNormB0, EvoNormS0
from .filter_response import FilterResponseNorm
from .groups import check_groups, check_variant, group, instance, layer

__all__ = ["NORMALIZATIONS", "normalization"]

NORMALIZATIONS: dict[str, Callable[[int], nn.Module]] = {
    "none": nn.Identity,
    "batch": nn.BatchNorm2d,
    "layer": layer,
    "instance": instance,
    "group": group,
    "filter_response": FilterResponseNorm,
    "variance": VarianceNorm,
    "mean_centering": MeanCentering,
    "evonorm_b0": EvoNormB0,
    "evonorm_s0": EvoNormS0,
}

_GROUPED = ("group", "evonorm_s0")


def normalization(
    key: str,
    *,
    groups: int | None = None,
    group_size: int | None = None,
    variant: str = "paper",
) -> Callable[[int], nn.Module]:
    """Looks up the constructor of a normalization layer.

    In plain words: an EvoNorm takes no ReLU after it, and filter response a ``TLU``; ``pair``
    gives a normalization together with the activation that belongs to it.

    Arguments:
        key: one of ``NORMALIZATIONS``.
        groups: number of groups, for "group" and "evonorm_s0" only.
        group_size: channels in each group, likewise, in place of ``groups``.
        variant: "paper", or "released" for "group" and "evonorm_s0" with the unbiased variance of
            the code of Beyond BatchNorm.

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
    check_groups(groups, group_size)
    check_variant(variant)
    if (groups, group_size, variant) == (None, None, "paper"):
        return NORMALIZATIONS[key]
    if key in _GROUPED:
        options = {"groups": groups, "group_size": group_size, "variant": variant}
        return partial(NORMALIZATIONS[key], **options)
    if groups is not None or group_size is not None:
        given = f"groups={groups}" if groups is not None else f"group_size={group_size}"
        raise ValueError(f"normalization {key!r} has no groups, so {given} must be left out")
    raise ValueError(
        f"normalization {key!r} has one variant, so variant={variant!r} must be left out"
    )
