"""Penalties that act on gradients, after backward and before the optimizer's step."""

from .norm_decay import NormDecay

__all__ = ["NormDecay"]
