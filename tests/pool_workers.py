"""The worker processes of this process, found among its descendants."""

import psutil


def workers() -> list[psutil.Process]:
    """Forks of the server that imported torch, or processes that were spawned."""
    found = []
    for process in psutil.Process().children(recursive=True):
        parent = " ".join(process.parent().cmdline())
        words = " ".join(process.cmdline())
        if "spawn_main" in words or "forkserver" in words and "forkserver" in parent:
            found.append(process)
    return found
