"""Claims on ENorm are judged by what the tables say, at rates chosen on images held out."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import torch

from normkit import papers, sweep, training
from normkit.data.sources import SOURCES
from normkit.papers import enorm
from normkit.papers.enorm import verdicts
from normkit.records import Record, Store

FIELDS = {"depth": "p", "batch": "batch_size", "asymmetry": "c"}
FIELDS |= dict.fromkeys(("conv", "autoencoder"), "initialization")
LEVELS = {"enorm_batch": 0.64, "enorm": 0.62, "group": 0.56, "weight_norm_batch": 0.56}
LEVELS |= {"batch": 0.5, "path_sgd": 0.46, "none": 0.42}  # at 19 layers
FALLS = dict.fromkeys(LEVELS, 0.0) | dict.fromkeys(verdicts.FALLING, 0.05)  # in ten layers


def _rows(columns, cells, seeds=3) -> pd.DataFrame:
    """`cells` are keys and value(step), with step -1, 0, 1 and so on for the seeds."""
    rows = [(seed, *key, value(seed - 1)) for seed in range(seeds) for key, value in cells]
    return pd.DataFrame(rows, columns=["seed", *columns])


def _depths(falls=(), levels=(), seeds=3) -> pd.DataFrame:
    """Accuracies on lines over depth, each seed's steeper than the last by .005."""
    falls, levels = FALLS | dict(falls), LEVELS | dict(levels)

    def line(m, p):
        return lambda step: levels[m] + falls[m] * (19 - p) / 10 + 0.005 * step * p / 10

    cells = [((m, p), line(m, p)) for m in LEVELS for p in (1, 10, 19)]
    return _rows(["method", "p", "accuracy"], cells, seeds)


@pytest.mark.parametrize(
    ("case", "verdict", "part"),
    [
        ({}, "reproduced", ""),
        ({"falls": {"enorm": 0.05}}, "contradicted", "enorm: slope per ten layers"),
        ({"falls": {"enorm": 0.015}}, "not separable", "enorm: slope per ten layers"),
        ({"falls": {"none": -0.05}}, "contradicted", "none: slope per ten layers"),
        ({"falls": {"none": 0.005}}, "not separable", "none: slope per ten layers"),
        ({"falls": {"batch": 0.07}}, "contradicted", "p = 1: enorm minus batch"),
        ({"levels": {"none": 0.47}}, "contradicted", "p = 19: path_sgd minus none"),
        ({"levels": {"enorm_batch": 0.61}}, "contradicted", "p = 19: enorm_batch minus enorm"),
        ({"seeds": 2}, "not run", ""),
    ],
)
def test_depth_is_judged_by_slopes_and_by_the_order_at_the_largest_depth(case, verdict, part):
    judged = enorm.judge_depth(_depths(**case), "quick")
    assert judged.verdict == verdict, judged
    assert judged.deciding.name == part or not part, judged
    assert len(judged.parts) == 4 + 1 + 3 + 7


def test_slopes_are_least_squares_per_ten_layers_of_each_seed():
    rows = pd.DataFrame([[0.5, 0.5, 0.5], [0.5, 0.6, 0.5], [0.5, 0.5, 0.64], [0.5, np.nan, 0.5]])
    rows.columns = [1, 2, 6]  # -2, -1 and 3 from their mean, 14 the sum of squares
    assert verdicts._slopes(rows) == pytest.approx([0, -1 / 14, 0.3, np.nan], nan_ok=True)
    part = enorm.judge_depth(_depths(), "quick").parts[0]
    assert (part.name, part.n) == ("none: slope per ten layers", 3)
    assert part.effect == pytest.approx(0.05)  # of .055, .050 and .045 downwards
    assert part.effect - part.low == pytest.approx(4.302653 * 0.005 / 3**0.5, rel=1e-6)


def test_a_diverged_run_drops_its_seed_from_the_parts_it_belongs_to():
    for seeds, verdict in ((4, "reproduced"), (3, "not run")):
        table = _depths(seeds=seeds)
        lost = (table.method == "none") & (table.p == 10) & (table.seed == 0)
        judged = enorm.judge_depth(table.assign(accuracy=table.accuracy.mask(lost)), "quick")
        assert judged.verdict == verdict, judged
        assert {part.name: part.n for part in judged.parts if part.n < seeds} == {
            "none: slope per ten layers": seeds - 1
        }


@pytest.mark.parametrize(
    ("enorm_gain", "batch_gain", "noise", "seeds", "verdict"),
    [
        (0.05, -0.005, 0.0, 3, "reproduced"),  # within what "at least equals" allows
        (0.05, -0.02, 0.0, 3, "contradicted"),
        (-0.05, 0.05, 0.0, 3, "contradicted"),
        (0.05, 0.05, 0.1, 3, "not separable"),
        (0.05, 0.05, 0.0, 2, "not run"),
        (0.05, np.nan, 0.0, 3, "not run"),
    ],
)
def test_conv_is_judged_by_both_pairs(enorm_gain, batch_gain, noise, seeds, verdict):
    levels = {"none": 0.5, "enorm": 0.5 + enorm_gain, "batch": 0.6}
    cells = [((m,), lambda step, v=v: v + 0.01 * step) for m, v in levels.items()]
    cells.append((("enorm_batch",), lambda step: 0.6 + batch_gain + noise * step))
    judged = enorm.judge_conv(_rows(["method", "accuracy"], cells, seeds), "quick")
    assert judged.verdict == verdict, judged


