"""Claims are judged by what the tables say, and a profile's runs are what it promises."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from normkit import papers
from normkit.papers import norm_decay

METHODS = ("plain", "pgd", "trades", "alp")


def _norms(factor: float, seeds=3) -> pd.DataFrame:
    """Layers of norm 1 to 10, those of adversarial methods `factor` times as large, give or take
    a few percent that depend on the seed."""
    rows = [
        (net, method, seed, f"layer{i}", i, kind, norm, i * scale * (1 + 0.02 * (seed - 1)))
        for net in ("a", "b")
        for method in METHODS
        for seed in range(seeds)
        for norm in ("l1", "linf")
        for i in range(1, 11)
        for kind, scale in [
            ("conv", factor if method != "plain" else 1.02 ** (1 - seed)),
            ("batch_norm", 0.01 if method != "plain" else 100.0),
        ]
    ]
    columns = ["net", "method", "seed", "layer", "position", "kind", "norm", "value"]
    return pd.DataFrame(rows, columns=columns)


def _accuracy(robust: float, seeds=3) -> pd.DataFrame:
    rows = [
        (net, method, seed, 0.9, 0.9, (robust if method != "plain" else 0.1) + seed / 100, "ok")
        for net in ("a", "b")
        for method in METHODS
        for seed in range(seeds)
    ]
    columns = ["net", "method", "seed", "train", "clean", "robust", "status"]
    return pd.DataFrame(rows, columns=columns)


@pytest.mark.parametrize(
    ("factor", "robust", "verdict"),
    [
        (1.3, 0.7, "reproduced"),
        (1.0, 0.7, "not separable"),
        (0.8, 0.7, "contradicted"),
        (1.3, 0.2, "contradicted"),
    ],
)
def test_density_is_judged_by_median_and_robust_accuracy(factor, robust, verdict):
    judged = norm_decay.judge_density(_norms(factor), _accuracy(robust), "quick")
    assert judged.verdict == verdict, judged
    assert len(judged.parts) == 2 * 3 * 3


def test_density_does_not_count_batch_norm():
    norms = _norms(1.3)
    judged = norm_decay.judge_density(norms, _accuracy(0.7), "quick")
    without = norm_decay.judge_density(norms[norms.kind == "conv"], _accuracy(0.7), "quick")
    assert judged == without


def test_a_diverged_run_drops_its_seed_and_nothing_else():
    norms, accuracy = _norms(1.3, seeds=4), _accuracy(0.7, seeds=4)
    lost = (accuracy.net == "a") & (accuracy.method == "pgd") & (accuracy.seed == 0)
    accuracy.loc[lost, ["clean", "robust"]] = np.nan
    accuracy.loc[lost, "status"] = "diverged at step 3"
    norms = norms[~((norms.net == "a") & (norms.method == "pgd") & (norms.seed == 0))]
    judged = norm_decay.judge_density(norms, accuracy, "quick")
    assert {part.n for part in judged.parts if part.name.startswith("a, pgd")} == {3}
    assert {part.n for part in judged.parts if not part.name.startswith("a, pgd")} == {4}
    layers = norm_decay.judge_layers(norms, "quick")
    assert {part.n for part in layers.parts} == {3, 4}


@pytest.mark.parametrize(("factor", "verdict"), [(1.3, "reproduced"), (0.7, "contradicted")])
def test_layers_are_judged_by_the_share_that_grew(factor, verdict):
    assert norm_decay.judge_layers(_norms(factor), "quick").verdict == verdict


def _errors(kind="Conv2d", norm="l1", **methods) -> pd.DataFrame:
    rows = [
        (case, kind, norm, method, error)
        for method, errors in methods.items()
        for case, error in enumerate(errors)
    ]
    return pd.DataFrame(rows, columns=["case", "kind", "norm", "method", "error"])


def test_exact_is_judged_by_the_worst_layer_of_each_kind_and_not_by_other_formulas():
    fine = _errors(exact=[0.0, -3e-16, 2e-16], border_free=[0.5, 0.0, -0.2])
    judged = norm_decay.judge_exact(fine, "quick")
    assert judged.verdict == "reproduced" and judged.deciding.effect == 3e-16
    assert judged.deciding.n == 3 and len(judged.parts) == 1
    for wrong in (-2e-12, np.nan):
        table = pd.concat([fine, _errors(kind="Conv1d", norm="linf", exact=[0.0, wrong])])
        judged = norm_decay.judge_exact(table, "quick")
        assert judged.verdict == "contradicted" and "Conv1d" in judged.deciding.name
        assert len(judged.parts) == 2


def _times(repetitions=3, **seconds) -> pd.DataFrame:
    """Two layers, each method's time give or take a few percent that depend on the repetition."""
    rows = [
        (layer, method, repetition, value * (1 + 0.02 * repetition * (method == "fft_svd")))
        for layer in ("b", "a")
        for method, value in seconds.items()
        for repetition in range(repetitions if method != "gram_iteration" else 1)
    ]
    return pd.DataFrame(rows, columns=["layer", "method", "repetition", "seconds"])


@pytest.mark.parametrize(
    ("svd", "repetitions", "verdict"),
    [(0.1, 3, "reproduced"), (0.0098, 3, "not separable"), (0.005, 3, "contradicted"),
     (0.1, 2, "not run")],
)  # fmt: skip
def test_speed_needs_a_factor_of_ten_on_every_row(svd, repetitions, verdict):
    slow = {"power_method": 1.0, "fft_svd": svd, "gram_iteration": 1e-9, "bracket": 1e-9}
    judged = norm_decay.judge_speed(_times(repetitions, l1=1e-3, linf=1e-3, **slow), "quick")
    assert judged.verdict == verdict, judged
    assert len(judged.parts) == 2 * 2 * 2 and judged.parts[0].name.startswith("b: l1")
    assert {part.n for part in judged.parts} == {repetitions}


@pytest.mark.parametrize("profile", papers.PROFILES)
def test_every_profile_checks_and_times_norms(profile):
    checked, timed = norm_decay.exactness(profile), norm_decay.timing(profile)
    if profile != "smoke":
        assert checked.cases >= 2000 and timed.repetitions >= 3 and timed.divide == 1
    if profile == "paper":
        assert timed.size == 32


@pytest.mark.parametrize("profile", papers.PROFILES)
def test_every_profile_has_paired_runs(profile):
    runs = norm_decay.adversarial_runs(profile)
    pairs = {(run.model, run.seed): set() for run in runs}
    for run in runs:
        pairs[run.model, run.seed].add(run.adversary.kind)
    assert all(kinds == {"none", "pgd", "trades", "alp"} for kinds in pairs.values())
    shared = {
        dataclasses.replace(r, adversary=runs[0].adversary, seed=0, model="resnet8", width=1)
        for r in runs
    }
    assert len(shared) == 1, "methods differ in the adversary alone"
    if profile != "smoke":
        assert len({run.seed for run in runs}) >= 3


def test_overrides_take_the_place_of_the_profiles_values():
    runs = norm_decay.adversarial_runs("quick", seeds=[7], epochs=2, epsilon=0.3)
    assert {run.seed for run in runs} == {7} and {run.epochs for run in runs} == {2}
    assert {run.adversary.epsilon for run in runs if run.adversary.kind != "none"} == {0.3}
    assert {run.evaluation.epsilon for run in runs} == {0.3}


def test_an_unknown_profile_names_the_nearest():
    with pytest.raises(ValueError, match="profile 'quik' is not known; nearest: 'quick'"):
        norm_decay.adversarial_runs("quik")
