"""What notebooks will train is known beforehand: all of it, what it costs, without downloads."""

import contextlib
import dataclasses
import io
import urllib.request

import pytest

from normkit import papers, sweep, training
from normkit.__main__ import main
from normkit.papers import convnorm, enorm, norm_decay
from normkit.records import Store
from normkit.sweep.estimate import Speed, seconds
from normkit.sweep.sizes import size
from normkit.training import Evaluation, GanConfig, TrainConfig

TOPICS = ("convnorm", "enorm", "norm_decay", "beyond_batchnorm")
SPEED = Speed(1e10, 1e-4)


@pytest.fixture
def no_data(monkeypatch, tmp_path):
    """No image but those that come with a library, and a network that is denied."""
    monkeypatch.setenv("NORMKIT_DATA", str(tmp_path / "none"))

    def deny(*words, **named):
        raise AssertionError("something was asked of the network")

    monkeypatch.setattr(urllib.request, "urlopen", deny)


def recipe(run: TrainConfig | GanConfig) -> tuple:
    """What a run is made of, but for sizes, seeds and rates."""
    if isinstance(run, GanConfig):
        return ("gan", run.discriminator)
    parts = (run.penalty.kind, run.projection.kind, run.adversary.kind)
    attack = run.evaluation.attack if run.evaluation.epsilon else ""
    net = "cfg" if run.model.startswith("cfg") else run.model
    return (net, run.convolution, run.normalization, *parts, attack, run.skip_init)


def recipes(profile: str, store: Store) -> dict:
    runs = [run for topic in TOPICS for run in papers.planned(topic, profile, store)]
    return {recipe(run): run for run in runs}


def test_what_only_the_papers_profile_trains_trains_on_a_few_digits(no_data, tmp_path):
    store = Store(tmp_path)
    known = recipes("smoke", store)
    new = {kind: run for kind, run in recipes("paper", store).items() if kind not in known}
    assert len(new) > 15
    for kind, run in new.items():
        small = {"dataset": "digits", "image_size": None, "subset": 64, "batch_size": 32}
        small |= {"width": 8, "epochs": 1, "validation": 0.0, "test_once": False}
        small |= {"warmup_epochs": 0, "probe_every": 0, "groups": run.groups and 4}
        small["evaluation"] = dataclasses.replace(run.evaluation, steps=2, images=16)
        small["projection"] = dataclasses.replace(run.projection, every=1)
        result = training.train(dataclasses.replace(run, **small))
        assert result.status == "ok" or result.status.startswith("diverged"), kind


def test_the_papers_nets_have_the_sizes_that_are_known():
    nets = {run.model: run for run in norm_decay.adversarial_runs("paper")}
    weights = {name: size(run).bytes / 4 for name, run in nets.items()}
    assert 11.17e6 < weights["resnet18"] < 11.2e6
    assert 9.22e6 < weights["vgg11"] < 9.25e6
    assert 0.55e9 < size(nets["resnet18"]).operations / 2 < 0.56e9  # multiply-adds


def test_the_papers_schedules_are_the_papers():
    tried = convnorm.choosing_runs("paper")
    plans = convnorm.judged_runs("paper", [])
    assert {run.lr for run in tried} == {0.1}
    clean = [run for run in plans["clean"] if run.normalization == "batch"]
    assert {run.epochs for run in clean} == {120} and {run.seed for run in clean} == {6, 8, 10, 666}
    robust = plans["robust"][0]
    assert (robust.epochs, robust.adversary.repeats) == (30, 4)
    assert robust.adversary.epsilon == pytest.approx(8 / 255)
    assert {(run.dataset, run.epochs) for run in plans["others"]} == {("cifar100", 150)}
    deep = enorm.SETTINGS["paper"].depth
    assert (deep.base.width, deep.base.epochs, deep.base.batch_size, deep.c) == (500, 60, 256, 1.2)
    assert len(enorm.SETTINGS["paper"].seeds) == 5
    decays = norm_decay.regularized_runs("paper")
    assert {run.penalty.beta for run in decays if run.penalty.kind != "none"} == {
        1e-5, 1e-4, 1e-3, 1e-2, 1e-1}  # fmt: skip
    assert {(run.lr, run.epochs, run.batch_size) for run in decays} == {(0.01, 120, 128)}


def test_planned_is_what_the_notebook_asks_for_once_the_rates_are_chosen(tmp_path):
    store = Store(tmp_path)
    tries = convnorm.choosing_runs("smoke")
    before = papers.planned("convnorm", "smoke", store, device="cpu")
    records = sweep.run(tries, store=store, progress=False)
    asked = [*tries, *convnorm.gathered(convnorm.judged_runs("smoke", records)),
             *convnorm.gans("smoke")]  # fmt: skip
    assert papers.planned("convnorm", "smoke", store, device="cpu") == asked
    assert len(before) == len(asked)


@pytest.mark.parametrize("field", ["epochs", "width", "adversary", "evaluation"])
def test_more_to_do_takes_longer(field):
    base = TrainConfig(epochs=4, width=8)
    more = {"epochs": 8, "width": 16, "adversary": training.Adversary("pgd", steps=3)}
    more["evaluation"] = Evaluation(epsilon=0.1, step_size=0.01, steps=20)
    longer = dataclasses.replace(base, **{field: more[field]})
    assert seconds(longer, SPEED) > 1.1 * seconds(base, SPEED)


def test_a_forecast_of_nothing_is_nothing_and_two_processes_halve_it():
    runs = [TrainConfig(seed=seed) for seed in range(4)]
    assert sweep.estimate([], SPEED).hours == 0
    one, two = sweep.estimate(runs, SPEED), sweep.estimate(runs, SPEED, processes=2)
    assert one.hours == pytest.approx(2 * two.hours) and one.bytes == two.bytes > 1e5


def listed(*words: str) -> dict[str, list[str]]:
    """The lines below "to train", by their first word."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main(["run", "--list", *words]) == 0
    _, _, text = out.getvalue().partition("to train")
    return {line.split()[0]: line.split() for line in text.splitlines()[1:]}


def test_list_says_what_is_to_train_and_what_it_takes(no_data, monkeypatch, tmp_path):
    monkeypatch.setenv("NORMKIT_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("NORMKIT_FIGURES", str(tmp_path / "figures"))
    paper = listed("--profile", "paper")
    assert {*TOPICS, "tour", "all"} < set(paper)
    assert float(paper["norm_decay"][3].replace(",", "")) > 100  # hours, on any processor
    assert int(paper["norm_decay"][1]) == int(paper["norm_decay"][2]) == 330
    few = listed("--profile", "smoke", "--only", "tour")
    assert few["tour"][1:3] == ["2", "2"]
    sweep.run(papers.tour_runs("smoke", seeds=[0], epochs=1), store=Store(), progress=False)
    assert listed("--profile", "smoke", "--only", "tour")["tour"][1:3] == ["2", "0"]
