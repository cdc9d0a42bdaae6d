"""Equi-normalization: weights rescaled to their smallest norm, the function unchanged."""

from .method import ENorm

__all__ = ["ENorm"]
