"""Large norms do not hurt (Liang & Huang, AAAI 2021, https://arxiv.org/abs/2009.08435).

The authors compute the exact l1 and linf norms of layers, and find that networks trained
against an adversary have *larger* norms than plain ones while being far more robust.
"""

from .comparison import compare
from .exact import Exactness, exactness
from .measured import kept
from .runs import (
    SETTINGS,
    Adversaries,
    accuracies,
    adversarial_runs,
    datasets,
    layer_norms,
    other_start,
)
from .speed import Speed, timing
from .verdicts import CLAIMS, judge_density, judge_exact, judge_layers, judge_speed

__all__ = [
    "CLAIMS",
    "SETTINGS",
    "Adversaries",
    "Exactness",
    "Speed",
    "accuracies",
    "adversarial_runs",
    "compare",
    "datasets",
    "exactness",
    "judge_density",
    "judge_exact",
    "judge_layers",
    "judge_speed",
    "kept",
    "layer_norms",
    "other_start",
    "timing",
]
