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

NAN, SLOPE = float("nan"), "{}: slope per ten layers".format
FIELDS = {"depth": "p", "batch": "batch_size", "asymmetry": "c"}
FIELDS |= dict.fromkeys(("conv", "autoencoder"), "initialization")
LEVELS = {"enorm_batch": 0.64, "enorm": 0.62, "group": 0.56, "weight_norm_batch": 0.56}
LEVELS |= {"batch": 0.5, "path_sgd": 0.46, "none": 0.42}  # at 19 layers
FALLS = dict.fromkeys(LEVELS, 0.0) | dict.fromkeys(verdicts.FALLING, 0.05)  # in ten layers


def _table(columns, means, noise, seeds=3) -> pd.DataFrame:
    """One row per seed and key: its mean, and `noise` of the key times -1, 0, 1 and so on."""
    pairs = [(seed, key) for seed in range(seeds) for key in means]
    rows = [(s, *key, means[key] + noise.get(key, 0) * (s - 1)) for s, key in pairs]
    return pd.DataFrame(rows, columns=["seed", *columns])


def _depths(falls=(), levels=(), seeds=3) -> pd.DataFrame:
    """Accuracies on lines over depth, each seed's steeper than the last by .005."""
    falls, levels = FALLS | dict(falls), LEVELS | dict(levels)
    means = {(m, p): levels[m] + falls[m] * (19 - p) / 10 for m in LEVELS for p in (1, 10, 19)}
    noise = {(m, p): 0.005 * p / 10 for m, p in means}
    return _table(["method", "p", "accuracy"], means, noise, seeds)


@pytest.mark.parametrize(
    ("falls", "levels", "verdict", "part"),
    [({}, {}, "reproduced", ""),
     ({"enorm": 0.05}, {}, "contradicted", SLOPE("enorm")),
     ({"enorm": 0.015}, {}, "not separable", SLOPE("enorm")),
     ({"none": -0.05}, {}, "contradicted", SLOPE("none")),
     ({"none": 0.005}, {}, "not separable", SLOPE("none")),
     ({"batch": 0.07}, {}, "contradicted", "p = 1: enorm minus batch"),
     ({}, {"none": 0.47}, "contradicted", "p = 19: path_sgd minus none")],
)  # fmt: skip
def test_depth_needs_its_slopes_and_the_order_at_the_largest_depth(falls, levels, verdict, part):
    judged = enorm.judge_depth(_depths(falls, levels), "quick")
    assert judged.verdict == verdict and part in judged.deciding.name, judged
    assert len(judged.parts) == 4 + 1 + 3 + 7
    assert enorm.judge_depth(_depths(falls, levels, seeds=2), "quick").verdict == "not run"


def test_slopes_are_least_squares_of_each_seed_and_a_diverged_run_drops_its_own():
    rows = pd.DataFrame([[0.5, 0.5, 0.5], [0.5, 0.6, 0.5], [0.5, 0.5, 0.64], [0.5, NAN, 0.5]])
    rows.columns = [1, 2, 6]  # -2, -1 and 3 from their mean, 14 the sum of squares
    assert verdicts._slopes(rows) == pytest.approx([0, -1 / 14, 0.3, NAN], nan_ok=True)
    part = enorm.judge_depth(_depths(), "quick").parts[0]
    assert part.effect == pytest.approx(0.05)  # of .055, .050 and .045 downwards
    assert part.effect - part.low == pytest.approx(4.302653 * 0.005 / 3**0.5, rel=1e-6)
    for seeds, verdict in ((4, "reproduced"), (3, "not run")):
        table = _depths(seeds=seeds)
        lost = (table.method == "none") & (table.p == 10) & (table.seed == 0)
        judged = enorm.judge_depth(table.assign(accuracy=table.accuracy.mask(lost)), "quick")
        fewer = {part.name: part.n for part in judged.parts if part.n < seeds}
        assert (judged.verdict, fewer) == (verdict, {SLOPE("none"): seeds - 1}), judged


def _judge_cost(table, profile):
    return enorm.judge_cost(table.rename(columns={"seed": "repetition"}), profile)


def _judge_autoencoder(table, profile):
    keys = ["seed", "initialization", "epoch", "method"]
    wide = table.pivot(index=keys, columns="quantity", values="value")
    return enorm.judge_autoencoder(wide.reset_index(), profile)


