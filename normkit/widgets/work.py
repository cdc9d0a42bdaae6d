"""One thread in the background that does the newest request and drops those it overtook."""

import itertools
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import torch
from threadpoolctl import ThreadpoolController

__all__ = ["Dropped", "Ticket", "Worker", "one_thread"]


class Dropped(Exception):
    """Work that nobody waits for anymore: a newer request came, or it was cancelled."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch and BLAS on one thread inside: the matrices here are small, and threads only wait.

    Example:
        >>> with one_thread():
        ...     torch.get_num_threads()
        1
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadpoolController().limit(limits=1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(threads)


class Ticket:
    """One request at work: it reports how far it is, and learns here that it is not wanted."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._gone = threading.Event()

    def drop(self) -> None:
        """Let the work end at its next `check`."""
        self._gone.set()

    def check(self, words: str = "") -> None:
        """Say in a few words how far the work is.

        Raises:
            Dropped: the work is not wanted anymore.
        """
        if self._gone.is_set():
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


class Worker:
    """A thread that does one request at a time; of each sender only the newest waits.

    Example:
        >>> worker = Worker()
        >>> worker.submit("panel", lambda ticket: 2 + 2).result(timeout=10)
        4
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._waiting: dict[Hashable, tuple[Ticket, Callable[[Ticket], Any], Future]] = {}
        self._active: dict[Hashable, Ticket] = {}
        self._thread: threading.Thread | None = None
        self._numbers = itertools.count()

    def submit(
        self,
        sender: Hashable,
        work: Callable[[Ticket], Any],
        report: Callable[[str], None] = lambda words: None,
    ) -> Future:
        """Do the work after what runs now; an earlier request of the same sender is dropped.

        Returns:
            The future of its result; `Dropped` is its exception if it was overtaken.
        """
        ticket, future = Ticket(report), Future()
        with self._condition:
            self._drop(sender)
            self._waiting[sender] = (ticket, work, future)
            if self._thread is None:
                name = f"normkit-{next(self._numbers)}"
                self._thread = threading.Thread(target=self._loop, name=name, daemon=True)
                self._thread.start()
            self._condition.notify()
        return future

    def cancel(self, sender: Hashable) -> None:
        """Drop what the sender has asked for, running or waiting."""
        with self._condition:
            self._drop(sender)

    def waits(self, sender: Hashable) -> bool:
        """Whether something that the sender asked for has not begun."""
        with self._condition:
            return sender in self._waiting

    def _drop(self, sender: Hashable) -> None:
        if sender in self._active:
            self._active[sender].drop()
        if sender in self._waiting:
            self._waiting.pop(sender)[2].set_exception(Dropped())

    def _loop(self) -> None:
        while True:
            with self._condition:
                while not self._waiting:
                    self._condition.wait()
                sender = next(iter(self._waiting))
                ticket, work, future = self._waiting.pop(sender)
                self._active[sender] = ticket
            try:
                with one_thread():
                    future.set_result(work(ticket))
            except BaseException as error:  # handed to whoever waits for the future
                future.set_exception(error)
            finally:
                with self._condition:
                    del self._active[sender]
