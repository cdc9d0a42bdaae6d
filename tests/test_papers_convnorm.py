"""Claims on ConvNorm are judged by what the tables say, of runs that are what they promise."""

import dataclasses
from collections import Counter
from functools import cache
from itertools import product

import pandas as pd
import pytest
import torch

from normkit import data, papers, training
from normkit.papers import convnorm
from normkit.records import Record

NAN, STEPS = float("nan"), {"smoke": 4, "quick": 100, "cifar10": 100, "paper": None}
PLAIN = {"normalization": "none", "bias": False, "convolution": "conv"}
PLAIN |= {"convolution_options": training.ConvolutionOptions(), "penalty": training.Penalty()}


def _table(columns, means, noise, seeds) -> pd.DataFrame:
    """One row per seed and key: its mean, and `noise` of the key times -1, 0, 1 and so on."""
    pairs = [(seed, key) for seed in range(seeds) for key in means]
    rows = [(s, *key, means[key] + noise.get(key, 0) * (s - 1)) for s, key in pairs]
    return pd.DataFrame(rows, columns=["seed", *columns])


def _judge_gan(table, profile):
    """Scores by step; a seed of which one is NaN is a run that diverged after its first step."""
    keys = ["seed", "step", "method"]
    wide = table.pivot(index=keys, columns="quantity", values="value").reset_index()
    lost = wide.isna().any(axis=1)
    status = lost.map({True: "diverged at step 4", False: "ok"})
    return convnorm.judge_gan(wide.assign(status=status).fillna(1e-9), profile)


MINE, BN, SN, NO_BN = "conv_norm", "batch", "spectral_norm", "conv_norm_no_bn"
ROBUST = {("FGSM", MINE): 0.6, ("FGSM", "ocnn"): 0.55, ("FGSM", SN): 0.54, ("FGSM", BN): 0.5}
ROBUST |= {("FGSM", "oni"): 0.45, ("PGD-20", MINE): 0.395, ("PGD-20", SN): 0.4}
ROBUST |= {("PGD-20", "oni"): 0.35, ("PGD-20", BN): 0.9, ("PGD-10", MINE): 0.1}
ROBUST |= {("PGD-10", SN): 0.9}  # what is under other attacks, epochs or sizes is not judged
BLACK = {(*kind, m): 0.5 - 0.005 * (m == MINE) for m in (BN, MINE)
         for kind in (("SPSA", ""), ("transfer", BN), ("transfer", MINE))}  # fmt: skip
NOISE = {("symmetric", x, m): 0.9 - x + 0.1 * x * (m == MINE)
         for x in (0.2, 0.4, 0.8) for m in (BN, MINE)}  # fmt: skip
NOISE |= {("asymmetric", 0.4, BN): 0.6, ("asymmetric", 0.4, MINE): 0.61}
EPOCHS = {(e, m): 0.1 * e * (1 + x * (-1 if e > 5 else 1)) for e in range(1, 9)
          for m, x in ((BN, 0), (MINE, 0.1), ("none", 0), (NO_BN, -0.1))}  # fmt: skip
GAN = {(step, m, q): value for m, worse in ((SN, 0.0), ("conv_norm_spectral", 1.0))
       for step, sign in ((2, 1), (4, -1))
       for q, value in (("frechet", 9 + sign * worse), ("inception", 2 - sign * worse / 2))}
GAN |= {(4, MINE, "frechet"): 99.0, (4, MINE, "inception"): 1.0}
FEW = {(n, m): 0.5 + 0.1 * (m == MINE) * (-1) ** (n == 1050) for n in (150, 450, 1050)
       for m in (BN, MINE)}  # fmt: skip
CLAIMED = {
    "robust": (convnorm.judge_robust, ["attack", "method", "accuracy"], ROBUST, 7),
    "blackbox": (convnorm.judge_blackbox, ["attack", "source", "method", "accuracy"], BLACK, 3),
    "noise": (convnorm.judge_noise, ["kind", "level", "method", "accuracy"], NOISE, 3),
    "curves": (convnorm.judge_curves, ["epoch", "method", "accuracy"], EPOCHS, 2),
    "scarcity": (convnorm.judge_scarcity, ["subset", "method", "accuracy"], FEW, 2),
    "standard": (convnorm.judge_standard, ["dataset", "method", "accuracy"],
                 {(d, m): 0.8 - 0.005 * (m == MINE) for d in ("a", "b") for m in (BN, MINE)}, 2),
    "gan": (_judge_gan, ["step", "method", "quantity", "value"], GAN, 2),
    "ablation": (convnorm.judge_ablation, ["method", "accuracy"],
                 {(MINE,): 0.7, ("conv_norm_no_affine",): 0.6, (NO_BN,): 0.65, (BN,): 0.9}, 2),
}  # fmt: skip