LAST = ("he_all", 2)  # what is at other sizes, starts, epochs or of other methods is not judged
REBUILT = {(*run, m, q): 2.0 if (run, m) in ((LAST, "none"), (("he", 2), "enorm")) else 1.0
           for run in (("he_all", 1), LAST, ("he", 1), ("he", 2))
           for m in ("none", "enorm") for q in ("loss", "energy")}  # fmt: skip
TIMES = {("enorm", 2): 1.0, ("enorm", 8): 1.1, ("batch", 2): 1.0, ("batch", 8): 9.0}
SIZES = {("enorm", 2): 0.48, ("enorm", 16): 0.9, ("enorm", 128): 0.5}
SIZES |= {("batch", 2): 0.4, ("batch", 16): 0.9, ("batch", 128): 0.9}
PAIRS = {("none",): 0.5, ("enorm",): 0.55, ("batch",): 0.6, ("enorm_batch",): 0.595}
CLAIMED = {
    "conv": (enorm.judge_conv, ["method", "accuracy"], PAIRS),
    "batch": (enorm.judge_batch, ["method", "batch_size", "accuracy"], SIZES),
    "cost": (_judge_cost, ["method", "batch_size", "seconds"], TIMES),
    "autoencoder": (_judge_autoencoder,
                    ["initialization", "epoch", "method", "quantity", "value"], REBUILT),
}  # fmt: skip


@pytest.mark.parametrize(
    ("claim", "key", "value", "noise", "verdict"),
    [*((claim, next(iter(CLAIMED[claim][2])), None, 0, "reproduced") for claim in CLAIMED),
     ("conv", ("enorm_batch",), 0.58, 0, "contradicted"),
     ("conv", ("enorm",), 0.45, 0, "contradicted"),
     ("conv", ("enorm",), 0.55, 0.1, "not separable"),
     ("conv", ("enorm_batch",), NAN, 0, "not run"),
     ("batch", ("enorm", 2), 0.46, 0, "contradicted"),
     ("batch", ("batch", 2), 0.49, 0, "contradicted"),
     ("batch", ("enorm", 2), 0.5, 0.02, "not separable"),
     ("batch", ("batch", 2), NAN, 0, "not run"),
     ("cost", ("enorm", 8), 2.0, 0, "contradicted"),
     ("cost", ("enorm", 8), 0.5, 0, "contradicted"),
     ("cost", ("enorm", 8), 1.1, 0.4, "not separable"),
     ("autoencoder", (*LAST, "enorm", "loss"), 3.0, 0, "contradicted"),
     ("autoencoder", (*LAST, "enorm", "energy"), 3.0, 0, "contradicted"),
     ("autoencoder", (*LAST, "enorm", "loss"), 1.9, 0.5, "not separable"),
     ("autoencoder", (*LAST, "none", "loss"), NAN, 0, "not run")],
)  # fmt: skip
def test_pairs_by_seed_are_judged_by_each_way_to_fail(claim, key, value, noise, verdict):
    judge, columns, means = CLAIMED[claim]
    means = means if value is None else means | {key: value}
    judged = judge(_table(columns, means, {key: noise}), "quick")
    assert judged.verdict == verdict, judged
    assert judge(_table(columns, means, {}, seeds=2), "quick").verdict == "not run"


@pytest.mark.parametrize(
    ("held", "changes", "noise", "chosen", "verdict"),
    [({1.1: 0.5, 1.2: 0.6}, {}, 0, 1.2, "reproduced"),
     ({1.1: 0.6, 1.2: 0.5}, {}, 0, 1.1, "contradicted"),  # 1.2 is best on test images
     ({1.0: 0.9, 1.1: 0.5, 1.2: 0.6, 1.4: 0.9}, {}, 0, 1.2, "reproduced"),
     ({1.1: NAN, 1.2: 0.1}, {}, 0, 1.2, "reproduced"),
     ({1.1: NAN, 1.2: NAN, 1.0: 0.1}, {(1.1,): NAN}, 0, 1.1, "not run"),
     ({1.1: 0.5, 1.2: 0.6}, {(1.2,): NAN}, 0, 1.2, "not run"),
     ({1.1: 0.5, 1.2: 0.6}, {}, 0.2, 1.2, "not separable")],
)  # fmt: skip
def test_c_is_chosen_by_accuracy_on_images_held_out_only(held, changes, noise, chosen, verdict):
    means = {(0.9,): 0.5, (1.0,): 0.6, (1.1,): 0.58, (1.2,): 0.7, (1.4,): 0.5} | changes
    tried = [(c, lr, value - loss) for c, value in held.items() for lr, loss in ((1, 0), (2, 0.4))]
    tried = pd.DataFrame(tried, columns=["c", "lr", "accuracy"])
    judged = enorm.judge_c(_table(["c", "accuracy"], means, {(1.2,): noise}), tried, "quick")
    assert judged.verdict == verdict, judged
    assert all(part.name.startswith(f"c = {chosen} (chosen)") for part in judged.parts)


