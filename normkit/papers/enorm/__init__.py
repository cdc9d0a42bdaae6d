"""Equi-normalization (Stock et al., ICLR 2019, https://arxiv.org/abs/1902.10416).

The authors rescale hidden units between steps of SGD, the function unchanged, towards the unique
smallest norm of the weights, and train networks that are deep or see small batches with it.
"""

from .balancing import Balancing, balancing, network
from .cost import Cost, cost
from .published import published_depths
from .runs import choosing_runs, datasets, judged_runs, method_of, outcomes, planned, rates
from .settings import SETTINGS, Comparison, Experiments
from .tables import curves, gathered, parted
from .verdicts import (
    CLAIMS,
    judge_autoencoder,
    judge_batch,
    judge_batch_norm,
    judge_c,
    judge_conv,
    judge_cost,
    judge_depth,
    judge_energy,
    judge_fixed,
    judge_function,
)

__all__ = [
    "CLAIMS",
    "SETTINGS",
    "Balancing",
    "Comparison",
    "Cost",
    "Experiments",
    "balancing",
    "choosing_runs",
    "cost",
    "curves",
    "datasets",
    "gathered",
    "judge_autoencoder",
    "judge_batch",
    "judge_batch_norm",
    "judge_c",
    "judge_conv",
    "judge_cost",
    "judge_depth",
    "judge_energy",
    "judge_fixed",
    "judge_function",
    "judged_runs",
    "method_of",
    "network",
    "outcomes",
    "planned",
    "parted",
    "published_depths",
    "rates",
]
