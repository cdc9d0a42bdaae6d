"""The tables on ConvNorm hold what was published, what runs gave and what layers do."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
import torch
from dense import circular_matrix
from scipy import stats
from torch import nn

from normkit import attacks, layers, sweep, training
from normkit.papers import convnorm
from normkit.records import Store

NAN = float("nan")
TINY = {"subset": 128, "width": 4, "epochs": 1, "batch_size": 32}
BASE = dataclasses.replace(convnorm.SETTINGS["quick"].clean, **TINY)
PAPER = {  # per cent, of seeds 6, 8, 666 and 10
    ("FGSM", "batch"): (51.75, 52.41, 50.94, 51.77),
    ("FGSM", "conv_norm"): (52.47, 53.06, 53.07, 52.87),
    ("FGSM", "spectral_norm"): (52.54, 52.78, 52.09, 51.95),
    ("FGSM", "oni"): (48.23, 48.55, 48.14, 48.39),
    ("FGSM", "ocnn"): (52.80, 52.28, 52.56, 52.33),
    ("PGD-20", "conv_norm"): (44.34, 44.70, 45.17, 44.80),
    ("PGD-20", "spectral_norm"): (44.98, 44.65, 44.00, 44.26),
    ("PGD-20", "oni"): (41.23, 40.99, 40.65, 41.46),
}


def _scores(attack="FGSM", **methods) -> pd.DataFrame:
    """One row per method and seed, the seeds from 0 on."""
    rows = [(attack, m, s, x) for m, values in methods.items() for s, x in enumerate(values)]
    return pd.DataFrame(rows, columns=["attack", "method", "seed", "accuracy"])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Records by method and seed; of a run that diverged at once, and of one later on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NORMKIT_RUNS", str(tmp_path_factory.mktemp("runs")))
        patch.setenv("NORMKIT_JOBS", "1")
        names = [(m, s) for m in ("conv_norm", "batch") for s in (0, 1)]
        names += [("spectral_norm", 0), ("oni", 0)]
        plans = {name: convnorm.changed(BASE, name[0], seed=name[1]) for name in names}
        plans["lost"] = convnorm.changed(BASE, "none", lr=1e30)
        slow = dataclasses.replace(BASE, batch_size=128, epochs=3)
        plans["later"] = convnorm.changed(slow, "none", lr=1e6, seed=1)
        records = sweep.run(plans.values(), store=Store(), progress=False)
        yield dict(zip(plans, records, strict=True))


def test_published_accuracies_are_those_of_the_authors_notebook():
    table = convnorm.published_robust().set_index(["attack", "method", "seed"])
    assert set(table.source) == {"paper"} and table.index.is_unique and len(table) == 32
    for key, values in PAPER.items():
        found = [table.accuracy[(*key, seed)] for seed in (6, 8, 666, 10)]
        assert found == pytest.approx([value / 100 for value in values], abs=1e-12), key


def test_check_result_stands_beside_what_was_published():
    table = convnorm.check_result(pd.concat([
        _scores("PGD-20", oni=[0.3], batch=[0.4, 0.5]), _scores("clean", batch=[0.8, 0.9, NAN]),
        _scores("FGSM", batch=[0.5], conv_norm=[0.25, 0.5, 0.75]),
    ]))  # fmt: skip
    assert [*table.index.get_level_values(0)] == ["clean"] + ["FGSM"] * 5 + ["PGD-20"] * 4
    assert set(table.index) == {*PAPER, ("clean", "batch"), ("PGD-20", "batch")}
    half, sums = 4.302653 * 25 / 3**0.5, ["mean", "low", "high", "n"]
    for key, row in {("FGSM", "conv_norm"): [50, 50 - half, 50 + half, 3],
                     ("FGSM", "batch"): [50, NAN, NAN, 1]}.items():  # fmt: skip
        assert [*table["here"].loc[key, sums]] == pytest.approx(row, rel=1e-6, nan_ok=True), key
    assert table["here"].n["clean", "batch"] == 2 and table["paper"].n.isna().sum() == 2
    names = sums + [f"seed {seed}" for seed in (6, 8, 666, 10)]
    for key, values in PAPER.items():
        half, mean = 3.182446 * stats.sem(values), np.mean(values)
        wanted = [mean, mean - half, mean + half, 4, *values]
        assert [*table["paper"].loc[key, names]] == pytest.approx(wanted), key


def test_welch_is_that_of_scipy_between_every_two_methods():
    ours = _scores(batch=[0.5, 0.52, 0.49], oni=[0.3, 0.32], ocnn=[0.4, NAN], none=[NAN, 0.1, 0.9])
    found = convnorm.welch(ours)
    values = {("here", "FGSM", m): rows.accuracy.dropna() for m, rows in ours.groupby("method")}
    values |= {("paper", *key): np.array(x) / 100 for key, x in PAPER.items()}
    assert len(found) == 3 + 10 + 3  # a method of one seed is left out
    for row in found.itertuples():
        one, other = (values[row.source, row.attack, m] for m in (row.method, row.other))
        test = stats.ttest_ind(one, other, equal_var=False)
        sure, gap = test.confidence_interval(0.95), np.mean(one) - np.mean(other)
        assert row[5:9] == pytest.approx((gap, sure.low, sure.high, test.pvalue)), row
        kind = "not separable" if row.p > 0.05 else "higher" if gap > 0 else "lower"
        assert (row.found, row.n) == (kind, min(len(one), len(other))), row
    assert set(found.found) == {"higher", "lower", "not separable"}


def test_outcomes_and_curves_say_what_the_runs_hold(runs):
    found, curves = convnorm.outcomes(runs.values()), convnorm.curves(runs.values())
    for record, row in zip(runs.values(), found.to_dict("records"), strict=True):
        assert all(row[n] == record.config[n] for n in ("dataset", "seed", "lr", "subset"))
        part = curves[(curves.method == row["method"]) & (curves.seed == row["seed"])]
        history, lost = record.table("history"), record.status != "ok"
        assert len(part) == record.config["epochs"]  # the later one was lost in its last epoch
        assert [*part.accuracy] == pytest.approx([*history.accuracy] + [NAN] * lost, nan_ok=True)
        wanted = [NAN] * 2 if lost else history[["train_accuracy", "accuracy"]].iloc[-1]
        assert [row["train"], row["accuracy"]] == pytest.approx([*wanted], nan_ok=True)
    assert found.status.str.startswith("diverged").sum() == 2


def _layers(record):
    """Every convolution's name and layer, and the taps that it applies, read from impulses."""
    model = training.restore(record).double()
    for name, layer in model.named_modules():
        if isinstance(layer, layers.ConvNorm2d):
            yield name, layer, layer.weight.detach()
        elif isinstance(layer, nn.Conv2d):
            k, s, p = layer.kernel_size[0], layer.stride[0], layer.padding[0]
            units = torch.eye(layer.in_channels * k * k, dtype=torch.float64)
            images = torch.zeros(len(units), layer.in_channels, 6, 6, dtype=torch.float64)
            at = slice(s - p, s - p + k)  # what output pixel (1, 1) sees
            images[:, :, at, at] = units.view(len(units), layer.in_channels, k, k)
            taps = layer(images)[:, :, 1, 1].detach().T
            yield name, layer, taps.view(-1, layer.in_channels, k, k)


