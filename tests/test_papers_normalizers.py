"""Claims on normalizers are judged by what the tables say, and their runs are what is promised."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest

from normkit import papers
from normkit.papers import beyond_batchnorm
from normkit.records import Store
from normkit.training import train


def _probes(measure: str, value, groups=(1, 2, 4), depths=(4, 8)) -> pd.DataFrame:
    """`value(position / depth, groups)` at every layer, a little noise by seed."""
    rows = [
        (4, depth, count, seed, i, measure, value(i / depth, count) * (1 + seed / 1000))
        for depth in depths
        for count in groups
        for seed in range(3)
        for i in range(1, depth + 1)
    ]
    columns = ["width", "depth", "groups", "seed", "position", "measure", "value"]
    return pd.DataFrame(rows, columns=columns)


def _ranks(value) -> pd.DataFrame:
    """`value(group size)` in each of four epochs, epochs and seeds a little apart."""
    rows = [
        ("10 layers", seed, size, epoch, value(size) + 0.1 * epoch + 0.01 * seed)
        for seed in range(3)
        for size in (1.0, 2.0, 4.0, math.inf)
        for epoch in range(4)
    ]
    return pd.DataFrame(rows, columns=["situation", "seed", "group_size", "epoch", "value"])


def test_rank_must_rise_at_every_step():
    rising = _probes("stable_rank", lambda x, g: 1 + x * g)
    dipping = _probes("stable_rank", lambda x, g: 1 + x * {1: 1, 2: 4, 4: 3}[g])
    falls, grows = _ranks(lambda size: 1 + 1 / size), _ranks(lambda size: 3 - 1 / size)
    assert beyond_batchnorm.judge_rank(rising, falls, "quick").verdict == "reproduced"
    assert beyond_batchnorm.judge_rank(dipping, falls, "quick").verdict == "contradicted"
    judged = beyond_batchnorm.judge_rank(rising, grows, "quick")
    assert judged.verdict == "contradicted" and "training" in judged.deciding.name


def test_gradient_needs_a_flat_layer_norm_and_the_lead_of_instance_norm():
    claimed = _probes("gradient_norm", lambda x, g: float(g) ** (3 * (1 - x)))
    steep = _probes("gradient_norm", lambda x, g: float(4 * g) ** (3 * (1 - x)))
    assert beyond_batchnorm.judge_gradient(claimed, "quick").verdict == "reproduced"
    judged = beyond_batchnorm.judge_gradient(steep, "quick")
    assert judged.verdict == "contradicted" and "LayerNorm" in judged.deciding.name


def test_cosine_needs_depth_group_size_and_speed():
    table = _probes("cosine_similarity", lambda x, g: 0.5 + 0.4 * x / g)
    rows = [(seed, c, 1 - c + 0.01 * seed) for seed in range(3) for c in (0.2, 0.5, 0.7, 0.9)]
    slow = pd.DataFrame(rows, columns=["seed", "cosine", "speed"])
    assert beyond_batchnorm.judge_cosine(table, slow, "quick").verdict == "reproduced"
    fast = slow.assign(speed=slow.cosine)
    assert beyond_batchnorm.judge_cosine(table, fast, "quick").verdict == "contradicted"


def test_variance_is_judged_by_its_exponent():
    def table(plain: float, normalized: float) -> pd.DataFrame:
        exponents = dict.fromkeys(("none", "scaled_ws"), plain)
        exponents |= dict.fromkeys(("batch", "layer", "instance", "group"), normalized)
        rows = [
            (skip, method, seed, i, "activation_variance", 10 ** (i / 10 * e * (not skip)))
            for skip in (False, True)
            for method, e in exponents.items()
            for seed in range(3)
            for i in range(11)
        ]
        columns = ["skip_init", "method", "seed", "position", "measure", "value"]
        return pd.DataFrame(rows, columns=columns)

    judge = beyond_batchnorm.judge_variance
    assert judge(table(8, 1), "quick").verdict == "reproduced"
    assert judge(table(5, 1), "quick").verdict == "contradicted"
    assert judge(table(8, 3), "quick").verdict == "contradicted"



def _runs(situation=("10 layers", 128, 0.05), seeds=3, **speeds) -> pd.DataFrame:
    """Runs of a situation whose mean, early and last accuracy are one number, a little apart."""
    net, batch, lr = situation
    rows = [
        (net, batch, lr, f"{net}, {batch}, {lr}", method, seed, *[value + s] * 4, 0.1, "ok")
        for method, value in speeds.items()
        for seed, s in enumerate(np.linspace(-0.01, 0.01, seeds))
    ]
    columns = ["net", "batch_size", "lr", "situation", "method", "seed", "speed", "early"]
    return pd.DataFrame(rows, columns=[*columns, "final", "accuracy", "chance", "status"])


@pytest.mark.parametrize(
    ("layer", "instance", "without", "verdict", "part"),
    [
        (0.5, 0.1, 0.1, "reproduced", ""),
        (0.95, 0.1, 0.1, "contradicted", "10 layers: BatchNorm minus LayerNorm"),
        (0.5, 0.95, 0.1, "contradicted", "20 layers: BatchNorm minus InstanceNorm"),
        (0.5, 0.1, 0.4, "contradicted", "ResNet-56, WeightNorm: 0.2 minus accuracy"),
    ],
)
def test_training_is_judged_by_each_way_to_fail(layer, instance, without, verdict, part):
    table = pd.concat(
        [
            _runs(batch=0.9, layer=layer, instance=0.99),
            _runs(("20 layers", 128, 0.05), batch=0.9, layer=0.5, instance=instance),
            _runs(("10 layers", 16, 0.00625), batch=0.1, layer=0.9, instance=0.9),
            _runs(("10 layers", 128, 0.2), batch=0.1, layer=0.6, instance=0.9),
        ]
    )
    wn = [("ResNet-56", without), ("ResNet-56 with SkipInit", 0.8)]
    residual = pd.concat([_runs((net, 128, 0.05), weight_norm=value) for net, value in wn])
    worse = [_runs((net, 128, 0.01), weight_norm=0.09) for net, _ in wn]
    residual = pd.concat([residual, *worse])  # a rate that does badly on held-out images
    judged = beyond_batchnorm.judge_training(table, residual, "quick")
    assert judged.verdict == verdict, judged
    assert judged.deciding.name == part or not part


def test_tradeoff_needs_early_speed_and_instability_at_both_ends():
    def judge(early, small, deep):
        table = pd.concat(
            [
                _runs(group=0.8, layer=early, instance=0.9),
                _runs(("10 layers", 16, 0.00625), group=0.8, layer=0.1, instance=small),
                _runs(("20 layers", 128, 0.05), group=0.8, layer=0.1, instance=deep),
            ]
        )
        return beyond_batchnorm.judge_tradeoff(table, "quick")

    assert judge(0.5, 0.5, 0.5).verdict == "reproduced"
    for case, name in [((0.9, 0.5, 0.5), "early"), ((0.5, 0.9, 0.5), "batch 16"),
                       ((0.5, 0.5, 0.9), "20 layers")]:  # fmt: skip
        judged = judge(*case)
        assert judged.verdict == "contradicted" and name in judged.deciding.name


def test_the_guide_pairs_by_seed_and_says_what_fails():
    table = _runs(batch=0.9, layer=0.5, none=0.1)
    found = beyond_batchnorm.guide(table).set_index("method")
    assert found.effect.round(6).to_dict() == {"batch": 0.0, "layer": -0.4, "none": -0.8}
    assert (found.high - found.low).max() < 1e-9, "the seed's part is the same in both"
    assert found.fails.to_dict() == {"batch": False, "layer": False, "none": True}
    without = beyond_batchnorm.guide(_runs(weight_norm=0.9))
    assert without.effect.isna().all() and without.n.tolist() == [0]


@pytest.mark.parametrize("profile", papers.PROFILES)
def test_every_profile_trains_every_normalizer_in_every_condition(profile):
    runs = beyond_batchnorm.training_runs(profile)
    conditions = {}
    for run in runs:
        method = run.convolution if run.convolution != "conv" else run.normalization
        conditions.setdefault((run.model, run.batch_size, run.lr, run.seed), set()).add(method)
    assert all(methods == set(beyond_batchnorm.METHODS) for methods in conditions.values())
    sizes = {key[1:3] for key in conditions if key[0] == "cfg_10"}
    assert len(sizes) == 3, "two batch sizes and two learning rates"
    swept = beyond_batchnorm.tradeoff_runs(profile)
    ends = [run for run in swept if run.normalization != "group"]
    assert ends and set(ends) <= set(runs), "the ends of the sweep are stored already"
    if profile != "smoke":
        assert len({run.seed for run in runs}) >= 3
        assert len({run.seed for run in beyond_batchnorm.group_runs(profile)}) >= 3
    rates = {run.lr for run in beyond_batchnorm.rule_runs(profile)}
    assert min(rates) > max(run.lr for run in runs), "the released rule raises the rate"


def test_group_runs_go_from_layer_norm_to_instance_norm_at_every_width():
    runs = beyond_batchnorm.group_runs("quick")
    for width in (8, 16):
        groups = {run.groups for run in runs if run.width == width}
        assert groups == {2**i for i in range(int(math.log2(width)) + 1)}


def test_tables_say_of_a_run_what_its_record_holds(tmp_path):
    plan = beyond_batchnorm.tradeoff_runs("smoke")[:2] + beyond_batchnorm.residual_runs("smoke")[:1]
    records = [train(run).save(Store(tmp_path)) for run in plan]
    speeds, curves = beyond_batchnorm.speeds(records), beyond_batchnorm.histories(records)
    assert speeds.group_size.tolist()[:2] == [1.0, math.inf]
    assert speeds.net.tolist() == ["10 layers", "10 layers", "ResNet-56"]
    history = records[0].table("history")
    assert speeds.speed[0] == history.train_accuracy.mean() == speeds.final[0]
    assert (curves.train_accuracy[0], curves.method[0]) == (speeds.final[0], "instance")
    probes = records[0].table("probes")
    cosine = probes[(probes.measure == "cosine_similarity") & (probes.step == 0)].value.iloc[-1]
    assert speeds.cosine[0] == cosine and np.isnan(speeds.cosine[2])
    ranks = beyond_batchnorm.ranks(records[:2])
    assert ranks.groupby("method").epoch.unique().map(list).to_dict() == {
        "instance": [0.0], "layer": [0.0]
    }  # fmt: skip
    measured = beyond_batchnorm.measures(records[:1])
    assert measured.groupby("measure").position.max().unique().tolist() == [10]


def test_a_run_that_diverges_counts_as_chance_from_there_on(tmp_path):
    plan = beyond_batchnorm.training_runs("smoke")
    wild = next(run for run in plan if run.convolution == "conv" and run.normalization == "none")
    record = train(dataclasses.replace(wild, lr=1e30, epochs=3)).save(Store(tmp_path))
    assert record.status.startswith("diverged")
    row = beyond_batchnorm.speeds([record]).iloc[0]
    reached = record.table("history").train_accuracy.tolist()
    assert row.speed == pytest.approx((sum(reached) + 0.1 * (3 - len(reached))) / 3)
    curve = beyond_batchnorm.histories([record])
    assert len(curve) == max(1, len(reached)) and (curve.status == record.status).all()
