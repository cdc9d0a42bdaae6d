"""What a store holds of runs that are not finished: whose they are, and how far they came."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

__all__ = ["claimed", "leftovers", "remove"]

LOCK, CHECKPOINT = ".lock", ".checkpoint"


@contextlib.contextmanager
def claimed(folder: Path, key: str) -> Iterator[Path]:
    """Inside the block no other process makes the run; gives the file for its checkpoint.

    *In plain words:* who comes second waits here, and then looks whether the run is there. The
    system lets go of the lock when its holder dies, however it dies. The checkpoint is removed
    when the block ends without an error: then the run is stored.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock, checkpoint = folder / f"run-{key}{LOCK}", folder / f"run-{key}{CHECKPOINT}"
    with FileLock(lock, poll_interval=0.2):
        yield checkpoint
        checkpoint.unlink(missing_ok=True)
        lock.unlink(missing_ok=True)


def leftovers(folder: Path) -> Iterator[Path]:
    """The files and folders here that no living process uses."""
    for path in sorted(folder.glob("*-*")):
        if path.is_dir():
            if not _alive(path):
                yield path
        elif not _held(path.with_suffix(LOCK)):
            yield path


def remove(path: Path) -> None:
    """Remove a file or a folder with all that is in it."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _held(lock: Path) -> bool:
    if not lock.is_file():
        return False
    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True


def _alive(folder: Path) -> bool:
    """Whether the process that a scratch folder is named after still runs."""
    try:
        os.kill(int(folder.name.split("-")[0]), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        pass  # alive, and somebody else's
    return True
