"""A record is found by what it depends on, whole, and exactly as it was written."""

import dataclasses
import json
import multiprocessing
import os
import shutil
import stat

import pandas as pd
import pytest
import torch

from normkit import records

META = {"status": "ok", "seconds": 1.5}


@dataclasses.dataclass(frozen=True)
class Config:
    seed: int = 0
    rate: float = 0.1
    code: str = "a"

    def dependencies(self) -> dict[str, str]:
        return {"code x": self.code}


@dataclasses.dataclass(frozen=True)
class Plain:
    """The same fields, whose dependencies can be changed from outside."""

    seed: int = 0

    def dependencies(self) -> dict[str, str]:
        return {"code x": os.environ.get("NORMKIT_TEST_CODE", "a")}


def _put(store, config, rows=5):
    table = pd.DataFrame({"epoch": range(rows), "value": [i / 3 for i in range(rows)]})
    return store.put(
        config, tables={"history": table}, weights={"w": torch.arange(6.0)}, meta=META
    )


def test_what_is_read_is_what_was_written(tmp_path):
    store = records.Store(tmp_path)
    _put(store, Config())
    record = store.get(Config())
    assert record.status == "ok" and record.config == dataclasses.asdict(Config())
    assert record.table("history").value.tolist() == [i / 3 for i in range(5)]
    assert torch.equal(record.weights()["w"], torch.arange(6.0))
    assert set(record.meta["versions"]) >= {"python", "torch", "normkit"}


def test_another_configuration_is_another_record(tmp_path):
    store = records.Store(tmp_path)
    _put(store, Config())
    for other in (Config(seed=1), Config(rate=0.2), Config(code="b")):
        assert store.get(other) is None, other


def test_changed_code_is_never_answered_with_an_old_result_and_says_what_changed(
    tmp_path, monkeypatch
):
    store = records.Store(tmp_path)
    assert store.why_missing(Plain()) == "not run yet"
    _put(store, Plain())
    monkeypatch.setenv("NORMKIT_TEST_CODE", "b")
    assert store.get(Plain()) is None
    assert store.why_missing(Plain()) == "code x changed"


