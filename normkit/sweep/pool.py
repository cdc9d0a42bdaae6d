"""Worker processes, of which one may die without the others."""

import contextlib
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

__all__ = ["WorkerDied", "jobs", "place", "process_pool"]


class WorkerDied(RuntimeError):
    """The process that made a run ended in the middle of it: out of memory, killed, or a crash."""


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


@contextlib.contextmanager
def place() -> Iterator[None]:
    """Inside the block one of as many runs as there are `jobs()`, over all sweeps of a workbook.

    *In plain words:* where several notebooks are executed at a time, `$NORMKIT_PLACES` is a folder
    of theirs, and so many of their runs train at once. Elsewhere nothing is waited for.

    Example:
        >>> with place():
        ...     "training"
        'training'
    """
    folder = os.environ.get("NORMKIT_PLACES")
    if folder is None:
        yield
        return
    locks = [FileLock(Path(folder) / f"place-{index}") for index in range(jobs())]
    with _first_free(locks):
        yield


def _first_free(locks: list[FileLock]) -> contextlib.AbstractContextManager:
    """One of the locks, acquired, to be released by its block."""
    while True:
        for lock in locks:
            with contextlib.suppress(Timeout):
                return lock.acquire(blocking=False)
        time.sleep(0.05)


@contextlib.contextmanager
def process_pool(workers: int) -> Iterator[Executor]:
    """Processes that end at once when the block is left early or this process is gone.

    *In plain words:* a process that dies takes down the call that it was making, with the error
    `WorkerDied`; another process is started in its place, and all other calls are made.

    Example:
        >>> with process_pool(1) as pool:
        ...     died, made = pool.submit(os._exit, 9), pool.submit(abs, -3)
        ...     type(died.exception()).__name__, made.result()
        ('WorkerDied', 3)
    """
    pool = _Pool(workers)
    try:
        yield pool
        pool.shutdown()
    finally:
        pool.end()


class _Pool(Executor):
    """A thread for every process: it hands over one call at a time, and sees its process die."""

    def __init__(self, workers: int):
        self._context = _context()
        self._listener, self._lifeline = self._context.Pipe(duplex=False)
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="worker")
        self._mine = threading.local()
        self._processes: list[ProcessPoolExecutor] = []

    def submit(self, call: Callable, /, *args: Any, **named: Any) -> Future:
        return self._threads.submit(self._call, call, args, named)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._threads.shutdown(wait, cancel_futures=cancel_futures)

    def end(self) -> None:
        """End every process at once, whatever it is doing."""
        self.shutdown(wait=False, cancel_futures=True)
        self._lifeline.close()
        self.shutdown()
        for process in self._processes:
            process.shutdown()

    def _call(self, call: Callable, args: tuple, named: dict) -> Any:
        process = getattr(self._mine, "process", None) or self._start()
        try:
            return process.submit(call, *args, **named).result()
        except BrokenProcessPool as error:
            self._mine.process = None
            raise WorkerDied("its process died (out of memory, or killed)") from error

    def _start(self) -> ProcessPoolExecutor:
        given = (self._listener, dict(os.environ))
        self._mine.process = ProcessPoolExecutor(
            1, mp_context=self._context, initializer=_start_worker, initargs=given
        )
        self._processes.append(self._mine.process)
        return self._mine.process


def _context() -> BaseContext:
    # On Linux one process imports torch, and workers are its forks; elsewhere each imports it.
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["normkit.sweep"])
    return context


def _start_worker(listener: Connection, environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(1)
    threading.Thread(target=_end_with, args=(listener,), daemon=True).start()


def _end_with(listener: Connection) -> None:
    listener.poll(None)  # readable only when the other end has closed
    os._exit(1)
