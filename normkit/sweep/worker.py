"""What a worker of a cluster is asked: what decides its records, and a record."""

import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import normkit

from .cost import Config

__all__ = ["facts", "made"]

ALONE = threading.Lock()  # a run has its process to itself: torch's threads belong to the process


def facts(config: Config) -> dict[str, str]:
    """What decides whether two machines make the same record; asked on both."""
    return {"version": normkit.__version__} | config.dependencies()


def made(call: Callable[[Config, str], str], config: Config) -> dict[str, bytes]:
    """The files of the record that `call(config, root)` stores; the root goes with the worker."""
    from distributed import get_worker

    here = get_worker().local_directory
    with ALONE, tempfile.TemporaryDirectory(dir=here) as root:
        folder = Path(root) / call(config, root)
        return {path.name: path.read_bytes() for path in folder.iterdir()}
