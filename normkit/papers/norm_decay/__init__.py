"""Large norms do not hurt (Liang & Huang, AAAI 2021, https://arxiv.org/abs/2009.08435).

The authors compute the exact l1 and linf norms of layers, and find that networks trained
against an adversary have *larger* norms than plain ones while being far more robust.
"""

from .runs import (
    SETTINGS,
    Adversaries,
    accuracies,
    adversarial_runs,
    datasets,
    layer_norms,
    other_start,
)
from .verdicts import CLAIMS, judge_density, judge_layers

__all__ = [
    "CLAIMS",
    "SETTINGS",
    "Adversaries",
    "accuracies",
    "adversarial_runs",
    "datasets",
    "judge_density",
    "judge_layers",
    "layer_norms",
    "other_start",
]
