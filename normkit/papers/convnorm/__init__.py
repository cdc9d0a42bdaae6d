"""ConvNorm (Liu et al., NeurIPS 2021, https://arxiv.org/abs/2103.00673).

The authors normalize every output channel of a convolution in the Fourier domain, and find lower
spectral norms, easier training, robustness to attacks, to wrong labels and to few images, and
better generative networks.
"""

from .attacked import Attacked, attacked
from .departures import changed_shares, departures
from .effects import beside, effects, known_effects
from .methods import METHODS, changed, method_of
from .operators import concept, conditions, layer_norms
from .published import published_robust
from .runs import choosing_runs, datasets, gans, gathered, judged_runs, outcomes, planned, rates
from .settings import SETTINGS, Attack, Experiments
from .tables import check_result, curves, gan_scores, robust, sheets, welch
from .verdicts import (
    CLAIMS,
    judge_ablation,
    judge_blackbox,
    judge_curves,
    judge_gan,
    judge_isometry,
    judge_noise,
    judge_robust,
    judge_scarcity,
    judge_spectral,
    judge_standard,
    leads,
)

__all__ = [
    "CLAIMS",
    "METHODS",
    "SETTINGS",
    "Attack",
    "Attacked",
    "Experiments",
    "attacked",
    "beside",
    "changed",
    "changed_shares",
    "check_result",
    "choosing_runs",
    "concept",
    "conditions",
    "curves",
    "datasets",
    "departures",
    "effects",
    "gan_scores",
    "gans",
    "gathered",
    "judge_ablation",
    "judge_blackbox",
    "judge_curves",
    "judge_gan",
    "judge_isometry",
    "judge_noise",
    "judge_robust",
    "judge_scarcity",
    "judge_spectral",
    "judge_standard",
    "judged_runs",
    "known_effects",
    "layer_norms",
    "leads",
    "method_of",
    "outcomes",
    "planned",
    "published_robust",
    "rates",
    "robust",
    "sheets",
    "welch",
]
