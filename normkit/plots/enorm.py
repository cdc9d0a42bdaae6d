"""Figures of equi-normalization: what balancing does to a network, and to its training."""

from normkit.plots.enorm_balance import balancing, cost, function, units
from normkit.plots.enorm_depth import depth, depth_change
from normkit.plots.enorm_training import asymmetry, autoencoder, batch, levels

__all__ = [
    "asymmetry",
    "autoencoder",
    "balancing",
    "batch",
    "cost",
    "depth",
    "depth_change",
    "function",
    "levels",
    "units",
]