def _changes(kept=1e-15, rescaled=1e-15, ignored=0.3, noise=0.0, rise=-0.1, seeds=3):
    means = {("no BatchNorm", rise): kept, ("rescale", 0.0): rescaled, ("ignore", 0.5): ignored}
    table = _table(["mode", "rise", "change"], means, {("ignore", 0.5): noise}, seeds)
    return table.assign(network="MLP")


def test_identities_are_judged_by_their_worst_case():
    rows = [("MLP", c, c, 1e-9) for c in (1.0, 1.2) for _ in range(2)]
    limits = pd.DataFrame(rows, columns=["net", "c", "energy", "ratio"])
    apart = limits.assign(energy=limits.energy * [1, 1, 1, 1 + 1e-5])
    none, changes, ratio = limits.iloc[:0], _changes(), limits.assign(ratio=1e-5)
    function, energy, fixed, batch_norm = (
        enorm.judge_function, enorm.judge_energy, enorm.judge_fixed, enorm.judge_batch_norm
    )  # fmt: skip
    for verdict, cases in {
        "reproduced": [(function, _changes(rescaled=1.0)), (energy, changes, limits),
                       (fixed, limits), (batch_norm, changes)],
        "contradicted": [(function, _changes(kept=1e-9)), (function, _changes(kept=NAN)),
                         (energy, _changes(rise=1e-9), limits), (energy, changes, apart),
                         (energy, _changes(rise=NAN), limits), (fixed, ratio),
                         (batch_norm, _changes(rescaled=1e-9)),
                         (batch_norm, _changes(ignored=0.001))],
        "not separable": [(batch_norm, _changes(noise=0.3))],
        "not run": [(function, changes.iloc[:0]), (energy, changes.iloc[:0], none), (fixed, none),
                    (batch_norm, _changes(ignored=NAN)), (batch_norm, _changes(seeds=2))],
    }.items():  # fmt: skip
        for judge, *tables in cases:
            assert judge(*tables, "quick").verdict == verdict, judge(*tables, "quick")


def test_the_smallest_of_the_best_rates_is_chosen_and_a_diverged_run_is_the_worst():
    rows = [("tie", 1, 0.2, 0.8, NAN), ("tie", 1, 0.1, 0.8, NAN), ("tie", 1, 0.05, 0.7, NAN),
            ("tie", 3, 0.1, 0.1, NAN), ("tie", 3, 0.2, 0.2, NAN), ("lost", 1, 0.1, NAN, NAN),
            ("lost", 1, 0.2, 0.0, NAN), ("lost", 3, 0.2, NAN, NAN), ("lost", 3, 0.1, NAN, NAN),
            ("loss", 1, 0.4, NAN, NAN), ("loss", 1, 0.3, NAN, 0.3),
            ("loss", 1, 0.2, NAN, 0.3)]  # fmt: skip
    table = pd.DataFrame(rows, columns=["method", "p", "lr", "accuracy", "loss"])
    found = enorm.rates(table).query("chosen")[["method", "p", "lr"]].to_numpy().tolist()
    best = [["loss", 1, 0.2], ["lost", 1, 0.2], ["lost", 3, 0.1], ["tie", 1, 0.1], ["tie", 3, 0.2]]
    assert sorted(found) == best


def _record(folder, run, good) -> Record:
    """A record with a good or a bad result, or of a run that diverged (None)."""
    loss, rebuilt = 0.1 if good else 0.2, run.objective == "reconstruction"
    place = folder / f"{run.objective} {good}"
    if not place.exists():
        place.mkdir()
        row = {"accuracy": NAN, "loss": loss} if rebuilt else {"accuracy": 1 - loss, "loss": NAN}
        table = pd.DataFrame([row | {"train_accuracy": NAN, "train_loss": loss}])
        table.to_parquet(place / "history.parquet")
    meta = {"status": "diverged at step 1" if good is None else "ok"}
    config = dataclasses.asdict(run)
    return Record(place, {"config": config, "meta": meta, "files": ["history.parquet"]})


