"""Gradient attacks on [0, 1] images, as functions of any callable model."""

from .accuracy import robust_accuracy
from .adaptive import apgd, apgd_ensemble
from .gradient import fgsm, pgd

__all__ = ["apgd", "apgd_ensemble", "fgsm", "pgd", "robust_accuracy"]