@pytest.mark.parametrize("claim", CLAIMED)
def test_what_is_claimed_is_reproduced_from_three_seeds_on_and_not_run_from_fewer(claim):
    judge, columns, means, parts = CLAIMED[claim]
    judged = judge(_table(columns, means, {}, 3), "quick")
    assert judged.verdict == "reproduced" and len(judged.parts) == parts, judged
    assert judged.claim.id == f"cn.{claim}" and {part.n for part in judged.parts} == {3}
    assert judge(_table(columns, means, {}, 2), "quick").verdict == "not run"
    assert judge(_table(columns, means, {}, 0), "quick").verdict == "not run"
    table, name = _table(columns, means, {}, 3), "conv_norm_spectral" if claim == "gan" else MINE
    assert judge(table[table.method != name], "quick").verdict == "not run"


FAILS = {  # where, what else is there, how much seeds differ in it, and the part that fails
    "robust": [(("FGSM", MINE), 0.545, 0, "ConvNorm minus OCNN"),
               (("FGSM", SN), 0.61, 0, "ConvNorm minus SN"), (("FGSM", SN), 0.49, 0, "SN min"),
               (("FGSM", "ocnn"), 0.49, 0, "OCNN minus BN"), (("FGSM", "oni"), 0.51, 0, "BN min"),
               (("PGD-20", MINE), 0.385, 0, "SN, PGD"), (("PGD-20", "oni"), 0.41, 0, "ONI, PGD"),
               (("PGD-20", "oni"), 0.35, 0.1, "ONI, PGD")],
    "blackbox": [(("SPSA", "", MINE), 0.48, 0, "SPSA"), (("transfer", BN, MINE), 0.48, 0, "om BN"),
                 (("transfer", MINE, MINE), 0.48, 0, "from ConvNorm"),
                 (("transfer", MINE, BN), 0.5, 0.1, "from ConvNorm")],
    "noise": [(("symmetric", x, MINE), *fails) for x, *fails in (
              (0.2, 0.8, 0, "slope"), (0.4, 0.3, 0, "mean"), (0.8, 0.18, 0.05, "slope"))]
             + [(("asymmetric", 0.4, MINE), 0.59, 0, "asymmetric")],
    "curves": [((8, "none"), 0.9, 0, "last"), ((1, BN), 0.3, 0, "first 5"),
               ((5, BN), 0.5, 0.2, "first 5")],
    "scarcity": [((150, BN), 0.61, 0, "150"), ((450, BN), 0.61, 0, "450"),
                 ((450, BN), 0.55, 0.1, "450")],
    "standard": [(("b", MINE), 0.785, 0, ", b"), (("a", MINE), 0.8, 0.1, ", a")],
    "gan": [((4, SN, "frechet"), 7.0, 0, "log10"), ((4, SN, "inception"), 2.6, 0, "inception"),
            ((4, SN, "inception"), 2.0, 0.5, "inception")],
    "ablation": [((NO_BN,), 0.71, 0, "without BN"), ((NO_BN,), 0.65, 0.1, "without BN"),
                 (("conv_norm_no_affine",), 0.71, 0, "without filter")],
}  # fmt: skip


@pytest.mark.parametrize("claim", FAILS)
def test_each_part_of_a_claim_can_fail_it(claim):
    judge, columns, means, parts = CLAIMED[claim]
    for key, value, noise, part in FAILS[claim]:
        judged = judge(_table(columns, means | {key: value}, {key: noise}, 3), "quick")
        assert judged.verdict == ("not separable" if noise else "contradicted"), judged
        assert part in judged.deciding.name, judged
        assert [p.verdict for p in judged.parts].count("reproduced") == parts - 1, judged


