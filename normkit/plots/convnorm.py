"""Figures of ConvNorm: what it does to a convolution, and what it does to training."""

from normkit.plots.convnorm_accuracy import ablation, blackbox, robust, standard
from normkit.plots.convnorm_concept import concept
from normkit.plots.convnorm_gan import gan, samples
from normkit.plots.convnorm_layers import isometry, spectral
from normkit.plots.convnorm_scale import scale
from normkit.plots.convnorm_training import corruptions, curves, noise, scarcity

__all__ = [
    "ablation",
    "blackbox",
    "concept",
    "corruptions",
    "curves",
    "gan",
    "isometry",
    "noise",
    "robust",
    "samples",
    "scale",
    "scarcity",
    "spectral",
    "standard",
]