def _channels(taps, size):
    """Each output channel's matrix on the torus on which the full convolution just fits."""
    plain = nn.Conv2d(taps.shape[1], len(taps), taps.shape[2:], bias=False, dtype=torch.float64)
    plain.weight = nn.Parameter(taps)
    grid = [n + taps.shape[2] - 1 for n in size]
    return circular_matrix(plain, grid).unflatten(0, (len(taps), -1))


def _root(matrix, eps):
    """The inverse root of a channel's operator times its transpose, and eps of its mean."""
    gram = matrix @ matrix.T
    values, vectors = torch.linalg.eigh(gram + eps * gram.diagonal().mean() * torch.eye(len(gram)))
    return vectors * values.rsqrt() @ vectors.T


def _size(name) -> tuple[int, int]:
    """What a layer sees of digits: 8 x 8, and in the last stages 4 x 4 and 2 x 2."""
    stage = int(name.split(".")[1]) if name.startswith("blocks") else 0
    return (8 >> max(0, stage - (not name.endswith("convolution2"))),) * 2


@pytest.mark.parametrize("method", ["batch", "spectral_norm", "oni", "conv_norm"])
def test_spectral_norms_are_those_of_dense_matrices(runs, method):
    record = runs[method, 0]
    table = convnorm.layer_norms([record, runs["lost"]])
    found, seen = table.set_index("layer"), list(_layers(record))
    assert [*found.index] == [name for name, *_ in seen] and [*table.position] == list(range(9))
    for name, _, taps in seen:
        parts = _channels(taps, _size(name))
        if method == "conv_norm":
            parts = torch.stack([_root(part, 1e-6) @ part for part in parts])
        sigma = torch.linalg.matrix_norm(parts.flatten(0, 1), 2).item()
        assert found.sigma[name] == pytest.approx(sigma, rel=1e-4), name
        assert found.out_channels[name] == len(taps) and found.kernel_size[name] == taps.shape[2]
    verdict = convnorm.judge_spectral(table, "smoke").parts[1].verdict
    assert verdict == ("reproduced" if method == "conv_norm" else "not run")