@pytest.mark.parametrize(
    ("claim", "key", "dropped"),
    [("robust", ("FGSM", "oni"), 1), ("robust", ("FGSM", BN), 3), ("blackbox", BLACK, 3),
     ("noise", ("symmetric", 0.4, BN), 2), ("curves", (8, NO_BN), 1), ("gan", GAN, 2),
     ("scarcity", (150, MINE), 1), ("standard", ("b", BN), 1), ("ablation", (MINE,), 2)],
)  # fmt: skip
def test_a_diverged_run_drops_its_seed_where_it_is_compared(claim, key, dropped):
    judge, columns, means, parts = CLAIMED[claim]
    keys = [key] if isinstance(key, tuple) else [k for k in key if k[-1] == BN or SN in k]
    for seeds, verdict in ((4, "reproduced"), (3, "not run")):
        table = _table(columns, means, {}, seeds)
        lost = table[columns[:-1]].apply(tuple, axis=1).isin(keys) & (table.seed == 0)
        table[columns[-1]] = table[columns[-1]].mask(lost)
        judged = judge(table, "quick")
        assert judged.verdict == verdict, judged
        left = sorted(part.n for part in judged.parts)
        assert left == [seeds - 1] * dropped + [seeds] * (parts - dropped)


LAYERS = {(m, c): 5.0 if m == BN else 1 + x * (c**0.5 - 1) for m in (BN, MINE)
          for x, c in zip((0.0, 0.5, 1.0), (4, 16, 9), strict=True)}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "noise", "verdict"),
    [({}, 0, "reproduced"),
     ({(MINE, 4): 1 - 2e-5}, 0, "contradicted"), ({(MINE, 9): 3 + 2e-5}, 0, "contradicted"),
     ({(MINE, 4): 1 - 5e-6}, 0, "reproduced"), ({(MINE, 16): NAN}, 0, "contradicted"),
     ({(BN, 4): 1.0}, 0, "reproduced"), ({(BN, 4): 1.0, (BN, 9): 1.0}, 0, "contradicted"),
     ({(BN, 4): 2.6, (BN, 9): 2.6}, 2, "not separable")],
)  # fmt: skip
def test_spectral_norms_are_judged_by_their_median_and_by_every_layer(changes, noise, verdict):
    columns, spread = ["method", "out_channels", "sigma"], {key: noise for key in changes}
    table = _table(columns, LAYERS | changes, spread, 3)
    judged = convnorm.judge_spectral(table, "quick")
    assert judged.verdict == verdict, judged
    assert [part.n for part in judged.parts] == [3, 9]
    for few in (table[table.seed < 2], table[table.method != MINE], table[table.method != BN]):
        parts = convnorm.judge_spectral(few, "quick").parts
        assert parts[0].verdict == "not run" and parts[1].n == (few.method == MINE).sum()


@pytest.mark.parametrize(
    ("after", "verdict"),
    [(1 + 9e-7, "reproduced"), (1 + 2e-6, "contradicted"), (NAN, "contradicted")],
)
def test_isometry_is_judged_by_the_worst_channel_after_normalization(after, verdict):
    rows = {("before", 0): 30.0, ("after", 0): 1.0, ("before", 1): 40.0, ("after", 1): after}
    table = _table(["state", "channel", "condition"], rows, {}, 1)
    judged = convnorm.judge_isometry(table, "quick")
    assert judged.verdict == verdict and judged.deciding.n == 2, judged
    assert convnorm.judge_isometry(table[table.state == "before"], "quick").verdict == "not run"


def test_the_smallest_of_the_best_rates_is_chosen_and_a_diverged_run_is_the_worst():
    rows = [("batch", 0.2, 0.8), ("batch", 0.1, 0.8), ("batch", 0.05, 0.7), ("none", 0.2, NAN),
            ("none", 0.1, NAN), ("oni", 0.1, NAN), ("oni", 0.3, 0.0)]  # fmt: skip
    table = pd.DataFrame(rows, columns=["method", "lr", "accuracy"])
    found = convnorm.rates(table).query("chosen")
    chosen = dict(zip(found.method, found.lr, strict=True))
    assert chosen == {"batch": 0.1, "none": 0.1, "oni": 0.3} and len(found) == 3


@cache
def _method(run) -> str:
    return convnorm.method_of(dataclasses.asdict(run))


