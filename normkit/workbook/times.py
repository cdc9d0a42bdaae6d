"""Times that notebooks take, taken before several of them are executed at once."""

import os
import pkgutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from .notebook import Notebook

__all__ = ["TIMED", "take"]

TIMED = ("enorm.cost", "norm_decay.timing", "across_papers.step_cost")  # of `papers`


def take(
    books: Sequence[Notebook],
    profile: str,
    environment: Mapping[str, str],
    tick: Callable[[str], None],
) -> None:
    """Measure what these notebooks call for and the store lacks, while nothing else runs.

    *In plain words:* a time that is taken beside training is another one. What fails here fails
    again in its notebook, which then says why.

    Arguments:
        books: that will be executed.
        profile: in which.
        environment: variables of their kernels.
        tick: told several times a second what goes on.
    """
    sources = [source for book in books for source in book.code.values()]
    calls = [call for call in TIMED if any(f"{call}(" in source for source in sources)]
    if not calls:
        return
    child = subprocess.Popen(
        [sys.executable, "-m", "normkit.workbook.times", profile, *calls],
        env=os.environ | dict(environment),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        while child.poll() is None:
            tick("taking times, before anything else runs")
            time.sleep(0.2)
    finally:
        child.kill()
        child.wait()


def _main(profile: str, *calls: str) -> None:
    from ..papers import kept
    from ..records import Store

    for call in calls:
        kept(pkgutil.resolve_name(f"normkit.papers:{call}")(profile), Store())


if __name__ == "__main__":
    _main(*sys.argv[1:])