def test_condition_numbers_are_those_of_dense_matrices_before_and_one_after(runs):
    record = runs["conv_norm", 0]
    table = convnorm.conditions([record, runs["batch", 0], runs["lost"]])
    found = table.set_index(["state", "layer", "channel"]).condition
    for name, _, taps in _layers(record):
        for channel, part in enumerate(_channels(taps, _size(name))):
            before = torch.linalg.cond(part).item()
            assert found["before", name, channel] == pytest.approx(before, rel=1e-6), name
            assert abs(found["after", name, channel] - 1) < 1e-9, (name, channel)
    assert found.index.is_unique and len(found) == 2 * 3 * (4 + 8 + 16)


def test_the_concept_follows_one_image_through_one_channel(runs):
    table = convnorm.concept(runs["conv_norm", 1], channel=2, image=3)
    shown = dict(iter(table.sort_values(["row", "column"]).groupby("panel").value))
    taps = next(_layers(runs["conv_norm", 1]))[2][2:3]
    x = training.dataset("digits").test_images[3, 0].double() / 255
    matrix = _channels(taps, (8, 8))[0]
    root, full = _root(matrix, 0.0), matrix @ nn.functional.pad(x, (2, 0, 2, 0)).flatten()
    wave = torch.exp(-2j * math.pi * torch.outer(*[torch.arange(10.0).double()] * 2) / 10)
    spectrum = (wave[:, :3] @ taps[0, 0].to(wave.dtype) @ wave[:3]).abs()
    expected = {"kernel": taps[0, 0], "image": x, "spectrum": spectrum, "filter": root[0]}
    expected |= {"filter_spectrum": 1 / spectrum, "product": torch.ones(100)}
    for name, panel in (("convolved", full), ("normalized", root @ full)):
        expected[name] = panel.view(10, 10)[1:9, 1:9]
    assert shown.keys() == expected.keys()
    for name, panel in expected.items():
        assert np.allclose(shown[name], panel.flatten(), rtol=1e-6, atol=1e-6), name