def _tried(profile, folder):
    """The rate at which each method's record is best, and the records of a profile's choice."""
    runs, lrs = convnorm.choosing_runs(profile), convnorm.SETTINGS[profile].lrs
    names = list(dict.fromkeys(map(_method, runs)))
    best = {name: lrs[place % len(lrs)] for place, name in enumerate(names)}
    for good in (True, False):
        (folder / str(good)).mkdir(exist_ok=True)
        table = pd.DataFrame([{"train_accuracy": 1.0, "accuracy": 0.5 if good else 0.4}])
        table.to_parquet(folder / str(good) / "history.parquet")
    records = []
    for place, run in enumerate(runs):
        good = run.lr == best[_method(run)]
        meta = {"status": "ok" if good or place % 4 else "diverged at step 1"}
        manifest = {"config": dataclasses.asdict(run), "meta": meta, "files": ["history.parquet"]}
        records.append(Record(folder / str(good), manifest))
    return best, runs, records


@pytest.mark.parametrize("profile", papers.PROFILES)
def test_every_profile_pairs_methods_by_seed_at_rates_that_another_seed_chose(profile, tmp_path):
    setting, (best, tried, records) = convnorm.SETTINGS[profile], _tried(profile, tmp_path)
    assert {run.seed for run in tried}.isdisjoint({*setting.seeds, *setting.many})
    assert all(run.validation > 0 for run in tried)
    assert len(setting.seeds) >= 3 and len(setting.many) >= 3
    wanted = dict.fromkeys((*setting.methods, *setting.robust), len(setting.lrs))
    assert Counter(map(_method, tried)) == wanted
    plans = convnorm.judged_runs(profile, records)
    counts = {"clean": 1, "robust": 1, "scarce": len(setting.fractions)}
    counts |= {"symmetric": len(setting.levels), "asymmetric": len(setting.asymmetric)}
    assert plans.keys() == counts.keys() | ({"others"} if setting.others else set())
    for name, runs in plans.items():
        methods = {"clean": setting.methods, "robust": setting.robust}.get(name, (BN, MINE))
        seeds = setting.seeds if name in ("clean", "robust", "others") else setting.many
        groups = {}
        for run in runs:
            assert run.lr == best[_method(run)] and run.validation == 0, run
            shared = dataclasses.replace(run, seed=0, lr=1.0, **PLAIN)
            groups.setdefault(shared, []).append((_method(run), run.seed))
        assert len(groups) == counts.get(name, 1)
        for shared, pairs in groups.items():
            assert sorted(pairs) == sorted(product(methods, seeds)), name
            assert (shared.adversary.kind == "free") == (name == "robust")
            assert (shared.label_noise > 0) == (name in ("symmetric", "asymmetric"))
    assert {run.label_noise for run in plans["symmetric"]} == set(setting.levels)
    every = setting.clean.subset or (1500 if setting.clean.dataset == "digits" else 50_000)
    assert every == setting.images
    used = {run.dataset for runs in plans.values() for run in runs}
    assert used == {*convnorm.datasets(profile)}
    assert profile != "paper" or {*setting.methods} == {*convnorm.METHODS}


@pytest.mark.parametrize("profile", papers.PROFILES)
def test_few_images_get_as_many_updates_and_overrides_are_heard(profile, tmp_path):
    setting, (_, _, records) = convnorm.SETTINGS[profile], _tried(profile, tmp_path)
    for epochs in (None, 1):
        plans = convnorm.judged_runs(profile, records, seeds=[3, 4], epochs=epochs)
        for name, runs in plans.items():
            assert {run.seed for run in runs} <= {3, 4}, name
            if epochs and (name != "scarce" or STEPS[profile] is None):
                assert {run.epochs for run in runs} <= {1}, name
        for run in plans["scarce"] if STEPS[profile] else ():
            batches = len(data.batches(run.subset, run.batch_size, torch.Generator()))
            assert abs(run.epochs * batches - STEPS[profile]) <= batches / 2, run
    sizes = {round(part * setting.images) for part in setting.fractions}
    assert {run.subset for run in plans["scarce"]} == sizes
    gans = convnorm.gans(profile, seeds=[3, 4])
    pairs = [(run.seed, run.discriminator) for run in gans]
    assert pairs == (list(product((3, 4), setting.gans)) if profile != "cifar10" else [])
