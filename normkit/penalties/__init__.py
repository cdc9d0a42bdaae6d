"""Penalties that act on gradients, after backward and before the optimizer's step."""

from .norm_decay import NormDecay
from .path_sgd import PathSGD

__all__ = ["NormDecay", "PathSGD"]
