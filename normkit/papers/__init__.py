"""The four papers: which runs a profile needs, what was published, and what is claimed."""

from . import across_papers, beyond_batchnorm, convnorm, enorm, norm_decay
from .describe import describe, diverged
from .measured import kept
from .planned import is_here, planned, tour_runs
from .profiles import PROFILES, label
from .released import released, released_markdown

__all__ = [
    "CLAIMS",
    "PROFILES",
    "across_papers",
    "beyond_batchnorm",
    "convnorm",
    "describe",
    "diverged",
    "enorm",
    "is_here",
    "kept",
    "label",
    "norm_decay",
    "planned",
    "released",
    "released_markdown",
    "tour_runs",
]

CLAIMS = convnorm.CLAIMS + enorm.CLAIMS + norm_decay.CLAIMS + beyond_batchnorm.CLAIMS
