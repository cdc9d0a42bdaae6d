"""Runs on the machines of a Dask cluster; their records come back to the one store."""

import contextlib
import re
from collections.abc import Iterator
from concurrent.futures import Executor
from typing import Any

from .dispatch import ClusterError, Dispatcher

__all__ = ["cluster"]

PATIENCE = 10  # seconds for the scheduler's first answer


@contextlib.contextmanager
def cluster(address: str) -> Iterator[Executor]:
    """The workers of a Dask cluster, for `run(..., executor=...)`; the disk need not be shared.

    *In plain words:* every worker makes one run at a time, in a folder of its own, and sends the
    record, which is checked and put into the store here. A worker whose normkit or data would
    give other numbers is refused by name; a run whose worker dies is made by another; workers
    may come and go. The block's end lets go of the cluster, which goes on.

    Arguments:
        address: of the scheduler, such as tcp://HOST:8786.

    Raises:
        ValueError: the address is none.
        ClusterError: `distributed` is not installed, or no scheduler answers. Of a run: no worker
            is of use, or the scheduler went away.
    """
    if not re.fullmatch(r"[a-z]+://\S+:\d+", address):
        raise ValueError(f"scheduler {address!r} is no address; it must be like tcp://HOST:8786")
    executor = Dispatcher(_connect(address), address)
    try:
        yield executor
        executor.shutdown()
    finally:
        executor.end()


def _connect(address: str) -> Any:
    try:
        from distributed import Client
    except ModuleNotFoundError as error:
        needed = "pip install -e '.[cluster]'"
        why = f"{error.name} is not installed, and a cluster needs it: {needed}"
        raise ClusterError(why) from error
    try:
        return Client(address, timeout=PATIENCE, set_as_default=False)
    except (OSError, ValueError) as error:
        why = " ".join(str(error).split())
        raise ClusterError(f"no Dask scheduler answers at {address} ({why})") from error