def _curves(loss=10.0, energy=2.0, noise=0.0, seeds=3) -> pd.DataFrame:
    """Auto-encoders of which only those from He's start of all layers, at the end, agree."""
    tables = []
    for method, lower in (("none", 1.0), ("enorm", 1.0 / loss)):
        for start, epoch in (("he_all", 1), ("he_all", 2), ("he", 1), ("he", 2)):
            judged = start == "he_all" and epoch == 2
            value = lower if judged else 1 / lower
            change = noise * (method == "enorm") * judged
            key = ((method, start, epoch), lambda step, v=value, c=change: v * 10 ** (c * step))
            table = _rows(["method", "initialization", "epoch", "loss"], [key], seeds)
            tables.append(table.assign(energy=1 / energy if method == "enorm" else 1.0))
    return pd.concat(tables, ignore_index=True)


def test_autoencoder_is_judged_by_the_last_loss_and_energy():
    judged = enorm.judge_autoencoder(_curves(), "quick")
    assert [part.effect for part in judged.parts] == pytest.approx([1, np.log10(2)])
    lost = _curves()
    lost.loc[(lost.seed == 0) & (lost.epoch == 2), ["loss", "energy"]] = np.nan
    for table, verdict in (
        (_curves(), "reproduced"),
        (_curves(loss=0.1), "contradicted"),
        (_curves(energy=0.5), "contradicted"),
        (_curves(noise=2.0), "not separable"),
        (_curves(seeds=2), "not run"),
        (lost, "not run"),
    ):
        found = enorm.judge_autoencoder(table, "quick")
        assert found.verdict == verdict, found


@pytest.mark.parametrize(
    ("fall", "batch", "noise", "seeds", "verdict"),
    [
        (0.02, 0.4, 0.0, 3, "reproduced"),
        (0.04, 0.4, 0.0, 3, "contradicted"),
        (0.02, 0.6, 0.0, 3, "contradicted"),
        (0.0, 0.4, 0.02, 3, "not separable"),
        (0.02, 0.4, 0.0, 2, "not run"),
        (np.nan, 0.4, 0.0, 3, "not run"),
    ],
)
def test_batch_is_judged_at_its_smallest_and_largest_size(fall, batch, noise, seeds, verdict):
    cells = [(("enorm", size), lambda step: 0.5) for size in (16, 128)]
    cells.append((("enorm", 2), lambda step: 0.5 - fall + noise * step))
    cells += [(("batch", size), lambda step: batch) for size in (2, 16, 128)]
    table = _rows(["method", "batch_size", "accuracy"], cells, seeds)
    judged = enorm.judge_batch(table.assign(accuracy=table.accuracy), "quick")
    assert judged.verdict == verdict, judged


@pytest.mark.parametrize(
    ("doublings", "noise", "repetitions", "verdict"),
    [(0.1, 0.0, 3, "reproduced"), (1.0, 0.0, 3, "contradicted"), (-1.0, 0.0, 3, "contradicted"),
     (0.1, 0.5, 3, "not separable"), (0.1, 0.0, 2, "not run")],
)  # fmt: skip
def test_cost_is_judged_by_the_times_of_enorm(doublings, noise, repetitions, verdict):
    cells = [(("enorm", 2), lambda step: 1e-3), (("batch", 2), lambda step: 1e-3)]
    cells += [(("enorm", 8), lambda step: 2 ** (doublings + noise * step) * 1e-3)]
    cells += [(("batch", 8), lambda step: 1.0)]
    table = _rows(["method", "batch_size", "seconds"], cells, repetitions)
    judged = enorm.judge_cost(table.rename(columns={"seed": "repetition"}), "quick")
    assert judged.verdict == verdict, judged


NAN = float("nan")


@pytest.mark.parametrize(
    ("held", "changes", "noise", "seeds", "chosen", "verdict"),
    [
        ({1.1: 0.5, 1.2: 0.6}, {}, 0.0, 3, "1.2", "reproduced"),
        ({1.1: 0.6, 1.2: 0.5}, {}, 0.0, 3, "1.1", "contradicted"),  # 1.2 is best on test images
        ({1.0: 0.9, 1.1: 0.5, 1.2: 0.6, 1.4: 0.9}, {}, 0.0, 3, "1.2", "reproduced"),
        ({1.1: NAN, 1.2: 0.1}, {}, 0.0, 3, "1.2", "reproduced"),
        ({1.1: NAN, 1.2: NAN}, {1.1: NAN}, 0.0, 3, "1.1", "not run"),
        ({1.1: 0.5, 1.2: 0.6}, {1.2: NAN}, 0.0, 3, "1.2", "not run"),
        ({1.1: 0.5, 1.2: 0.6}, {}, 0.2, 3, "1.2", "not separable"),
        ({1.1: 0.5, 1.2: 0.6}, {}, 0.0, 2, "1.2", "not run"),
    ],
)
def test_c_is_chosen_by_accuracy_on_images_held_out_only(
    held, changes, noise, seeds, chosen, verdict
):
    levels = {0.9: 0.5, 1.0: 0.6, 1.1: 0.58, 1.2: 0.7, 1.4: 0.5} | changes
    cells = [((c,), lambda step, c=c: levels[c] + noise * step * (c == 1.2)) for c in levels]
    tried = [(c, lr, value - loss) for c, value in held.items() for lr, loss in ((1, 0), (2, 0.4))]
    tried = pd.DataFrame(tried, columns=["c", "lr", "accuracy"])
    judged = enorm.judge_c(_rows(["c", "accuracy"], cells, seeds), tried, "quick")
    assert judged.verdict == verdict, judged
    assert [part.name.partition(" (")[0] for part in judged.parts] == [f"c = {chosen}"] * 3


