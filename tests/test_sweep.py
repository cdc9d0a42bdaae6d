"""A sweep trains what is missing, keeps what is finished, and gives back what was asked."""

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from pool_workers import workers

from normkit import data, models, sweep
from normkit.records import Store
from normkit.training import TrainConfig, train

TINY = TrainConfig(epochs=1, subset=32, width=4, norms=(), final_norms=())
SIX = [dataclasses.replace(TINY, seed=seed) for seed in range(6)]


def _weights(records):
    return [(r.key, [t.sum().item() for t in r.weights().values()]) for r in records]


def test_pool_and_single_process_give_the_same_bits_in_the_order_asked(tmp_path, monkeypatch):
    monkeypatch.setenv("NORMKIT_JOBS", "2")
    pooled = sweep.run(SIX, store=Store(tmp_path / "two"), progress=False)
    monkeypatch.setenv("NORMKIT_JOBS", "1")
    single = sweep.run(SIX[::-1], store=Store(tmp_path / "one"), progress=False)
    assert [r.config["seed"] for r in pooled] == list(range(6))
    assert _weights(pooled) == _weights(single[::-1])


def test_what_the_store_holds_is_not_trained_again(tmp_path):
    store = Store(tmp_path)
    with ThreadPoolExecutor(1) as executor:
        first = sweep.run(SIX[:2], store=store, executor=executor, progress=False)
        stamps = [r.folder.stat().st_mtime_ns for r in first]
        again = sweep.run([*SIX[:3], SIX[0]], store=store, executor=executor, progress=False)
    assert [r.folder.stat().st_mtime_ns for r in again[:2]] == stamps
    assert again[3].key == again[0].key


def test_one_failing_run_does_not_stop_the_others(tmp_path):
    store = Store(tmp_path)
    impossible = dataclasses.replace(TINY, subset=10**6)
    with ThreadPoolExecutor(1) as executor, pytest.raises(sweep.SweepError, match="1 of 3"):
        sweep.run([SIX[0], impossible, SIX[1]], store=store, executor=executor, progress=False)
    assert store.get(SIX[0]) is not None and store.get(SIX[1]) is not None


def test_a_worker_that_is_killed_is_named_and_the_others_go_on(tmp_path, monkeypatch):
    monkeypatch.setenv("NORMKIT_JOBS", "2")
    store, endless = Store(tmp_path), dataclasses.replace(TINY, epochs=10**6)

    def kill_the_last():
        while len(store.keys()) < 3:
            time.sleep(0.05)
        for worker in workers():
            worker.kill()

    killer = threading.Thread(target=kill_the_last)
    killer.start()
    with pytest.raises(sweep.SweepError, match="1 of 4 runs failed.*its process died") as failed:
        sweep.run([endless, *SIX[:3]], store=store, progress=False)
    killer.join()
    assert "epochs=1000000" in str(failed.value)
    assert all(store.get(config) for config in SIX[:3])
    assert not workers()


def test_workers_see_the_environment_as_it_is_when_they_start(monkeypatch):
    for told in ("first", "second"):
        monkeypatch.setenv("NORMKIT_TOLD", told)
        with sweep.process_pool(1) as pool:
            assert pool.submit(os.getenv, "NORMKIT_TOLD").result() == told


def test_a_sweep_of_which_half_diverges_finishes_and_says_so(tmp_path, capsys):
    wild = [dataclasses.replace(config, lr=1e38, epochs=3) for config in SIX[:2]]
    records = sweep.run([*SIX[:2], *wild], store=Store(tmp_path))
    assert [record.status.split(" at")[0] for record in records] == ["ok", "ok"] + ["diverged"] * 2
    assert capsys.readouterr().err.endswith("2 of 4 runs diverged\n")


def test_a_run_that_another_process_makes_is_waited_for_and_not_made_twice(tmp_path):
    store, made = Store(tmp_path), []
    with ThreadPoolExecutor(1) as executor:
        with store.claim(TINY):
            waiting = executor.submit(sweep.make, TINY, str(tmp_path))
            made.append(train(TINY).save(store))
            assert not waiting.done()
    assert waiting.result() == made[0].key
    assert store.get(TINY).meta == made[0].meta  # the record of the first, not a second one


@pytest.mark.parametrize("text", ["0", "-1", "two"])
def test_a_number_of_jobs_that_is_none_is_one_sentence(monkeypatch, text):
    monkeypatch.setenv("NORMKIT_JOBS", text)
    with pytest.raises(ValueError, match="NORMKIT_JOBS"):
        sweep.jobs()


def test_every_net_and_data_set_has_a_cost():
    for name in models.NAMES:
        objective = "reconstruction" if name in models.RECONSTRUCTING else "classification"
        assert sweep.work(dataclasses.replace(TINY, model=name, objective=objective)) > 0, name
    whole = dataclasses.replace(TINY, subset=None, probe_images=1)
    costs = {name: sweep.work(dataclasses.replace(whole, dataset=name)) for name in data.NAMES}
    assert costs["digits"] < costs["noisy_digits"] < costs["mnist"] < costs["cifar10"]


SCRIPT = """
import dataclasses, sys
from normkit import sweep
from normkit.records import Store
from normkit.training import TrainConfig
if __name__ == "__main__":
    tiny = TrainConfig(epochs=2, subset=256, width=4, norms=(), final_norms=())
    many = [dataclasses.replace(tiny, seed=seed) for seed in range(12)]
    sweep.run(many, store=Store(sys.argv[1]), progress=False)
"""


def test_killing_a_sweep_keeps_finished_runs_and_leaves_no_worker(tmp_path):
    script = tmp_path / "sweep_script.py"
    script.write_text(SCRIPT)
    root = tmp_path / "store"
    environment = os.environ | {"NORMKIT_JOBS": "2"}
    process = subprocess.Popen([sys.executable, str(script), str(root)], env=environment)
    store = Store(root)
    deadline = time.monotonic() + 120
    while len(store.keys()) < 3 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(1.0)
    finished = store.keys()
    assert len(finished) >= 3 and (store.verify().status == "ok").all()
    time.sleep(1.5)
    assert store.keys() == finished, "workers went on after their parent was killed"


def test_places_are_shared(tmp_path, monkeypatch):
    monkeypatch.setenv("NORMKIT_PLACES", str(tmp_path))
    monkeypatch.setenv("NORMKIT_JOBS", "2")
    inside, most = [], []

    def run():
        with sweep.place():
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.1)
            inside.pop()

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 2 and len(most) == 8


def test_without_a_folder_of_places_nothing_is_waited_for(monkeypatch):
    monkeypatch.delenv("NORMKIT_PLACES", raising=False)
    with sweep.place(), sweep.place(), sweep.place():
        pass
