"""Readers of data, runs and weights, and what they may answer when the files lie."""

import contextlib
import dataclasses
import io
import json
import struct
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import test_data_files as official
import torch
from safetensors.torch import save_file

from normkit import models, networks, training
from normkit.__main__ import main
from normkit.data import files, sources
from normkit.records import Store, StoreError, digest
from normkit.training.resume import Checkpoint

__all__ = ["Config", "DataSet", "Kind", "State", "Stored", "Weights"]

SHAPE = (1, 8, 8)
UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, RecursionError)


class Kind:
    """A kind of file: `make` writes sound ones, `read` reads them.

    `exact`: a checksum stands beside or in them, so that an answer must be the right one.
    `raises`: the documented errors.
    """

    exact = True
    raises: tuple[type[Exception], ...] = (ValueError, OSError)

    def make(self, root: Path) -> None:
        """Write sound files into an empty folder."""
        raise NotImplementedError

    def read(self, root: Path, rng) -> object:
        """What the files say, as text or numbers that can be compared."""
        raise NotImplementedError

    def seal(self, root: Path, rng) -> bool:
        """Make checksums agree with what the files say now; whether an answer is still exact."""
        return self.exact


class DataSet(Kind):
    """One official form of a data set."""

    def __init__(self, name, layout, packed=False):
        self.name, self.layout, self.packed = name, layout, packed

    def make(self, root):
        if self.name == "mnist":
            self.source = _idx(root)
        else:
            self.source = official.write(root, self.name, self.layout)
            self.source = official.pack(root, self.source) if self.packed else self.source
        self.expected = self.source

    def seal(self, root, rng):
        self.expected, [layout] = self.source, self.source.layouts
        if layout.decode is sources.decode_pickle or rng.random() < 0.5:
            return True  # no lie passes for a pickle that is official
        if self.packed and (root / layout.archive).is_file():
            found = official.digest((root / layout.archive).read_bytes(), "0" * 32)
            layout = replace(layout, archive_md5=found)
        for split in ("train", "test"):
            found = {name: _digest(root / layout.folder / name, old)
                     for name, old in getattr(layout, split).items()}  # fmt: skip
            layout = replace(layout, **{split: found})
        self.expected = replace(self.source, layouts=(layout,))
        return False

    def read(self, root, rng):
        splits = files.read(self.name, self.expected, root, download=False)
        return [digest(array.tobytes()) + str(array.shape) for split in splits for array in split]


def _digest(path, old):
    small = path.is_file() and path.stat().st_size < 1 << 24
    with contextlib.suppress(OSError):
        return official.digest(path.read_bytes(), old) if small else old
    return old


def _idx(root):
    source = sources.SOURCES["mnist"]
    [layout] = source.layouts
    (root / layout.folder).mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (5, 28, 28), dtype=np.uint8)
    for name in (*layout.train, *layout.test):
        images = "images" in name
        header = struct.pack(">4i", 2051, 5, 28, 28) if images else struct.pack(">2i", 2049, 5)
        content = header + (pixels.tobytes() if images else bytes(range(5)))
        (root / layout.folder / name).write_bytes(content)
    folder = root / layout.folder
    train, test = ({n: _digest(folder / n, old) for n, old in part.items()}
                   for part in (layout.train, layout.test))  # fmt: skip
    return replace(source, layouts=(replace(layout, train=train, test=test),))


@dataclasses.dataclass(frozen=True)
class Config:
    """What the records here are of."""

    seed: int = 0

    def dependencies(self):
        """Nothing that changes."""
        return {"code x": "a"}


class Stored(Kind):
    """A record of a store: a manifest, a table, weights."""

    raises = (StoreError, KeyError)

    def make(self, root):
        table = pd.DataFrame({"epoch": range(9), "value": [i / 3 for i in range(9)], "layer": "x"})
        Store(root).put(
            Config(),
            tables={"history": table},
            weights={"w": torch.arange(64.0).reshape(8, 8), "b": torch.ones(3)},
            meta={"status": "ok", "seconds": 1.5},
        )

    def seal(self, root, rng):
        if rng.random() < 0.5:
            return True
        for path in filter(Path.is_file, root.glob("*-*/record.json")):
            with contextlib.suppress(OSError, *UNREADABLE):
                manifest = json.loads(path.read_bytes())
                manifest.pop("checksum", None)
                for name in manifest["files"]:
                    if (path.parent / name).is_file():
                        found = (path.parent / name).read_bytes()
                        manifest["files"][name] = digest(found)
                manifest["checksum"] = digest(manifest)
                path.write_text(json.dumps(manifest))
        return False

    def read(self, root, rng):
        store = Store(root)
        key = store.key(Config())
        assert set(store.verify().columns) == {"key", "status"}
        assert len(store.table()) <= 1
        assert isinstance(store.why_missing(Config(seed=1)), str)
        record = store.open(key)
        table, weights = record.table("history"), record.weights()
        with warnings.catch_warnings(action="ignore"):
            store.get(Config())
        said = {name: digest(w.numpy().tobytes()) for name, w in weights.items()}
        return table.to_csv(), said, record.config, record.status


class Weights(Kind):
    """A checkpoint in a file, bare or with the configuration that a store notes."""

    exact = False

    def __init__(self, ending, noted=False, legacy=False):
        self.ending, self.noted, self.legacy = ending, noted, legacy

    def make(self, root):
        path = root / f"net{self.ending}"
        if self.noted:
            config = training.TrainConfig(epochs=1, subset=64, model="small_cnn", width=4)
            training.train(config).save(Store(root))
            next(root.glob("*/weights.safetensors")).rename(path)
            for other in sorted(root.glob("*-*/*")) + sorted(root.glob("*-*")):
                other.unlink() if other.is_file() else other.rmdir()
            return
        net = models.build("small_cnn", width=4, in_channels=1, input_size=SHAPE[1:])
        if self.ending == ".safetensors":
            save_file(net.state_dict(), path)
        else:
            torch.save(net.state_dict(), path, _use_new_zipfile_serialization=not self.legacy)

    def read(self, root, rng):
        path = root / f"net{self.ending}"
        if rng.random() < 0.2:
            return self._commands(path, rng)
        network = networks.load_file(path, size=None if self.noted else SHAPE)
        weights = network.model.state_dict().items()
        return [(name, digest(tensor.numpy().tobytes())) for name, tensor in weights]

    def _commands(self, path, rng):
        size = [] if self.noted else ["--input", "1,8,8"]
        words = rng.choice((
            ["layers", str(path), *size, "--norms", "frobenius,l1", "--jobs", "1"],
            ["evaluate", str(path), "--dataset", "digits", "--images", "4"],
        ))  # fmt: skip
        said, failed = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(failed):
            code = main(words)
        if code == 2:
            raise ValueError(failed.getvalue())
        assert code == 0, code
        return ""


class State(Kind):
    """The checkpoint that a training goes on from."""

    def make(self, root):
        Checkpoint(root / "run").save({"epoch": 3, "weights": torch.ones(40, 5), "rows": [1, "a"]})

    def read(self, root, rng):
        with warnings.catch_warnings(action="ignore"):
            found = Checkpoint(root / "run").load()
        if found is None:
            raise ValueError(f"{root / 'run'} is damaged")
        return str(found)
