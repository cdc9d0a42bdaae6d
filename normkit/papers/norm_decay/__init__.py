"""Large norms do not hurt (Liang & Huang, AAAI 2021, https://arxiv.org/abs/2009.08435).

The authors compute the exact l1 and linf norms of layers, decay them in training, and find that
networks trained against an adversary have *larger* norms than plain ones while being far more
robust.
"""

from .comparison import compare
from .exact import Exactness, exactness
from .lipschitz import NearestClass, Slopes, judge_lipschitz, separation, slopes
from .networks import Networks, committed, weights_folder
from .regularization import REGULARIZATION, Regularization, regularized_runs
from .regularized import chosen_strengths, norm_history, regularized
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
from .strengths import judge_accuracy, judge_curves, norm_totals
from .verdicts import (
    CLAIMS,
    judge_density,
    judge_exact,
    judge_layers,
    judge_speed,
    median_ratios,
)

__all__ = [
    "CLAIMS",
    "REGULARIZATION",
    "SETTINGS",
    "Adversaries",
    "Exactness",
    "NearestClass",
    "Networks",
    "Regularization",
    "Slopes",
    "Speed",
    "accuracies",
    "adversarial_runs",
    "chosen_strengths",
    "committed",
    "compare",
    "datasets",
    "exactness",
    "judge_accuracy",
    "judge_curves",
    "judge_density",
    "judge_exact",
    "judge_layers",
    "judge_lipschitz",
    "judge_speed",
    "layer_norms",
    "median_ratios",
    "norm_history",
    "norm_totals",
    "other_start",
    "regularized",
    "regularized_runs",
    "separation",
    "slopes",
    "timing",
    "weights_folder",
]
