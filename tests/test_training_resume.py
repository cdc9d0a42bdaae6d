"""A run that was stopped goes on to the same bits as one that was not."""

import dataclasses
import signal
import subprocess
import sys

import pytest
import torch

from normkit import training
from normkit.records import Store
from normkit.training import Adversary, GanConfig, Penalty, Projection, TrainConfig
from normkit.training.resume import Checkpoint

BASE = TrainConfig(subset=64, width=4, epochs=3, batch_size=32)
PLAIN = {"norms": (), "final_norms": ()}
RUNS = {
    "batch": BASE,
    "adam": dataclasses.replace(BASE, optimizer="adam", label_noise=0.2, warmup_epochs=1.0),
    "group": dataclasses.replace(BASE, normalization="group", groups=2, **PLAIN),
    "filter_response": dataclasses.replace(BASE, normalization="filter_response", **PLAIN),
    "variance": dataclasses.replace(BASE, normalization="variance", **PLAIN),
    "evonorm_b0": dataclasses.replace(BASE, normalization="evonorm_b0", **PLAIN),
    "spectral_norm": dataclasses.replace(BASE, convolution="spectral_norm", **PLAIN),
    "oni": dataclasses.replace(BASE, convolution="oni", **PLAIN),
    "own": dataclasses.replace(BASE, convolution="own", **PLAIN),
    "weight_norm": dataclasses.replace(BASE, convolution="weight_norm", **PLAIN),
    "conv_norm": dataclasses.replace(
        BASE, convolution="conv_norm", normalization="none", **PLAIN
    ),
    "pgd": dataclasses.replace(BASE, adversary=Adversary("pgd", steps=2), **PLAIN),
    "free": dataclasses.replace(BASE, adversary=Adversary("free", repeats=2), **PLAIN),
    "norm_decay l1": dataclasses.replace(BASE, penalty=Penalty("norm_decay"), **PLAIN),
    "norm_decay spectral": dataclasses.replace(
        BASE, penalty=Penalty("norm_decay", norm="spectral"), **PLAIN
    ),
    "ocnn": dataclasses.replace(BASE, penalty=Penalty("ocnn"), **PLAIN),
    "clipping": dataclasses.replace(
        BASE, projection=Projection("singular_values", every=3, batch_norm=1.0), **PLAIN
    ),
    "probes": dataclasses.replace(
        BASE, probes=("stable_rank", "gradient_norm"), probe_every=2, probe_on="training", **PLAIN
    ),
    "path_sgd": TrainConfig(
        model="mlp", width=16, subset=64, epochs=3, batch_size=32, normalization="none",
        penalty=Penalty("path_sgd"), momentum=0.0, weight_decay=1e-4, lr=0.01, **PLAIN,
    ),
    "enorm": TrainConfig(
        model="mlp", width=16, subset=64, epochs=3, batch_size=32, normalization="none",
        projection=Projection("enorm", every=2), lr=0.01, **PLAIN,
    ),
    "bfloat16": dataclasses.replace(BASE, precision="bfloat16", **PLAIN),
}  # fmt: skip
SMALL_GAN = GanConfig(steps=9, evaluate_every=3, score_images=50, width=4, classifier_epochs=1)


class _Stopped(Exception):
    pass


@pytest.fixture
def at_every_epoch(monkeypatch):
    monkeypatch.setattr(Checkpoint.__init__, "__defaults__", (0.0,))


def _stop_after(epochs):
    def on_epoch(row):
        if row["epoch"] > epochs:
            raise _Stopped

    return on_epoch


def _same(one, other):
    assert one.status == other.status
    weights = zip(one.model.state_dict().items(), other.model.state_dict().values(), strict=True)
    for (name, left), right in weights:
        assert torch.equal(left, right), name
    for name, table in one.tables.items():
        drop = [column for column in ("seconds",) if column in table]
        assert table.drop(columns=drop).equals(other.tables[name].drop(columns=drop)), name


@pytest.mark.parametrize("name", RUNS)
def test_a_stopped_run_goes_on_to_the_same_bits(name, tmp_path, at_every_epoch):
    config, path = RUNS[name], tmp_path / "state"
    for epochs in (1, 2):  # stopped at the end of the second epoch, then of the third
        with pytest.raises(_Stopped):
            training.train(config, checkpoint=path, on_epoch=_stop_after(epochs))
        assert path.is_file()
    seen = []
    resumed = training.train(config, checkpoint=path, on_epoch=lambda row: seen.append(row))
    assert [row["epoch"] for row in seen] == [3]
    _same(resumed, training.train(config))


def test_a_stopped_gan_goes_on_to_the_same_bits(tmp_path, at_every_epoch, monkeypatch):
    path, looks = tmp_path / "state", []
    trainer = training.gan._Trainer
    look = trainer.look

    def stop(self, step, losses):
        looks.append(step)
        if step == 6 and looks.count(6) == 1:
            raise _Stopped
        look(self, step, losses)

    monkeypatch.setattr(trainer, "look", stop)
    with pytest.raises(_Stopped):
        training.train_gan(SMALL_GAN, checkpoint=path)
    resumed = training.train_gan(SMALL_GAN, checkpoint=path)
    assert looks == [0, 3, 6, 6, 9]
    _same(resumed, training.train_gan(SMALL_GAN))


def test_a_damaged_checkpoint_is_told_and_the_run_starts_anew(tmp_path, at_every_epoch):
    config, path = RUNS["batch"], tmp_path / "state"
    with pytest.raises(_Stopped):
        training.train(config, checkpoint=path, on_epoch=_stop_after(1))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.warns(UserWarning, match="state is damaged; the run starts anew"):
        resumed = training.train(config, checkpoint=path)
    _same(resumed, training.train(config))


def test_a_run_of_seconds_leaves_no_checkpoint(tmp_path):
    training.train(RUNS["batch"], checkpoint=tmp_path / "state")
    assert not list(tmp_path.iterdir())


def test_a_method_of_your_own_has_no_checkpoint(tmp_path):
    with pytest.raises(ValueError, match="checkpoint is given, and a penalty"):
        own = lambda model, optimizer: lambda: None  # noqa: E731
        training.train(RUNS["batch"], penalty=own, checkpoint=tmp_path / "state")


SCRIPT = """
import sys
from normkit import sweep
from normkit.records import Store
from normkit.training import TrainConfig, resume
resume.Checkpoint.__init__.__defaults__ = (0.0,)
if __name__ == "__main__":
    config = TrainConfig(epochs=40, subset=512, width=4, norms=(), final_norms=())
    sweep.run([config], store=Store(sys.argv[1]), progress=False)
"""


def test_a_sweep_goes_on_with_what_a_killed_one_left_and_cleans_up(tmp_path):
    script, root = tmp_path / "script.py", tmp_path / "store"
    script.write_text(SCRIPT)
    config = TrainConfig(epochs=40, subset=512, width=4, norms=(), final_norms=())
    store, unfinished, kept = Store(root), root / ".unfinished", []
    command = [sys.executable, str(script), str(root)]
    with subprocess.Popen(command) as process:
        while not kept and process.poll() is None:
            kept = list(unfinished.glob("run-*.checkpoint"))
        process.send_signal(signal.SIGKILL)
    started = Checkpoint(kept[0]).load()["epoch"]
    assert 1 <= started < 40 and not store.keys()
    subprocess.run(command, check=True)
    record = store.open(store.keys()[0])
    whole = training.train(config)
    assert len(record.table("history")) == 40
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, record.weights()[name]), name
    assert not list(unfinished.iterdir())
