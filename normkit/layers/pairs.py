"""What a net puts between two convolutions: a normalization and the activation that suits it."""

from collections.abc import Callable
from typing import NamedTuple

from torch import nn

from normkit.models import relu

from .convolutions import convolution as find_convolution
from .filter_response import TLU
from .normalizations import normalization as find_normalization
from .reparametrized import ScaledReLU

__all__ = ["Pair", "pair"]

_WITH_NONLINEARITY = ("evonorm_b0", "evonorm_s0")


class Pair(NamedTuple):
    """What stands after a convolution: two constructors of ``num_features``."""

    normalization: Callable[[int], nn.Module]
    activation: Callable[[int], nn.Module]


def pair(
    normalization: str,
    convolution: str = "conv",
    *,
    groups: int | None = None,
    group_size: int | None = None,
    variant: str = "paper",
    batch_norm: bool = True,
) -> Pair:
    """Looks up what a net puts after its convolutions: a normalization and its activation.

    In plain words: the activation is a ReLU, but a ``TLU`` after the filter response
    normalization, and a ``ScaledReLU`` after weight-normalized convolutions with no other
    normalization. An EvoNorm holds its own nonlinearity, so it stands where the ReLU would, and
    nothing before it.

    Source: Lubana et al. 2021, arXiv 2106.05956, and its released code,
    https://github.com/EkdeepSLubana/BeyondBatchNorm.

    Arguments:
        normalization: one of ``NORMALIZATIONS``.
        convolution: one of ``CONVOLUTIONS``.
        groups: as for the function ``normalization``, like the next two.
        group_size: channels in each group.
        variant: "paper" or "released".
        batch_norm: whether a "conv_norm" brings its own BatchNorm, as ``convolution`` was told.

    Raises:
        ValueError: if a key is unknown, the options are not ones that it can honor, or the
            convolution brings a normalization of its own next to another than "none".

    Example:
        >>> [make(8) for make in pair("evonorm_b0")]
        [Identity(), EvoNormB0(8, affine=True, eps=1e-05, momentum=0.1)]
        >>> pair("none", "weight_norm").activation(8)
        ScaledReLU()
    """
    find_convolution(convolution)
    if convolution == "conv_norm" and batch_norm and normalization != "none":
        raise ValueError(
            f"normalization is {normalization!r} and convolution 'conv_norm', which brings a "
            "BatchNorm of its own; take normalization 'none', or a conv_norm without batch_norm"
        )
    made = find_normalization(normalization, groups=groups, group_size=group_size, variant=variant)
    if normalization in _WITH_NONLINEARITY:
        return Pair(nn.Identity, made)
    if normalization == "filter_response":
        return Pair(made, TLU)
    if (normalization, convolution) == ("none", "weight_norm"):
        return Pair(made, _scaled_relu)
    return Pair(made, relu)


def _scaled_relu(num_features: int) -> ScaledReLU:
    return ScaledReLU()