def _changes(seeds=3, **values) -> pd.DataFrame:
    """Cases that keep the function, rescale BatchNorm or ignore it."""
    found = {"plain": 1e-15, "rescale": 1e-15, "ignored": 0.3, "noise": 0.0, "rise": -0.1}
    found |= {"wild": 0.5} | values
    cells = [(("no BatchNorm", found["rise"]), lambda step: found["plain"])]
    cells += [(("rescale", -0.1), lambda step: found["rescale"])]
    cells += [(("ignore", found["wild"]), lambda step: found["ignored"] + found["noise"] * step)]
    return _rows(["mode", "rise", "change"], cells, seeds).assign(network="MLP")


def _limits(spread=1e-9, ratio=1e-9) -> pd.DataFrame:
    rows = [("MLP", c, start, c * (1 + spread * start), ratio) for c in (1, 1.2) for start in (0, 1)]
    return pd.DataFrame(rows, columns=["net", "c", "start", "energy", "ratio"])


def test_function_energy_and_fixed_point_are_judged_exactly():
    def both(changes, limits):
        return enorm.judge_energy(changes, limits, "quick")

    no_changes, no_limits = _changes().iloc[:0], _limits().iloc[:0]
    for judged, verdict in (
        (enorm.judge_function(_changes(rescale=1.0), "quick"), "reproduced"),
        (enorm.judge_function(_changes(plain=1e-9), "quick"), "contradicted"),
        (enorm.judge_function(_changes(plain=NAN), "quick"), "contradicted"),
        (enorm.judge_function(no_changes, "quick"), "not run"),
        (both(_changes(), _limits()), "reproduced"),  # where BatchNorm is ignored it may rise
        (both(_changes(rise=1e-9), _limits()), "contradicted"),
        (both(_changes(rise=NAN), _limits()), "contradicted"),
        (both(_changes(), _limits(spread=1e-5)), "contradicted"),
        (both(no_changes, no_limits), "not run"),
        (enorm.judge_fixed(_limits(), "quick"), "reproduced"),
        (enorm.judge_fixed(_limits(ratio=1e-5), "quick"), "contradicted"),
        (enorm.judge_fixed(no_limits, "quick"), "not run"),
        (enorm.judge_batch_norm(_changes(), "quick"), "reproduced"),
        (enorm.judge_batch_norm(_changes(rescale=1e-9), "quick"), "contradicted"),
        (enorm.judge_batch_norm(_changes(ignored=0.001), "quick"), "contradicted"),
        (enorm.judge_batch_norm(_changes(noise=0.3), "quick"), "not separable"),
        (enorm.judge_batch_norm(_changes(ignored=NAN), "quick"), "not run"),
        (enorm.judge_batch_norm(_changes(seeds=2), "quick"), "not run"),
    ):
        assert judged.verdict == verdict, judged


def test_the_smallest_of_the_best_rates_is_chosen_and_a_diverged_run_is_the_worst():
    rows = [("tie", 1, 0.2, 0.8, NAN), ("tie", 1, 0.1, 0.8, NAN), ("tie", 1, 0.05, 0.7, NAN),
            ("tie", 3, 0.1, 0.1, NAN), ("tie", 3, 0.2, 0.2, NAN),
            ("one diverged", 1, 0.1, NAN, NAN), ("one diverged", 1, 0.2, 0.0, NAN),
            ("all diverged", 1, 0.2, NAN, NAN), ("all diverged", 1, 0.1, NAN, NAN),
            ("loss", 1, 0.4, NAN, NAN), ("loss", 1, 0.2, NAN, 0.3), ("loss", 1, 0.1, NAN, 9.0),
            ("loss", 1, 0.3, NAN, 0.3)]  # fmt: skip
    table = pd.DataFrame(rows, columns=["method", "p", "lr", "accuracy", "loss"])
    found = enorm.rates(table).query("chosen").set_index(["method", "p"]).lr.to_dict()
    best = {("tie", 1): 0.1, ("tie", 3): 0.2, ("one diverged", 1): 0.2, ("all diverged", 1): 0.1}
    assert found == best | {("loss", 1): 0.2}