def test_networks_are_attacked_from_the_same_starts_and_never_with_their_own(runs):
    chosen = {(m, s): runs[m, s] for m in ("batch", "conv_norm") for s in (0, 1)}
    keys = tuple(record.key for record in chosen.values())
    assert len(convnorm.attacked("smoke", runs.values()).networks) == 6  # not the diverged ones
    attack = convnorm.Attack(0.1, 0.05, 12, 4, 1, 2, (0.3,))
    once, again = (convnorm.Attacked(k, attack).tables().values() for k in (keys, keys[::-1]))
    for table, other in zip(once, again, strict=True):
        order = [name for name in table if name != "accuracy"]
        assert table.accuracy.between(0, 1).all() and not table.duplicated(order).any()
        merged = table.merge(other, on=order)
        assert len(merged) == len(table) and (merged.accuracy_x == merged.accuracy_y).all()
    white, black, noisy = once
    assert (len(white), len(noisy), len(black)) == (4 * 4, 4 * 2, 4 + 2 * 2 * 2)
    test, found = training.dataset("digits"), {}
    images, labels = test.test_images[:12].float() / 255, test.test_labels[:12]
    nets = {key: training.restore(record) for key, record in chosen.items()}
    for key, net in nets.items():
        how = {"steps": 20, "generator": training.generator(0, "evaluation")}
        found[key] = attacks.pgd(net, images, labels, epsilon=0.1, step_size=0.05, **how)
    for row in black[black.attack == "transfer"].itertuples():
        seen, net = found[row.source, 1 - row.seed], nets[row.method, row.seed]
        assert row.accuracy == (net(seen).argmax(1) == labels).double().mean().item(), row
    whole = noisy[noisy["std"] == 0].set_index(["method", "seed"]).accuracy
    assert all(whole[key] == r.table("history").accuracy.iloc[-1] for key, r in chosen.items())
    alone = convnorm.Attacked(keys[::2], attack).tables()["blackbox"]  # of one seed
    assert set(alone.attack) == {"SPSA"}, "nothing can be transferred"


def test_effects_are_paired_differences_and_stand_beside_the_other_places(tmp_path):
    few, late = _scores(conv_norm=[0.5, 0.7], batch=[0.3, 0.4]), _scores(conv_norm=[5], batch=[4])
    few = pd.concat([few.assign(subset=10), few.assign(subset=20, accuracy=[0.0, 0.1, 0.9, 0.9])])
    curves = pd.concat([late.assign(epoch=e, accuracy=late.accuracy + e) for e in range(1, 6)])
    tables = {"scarce": few, "accuracy": _scores(conv_norm=[0.5, NAN], batch=[0.4, 0.3])}
    tables["curves"] = pd.concat([curves, late.assign(epoch=6, accuracy=[9.0, 0.0])])
    tables["blackbox"] = _scores("SPSA", conv_norm=[NAN], batch=[0.3])
    found = convnorm.effects(tables).set_index("claim")
    row, known = found.loc["cn.scarcity"], {"cn.curves": 1, "cn.scarcity": 0.25, "cn.robust": 0.1}
    assert found.effect.to_dict() == pytest.approx(known)
    assert (row.high - row.low) / 2 == pytest.approx(12.706205 * 0.05) and row.n == 2
    row = dict.fromkeys(("low", "high"), 0.0) | {"claim": "c", "part": "p", "n": 3}
    for profile in ("quick", "cifar10"):
        rows = [row | {"place": p, "effect": len(p)} for p in ("digits", "CIFAR-10", "paper")]
        (folder := tmp_path / profile / "convnorm").mkdir(parents=True)
        pd.DataFrame(rows).to_csv(folder / "scale.csv", index=False)
    assert convnorm.known_effects(tmp_path).place.tolist() == ["digits", "CIFAR-10"]
    side = convnorm.beside(pd.DataFrame([row | {"effect": 5}]), "digits", tmp_path)
    assert side.place.tolist() == ["digits", "CIFAR-10"] + ["paper"] * 4
    assert side.effect.tolist()[:2] == [5, 8]
    assert side.effect.tolist()[2:] == pytest.approx([0.0115, 0.005275, 0.0028, 0.0339])


def test_departures_are_released_minus_paper_and_labels_that_noise_leaves_alone():
    clean = _scores(conv_norm=[0.5, 0.6, NAN], conv_norm_released=[0.4, 0.7, 0.9], oni=[0.3])
    code, oni, labels = convnorm.departures(clean, level=0.5, num_classes=4).itertuples()
    assert (code.effect, code.n, oni.n) == (pytest.approx(0), 2, 0) and math.isnan(oni.effect)
    assert labels.n == 5 and labels.low < -0.125 < labels.high and labels.high < -0.11
