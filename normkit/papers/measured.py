"""Tables that are measured once per configuration and code, then found in the store."""

import os
import platform
import time
from pathlib import Path
from typing import Protocol

import pandas as pd
import torch
from threadpoolctl import threadpool_limits

from normkit import sweep
from normkit.records import Record, Store, code_hashes

__all__ = ["Measurement", "hardware", "kept", "measuring_code", "one_thread"]


class Measurement(Protocol):
    """A frozen dataclass that says what is measured, on what it depends, and measures it."""

    def dependencies(self) -> dict[str, str]:
        """The hashes of the code that the result depends on."""

    def tables(self) -> dict[str, pd.DataFrame]:
        """Measure."""


def kept(config: Measurement, store: Store) -> Record:
    """The record of a measurement; what the store lacks is measured first, on one thread.

    *In plain words:* a time is another one each time, so a table of times is kept like a run: who
    asks again gets the same numbers, until the code that was timed changes. Measurements lie in
    a folder of their own in the store, since what lists runs expects trained networks.

    Example:
        >>> import dataclasses, tempfile
        >>> @dataclasses.dataclass(frozen=True)
        ... class Clock:
        ...     def dependencies(self):
        ...         return {}
        ...     def tables(self):
        ...         return {"clock": pd.DataFrame({"now": [time.perf_counter()]})}
        >>> store = Store(tempfile.mkdtemp())
        >>> first, again = (kept(Clock(), store).table("clock") for _ in range(2))
        >>> first.equals(again)
        True
    """
    place = Store(store.root / "measurements")
    record = place.get(config)
    if record is not None:
        return record
    config.dependencies()  # what the numbers depend on is what there is before, not after
    with place.claim(config):
        record = place.get(config)  # another process may have measured while this one waited
        if record is not None:
            return record
        with sweep.place():
            start = time.perf_counter()
            with one_thread(), torch.no_grad():
                tables = config.tables()
            seconds = round(time.perf_counter() - start, 3)
        meta = {"status": "ok", "seconds": seconds, "hardware": hardware(1)}
        return place.put(config, tables=tables, meta=meta)


def measuring_code(*modules: str) -> dict[str, str]:
    """The hashes of all that `normkit.norms` is made of, and of these modules themselves."""
    found = code_hashes("normkit.norms", *modules)
    mine = ("normkit.norms", *modules)
    return {name: value for name, value in found.items() if name.startswith(mine)}


class one_thread:
    """A context in which torch, NumPy and SciPy compute on one thread."""

    def __enter__(self) -> None:
        self.threads = torch.get_num_threads()
        self.limit = threadpool_limits(1, user_api="blas")
        torch.set_num_threads(1)

    def __exit__(self, *reason: object) -> None:
        torch.set_num_threads(self.threads)
        self.limit.restore_original_limits()


def hardware(threads: int) -> str:
    """Processor, threads and version of torch, in one line.

    Example:
        >>> hardware(1).endswith(f"1 thread, torch {torch.__version__}")
        True
    """
    described, processor = Path("/proc/cpuinfo"), platform.processor() or platform.machine()
    if described.is_file():
        lines = [line.partition(":") for line in described.read_text().splitlines()]
        named = [value.strip() for key, _, value in lines if key.strip() == "model name"]
        processor = named[0] if named else processor
    cores = f"{os.cpu_count()} core{'s' * (os.cpu_count() != 1)}"
    count = f"{threads} thread{'s' * (threads != 1)}"
    return f"{processor}, {cores}, {count}, torch {torch.__version__}"
