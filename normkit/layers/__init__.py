"""Normalization layers and normalized convolutions, and the two registries that name them."""

from .batch_statistics import MeanCentering, VarianceNorm
from .conv_norm import ConvNorm2d
from .conv_norm_map import periodic_taps
from .convert import convert
from .convolutions import CONVOLUTIONS, conv, conv_norm, convolution, linear
from .evonorm import EvoNormB0, EvoNormS0
from .filter_response import TLU, FilterResponseNorm
from .groups import VARIANTS, GroupNorm, group, instance, layer
from .inverse_root import inverse_root, own_grid
from .normalizations import NORMALIZATIONS, normalization
from .orthogonal import oni, own
from .pairs import Pair, pair
from .reparametrized import (
    ScaledReLU,
    WeightCentering,
    weight_centering,
    weight_norm,
    weight_norm_linear,
)
from .scaled_ws import RELU_GAIN, ScaledWeightStandardization, scaled_ws, standardize
from .spectral_normalization import spectral_norm

__all__ = [
    "CONVOLUTIONS",
    "NORMALIZATIONS",
    "RELU_GAIN",
    "TLU",
    "VARIANTS",
    "ConvNorm2d",
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
    "conv_norm",
    "convert",
    "convolution",
    "group",
    "instance",
    "inverse_root",
    "layer",
    "linear",
    "normalization",
    "oni",
    "own",
    "own_grid",
    "pair",
    "periodic_taps",
    "scaled_ws",
    "spectral_norm",
    "standardize",
    "weight_centering",
    "weight_norm",
    "weight_norm_linear",
]
