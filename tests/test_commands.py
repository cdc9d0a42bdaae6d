"""The command line: what it prints is what the library finds; bad input costs one sentence."""

import contextlib
import dataclasses
import io
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from normkit import data, models, norms, training
from normkit.__main__ import main
from normkit.norms.network import lipschitz_lower_bound, spectral_product
from normkit.records import Store

SHARED = os.environ.get("NORMKIT_SHARED")
ATTACK = {"epsilon": "0.1", "steps": "3", "step_size": "1/20", "images": "40"}
TINY = ["epochs=1", "subset=64", "width=4", "norms=", "final_norms="]
SETTINGS = [*TINY, *(f"evaluation.{name}={value}" for name, value in ATTACK.items())]


def run(*words: str) -> tuple[int, str, str]:
    """Exit status, standard output and standard error."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main(words)
        except SystemExit as stop:
            status = stop.code
    return status, out.getvalue(), err.getvalue()


def only(store: Store):
    [key] = store.keys()
    return store.open(key)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    """Holds one run, trained by the command."""
    store = Store(tmp_path_factory.mktemp("store"))
    status, _, _ = run("train", "--set", *SETTINGS, "--store", str(store.root))
    assert status == 0
    return store


@pytest.fixture
def copy(store, tmp_path) -> Store:
    """The same store, to be changed."""
    return Store(shutil.copytree(store.root, tmp_path / "runs"))


def test_the_record_is_that_of_the_configuration(store):
    assert store.get(training.from_settings(SETTINGS)).key == only(store).key


def test_a_run_that_the_store_holds_is_shown_and_not_repeated(store):
    before = store.open(only(store).key).manifest
    words = ("train", "--device", "cpu", "--store", str(store.root), "--set", *SETTINGS)
    status, out, err = run(*words)
    history = only(store).table("history").iloc[-1]
    assert (status, err) == (0, "")
    assert "holds this run already" in out and only(store).key in out
    assert f"{history.train_loss:.4f}" in out and f"{history.robust_accuracy:.4f}" in out
    assert only(store).manifest == before


def test_force_trains_again_and_finds_the_same(copy):
    before = only(copy).table("history").drop(columns="seconds")
    (only(copy).folder / "old").touch()
    status, out, err = run("train", "--force", "--store", str(copy.root), "--set", *SETTINGS)
    assert status == 0 and "epoch 1 " in err
    assert not (only(copy).folder / "old").exists(), "the new record takes the old one's place"
    assert only(copy).table("history").drop(columns="seconds").equals(before)
    assert not list((copy.root / ".unfinished").iterdir())


def test_a_run_that_diverges_is_a_result(tmp_path):
    settings = [*TINY, "lr=1e30", "normalization=none", "batch_size=32"]
    status, out, _ = run("train", "--store", str(tmp_path), "--set", *settings)
    assert status == 0
    assert "diverged at step 1 (the loss was no longer finite" in out
    assert "diverged at step 1" in run("runs", "list", "--store", str(tmp_path))[1]


def test_the_listed_fields_are_all_fields_with_their_defaults():
    status, out, _ = run("train", "--fields")
    settings = [line for line in out.splitlines() if not line.startswith(" ")]
    assert [setting.partition("=")[0] for setting in settings] == training.field_names()
    assert training.from_settings(settings) == training.TrainConfig()
    assert out.count("\n    ") >= len(settings), "each has its meaning below it"
    assert "`" not in out and "small_cnn" in out


def evaluated(*words: str) -> list[float]:
    """The accuracies that `evaluate` prints."""
    status, out, err = run("evaluate", *words, "--device", "cpu")
    assert status == 0, err
    return [float(number) for number in re.findall(r"(\d\.\d{4})  \d\.\d{4} \.\.", out)]


def test_evaluating_a_record_finds_what_training_found(store):
    record = only(store)
    words = [f"--{name.replace('_', '-')}={value}" for name, value in ATTACK.items()]
    robust = evaluated(record.key, *words, "--store", str(store.root))[1]
    history = record.table("history").iloc[-1]
    assert robust == round(history.robust_accuracy, 4)
    [clean] = evaluated(record.key[:9], "--attack", "none", "--store", str(store.root))
    assert clean == round(history.accuracy, 4)


@pytest.mark.parametrize("kind", ["safetensors", "bare", "wrapped"])
def test_a_checkpoint_is_the_network_it_was_saved_from(store, tmp_path, kind):
    record, path = only(store), tmp_path / "net.pt"
    expected = evaluated(record.key, "--attack", "fgsm", "--store", str(store.root))
    words = ["--attack", "fgsm", "--store", str(tmp_path)]
    if kind == "safetensors":
        assert evaluated(str(record.folder / "weights.safetensors"), *words) == expected
        return
    weights = {f"module.{name}": value for name, value in record.weights().items()}
    torch.save(record.weights() if kind == "bare" else {"state_dict": weights, "epoch": 3}, path)
    assert evaluated(str(path), "--dataset", "digits", *words) == expected


@pytest.mark.parametrize(
    "words", [("--norm", "l2", "--epsilon", "1/2"), ("--restarts", "2"), ("--attack", "apgd", "--targets", "2")],
)  # fmt: skip
def test_no_attack_finds_more_right_answers_than_there_are(store, words):
    words = (*words, "--steps", "2", "--images", "40", "--store", str(store.root))
    clean, robust = evaluated(only(store).key, *words)
    assert robust <= clean


@pytest.mark.parametrize("n", [1, 40, 297])
def test_the_interval_is_that_of_wilson(store, n):
    words = ("--attack", "none", "--images", str(n), "--store", str(store.root))
    _, out, _ = run("evaluate", only(store).key, *words)
    p, low, high = map(float, re.search(r"none +(\S+) +(\S+) \.\. (\S+)", out).groups())
    p, z = round(p * n) / n, 1.959964
    middle, half = p + z**2 / (2 * n), z * (p * (1 - p) / n + (z / 2 / n) ** 2) ** 0.5
    ends = [(middle - half) / (1 + z**2 / n), (middle + half) / (1 + z**2 / n)]
    assert [low, high] == pytest.approx(ends, abs=1e-4), (p, n)


class _Malicious:
    """Its unpickling makes a folder."""

    def __init__(self, proof: Path):
        self.proof = proof

    def __reduce__(self):
        return os.mkdir, (str(self.proof),)


@pytest.mark.parametrize("command", ["evaluate", "layers"])
@pytest.mark.parametrize("kind", ["pickle.pkl", "torch.pt", "old.pt", "pickle.safetensors"])
def test_no_checkpoint_is_ever_run(tmp_path, command, kind):
    path, proof = tmp_path / kind, tmp_path / "proof"
    if kind.startswith("pickle"):
        path.write_bytes(pickle.dumps(_Malicious(proof)))
    else:
        new = kind == "torch.pt"
        inside = {"state_dict": _Malicious(proof)}
        torch.save(inside, path, _use_new_zipfile_serialization=new)
    status, _, err = run(command, str(path), "--store", str(tmp_path))
    assert not proof.exists()
    assert status == 2 and "safetensors" in err and err.count("\n") == 1, err


def test_the_layer_table_is_that_of_the_library(store, tmp_path):
    record, path = only(store), tmp_path / "norms.csv"
    words = ("--norms", "l1,spectral", "--csv", str(path), "--store", str(store.root))
    status, out, _ = run("layers", record.key, *words)
    model = training.restore(record)
    expected = norms.layer_table(model, (1, 8, 8), norms=("l1", "spectral"))
    written = pd.read_csv(path, keep_default_na=False)
    pd.testing.assert_frame_equal(
        written.drop(columns="seconds"), expected.drop(columns="seconds"), rtol=1e-6
    )
    shown = {line.split()[0]: line.split()[2] for line in out.splitlines()[2:-2]}
    l1 = expected[expected.norm == "l1"]
    assert shown == {layer: f"{value:.4g}" for layer, value in zip(l1.layer, l1.value)}


def test_a_layer_that_cannot_be_measured_says_so_below_the_table(tmp_path):
    run("train", "--store", str(tmp_path), "--set", *TINY, "normalization=group", "groups=2")
    words = ("--norms", "l1,linf", "--store", str(tmp_path))
    _, out, _ = run("layers", only(Store(tmp_path)).key, *words)
    name = "stem.normalization"
    rows = [line for line in out.splitlines() if line.startswith(name)]
    assert rows[0].split()[:4] == [name, "other", "-", "-"]
    below = [row for row in rows if "has no known linear map" in row]
    assert len(below) == 1 and below[0].startswith(f"{name}, ") and "(l1, linf): " in below[0]
    words = ("--norms", "spectral", "--store", str(tmp_path))
    _, out, _ = run("layers", only(Store(tmp_path)).key, *words)
    assert out.splitlines()[-1].startswith("no product of spectral norms: ")


def test_the_product_and_the_lower_bound_are_those_of_the_library(tmp_path):
    run("train", "--store", str(tmp_path), "--set", *TINY, "standardize=true")
    store = Store(tmp_path)
    record = only(store)
    words = ("--norms", "spectral", "--rtol", "1e-6", "--jobs", "2", "--lipschitz", "digits")
    status, out, _ = run("layers", record.key, *words, "--store", str(store.root))
    model = training.restore(record)
    images = data.to_float(data.load("digits").test_images[:16])
    bound = lipschitz_lower_bound(model, images).value
    found = norms.layer_table(model, (1, 8, 8), norms=("spectral",), rtol=1e-6)
    lower, upper = (f"{end:.4g}" for end in spectral_product(found))
    product = lower if lower == upper else f"{lower}..{upper}"
    assert status == 0
    first, last = out.splitlines()[-2:]
    assert first == f"Lipschitz constant at least {bound:.4g} (l2, from 16 test images of digits)"
    [std] = [part.std for part in model.modules() if isinstance(part, models.Normalize)]
    scale = f"{1 / std.item():.4g} of the input's normalization"
    assert last.startswith(f"product of spectral norms {product} times {scale} (")


def test_a_name_of_torchvision_is_measured_with_random_weights(tmp_path):
    words = ("--input", "3,64,64", "--norms", "l1", "--store", str(tmp_path))
    first, second = (run("layers", "squeezenet1_1", *words) for _ in range(2))
    assert first[0] == 0 and "random" in first[1] and "classifier.1" in first[1]
    seconds = re.compile(r"\d\.\d\d$", re.MULTILINE)
    assert seconds.sub("", first[1]) == seconds.sub("", second[1])


def test_runs_are_listed_by_what_they_were_asked_for(store):
    words = ("runs", "list", "--store", str(store.root), "--where")
    fields = ["dataset=digits", "evaluation.step_size=1/20", "width=4", "groups=none", "norms="]
    assert "1 of 1 records" in run(*words, *fields)[1]
    assert only(store).key[:8] in run(*words, *fields)[1]
    assert "0 of 1 records" in run(*words, "width=5")[1]


def test_verify_and_prune_find_the_damaged_record(copy):
    assert run("runs", "verify", "--store", str(copy.root))[0] == 0
    key = only(copy).key
    (copy.root / key / "weights.safetensors").write_bytes(b"0")
    status, out, _ = run("runs", "verify", "--store", str(copy.root))
    assert status == 1 and f"record {key}: file weights.safetensors differs" in out
    would = run("runs", "prune", "--dry-run", "--store", str(copy.root))[1]
    assert copy.keys() == [key] and f"would remove {key} (damaged or left over)" in would
    done = run("runs", "prune", "--store", str(copy.root))[1]
    assert done == would.replace("would remove", "removed")
    assert copy.keys() == []


class TrainConfig(training.TrainConfig):
    """As code or data elsewhere has made it."""

    def dependencies(self):
        return {"normkit.training": "as it was"}


def test_stale_is_what_other_code_has_made(copy):
    sound = only(copy)
    old = training.from_dict(dataclasses.asdict(training.from_settings(TINY)), TrainConfig)
    stale = copy.put(old, tables={}, meta={"status": "ok", "seconds": 1.0}).key
    would = run("runs", "prune", "--stale", "--dry-run", "--store", str(copy.root))[1]
    assert f"would remove {stale} (made by other code or data)" in would
    assert sound.key not in would
    run("runs", "prune", "--store", str(copy.root))
    assert len(copy.keys()) == 2, "it takes --stale to remove it"
    run("runs", "prune", "--stale", "--store", str(copy.root))
    assert copy.keys() == [sound.key]


def test_a_record_outlives_its_data(tmp_path, monkeypatch):
    monkeypatch.setenv("NORMKIT_DATA", str(tmp_path / "empty"))
    fields = dataclasses.asdict(training.from_settings([*TINY, "dataset=mnist"]))
    config = training.from_dict(fields, TrainConfig)
    form = training.Form((1, 28, 28), 10)
    weights = training.build_model(config, form).state_dict()
    store, meta = Store(tmp_path), {"status": "ok", "seconds": 1.0, "form": vars(form)}
    key = store.put(config, tables={}, weights=weights, meta=meta).key
    run("runs", "prune", "--stale", "--store", str(store.root))
    assert store.keys() == [key]
    for target in (key, str(tmp_path / key / "weights.safetensors")):
        status, out, _ = run("layers", target, "--norms", "l1", "--store", str(store.root))
        assert status == 0 and "input 1x28x28" in out, target


def test_a_configuration_of_another_version_is_stale_and_listed(copy):
    fields, bases = [("moment", int, 3)], (TrainConfig,)
    Older = dataclasses.make_dataclass("TrainConfig", fields, bases=bases, frozen=True)
    record = only(copy)
    old = copy.put(Older(), tables={"history": record.table("history")}, meta=record.meta).key
    assert old[:8] in run("runs", "list", "--store", str(copy.root))[1]
    assert "1 of 2" in run("runs", "list", "--where", "width=4", "--store", str(copy.root))[1]
    run("runs", "prune", "--stale", "--store", str(copy.root))
    assert copy.keys() == [record.key]


def test_a_run_that_was_only_initialized_has_no_network(tmp_path):
    out = run("train", "--store", str(tmp_path), "--set", *TINY, "epochs=0")[1]
    assert out.startswith("0 of 0 epochs, ok")
    status, _, err = run("layers", only(Store(tmp_path)).key, "--store", str(tmp_path))
    assert status == 2 and "kept no weights; it was only initialized" in err


@pytest.mark.parametrize("options", [{"in_channels": 3}, {"in_channels": 1, "num_classes": 4}])
def test_a_network_of_other_images_is_not_evaluated(tmp_path, options):
    path = tmp_path / "net.pt"
    torch.save(models.build("small_cnn", width=2, input_size=(8, 8), **options).state_dict(), path)
    status, out, err = run("evaluate", str(path), "--dataset", "digits")
    assert (status, out) == (2, "") and "digits has 1 and 10" in err


def test_a_reconstruction_is_trained_listed_and_measured_but_has_no_accuracy(tmp_path):
    where = ("--store", str(tmp_path))
    words = ["model=autoencoder", "objective=reconstruction", "dataset=noisy_digits"]
    status, out, _ = run("train", *where, "--set", *TINY, *words, "width=16")
    assert status == 0 and re.search(r"train_accuracy +loss +accuracy", out), out
    [key] = Store(tmp_path).keys()
    assert "noisy_digits" in run("runs", "list", *where)[1]
    assert run("runs", "prune", "--stale", *where)[1].startswith("removed 0 of")
    assert run("layers", key, *where, "--norms", "linf", "--lipschitz", "noisy_digits")[0] == 0
    status, _, err = run("evaluate", key, *where)
    assert status == 2 and "gives back images, so it has no accuracy" in err


def test_data_that_is_here_is_named_with_its_fingerprint(tmp_path):
    for name in ("digits", "noisy_digits"):
        assert data.load(name).fingerprint() in run("data", "get", name)[1]
    listed = run("data", "list", "--root", str(tmp_path))[1]
    assert all(name in listed for name in data.NAMES) and "170 MB" in listed
    (tmp_path / "cifar-10-batches-bin").mkdir()
    assert "170 MB" not in run("data", "list", "--root", str(tmp_path))[1]
    status, _, err = run("data", "get", "cifar10", "--root", str(tmp_path))
    assert status == 2 and "is incomplete: it has no data_batch_1.bin" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("trian", "; nearest: 'train'; see"),
        ("train --set epoch=3", "'epoch' is not known; nearest: 'epochs'"),
        ("train --set epochs", "no value; write it as field=value"),
        ("train --set epochs=many", "epochs is 'many'; it must be a whole number"),
        ("train --set model=resnet19", "nearest: 'resnet18'"),
        ("train --set subset=5000", "5000"),
        ("train --set device=gpu", "accepted: cpu, cuda"),
        ("train --device gpu", "argument --device: invalid choice: 'gpu'"),
        ("train --set epochs=0 --store {file}/runs", "{file}/runs: Not a directory"),
        ("evaluate 0 --epsilon -1", "'-1' is no number or fraction >= 0"),
        ("evaluate 0 --epsilon x/255", "'x/255' is no number or fraction"),
        ("evaluate 0 --attack pgb", "; nearest: 'pgd'; see"),
        ("evaluate 0 --targets 3", "--targets must be left out: --attack pgd has none"),
        ("evaluate 0 --attack fgsm --steps 3", "--steps must be left out: --attack fgsm has none"),
        ("evaluate 0 --steps 0", "'0' is not a whole number above 0"),
        ("evaluate {key} --images 9999", "digits has 297 test images"),
        ("evaluate {key} --mean 0.5", "--mean must be left out"),
        ("evaluate {file}", "is refused: torch.load(weights_only=True)"),
        ("evaluate nothing", "'nothing' is no file and begins no key"),
        ("layers resnet19", "no classifier of torchvision and begins no key"),
        ("layers resnet19", "; nearest: 'resnet18'"),
        ("layers resnet18", "resnet18 does not say which images it is for: give --input C,H,W"),
        ("layers 0 --input 3x8x8", "argument --input: '3x8x8' is not a whole number above 0"),
        ("layers {key} --input 3,8,8", "wants 1 input channels"),
        ("layers {key} --rtol 1", "rtol 1.0 is outside 1e-12 to 0.1"),
        ("layers {key} --jobs 0", "'0' is not a whole number above 0"),
        ("layers {key} --lipschitz digit", "nearest 'digits'"),
        ("layers {key} --norms l3", "the nearest is 'l1'"),
        ("layers {key} --csv {file}/norms.csv", "there is no folder"),
        ("runs list --where modle=mlp", "'modle=mlp' is not FIELD=VALUE; nearest field: 'model'"),
        ("runs list --where model", "'model' is not FIELD=VALUE"),
        ("runs purge", "invalid choice: 'purge' (choose from"),
        ("runs purge", "; nearest: 'prune'; see"),
        ("data gte", "; nearest: 'get'; see"),
        ("data get cifr10", "nearest 'cifar10'"),
    ],
)
def test_bad_input_costs_one_sentence(store, tmp_path, words, message):
    names = {"key": only(store).key, "file": tmp_path / "a_file"}
    names["file"].write_text("not a checkpoint")
    given = words.format(**names).split()
    if given[0] not in ("data", "trian") and given[-1] != "purge" and "--store" not in given:
        given += ["--store", str(store.root)]
    status, out, err = run(*given)
    assert (status, out) == (2, ""), err
    assert message.format(**names) in err
    assert err.startswith("normkit: ") and err.count("\n") == 1, err


def test_a_key_that_is_not_unique_is_refused_with_the_candidates(copy):
    key = only(copy).key
    twin = f"{key[:-1]}{'1' if key[-1] == '0' else '0'}"
    shutil.copytree(copy.root / key, copy.root / twin)
    status, _, err = run("evaluate", key[:6], "--store", str(copy.root))
    assert status == 2 and key in err and twin in err
    assert run("evaluate", key, "--attack", "none", "--store", str(copy.root))[0] == 0


def test_a_damaged_record_is_trained_again_and_said(copy):
    (only(copy).folder / "history.parquet").write_bytes(b"0")
    status, _, err = run("train", "--store", str(copy.root), "--set", *SETTINGS)
    assert status == 0 and "set aside" in err.splitlines()[0] and "epoch 1 " in err
    assert "ok" == only(copy).status


def test_help_needs_no_heavy_import():
    code = "import sys; from normkit.__main__ import main\ntry: main(sys.argv[1:])\n"
    code += "finally: assert not {'torch', 'pandas', 'scipy'} & set(sys.modules)"
    for words in ([], ["train"], ["evaluate"], ["layers"], ["runs", "list"], ["data", "get"]):
        done = subprocess.run([sys.executable, "-c", code, *words, "--help"], capture_output=True)
        assert done.returncode == 0 and done.stderr == b"", words
        assert b"example" in done.stdout or not words, words


class _Interrupting(io.StringIO):
    """Presses Ctrl-C when the second epoch is reported."""

    def write(self, text: str) -> int:
        if text.startswith("epoch 2 "):
            signal.raise_signal(signal.SIGINT)
        return super().write(text)


@pytest.fixture
def listening():
    """Ctrl-C interrupts, also where a shell has started the tests in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_ends_quietly_and_stores_nothing(tmp_path, listening):
    words = ("train", "--store", str(tmp_path), "--set", *TINY, "epochs=5")
    with contextlib.redirect_stderr(_Interrupting()) as err:
        assert main(words) == 130
    first, last = err.getvalue().splitlines()
    assert first.startswith("epoch 1 ")
    assert last == "normkit: stopped; finished runs are kept"
    assert Store(tmp_path).keys() == []


@pytest.mark.skipif(SHARED is None, reason="NORMKIT_SHARED names no folder of published weights")
def test_published_weights_have_their_published_spectral_norms(tmp_path):
    path = Path(SHARED) / "weights" / "cifar10_small_cnn_certified.safetensors"
    table = tmp_path / "norms.csv"
    words = ("--input", "3,32,32", "--norms", "spectral", "--csv", str(table))
    assert run("layers", str(path), *words)[0] == 0
    assert pd.read_csv(table).value.round(2).tolist() == [2.23, 2.26, 1.54, 2.17]
