"""A cluster of workers that share no disk makes the same records, whatever happens to it."""

import dataclasses
import functools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import normkit
from normkit import sweep
from normkit.records import Store, StoreError
from normkit.records.adopted import adopt
from normkit.sweep import remote
from normkit.training import TrainConfig

TINY = TrainConfig(epochs=1, subset=32, width=4, norms=(), final_norms=())
FOUR = [dataclasses.replace(TINY, seed=seed) for seed in range(4)]
LONG = [dataclasses.replace(TINY, epochs=40, subset=256, seed=seed) for seed in range(3)]

needs_dask = pytest.mark.usefixtures("distributed")


@pytest.fixture(scope="module")
def distributed():
    return pytest.importorskip("distributed", reason="needs the extra `cluster`")


class Machines:
    """Processes of a scheduler and of workers, which end with the block, whatever they do."""

    def __init__(self, folder):
        self.folder, self.processes, self.drains = folder, [], []

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for process in self.processes:
            self.kill(process)
        for drain in self.drains:
            drain.join()
        for process in self.processes:
            process.stderr.close()

    def start(self, *words, path=Path(__file__).parent):
        environment = os.environ | {"PYTHONPATH": str(path), "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            [sys.executable, "-m", "dask", *words, "--no-dashboard"],
            cwd=self.folder,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.processes.append(process)
        return process

    def scheduler(self, port=0):
        """A scheduler's process and its address, as soon as it answers."""
        process = self.start("scheduler", "--host", "127.0.0.1", "--port", str(port))
        told = (re.search(r"Scheduler at: *(tcp://\S+)", line) for line in process.stderr)
        address = next(found[1] for found in told if found)
        self.drain(process)
        return process, address

    def workers(self, address, count=1, path=Path(__file__).parent):
        """They come when they come: a sweep waits for them."""
        words = ("worker", address, "--nworkers", str(count), "--nthreads", "1")
        process = self.start(*words, "--local-directory", str(self.folder), path=path)
        self.drain(process)

    def drain(self, process):
        self.drains.append(threading.Thread(target=process.stderr.read, daemon=True))
        self.drains[-1].start()

    def kill(self, process):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="module")
def cluster(distributed, tmp_path_factory):
    """The address of a cluster of four workers, with nannies that start a dead one again."""
    with Machines(tmp_path_factory.mktemp("cluster")) as machines:
        _, address = machines.scheduler()
        machines.workers(address, 4)
        yield address


@pytest.fixture
def machines(distributed, tmp_path):
    with Machines(tmp_path) as machines:
        yield machines


def _weights(records):
    return [(r.key, {k: t.tolist() for k, t in r.weights().items()}) for r in records]


def _tables(records):
    names = ("history", "norms", "probes")
    found = [record.table(name) for record in records for name in names]
    return [table.drop(columns="seconds", errors="ignore") for table in found]


def _sleeps(config, root):
    start = time.monotonic()
    time.sleep(1)
    meta = {"status": "ok", "seconds": 1.0, "start": start, "end": time.monotonic()}
    return Store(root).put(config, tables={}, meta=meta).key


def _dies_once(marker, config, root):
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return sweep.make(config, root)


def _dies(config, root):
    os.kill(os.getpid(), signal.SIGKILL)


@needs_dask
def test_a_cluster_gives_the_same_bits_as_this_machine(cluster, tmp_path, monkeypatch):
    here = sweep.run(FOUR, store=Store(tmp_path / "here"), progress=False)
    monkeypatch.setenv("NORMKIT_SCHEDULER", cluster)
    store = Store(tmp_path / "there")
    there = sweep.run(FOUR, store=store, progress=False)
    assert _weights(there) == _weights(here)
    assert all(a.equals(b) for a, b in zip(_tables(there), _tables(here), strict=True))
    assert (store.verify().status == "ok").all() and not list((store.root / ".unfinished").iterdir())
    impossible = dataclasses.replace(TINY, subset=10**6)
    with pytest.raises(sweep.SweepError, match="1 of 2 runs failed.*subset"):
        sweep.run([impossible, *FOUR, LONG[0]], store=store, progress=False)
    assert store.get(LONG[0]) is not None


@needs_dask
def test_four_workers_take_four_runs_at_a_time(cluster, tmp_path):
    store = Store(tmp_path)
    configs = [dataclasses.replace(TINY, seed=seed) for seed in range(16)]
    with sweep.cluster(cluster) as executor:
        list(executor.map(_sleeps, configs[:4], [str(tmp_path / "warm")] * 4))
        made = list(executor.map(_sleeps, configs[4:], [str(tmp_path)] * 12))
    metas = [store.open(key).meta for key in made]
    busy = [sum(m["start"] <= meta["start"] < m["end"] for m in metas) for meta in metas]
    assert max(busy) == 4


