"""How a sweep scales with workers, and what the store adds to a run. All ratios in one run.

    python benchmarks/sweep.py [--runs 16] [--epochs 10] [--repeat 3]

Prints the wall time of one worker over that of two, for the same runs in fresh stores, and the
time of a `put` and of a verified `get` over that of a ten-second run of the same network. Last, on a
Dask cluster of this machine, what four workers bring for runs that only sleep: the rest is the
time that it takes to hand out runs and to bring their records back.
"""

import argparse
import dataclasses
import importlib.util
import os
import platform
import statistics
import tempfile
import time

import torch

from normkit import sweep
from normkit.records import Store
from normkit.training import TrainConfig, train


def wall(plan: list[TrainConfig], workers: int) -> float:
    """Seconds that a sweep takes in a fresh store, the start of its processes included."""
    os.environ["NORMKIT_JOBS"] = str(workers)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        sweep.run(plan, store=Store(folder), progress=False)
        return time.perf_counter() - start


def overhead(config: TrainConfig, repeat: int) -> tuple[float, float, float]:
    """Seconds of one run, and the medians of storing it and of reading it back."""
    run, puts, gets = train(config), [], []
    for _ in range(repeat + 1):  # the first one also imports what writes and reads tables
        with tempfile.TemporaryDirectory() as folder:
            store, start = Store(folder), time.perf_counter()
            run.save(store)
            puts.append(time.perf_counter() - start)
            start = time.perf_counter()
            store.get(config)
            gets.append(time.perf_counter() - start)
    return run.seconds, statistics.median(puts[1:]), statistics.median(gets[1:])


def sleeps(config: TrainConfig, root: str) -> str:
    """A run of half a second that needs no core."""
    time.sleep(0.5)
    return Store(root).put(config, tables={}, meta={"status": "ok", "seconds": 0.5}).key


def on_cluster(workers: int, count: int) -> float:
    """Seconds that so many sleeping runs take on a cluster that is already there."""
    from distributed import LocalCluster

    configs = [TrainConfig(seed=seed) for seed in range(count + workers)]
    with (
        LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as dask,
        sweep.cluster(dask.scheduler_address) as executor,
        tempfile.TemporaryDirectory() as folder,
    ):
        list(executor.map(sleeps, configs[:workers], [folder] * workers))
        start = time.perf_counter()
        list(executor.map(sleeps, configs[workers:], [folder] * count))
        return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=16, help="runs of a sweep")
    parser.add_argument("--epochs", type=int, default=10, help="epochs of a run")
    parser.add_argument("--repeat", type=int, default=3, help="repetitions of every measurement")
    chosen = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, torch", end=" ")
    print(torch.__version__)
    base = TrainConfig(epochs=chosen.epochs)
    plan = [dataclasses.replace(base, seed=seed) for seed in range(chosen.runs)]
    ratios = []
    for _ in range(chosen.repeat):
        one, two = wall(plan, 1), wall(plan, 2)
        ratios.append(one / two)
        print(f"{chosen.runs} runs: one worker {one:.1f} s, two {two:.1f} s, {one / two:.2f}x")
    print(f"two workers over one: median {statistics.median(ratios):.2f}x of {chosen.repeat}")
    seconds, put, get = overhead(base, chosen.repeat)
    print(f"store: put {put * 1e3:.0f} ms, verified get {get * 1e3:.0f} ms; run {seconds:.1f} s")
    print(f"put over a run of ten seconds: {put / 10:.2%}")
    if importlib.util.find_spec("distributed"):
        one, four = on_cluster(1, 48), on_cluster(4, 48)
        print(f"cluster: 48 runs of .5 s: one worker {one:.1f} s, four {four:.1f} s", end=", ")
        print(f"{one / four:.2f}x")
    else:
        print("cluster: left out, distributed is not installed")


if __name__ == "__main__":
    main()
