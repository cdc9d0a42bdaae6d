"""Runs what the store does not hold, on as many processes as asked."""

import contextlib
import multiprocessing
import os
import re
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from tqdm.auto import tqdm

from normkit.records import Record, Store, digest
from normkit.training import GanConfig, TrainConfig, train, train_gan

__all__ = ["SweepError", "jobs", "process_pool", "run", "stamp", "work"]

DEPTHS = {"uniform": 20, "small_cnn": 4, "mlp": 3, "regnetx_200mf": 40}
DEPTHS |= {"fully_conv": 9, "fully_conv_released": 9, "autoencoder": 8}
Config = TrainConfig | GanConfig
SIZES = {"digits": (1_500, 8), "noisy_digits": (1_500, 9)}  # images and their height


class SweepError(RuntimeError):
    """Some runs failed; the message says which and why, the others are in the store."""


def run(
    configs: Iterable[Config],
    *,
    store: Store,
    executor: Executor | None = None,
    progress: bool = True,
) -> list[Record]:
    """The records of all configurations, in their order; what the store lacks is trained.

    Every run is stored by the process that made it, as soon as it is done: whatever stops a sweep
    loses no finished run. The longest runs start first, and a configuration that stands twice is
    run once.

    Arguments:
        configs: what is wanted: `TrainConfig`, or `GanConfig` for a generative network.
        store: where records are kept.
        executor: a `concurrent.futures.Executor` of processes (threads of one process would
            share torch's number of threads); default a pool of `jobs()` processes with one torch
            thread each.
        progress: show a bar with the time left.

    Raises:
        SweepError: if runs failed, after all others have finished.

    Example:
        >>> import tempfile
        >>> store = Store(tempfile.mkdtemp())
        >>> [first] = run([TrainConfig(epochs=1, subset=64)], store=store, progress=False)
        >>> [again] = run([TrainConfig(epochs=1, subset=64)], store=store, progress=False)
        >>> again.meta["seconds"] == first.meta["seconds"]  # the same record: nothing ran
        True
    """
    configs = list(configs)
    held = {config: store.get(config) for config in dict.fromkeys(configs)}
    missing = [config for config, record in held.items() if record is None]
    missing.sort(key=work, reverse=True)
    if missing and progress:
        reason = store.why_missing(missing[0])
        print(f"{len(missing)} of {len(held)} runs to train: {reason}", file=sys.stderr)
    if executor is not None:
        _gather(missing, store, executor, progress)
    elif len(missing) > 1 and jobs() > 1:
        with process_pool(min(jobs(), len(missing))) as pool:
            _gather(missing, store, pool, progress)
    else:
        _serial(missing, store, progress)
    return [held[config] or store.open(store.key(config)) for config in configs]


def stamp(records: Iterable[Record]) -> str:
    """One short hash of a set of runs, for the metadata of what is drawn from them."""
    return digest(sorted(record.key for record in records))[:16]


def jobs() -> int:
    """How many processes a sweep uses: `$NORMKIT_JOBS`, else the cores of this process.

    Raises:
        ValueError: if `$NORMKIT_JOBS` is not a whole number above 0.
    """
    text = os.environ.get("NORMKIT_JOBS")
    if text:
        if not text.isdigit() or int(text) < 1:
            raise ValueError(f"NORMKIT_JOBS is {text!r}; it must be a whole number above 0")
        return int(text)
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _serial(missing: list[Config], store: Store, progress: bool) -> None:
    failed = {}
    with _bar(missing, progress) as bar:
        for config in missing:
            try:
                _work(config, str(store.root))
            except Exception as error:
                failed[config] = error
            _advance(bar, config)
    _report(failed, len(missing))


def _gather(missing: list[Config], store: Store, executor: Executor, progress: bool) -> None:
    futures = {executor.submit(_work, config, str(store.root)): config for config in missing}
    failed = {}
    with _bar(missing, progress) as bar:
        for future in as_completed(futures):
            config = futures[future]
            try:
                future.result()
            except BrokenProcessPool as error:
                raise SweepError(
                    "a worker process died (out of memory, or killed); finished runs are kept, "
                    "start again to make the others"
                ) from error
            except Exception as error:
                failed[config] = error
            _advance(bar, config)
    _report(failed, len(missing))


def _report(failed: dict[Config, Exception], count: int) -> None:
    if failed:
        config, error = next(iter(failed.items()))
        raise SweepError(
            f"{len(failed)} of {count} runs failed, finished ones are kept; the first: {error} "
            f"({config})"
        ) from error


def _work(config: Config, root: str) -> str:
    config.dependencies()  # what the run depends on is what there is before it, not after
    made = train_gan(config) if isinstance(config, GanConfig) else train(config)
    return made.save(Store(root)).key


@contextlib.contextmanager
def process_pool(workers: int) -> Iterator[Executor]:
    """Processes that end at once when the block is left early or this process is gone."""
    context = multiprocessing.get_context("spawn")
    listener, lifeline = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(
        workers, mp_context=context, initializer=_start_worker, initargs=(listener,)
    )
    try:
        yield pool
        pool.shutdown()
    finally:
        lifeline.close()
        pool.shutdown(cancel_futures=True)


def _start_worker(listener: Connection) -> None:
    torch.set_num_threads(1)
    threading.Thread(target=_end_with, args=(listener,), daemon=True).start()


def _end_with(listener: Connection) -> None:
    listener.poll(None)  # readable only when the other end has closed
    os._exit(1)


def work(config: Config) -> float:
    """Rough work of a run: which one starts first, and how much of the bar it is."""
    return _gan_cost(config) if isinstance(config, GanConfig) else _train_cost(config)


def _gan_cost(config: GanConfig) -> float:
    size = config.image_size or SIZES.get(config.dataset, (0, 32))[1]
    work = config.steps * config.batch_size * (config.critic_steps + 1) * size**2
    return 4 * work * config.width * (2 if config.discriminator.startswith("conv_norm") else 1)


def _train_cost(config: TrainConfig) -> float:
    steps = config.adversary.steps
    passes = {"none": 1.0, "pgd": 1 + steps, "trades": 2.3 + steps, "alp": 2 + steps}
    passes["free"] = config.adversary.repeats
    images, size = SIZES.get(config.dataset, (50_000, 32))
    images, size = config.subset or images, config.image_size or size
    depth = config.depth or DEPTHS.get(config.model) or int(re.sub(r"\D", "", config.model))
    work = config.epochs * images * passes[config.adversary.kind] + config.probe_images
    return work * depth * (config.width or 64) * size**2


def _advance(bar: tqdm, config: Config) -> None:
    """Move the bar on, and tell who runs this notebook: it sees `$NORMKIT_PROGRESS`, no bar."""
    bar.update(work(config))
    if told := os.environ.get("NORMKIT_PROGRESS"):
        elapsed = time.monotonic() - bar.started
        form = "{percentage:.0f}% of training done, {remaining} left"
        Path(told).write_text(tqdm.format_meter(bar.n, bar.total, elapsed, bar_format=form))


def _bar(missing: list[Config], progress: bool) -> tqdm:
    bar = tqdm(
        total=sum(map(work, missing)),
        desc=f"training {len(missing)} runs",
        bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed} elapsed, {remaining} left",
        disable=not progress or not missing,
    )
    bar.started = time.monotonic()
    return bar
