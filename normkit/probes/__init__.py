"""Read-only measurements of activations and gradients, and the context manager that takes them."""

from .measures import (
    PROBES,
    activation_std,
    activation_variance,
    cosine_similarity,
    gradient_norm,
    stable_rank,
)
from .recording import ACTIVATIONS, LINEAR_MAPS, Recording, record

__all__ = [
    "ACTIVATIONS",
    "LINEAR_MAPS",
    "PROBES",
    "Recording",
    "activation_std",
    "activation_variance",
    "cosine_similarity",
    "gradient_norm",
    "record",
    "stable_rank",
]
