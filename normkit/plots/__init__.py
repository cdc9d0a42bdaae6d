"""Figures of the workbook: a table goes in, a matplotlib Figure comes out; nothing here trains."""

from normkit.plots import beyond_batchnorm, norm_checks, norm_decay, training
from normkit.plots.style import save, style

__all__ = ["beyond_batchnorm", "norm_checks", "norm_decay", "save", "style", "training"]
