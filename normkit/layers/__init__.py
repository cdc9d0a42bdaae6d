"""Normalization layers and normalized convolutions, and the two registries that name them."""

from .convolutions import CONVOLUTIONS, conv, convolution
from .normalizations import NORMALIZATIONS, group, instance, layer, normalization
from .scaled_ws import RELU_GAIN, ScaledWeightStandardization, scaled_ws, standardize

__all__ = [
    "CONVOLUTIONS",
    "NORMALIZATIONS",
    "RELU_GAIN",
    "ScaledWeightStandardization",
    "conv",
    "convolution",
    "group",
    "instance",
    "layer",
    "normalization",
    "scaled_ws",
    "standardize",
]
