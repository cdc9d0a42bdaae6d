"""Beyond BatchNorm (Lubana et al., NeurIPS 2021, https://arxiv.org/abs/2106.05956).

The authors explain why normalizers succeed or fail by three quantities that can be read off at
initialization: the variance of activations, their stable rank, and the norm of gradients.
"""

from .runs import (
    SETTINGS,
    Initialization,
    datasets,
    depth_runs,
    group_runs,
    measures,
    speed_runs,
    speeds,
)
from .verdicts import CLAIMS, judge_cosine, judge_gradient, judge_rank, judge_variance

__all__ = [
    "CLAIMS",
    "SETTINGS",
    "Initialization",
    "datasets",
    "depth_runs",
    "group_runs",
    "judge_cosine",
    "judge_gradient",
    "judge_rank",
    "judge_variance",
    "measures",
    "speed_runs",
    "speeds",
]
