"""Penalties that act on gradients, after backward and before the optimizer's step."""

from .norm_decay import NormDecay
from .ocnn import OCNN
from .path_sgd import PathSGD

__all__ = ["OCNN", "NormDecay", "PathSGD"]
