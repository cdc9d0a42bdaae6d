"""Whatever a file says, the answer is the right one or an error that names the file.

NORMKIT_MUTATIONS=10000 reads that many lies instead of a few hundred; a case is its seed, and
`python tests/lying_worker.py FOLDER SEED SEED+1` repeats it.
"""

import collections
import dataclasses
import json
import os
import random
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from lying import Config, Stored
from lying_worker import MEMORY, SECONDS
from mutations import bomb
from safetensors.torch import save_file

from normkit import models, networks, records, training
from normkit.records import StoreError

SOUND = {"refused", "right", "as it says"}
DEFAULT = 340


def outcomes(folder, wanted):
    """What became of each seed; a process that dies or hangs is one outcome, the next goes on."""
    told, log = [], folder / "log"
    while len(told) < wanted:
        place = folder / f"from-{len(told)}"
        place.mkdir()
        words = [sys.executable, str(Path(__file__).with_name("lying_worker.py")), str(place)]
        with log.open("w") as file:
            limits = {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
            words += [str(len(told)), str(wanted)]
            piped = {"stdout": file, "stderr": subprocess.PIPE, "text": True}
            done = subprocess.run(words, env=os.environ | limits, **piped)
        lines = log.read_text().splitlines()
        assert lines or done.returncode == 0, done.stderr[-2000:]
        told += [json.loads(line) for line in lines]
        if done.returncode:
            said = done.stderr[-1500:]
            told.append({"seed": len(told), "kind": "?", "outcome": "crash or hang", "said": said})
    return told


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits memory as Linux does")
def test_a_file_that_lies_is_read_rightly_or_refused_by_name(tmp_path):
    wanted = int(os.environ.get("NORMKIT_MUTATIONS", DEFAULT))
    told = outcomes(tmp_path, wanted)
    counts = collections.Counter((case["kind"], case["outcome"]) for case in told)
    print(f"{len(told)} lies, at most {MEMORY:,} bytes and {SECONDS} s each")
    for (kind, outcome), count in sorted(counts.items()):
        print(f"{kind}: {count} {outcome}")
    bad = [case for case in told if case["outcome"] not in SOUND]
    assert not bad, "\n".join(map(str, bad[:20]))
    assert len(told) == wanted


def checkpoint(path, change):
    """A state dict of a small net after a change, as torch.save writes it."""
    net = models.build("small_cnn", width=4, in_channels=1, input_size=(8, 8))
    state_dict = net.state_dict()
    change(state_dict)
    torch.save(state_dict, path)
    return path


def _wide(state_dict):
    state_dict["layers.0.convolution.weight"] = torch.zeros(1).expand(10**6, 10**6, 4, 4)


def _meta(state_dict):
    state_dict["head.weight"] = torch.zeros(10**6, 10**6, device="meta")


def _sparse(state_dict):
    state_dict["head.weight"] = torch.sparse_coo_tensor(size=(10**6, 10**6))


def _empty(state_dict):
    state_dict["layers.0.convolution.weight"] = torch.zeros(2**40, 0, 4, 4)


def _flat(state_dict):
    state_dict["head.weight"] = torch.zeros(())


def _unnamed(state_dict):
    rest = dict(zip(("0", "2", "5", "7"), list(state_dict.values()), strict=False))
    state_dict.clear()
    state_dict.update(rest)


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize("change", [_wide, _meta, _sparse, _empty, _flat, _unnamed])
def test_a_checkpoint_whose_tensors_are_not_what_they_say_is_refused(tmp_path, change):
    path = checkpoint(tmp_path / "net.pt", change)
    assert path.stat().st_size < 100_000
    with pytest.raises(ValueError, match="net.pt"):
        networks.load_file(path, size=(1, 8, 8))


def test_two_names_of_one_weight_are_refused():
    twice = models.build("resnet8", width=4).state_dict()
    published = {"conv1.weight": twice["stem.convolution.weight"]}
    with pytest.raises(ValueError, match="two names mean the same"):
        models.fit_state_dict(twice | published, input_size=(8, 8))


def test_a_flipped_bit_in_the_weights_of_an_archive_is_noticed(tmp_path):
    path = checkpoint(tmp_path / "net.pt", lambda state_dict: None)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda member: member.file_size)
    content[largest.header_offset + largest.file_size] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match="net.pt is damaged: .* differs from its checksum"):
        networks.load_file(path, size=(1, 8, 8))


@pytest.mark.parametrize("seed", range(5))
def test_an_archive_that_unpacks_to_gigabytes_is_refused_unopened(tmp_path, seed):
    path = tmp_path / "net.pt"
    path.write_bytes(bomb(b"", random.Random(seed)))
    with pytest.raises(ValueError, match="net.pt is refused"):
        networks.load_file(path, size=(1, 8, 8))
    assert list(tmp_path.iterdir()) == [path]


def sealed(folder, change):
    """A record whose manifest lies, under a checksum that agrees with it."""
    Stored().make(folder)
    [path] = folder.glob("*-*/record.json")
    manifest = json.loads(path.read_bytes())
    del manifest["checksum"]
    change(manifest)
    manifest["checksum"] = records.digest(manifest)
    path.write_text(json.dumps(manifest))
    return records.Store(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m["files"].update({"../../outside": records.digest(b"secret")}),
        lambda m: m["files"].update({"a\0b": "0" * 64}),
        lambda m: m.update(files=[]),
        lambda m: m.pop("depends"),
        lambda m: m["meta"].pop("seconds"),
        lambda m: m.update(config=None),
    ],
)
def test_a_manifest_that_lies_under_a_sound_checksum_is_refused(tmp_path, change):
    (tmp_path / "outside").write_bytes(b"secret")
    store = sealed(tmp_path / "store", change)
    key = store.key(Config())
    with pytest.raises(StoreError, match=f"record {key}"):
        store.open(key)
    assert list(store.table()) == ["key", "status", "seconds"] and len(store.verify()) == 1
    assert isinstance(store.why_missing(Config(seed=1)), str)


def test_a_manifest_that_is_nested_without_end_is_refused(tmp_path):
    Stored().make(tmp_path)
    [path] = tmp_path.glob("*-*/record.json")
    path.write_text("[" * 100_000)
    with pytest.warns(UserWarning, match="set aside"):
        assert records.Store(tmp_path).get(Config()) is None


def test_a_note_of_a_store_that_asks_for_a_larger_net_than_its_weights_is_refused(tmp_path):
    config = training.TrainConfig(model="small_cnn", width=4)
    form = {"input_size": [1, 8, 8], "num_classes": 10, "mean": None, "std": None}
    net = models.build("small_cnn", width=4, in_channels=1, input_size=(8, 8))
    for lie in ({"width": 10**6}, {"num_classes": 10**9}, {"input_size": [1, 50_000, 50_000]}):
        lied = {"config": dataclasses.asdict(config), "meta": {"form": dict(form)}}
        (lied["config"] if "width" in lie else lied["meta"]["form"]).update(lie)
        note = {name: json.dumps(part) for name, part in lied.items()}
        save_file(net.state_dict(), tmp_path / "net.safetensors", metadata=note)
        with pytest.raises(ValueError, match="net.safetensors.* do not fit small_cnn"):
            networks.load_file(tmp_path / "net.safetensors")