def _check(run, methods):
    """That a run is what its method says."""
    method = enorm.method_of(dataclasses.asdict(run))
    assert method in methods and (run.normalization == "batch") == method.endswith("batch"), run
    assert (run.projection.kind == "enorm") == method.startswith("enorm"), run
    assert run.projection.kind == "none" or run.projection.through_batch_norm == "ignore", run
    assert run.penalty.kind == ("path_sgd" if method == "path_sgd" else "none"), run
    assert run.convolution == ("weight_norm" if method == "weight_norm_batch" else "conv"), run
    assert run.normalization != "group" or run.width % run.groups == 0, run


@pytest.mark.parametrize("profile", papers.PROFILES)
def test_every_profile_judges_at_the_rates_that_another_seed_chose(profile, tmp_path, monkeypatch):
    monkeypatch.setenv("NORMKIT_DATA", str(tmp_path / "none"))
    setting, plans = enorm.SETTINGS[profile], enorm.choosing_runs(profile)
    assert 100 not in setting.seeds and (len(setting.seeds) >= 3 or profile == "smoke")
    kept, best = {}, {}
    for name, part in setting.comparisons().items():
        runs, n = plans[name], len(part.lrs)
        assert len(set(runs)) == len(runs) == len(part.methods) * len(part.values) * n
        assert {run.seed for run in runs} == {100} and all(run.validation > 0 for run in runs)
        good = [i % n == i // n % n for i in range(len(runs))]  # another rate in every group
        kept[name] = [_record(tmp_path, run, good[i] or (None, False)[i % 2])
                      for i, run in enumerate(runs)]  # fmt: skip
        changes = [{"seed": s, "validation": 0.0, "norms": part.base.norms} for s in setting.seeds]
        wins = [run for run, is_best in zip(runs, good, strict=True) if is_best]
        best[name] = [dataclasses.replace(run, **change) for change in changes for run in wins]
        same = {"normalization": "none", "groups": None, "convolution": "conv", "lr": 1.0}
        same |= {"penalty": training.Penalty(), "projection": training.Projection()}
        same |= {"p": {"depth": 2}, "c": {}}.get(part.field, {part.field: part.values[0]})
        assert len({dataclasses.replace(run, **same) for run in runs}) == 1, name
        for run in runs:
            _check(run, part.methods)
    assert enorm.judged_runs(profile, kept) == best
    assert {run.depth for run in plans["depth"]} == {p + 1 for p in setting.depth.values}
    assert {run.projection.c for run in plans["asymmetry"]} == set(setting.asymmetry.values)
    scaled = {(b, lr * b / 128) for b in setting.batch.values for lr in setting.batch.lrs}
    assert {(run.batch_size, run.lr) for run in plans["batch"]} == scaled


def test_mnist_is_rebuilt_where_it_is_there(tmp_path, monkeypatch):
    monkeypatch.setenv("NORMKIT_DATA", str(tmp_path))
    assert enorm.datasets("smoke") == enorm.datasets("quick") == ("noisy_digits", "digits")
    assert enorm.datasets("cifar10") == ("cifar10",)
    (tmp_path / SOURCES["mnist"].layouts[0].folder).mkdir(parents=True)
    assert enorm.datasets("cifar10") == enorm.datasets("paper") == ("cifar10", "mnist")


def test_tables_say_of_a_run_what_its_record_holds(tmp_path):
    def swept(plans):
        with ThreadPoolExecutor(1) as executor:
            runs, options = enorm.gathered(plans), {"executor": executor, "progress": False}
            return enorm.parted(plans, sweep.run(runs, store=Store(tmp_path), **options))

    tried = swept(enorm.choosing_runs("smoke"))
    plans = enorm.judged_runs("smoke", tried)
    wild = [dataclasses.replace(run, lr=1e30, seed=1) for run in plans["autoencoder"]]
    plans["autoencoder"] = wild + plans["autoencoder"]
    found = swept(plans)
    tables = {name: enorm.outcomes(records, FIELDS[name]) for name, records in found.items()}
    for name, records in found.items():
        assert [training.from_dict(record.config) for record in records] == plans[name]
        for record, row in zip(records, tables[name].to_dict("records"), strict=True):
            assert (row["lr"], row["status"]) == (record.config["lr"], record.status)
            last = record.table("history").reindex([0])[["loss", "accuracy"]].to_numpy(float)
            assert np.array_equal([[row["loss"], row["accuracy"]]], last, equal_nan=True)
    assert tables["depth"].p.tolist() == [1, 10, 19] * 7
    assert tables["asymmetry"].c.tolist() == [0.9, 1.0, 1.1]
    curves = enorm.curves(found["autoencoder"])
    for record, energy in zip(found["autoencoder"][2:], curves.energy[2:], strict=True):
        weights = [w for w in record.weights().values() if w.dim() == 2]
        assert energy == pytest.approx(sum(w.square().sum().item() for w in weights), rel=1e-5)
    assert curves.status.str.startswith("diverged").tolist() == [True, True, False, False]
    assert curves.loss.isna().tolist() == [True, True, False, False] and set(curves.epoch) == {1}
    for judge, *given in (
        *((getattr(enorm, f"judge_{name}"), tables[name]) for name in ("depth", "conv", "batch")),
        (enorm.judge_c, tables["asymmetry"], enorm.outcomes(tried["asymmetry"], "c")),
        (enorm.judge_autoencoder, curves[2:]), (enorm.judge_autoencoder, curves[:2]),
    ):  # fmt: skip
        assert judge(*given, "smoke").verdict == "not run", judge  # of one seed nothing is said


def test_published_accuracies_are_those_of_the_figure():
    found = enorm.published_depths().set_index(["method", "p"]).accuracy
    assert found.unstack().shape == (7, 10) and found.notna().all() and found.index.is_unique
    pairs = {("weight_norm_batch", 3): 0.5487, ("path_sgd", 11): 0.5196, ("none", 19): 0.5049}
    assert found[list(pairs)].tolist() == pytest.approx(list(pairs.values()))


def test_balancing_keeps_functions_and_reaches_one_minimum():
    tables = enorm.Balancing(seeds=(0,), starts=2, shown=3, cycles=100).tables()
    assert {name: " ".join(table) for name, table in tables.items()} == {
        "function": "network mode seed cycles change rise kind",
        "paths": "energy imbalance excess net variant start cycle",
        "limits": "net c start energy ratio", "units": "group unit incoming outgoing c when",
    }  # fmt: skip
    function, paths, limits, units = tables.values()
    keeps = function["mode"] != "ignore"
    assert (function.change[keeps] < 1e-12).all() and (function.change[~keeps] > 0.01).all()
    assert (function.rise[keeps] <= 1e-12).all() and (keeps.sum(), len(function)) == (11, 15)
    falls = paths[paths.variant == "paper"].groupby(["net", "start"]).excess
    assert (paths.excess >= -1e-12).all() and falls.diff().max() < 0 and len(falls) == 6
    energies = limits.groupby(["net", "c"]).energy
    assert (energies.max() / energies.min() - 1 < 1e-6).all() and (energies.size() == 2).all()
    settled = units[units.when == "after"]
    assert np.allclose(settled.outgoing, settled.incoming, rtol=1e-6), "c is 1"
    assert enorm.judge_function(function, "smoke").verdict == "reproduced"
    assert enorm.judge_energy(function, limits, "smoke").verdict == "reproduced"


def test_cost_times_every_alternative_at_every_batch_size():
    cost = enorm.Cost(batch_sizes=(2, 4), repetitions=2, rounds=1, depth=2, width=16)
    times = cost.tables()["times"]
    assert list(times) == ["method", "batch_size", "repetition", "seconds", "base_seconds"]
    counts = times.groupby(["method", "batch_size", "repetition"]).size()
    assert (counts == 1).all() and len(counts) == 3 * 2 * 2
    assert (times.base_seconds > 0).all() and (times.seconds[times.method == "enorm"] > 0).all()


def test_a_network_is_drawn_from_its_seed_alone():
    state = torch.get_rng_state()
    first, again, other = (enorm.network("ResNet-18", s, normalized=True) for s in (0, 0, 1))
    assert torch.equal(state, torch.get_rng_state())
    for (name, a), b in zip(first.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b) and a.dtype in (torch.float64, torch.int64), name
    assert not torch.equal(first.head.weight, other.head.weight)
