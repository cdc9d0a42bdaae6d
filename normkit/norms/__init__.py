"""A layer's linear map, and its norms: l1, linf, spectral, Frobenius, stable rank."""

from .absolute import frobenius_norm, l1_norm, linf_norm
from .circulant import singular_values
from .maps import Axis, LinearMap, convolution_map
from .rules import linear_map
from .spectral import Bracket, spectral_norm, stable_rank
from .table import layer_table

__all__ = [
    "Axis",
    "Bracket",
    "LinearMap",
    "convolution_map",
    "frobenius_norm",
    "l1_norm",
    "layer_table",
    "linear_map",
    "linf_norm",
    "singular_values",
    "spectral_norm",
    "stable_rank",
]
