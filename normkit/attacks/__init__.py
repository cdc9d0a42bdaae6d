"""Attacks on [0, 1] images, as functions of any callable model.

In plain words: radii are in units of the pixel range, so the model takes images in [0, 1] and
nothing else is accepted. What a network wants done to its input first, such as the subtraction of
a mean, is the model's first layer: `lambda images: net((images - mean) / std)`.
"""

from .accuracy import robust_accuracy, transfer_accuracy
from .adaptive import apgd, apgd_ensemble
from .gradient import fgsm, pgd
from .spsa import spsa

__all__ = ["apgd", "apgd_ensemble", "fgsm", "pgd", "robust_accuracy", "spsa", "transfer_accuracy"]
