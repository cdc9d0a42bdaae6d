"""Figures of the workbook: a table goes in, a matplotlib Figure comes out; nothing here trains."""

from normkit.plots import (
    across_papers,
    beyond_batchnorm,
    convnorm,
    enorm,
    norm_checks,
    norm_decay,
    normalizers,
    regularization,
    robustness,
    tradeoffs,
    training,
)
from normkit.plots.style import save, style

__all__ = [
    "across_papers",
    "beyond_batchnorm",
    "convnorm",
    "enorm",
    "norm_checks",
    "norm_decay",
    "normalizers",
    "regularization",
    "robustness",
    "save",
    "style",
    "tradeoffs",
    "training",
]
