"""Beyond BatchNorm (Lubana et al., NeurIPS 2021, https://arxiv.org/abs/2106.05956).

The authors explain why normalizers succeed or fail by three quantities that can be read off at
initialization: the variance of activations, their stable rank, and the norm of gradients.
"""

from .runs import SETTINGS, Initialization, datasets, depth_runs, group_runs
from .tables import histories, measures, ranks, situations, speeds
from .trained import TRADEOFF, TRAINING_CLAIM, guide, judge_tradeoff, judge_training
from .training import (
    METHODS,
    TRAINING,
    Training,
    residual_runs,
    rule_runs,
    tradeoff_runs,
    training_runs,
)
from .verdicts import (
    COSINE,
    GRADIENT,
    RANK,
    VARIANCE,
    correlations,
    judge_cosine,
    judge_gradient,
    judge_rank,
    judge_variance,
)

__all__ = [
    "CLAIMS",
    "METHODS",
    "SETTINGS",
    "TRAINING",
    "Initialization",
    "Training",
    "correlations",
    "datasets",
    "depth_runs",
    "group_runs",
    "guide",
    "histories",
    "judge_cosine",
    "judge_gradient",
    "judge_rank",
    "judge_tradeoff",
    "judge_training",
    "judge_variance",
    "measures",
    "ranks",
    "residual_runs",
    "rule_runs",
    "situations",
    "speeds",
    "tradeoff_runs",
    "training_runs",
]

CLAIMS = (TRAINING_CLAIM, VARIANCE, RANK, COSINE, GRADIENT, TRADEOFF)
