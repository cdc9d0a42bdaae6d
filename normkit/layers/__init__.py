"""Normalization layers and normalized convolutions, and the two registries that name them."""

from .batch_statistics import MeanCentering, VarianceNorm
from .convolutions import CONVOLUTIONS, conv, convolution, linear
from .evonorm import EvoNormB0, EvoNormS0
from .filter_response import TLU, FilterResponseNorm
from .groups import VARIANTS, GroupNorm, group, instance, layer
from .normalizations import NORMALIZATIONS, normalization
from .pairs import Pair, pair
from .reparametrized import (
    ScaledReLU,
    WeightCentering,
    weight_centering,
    weight_norm,
    weight_norm_linear,
)
from .scaled_ws import RELU_GAIN, ScaledWeightStandardization, scaled_ws, standardize

__all__ = [
    "CONVOLUTIONS",
    "NORMALIZATIONS",
    "RELU_GAIN",
    "TLU",
    "VARIANTS",
    "EvoNormB0",
    "EvoNormS0",
    "FilterResponseNorm",
    "GroupNorm",
    "MeanCentering",
    "Pair",
    "ScaledReLU",
    "ScaledWeightStandardization",
    "VarianceNorm",
    "WeightCentering",
    "conv",
    "convolution",
    "group",
    "instance",
    "layer",
    "linear",
    "normalization",
    "pair",
    "scaled_ws",
    "standardize",
    "weight_centering",
    "weight_norm",
    "weight_norm_linear",
]
