"""A sweep that is killed over and over loses nothing, and ends where an undisturbed one does."""

import os
import random
import signal
import subprocess
import sys

from normkit import sweep
from normkit.papers import beyond_batchnorm, norm_decay
from normkit.records import Store

KILLS = int(os.environ.get("NORMKIT_KILLS", "3"))
SEED = int(os.environ.get("NORMKIT_SEED", "0"))
SCRIPT = """
import sys
from normkit import sweep
from normkit.records import Store
from normkit.training import resume
from test_kill import smoke_runs
resume.Checkpoint.__init__.__defaults__ = (0.0,)  # at every epoch
if __name__ == "__main__":
    store, plan = Store(sys.argv[1]), smoke_runs()
    print("started", flush=True)
    with sweep.process_pool(2) as pool:
        for start in range(0, len(plan), 4):
            chunk = plan[start : start + 4]
            records = sweep.run(chunk, store=store, executor=pool, progress=False)
            print(*(record.key for record in records), flush=True)
"""


def smoke_runs():
    """Two papers' runs in the profile `smoke`: plain, attacked, decayed and clipped ones.

    Every fourth of them where there are few kills.
    """
    runs = beyond_batchnorm.training_runs("smoke") + beyond_batchnorm.tradeoff_runs("smoke")
    runs += norm_decay.adversarial_runs("smoke") + norm_decay.regularized_runs("smoke")
    return list(dict.fromkeys(runs))[:: 1 if KILLS > 3 else 4]


def _sweep(script, root, delay):
    """What a sweep reported until it ended, or was killed some seconds after its start."""
    with subprocess.Popen(
        [sys.executable, str(script), str(root)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": os.path.dirname(__file__)},
    ) as process:
        assert process.stdout.readline() == "started\n"
        try:
            process.wait(delay)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        reported = process.stdout.read()
    lines = reported[: reported.rfind("\n") + 1].splitlines()
    return {key for line in lines for key in line.split()}, process.returncode == 0


def _tables(store, runs):
    """Every table and weight of a sweep; times are those of the machine."""
    for record in sweep.run(runs, store=store, progress=False):
        names = [name for name in record.manifest["files"] if name.endswith(".parquet")]
        for name in names:
            table = record.table(name.removesuffix(".parquet"))
            yield record.key, name, table.drop(columns="seconds", errors="ignore")
        yield record.key, "weights", {k: v.tolist() for k, v in record.weights().items()}


def test_a_sweep_killed_at_random_moments_loses_nothing_and_ends_the_same(tmp_path):
    script, draws, runs = tmp_path / "script.py", random.Random(SEED), smoke_runs()
    script.write_text(SCRIPT)
    kills, stores, finished = 0, 0, False
    while kills < KILLS or not finished:
        store = Store(tmp_path / f"disturbed-{stores}")
        delay = draws.uniform(0, 6) if kills < KILLS else None
        seen, finished = _sweep(script, store.root, delay)
        kills, stores = kills + (not finished), stores + finished
        verified = store.verify()
        assert (verified.status == "ok").all(), f"seed {SEED}, kill {kills}: {verified}"
        assert seen <= set(verified.key), f"seed {SEED}, kill {kills}: {seen - set(verified.key)}"
    store.prune()
    assert not list((store.root / ".unfinished").iterdir())
    undisturbed = _tables(Store(tmp_path / "undisturbed"), runs)
    for (key, name, table), (_, _, expected) in zip(
        _tables(store, runs), undisturbed, strict=True
    ):
        same = table == expected if name == "weights" else table.equals(expected)
        assert same, f"seed {SEED}: {name} of {key}"