@pytest.mark.parametrize("name", ["history.parquet", "weights.safetensors", "record.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "empty"])
def test_a_damaged_record_is_set_aside_and_never_read(tmp_path, name, damage):
    store = records.Store(tmp_path)
    path = _put(store, Config()).folder / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    changed = {
        "flip": bytes(content),
        "truncate": bytes(content[: len(content) // 2]),
        "empty": b"",
    }
    path.unlink() if damage == "remove" else path.write_bytes(changed[damage])
    assert (store.verify().status != "ok").all()
    with pytest.warns(UserWarning, match="set aside"):
        assert store.get(Config()) is None
    assert store.keys() == []
    _put(store, Config())
    assert store.get(Config()) is not None


def test_every_flipped_bit_of_the_manifest_is_noticed(tmp_path):
    store = records.Store(tmp_path)
    key = _put(store, Config()).key
    path = tmp_path / key / "record.json"
    content = path.read_bytes()
    for position in range(0, len(content), 7):
        changed = bytearray(content)
        changed[position] ^= 1 << (position % 8)
        path.write_bytes(bytes(changed))
        try:
            record = store.open(key)
        except records.StoreError:
            continue
        assert json.loads(bytes(changed)) == json.loads(content), (position, record)


def _write_forever(root, ready):
    store = records.Store(root)
    ready.set()
    seed = 0
    while True:
        _put(store, Config(seed=seed), rows=2000)
        seed += 1


def test_a_killed_writer_leaves_only_whole_records(tmp_path):
    context = multiprocessing.get_context("spawn")
    for wait in (0.02, 0.11, 0.23):
        ready = context.Event()
        writer = context.Process(target=_write_forever, args=(str(tmp_path), ready))
        writer.start()
        assert ready.wait(60)
        writer.join(wait)
        writer.kill()
        writer.join()
    store = records.Store(tmp_path)
    assert len(store.keys()) > 0
    assert (store.verify().status == "ok").all(), store.verify()
    store.prune()
    assert list((tmp_path / ".unfinished").iterdir()) == []
    assert (store.verify().status == "ok").all()


def test_the_second_of_two_writers_finds_the_first_ones_record(tmp_path):
    store = records.Store(tmp_path)
    first, second = _put(store, Config()), _put(store, Config())
    assert first.key == second.key and store.keys() == [first.key]
    assert list((tmp_path / ".unfinished").iterdir()) == []


def test_query_finds_rows_by_any_field(tmp_path):
    store = records.Store(tmp_path)
    for seed in range(3):
        _put(store, Config(seed=seed))
    assert len(store.table()) == 3
    assert store.table({"seed": 2}).key.tolist() == [store.key(Config(seed=2))]
    with pytest.raises(KeyError, match="sed"):
        store.table({"sed": 2})


def test_prune_keeps_what_it_is_told_to_keep(tmp_path):
    store = records.Store(tmp_path)
    for seed in range(3):
        _put(store, Config(seed=seed))
    store.prune(keep=lambda record: record.config["seed"] == 1)
    assert store.keys() == [store.key(Config(seed=1))]


def test_an_unknown_table_names_those_there_are(tmp_path):
    record = _put(records.Store(tmp_path), Config())
    with pytest.raises(KeyError, match="history"):
        record.table("histroy")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_store_is_one_sentence(tmp_path):
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(records.StoreError, match="cannot be written"):
        _put(records.Store(tmp_path / "store"), Config())


def test_a_store_where_a_file_stands_is_one_sentence(tmp_path):
    (tmp_path / "store").write_text("a file")
    with pytest.raises(records.StoreError, match="cannot be written"):
        _put(records.Store(tmp_path / "store"), Config())


def test_a_full_disk_leaves_no_half_record(tmp_path):
    if not shutil.which("mount") or os.geteuid() != 0:
        pytest.skip("needs root to mount a small file system")
    small = tmp_path / "small"
    small.mkdir()
    if os.system(f"mount -t tmpfs -o size=64k tmpfs '{small}' 2>/dev/null") != 0:
        pytest.skip("mounting is not allowed here")
    try:
        store = records.Store(small)
        with pytest.raises(records.StoreError, match="no room on the disk"):
            for seed in range(100):
                _put(store, Config(seed=seed), rows=2000)
        assert len(store.keys()) > 0
        assert (store.verify().status == "ok").all()
    finally:
        os.system(f"umount '{small}'")


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of its own, whose hashes are forgotten afterwards."""
    folder = tmp_path / "normkit"
    folder.mkdir()
    monkeypatch.setattr(records.code, "_root", lambda: folder)
    yield folder
    _forget_hashes()


def _forget_hashes():
    records.code_hashes.cache_clear()
    records.code._module.cache_clear()


def test_comments_and_docstrings_change_no_hash_and_constants_do(package):
    (package / "__init__.py").write_text("")

    def hash_of(source: str) -> str:
        (package / "part.py").write_text(source)
        os.utime(package / "part.py", ns=(0, hash_of.calls))
        hash_of.calls += 10**9
        _forget_hashes()
        return records.code_hashes("normkit.part")["normkit.part"]

    hash_of.calls = 1
    base = hash_of('"""One."""\n\nRATE = 0.1\n')
    assert hash_of('"""Two."""\n\n# why\nRATE  =  0.1\n') == base
    assert hash_of('"""One."""\n\nRATE = 0.2\n') != base


def test_a_record_is_replaced_only_when_that_is_asked_for(tmp_path):
    store = records.Store(tmp_path)
    first = _put(store, Config(), rows=5)
    _put(store, Config(), rows=7)
    assert len(store.get(Config()).table("history")) == 5
    table = pd.DataFrame({"epoch": range(7)})
    store.put(Config(), tables={"history": table}, meta=META, replace=True)
    assert len(store.get(Config()).table("history")) == 7
    assert store.keys() == [first.key] and list((tmp_path / ".unfinished").iterdir()) == []
