"""Hands runs to the workers of a cluster, one at a time, while workers come and go."""

import dataclasses
import pickle
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Executor, Future
from typing import Any

from tqdm.auto import tqdm

import normkit
from normkit.records import Store
from normkit.records.adopted import adopt

from .cost import Config
from .pool import WorkerDied
from .worker import facts, made

__all__ = ["ClusterError", "Dispatcher"]

PERIOD = 1.0  # seconds from one look at the workers to the next
GRACE = 30.0  # seconds in which a worker that was lost may come back
TRIES = 3  # workers that may die while they make one run


class ClusterError(ConnectionError):
    """The cluster cannot be used; the message says which one, and why."""


@dataclasses.dataclass
class _Task:
    """A call that makes a run and stores it under a root, and how often its worker died."""

    call: Callable[[Config, str], str]
    config: Config
    root: str
    future: Future = dataclasses.field(default_factory=Future)
    deaths: int = 0


class Dispatcher(Executor):
    """A thread for every worker hands it one run at a time; one more sees them come and go.

    `_change` guards all that follows it, and wakes who waits for a task or for an end.
    """

    def __init__(self, client: Any, address: str):
        self._client, self._address = client, address
        self._change = threading.Condition()
        self._tasks: deque[_Task] = deque()
        self._making = 0
        self._alive: set[str] = set()
        self._refused: dict[str, str] = {}
        self._asked: dict[str, Any] = {}
        self._fitted = self._told = False
        self._useful = time.monotonic()  # when a worker was last of use
        self._ended: ClusterError | None = None
        threading.Thread(target=self._watch, daemon=True).start()

    def submit(self, call: Callable, config: Config, root: str, /) -> Future:
        """`call(config, root)` as `make` is called, but the worker has a root of its own."""
        task = _Task(call, config, root)
        with self._change:
            if self._ended:
                task.future.set_exception(self._ended)
            else:
                self._tasks.append(task)
                self._change.notify()
        return task.future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        with self._change:
            for task in self._tasks if cancel_futures else ():
                task.future.cancel()
            self._change.wait_for(lambda: not wait or not (self._tasks or self._making))

    def end(self) -> None:
        """Let go of the cluster at once; what is not made yet is cancelled."""
        self.shutdown(wait=False, cancel_futures=True)
        self._end(f"the sweep on {self._address} was left")
        self._client.close()

    def _end(self, why: str) -> None:
        with self._change:
            self._ended = self._ended or ClusterError(why)
            for task in self._tasks:
                if not task.future.cancelled():
                    task.future.set_exception(self._ended)
            self._tasks.clear()
            self._change.notify_all()

    def _end_lost(self) -> None:
        kept = "finished runs are kept: start again, and the sweep goes on"
        self._end(f"the scheduler {self._address} went away or was restarted; {kept}")

    def _watch(self) -> None:
        while self._ended is None:
            try:
                self._see(set(self._client.nthreads()))
            except Exception:  # of many kinds, and all mean that the scheduler does not answer
                self._end_lost()
            with self._change:
                self._change.wait_for(lambda: self._ended, PERIOD)

    def _see(self, alive: set[str]) -> None:
        with self._change:
            come, gone = alive - self._alive, self._alive - alive
            lost = [self._asked[worker] for worker in gone & self._asked.keys()]
            self._alive = alive
            self._refused = {w: why for w, why in self._refused.items() if w in alive}
            self._change.notify_all()
        for future in lost:
            future.cancel()
        for worker in come:
            threading.Thread(target=self._serve, args=(worker,), daemon=True).start()
        self._judge()

    def _judge(self) -> None:
        """End if there are workers and none is of use; say so if there is none to wait for."""
        now, none = time.monotonic(), f"no worker of {self._address}"
        with self._change:
            if self._alive - self._refused.keys():
                self._useful, self._told = now, False
            elif self._refused and (not self._fitted or now - self._useful > GRACE):
                why = sorted(self._refused.values())
                more = f" (+{len(why) - 3} more)" if len(why) > 3 else ""
                self._end(f"{none} can be used: {'; '.join(why[:3])}{more}")
            elif not self._told:
                self._told = True
                _say(f"{none} is there to make a run; waiting for one")

    def _serve(self, worker: str) -> None:
        fits: set[tuple[str, str]] = set()
        while task := self._next(worker):
            about = type(task.config).__name__, task.config.dataset
            try:
                if about not in fits and (why := self._unfit(worker, task.config)):
                    self._refuse(worker, why, task)
                else:
                    fits.add(about)
                    self._make(worker, task)
            except CancelledError:
                self._again(worker, task)
            except Exception as error:
                task.future.set_exception(error)
            with self._change:
                self._making -= 1
                self._change.notify_all()

    def _next(self, worker: str) -> _Task | None:
        """What this worker makes next; None if nothing will come, or the worker is gone."""
        with self._change:
            while worker in self._alive and worker not in self._refused and not self._ended:
                if not self._tasks:
                    self._change.wait()
                    continue
                task = self._tasks.popleft()
                if task.future.running() or task.future.set_running_or_notify_cancel():
                    self._making += 1
                    return task
        return None

    def _make(self, worker: str, task: _Task) -> None:
        store = Store(task.root)
        key = store.key(task.config)
        with store.claim(task.config):
            if store.get(task.config) is None:
                adopt(store, key, self._ask(worker, made, task.call, task.config))
        task.future.set_result(key)

    def _unfit(self, worker: str, config: Config) -> str | None:
        """Why a worker would give another record; None if it would not."""
        expected = facts(config)
        try:
            found = self._ask(worker, facts, config)
        except CancelledError:
            raise
        except Exception as error:
            return f"worker {worker} cannot run normkit: {type(error).__name__}: {error}"
        differ = [n for n in sorted(expected | found) if found.get(n) != expected.get(n)]
        self._fitted |= not differ
        more = f" (+{len(differ) - 1} more)" if len(differ) > 1 else ""
        what = f"worker {worker} has normkit {found.get('version')}, this is {normkit.__version__}"
        return f"{what}; {differ[0]} differs{more}" if differ else None

    def _refuse(self, worker: str, why: str, task: _Task) -> None:
        _say(f"{why}; it is not used")
        with self._change:
            self._refused[worker] = why
        self._put_back(task)
        self._judge()

    def _again(self, worker: str, task: _Task) -> None:
        """Only the future of a worker that is gone is cancelled here; else it is all of them."""
        if worker in self._alive:
            self._end_lost()
        task.deaths += 1
        if task.deaths < TRIES or self._ended:
            self._put_back(task)
        else:
            died = f"{TRIES} workers died while they made it (out of memory, or killed)"
            task.future.set_exception(WorkerDied(died))

    def _put_back(self, task: _Task) -> None:
        with self._change:
            if self._ended:
                task.future.set_exception(self._ended)
            else:
                self._tasks.appendleft(task)
                self._change.notify_all()

    def _ask(self, worker: str, call: Callable, *args: Any) -> Any:
        """What `call(*args)` gives on a worker.

        Raises:
            CancelledError: the worker or the scheduler is gone.
        """
        import cloudpickle

        def unpacked(packed: bytes) -> Any:  # on the worker only: a scheduler has no torch
            call, args = pickle.loads(packed)
            return call(*args)

        packed = cloudpickle.dumps((call, args))
        with self._change:
            if worker not in self._alive or self._ended:
                raise CancelledError(worker)
            future = self._client.submit(unpacked, packed, workers=[worker], pure=False)
            self._asked[worker] = future
        try:
            return future.result()
        finally:
            del self._asked[worker]


def _say(text: str) -> None:
    tqdm.write(text, file=sys.stderr)
