"""A sweep: what is missing is trained, and what is finished is kept."""

import os
import sys
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import Executor, as_completed
from pathlib import Path

from tqdm.auto import tqdm

from normkit.records import Record, Store, digest
from normkit.training import GanConfig, train, train_gan

from .cost import Config, work
from .pool import jobs, place, process_pool
from .remote import cluster

__all__ = ["SweepError", "make", "run", "stamp"]


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

    Every run is stored by the process that made it, as soon as it is done, and a run of minutes
    leaves a checkpoint now and then: whatever stops a sweep loses no finished run, and the next
    sweep goes on where this one was. Two sweeps on one store share the work: a run that another
    process is making is waited for. The longest runs start first, and a configuration that stands
    twice is run once.

    Arguments:
        configs: what is wanted: `TrainConfig`, or `GanConfig` for a generative network.
        store: where records are kept.
        executor: a `concurrent.futures.Executor` of processes (threads of one process would
            share torch's number of threads), or a `cluster`; default the cluster of
            `$NORMKIT_SCHEDULER`, else a pool of `jobs()` processes with one torch thread each.
        progress: show a bar with the time left, and how many runs diverged.

    Raises:
        SweepError: if runs failed, after all others have finished.
        ClusterError: before any run, if the scheduler of `$NORMKIT_SCHEDULER` does not answer.

    Example:
        >>> import tempfile
        >>> from normkit.training import TrainConfig
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
    elif missing and (address := os.environ.get("NORMKIT_SCHEDULER")):
        with cluster(address) as workers:
            _gather(missing, store, workers, progress)
    elif len(missing) > 1 and jobs() > 1:
        with process_pool(min(jobs(), len(missing))) as pool:
            _gather(missing, store, pool, progress)
    else:
        _serial(missing, store, progress)
    held |= {config: store.open(store.key(config)) for config in missing}
    if progress:
        _tell_diverged(held.values())
    return [held[config] for config in configs]


def stamp(records: Iterable[Record]) -> str:
    """One short hash of a set of runs, for the metadata of what is drawn from them."""
    return digest(sorted(record.key for record in records))[:16]


def make(config: Config, root: str) -> str:
    """Train one configuration into the store at `root`; the key of its record.

    If another process is making the same run, it is waited for and its record taken; what an
    earlier process left of it, is gone on with.
    """
    store = Store(root)
    config.dependencies()  # what the run depends on is what there is before it, not after
    with store.claim(config) as checkpoint:
        if store.get(config) is None:
            trainer = train_gan if isinstance(config, GanConfig) else train
            with place():
                trainer(config, checkpoint=checkpoint).save(store)
    return store.key(config)


def _serial(missing: list[Config], store: Store, progress: bool) -> None:
    failed = {}
    with _bar(missing, progress) as bar:
        for config in missing:
            try:
                make(config, str(store.root))
            except Exception as error:
                failed[config] = error
            _advance(bar, config)
    _report(failed, len(missing))


def _gather(missing: list[Config], store: Store, executor: Executor, progress: bool) -> None:
    futures = {executor.submit(make, config, str(store.root)): config for config in missing}
    failed = {}
    with _bar(missing, progress) as bar:
        for future in as_completed(futures):
            config = futures[future]
            if error := future.exception():
                failed[config] = error
            _advance(bar, config)
    _report(failed, len(missing))


def _report(failed: dict[Config, BaseException], count: int) -> None:
    if failed:
        config, error = next(iter(failed.items()))
        raise SweepError(
            f"{len(failed)} of {count} runs failed, finished ones are kept; the first: {error} "
            f"({config})"
        ) from error


def _tell_diverged(records: Iterable[Record]) -> None:
    """Say how many runs were lost to numbers that are not finite: they are results, too."""
    records = list(records)
    lost = Counter(r.status.partition(" at ")[0] for r in records if r.status != "ok")
    for what, count in lost.items():
        print(f"{count} of {len(records)} runs {what}", file=sys.stderr)


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
