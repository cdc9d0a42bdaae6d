"""One thread in the background that does the newest request and drops those it overtook."""

import itertools
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from threadpoolctl import ThreadpoolController

__all__ = ["Dropped", "Ticket", "Worker", "one_thread"]


class _Threads:
    """Threads before the first of the blocks that are open, given back after the last one."""

    def __init__(self) -> None:
        self._lock, self._open, self._before = threading.Lock(), 0, 1
        self._blas: Any = None

    def enter(self) -> None:
        with self._lock:
            if not self._open:
                self._before = torch.get_num_threads()
                self._blas = ThreadpoolController().limit(limits=1, user_api="blas")
            self._open += 1
            torch.set_num_threads(1)

    def leave(self) -> None:
        with self._lock:
            self._open -= 1
            torch.set_num_threads(self._before)
            if not self._open:
                self._blas.restore_original_limits()


_THREADS = _Threads()


class Dropped(Exception):
    """Work that nobody waits for anymore: a newer request came, or it was cancelled."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch and BLAS on one thread inside: the matrices here are small, and threads only wait.

    *In plain words:* several threads may be inside at once, and leave in any order.

    Example:
        >>> with one_thread():
        ...     torch.get_num_threads()
        1
    """
    _THREADS.enter()
    try:
        yield
    finally:
        _THREADS.leave()


class Ticket:
    """One request at work: it reports how far it is, and learns here that it is not wanted."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self.gone = False

    def drop(self) -> None:
        """Let the work end at its next `check`."""
        self.gone = True

    def check(self, words: str = "") -> None:
        """Say in a few words how far the work is.

        Raises:
            Dropped: the work is not wanted anymore.
        """
        if self.gone:
            raise Dropped
        if words:
            self._report(words)

    def each(self, items: Sequence[Any], what: str) -> Iterator[Any]:
        """Go through the items, saying how many are done and the time left.

        Example:
            >>> said = []
            >>> sum(Ticket(said.append).each([1, 2], "layers"))
            3
            >>> said[0]
            'layers: 0 of 2'
        """
        started = time.monotonic()
        for done, item in enumerate(items):
            left = (time.monotonic() - started) / done * (len(items) - done) if done else 0.0
            self.check(f"{what}: {done} of {len(items)}" + f", {left:.0f} s left" * (done > 0))
            yield item
        self.check()


class _Asked(NamedTuple):
    ticket: Ticket
    work: Callable[[Ticket], Any]
    future: Future
    after: Callable[[], None]


class Worker:
    """A thread that does one request at a time; of each sender only the newest waits.

    Example:
        >>> worker = Worker()
        >>> worker.submit("panel", lambda ticket: 2 + 2).result(timeout=10)
        4
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._waiting: dict[Hashable, _Asked] = {}
        self._active: dict[Hashable, Ticket] = {}
        self._thread: threading.Thread | None = None
        self._numbers = itertools.count()

    def submit(
        self,
        sender: Hashable,
        work: Callable[[Ticket], Any],
        report: Callable[[str], None] = lambda words: None,
        after: Callable[[], None] = lambda: None,
    ) -> Future:
        """Do the work after what runs now; an earlier request of the same sender is dropped.

        Arguments:
            sender: of whose requests only the newest is done.
            work: gets its ticket.
            report: hears how far the work is.
            after: called when the work has ended, before its future knows.

        Returns:
            The future of its result; `Dropped` is its exception if it was overtaken.
        """
        future: Future = Future()
        with self._condition:
            self._drop(sender)
            self._waiting[sender] = _Asked(Ticket(report), work, future, after)
            if self._thread is None:
                name = f"normkit-{next(self._numbers)}"
                self._thread = threading.Thread(target=self._loop, name=name, daemon=True)
                self._thread.start()
            self._condition.notify()
        return future

    def cancel(self, sender: Hashable) -> bool:
        """Drop what the sender has asked for; whether some of it runs until its next check."""
        with self._condition:
            self._drop(sender)
            return sender in self._active

    def busy(self, sender: Hashable) -> bool:
        """Whether something that the sender asked for waits or runs, and was not dropped."""
        with self._condition:
            active = self._active.get(sender)
            return sender in self._waiting or (active is not None and not active.gone)

    def _drop(self, sender: Hashable) -> None:
        if sender in self._active:
            self._active[sender].drop()
        if sender in self._waiting:
            self._waiting.pop(sender).future.set_exception(Dropped())

    def _loop(self) -> None:
        while True:
            with self._condition:
                while not self._waiting:
                    self._condition.wait()
                sender = next(iter(self._waiting))
                asked = self._waiting.pop(sender)
                self._active[sender] = asked.ticket
            try:
                with one_thread():
                    end = partial(asked.future.set_result, asked.work(asked.ticket))
            except BaseException as error:  # handed to whoever waits for the future
                end = partial(asked.future.set_exception, error)
            with self._condition:
                del self._active[sender]
            try:
                asked.after()
            except Exception as error:  # as above: the thread goes on
                end = partial(asked.future.set_exception, error)
            end()