@needs_dask
def test_a_run_whose_worker_is_killed_is_made_by_another(cluster, tmp_path):
    store, call = Store(tmp_path / "store"), functools.partial(_dies_once, tmp_path / "died")
    with sweep.cluster(cluster) as executor:
        made = [executor.submit(call, config, str(store.root)) for config in FOUR]
        doomed = executor.submit(_dies, LONG[0], str(store.root))
        assert [future.result() for future in made] == [store.key(config) for config in FOUR]
        assert isinstance(doomed.exception(), sweep.WorkerDied)
    assert (tmp_path / "died").exists() and (store.verify().status == "ok").all()


@needs_dask
def test_a_worker_of_other_code_is_refused_by_name(distributed, machines, tmp_path, monkeypatch, capsys):
    other = tmp_path / "other" / "normkit"
    shutil.copytree(Path(normkit.__file__).parent, other, ignore=shutil.ignore_patterns("*.pyc"))
    with (other / "training" / "parts.py").open("a") as file:
        file.write("\nCHANGED = 1\n")
    _, address = machines.scheduler()
    machines.workers(address, path=other.parent)
    monkeypatch.setenv("NORMKIT_SCHEDULER", address)
    told = rf"worker tcp://\S+ has normkit {normkit.__version__}, this is {normkit.__version__}; "
    told += "normkit.training.parts differs"
    with pytest.raises(sweep.SweepError, match=f"no worker of {address} can be used: {told}"):
        sweep.run(FOUR, store=Store(tmp_path / "store"), progress=False)
    capsys.readouterr()
    machines.workers(address)
    with distributed.Client(address, set_as_default=False) as client:
        client.wait_for_workers(2)
    sweep.run(FOUR, store=Store(tmp_path / "store"), progress=False)
    assert re.search(f"{told}; it is not used", capsys.readouterr().err)


@needs_dask
def test_a_scheduler_that_is_restarted_is_named_and_the_next_sweep_goes_on(
    machines, tmp_path, monkeypatch
):
    process, address = machines.scheduler()
    machines.workers(address)
    monkeypatch.setenv("NORMKIT_SCHEDULER", address)
    store = Store(tmp_path / "store")
    with ThreadPoolExecutor(1) as thread:
        sweeping = thread.submit(sweep.run, LONG, store=store, progress=False)
        while not store.keys() and not sweeping.done():
            time.sleep(0.05)
        machines.kill(process)
        _, again = machines.scheduler(address.rpartition(":")[2])
        error = sweeping.exception(timeout=60)
    assert isinstance(error, sweep.SweepError), error
    assert f"the scheduler {address} went away or was restarted" in str(error)
    assert again == address
    kept = {key: (store.root / key).stat().st_mtime_ns for key in store.keys()}
    machines.workers(address)
    records = sweep.run(LONG, store=store, progress=False)
    assert 0 < len(kept) < len(records)
    assert all((store.root / key).stat().st_mtime_ns == time for key, time in kept.items())


@needs_dask
def test_a_scheduler_that_does_not_answer_is_one_sentence_before_any_run(tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "PATIENCE", 0.5)
    with socket.socket() as held:  # bound, but nobody listens
        held.bind(("127.0.0.1", 0))
        monkeypatch.setenv("NORMKIT_SCHEDULER", f"tcp://127.0.0.1:{held.getsockname()[1]}")
        with pytest.raises(sweep.ClusterError, match=r"no Dask scheduler answers at tcp://\S+"):
            sweep.run(FOUR, store=Store(tmp_path / "store"), progress=False)
    assert not (tmp_path / "store").exists()


def test_without_the_extra_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(sweep.ClusterError, match=r"pip install -e '\.\[cluster\]'"):
        with sweep.cluster("tcp://127.0.0.1:8786"):
            pass


@pytest.mark.parametrize("address", ["", "host", "host:8786", "tcp://host", "tcp://a b:1"])
def test_an_address_that_is_none_is_refused(address):
    with pytest.raises(ValueError, match="tcp://HOST:8786"), sweep.cluster(address):
        pass


def test_what_comes_back_is_checked_before_a_reader_sees_it(tmp_path):
    record = sweep.run(FOUR[:1], store=Store(tmp_path / "one"), progress=False)[0]
    files = {path.name: path.read_bytes() for path in record.folder.iterdir()}
    store = Store(tmp_path / "two")
    bad = {
        "file": (record.key, files | {"history.parquet": b"?"}, "history.parquet differs"),
        "manifest": (record.key, files | {"record.json": b"{}"}, "cannot be read"),
        "missing": (record.key, {"record.json": files["record.json"]}, "is missing"),
        "key": (f"{'0' * 20}-{'0' * 12}", files, "differs from its checksum"),
        "name": (record.key, files | {"../x": b""}, "no file of a record"),
    }
    for case, (key, content, told) in bad.items():
        with pytest.raises(StoreError, match=told):
            adopt(store, key, content)
        assert not store.keys() and not list(store.root.glob(".unfinished/*")), case
    for _ in range(2):
        assert adopt(store, record.key, files).config == record.config
