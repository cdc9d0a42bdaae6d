"""The four papers: which runs a profile needs, what was published, and what is claimed."""

from . import beyond_batchnorm, convnorm, enorm, norm_decay
from .describe import describe, diverged
from .measured import kept
from .profiles import PROFILES, label

__all__ = [
    "CLAIMS",
    "PROFILES",
    "beyond_batchnorm",
    "convnorm",
    "describe",
    "diverged",
    "enorm",
    "kept",
    "label",
    "norm_decay",
]

CLAIMS = convnorm.CLAIMS + enorm.CLAIMS + norm_decay.CLAIMS + beyond_batchnorm.CLAIMS
