"""A layer's linear map, and its norms: l1, linf, spectral, Frobenius, stable rank."""

from .absolute import frobenius_norm, l1_norm, linf_norm
from .channels import channel_condition_numbers, channel_norms, reshaped_stable_rank
from .circulant import singular_values
from .maps import Axis, LinearMap, convolution_map
from .network import LipschitzBound, lipschitz_lower_bound, spectral_product
from .rules import linear_map
from .spectral import Bracket, spectral_norm, stable_rank
from .table import layer_table

__all__ = [
    "Axis",
    "Bracket",
    "LinearMap",
    "LipschitzBound",
    "channel_condition_numbers",
    "channel_norms",
    "convolution_map",
    "frobenius_norm",
    "l1_norm",
    "layer_table",
    "linear_map",
    "linf_norm",
    "lipschitz_lower_bound",
    "reshaped_stable_rank",
    "singular_values",
    "spectral_norm",
    "spectral_product",
    "stable_rank",
]
