"""`normkit run`: checks what is asked for, runs it, says what happened."""

import contextlib
import csv
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from . import gallery
from .forecast import forecast
from .folders import Folders, check_folders
from .notebook import nearest
from .publish import publish, write_pages
from .runner import How, Outcome, Task, plan, run

__all__ = ["DEVICES", "command", "table"]

DEVICES = ("auto", "cpu", "cuda")
DEFAULT_PROFILE = "quick"
WIDTH = 72  # of the table's reasons


def command(
    profile: str = DEFAULT_PROFILE,
    *,
    only: Sequence[str] = (),
    settings: Sequence[str] = (),
    jobs: int | None = None,
    device: str | None = None,
    force: bool = False,
    list_only: bool = False,
    timeout: int | None = None,
    scheduler: str | None = None,
) -> int:
    """Bring the workbook up to date in a profile; what is, is left alone.

    Progress goes to standard error, the closing table to standard output.

    Arguments:
        profile: one of `papers.PROFILES`.
        only: notebooks or claims; all notebooks where it is empty.
        settings: `NOTEBOOK.parameter=value`, checked against the notebook's parameters.
        jobs: processes that train at a time; None leaves it to `sweep`.
        device: "auto", "cpu" or "cuda", for the notebooks that have such a parameter.
        force: run what is up to date, too.
        list_only: only say what would run and why, and what would have to train.
        timeout: seconds that a cell may take; None for the profile's limit.
        scheduler: address of the Dask cluster that trains, such as tcp://HOST:8786.

    Returns:
        0, or 1 if a notebook failed, or the scoreboard or a page could not be written.

    Raises:
        ValueError: something that is asked for does not exist or has the wrong type.
        OSError: the figures or the runs cannot be written, or the scheduler does not answer.
    """
    if jobs is not None and jobs < 1:
        raise ValueError(f"--jobs is {jobs}; it must be 1 or more")
    if timeout is not None and timeout < 1:
        raise ValueError(f"--timeout is {timeout}; it must be 1 or more seconds")
    folders = Folders()
    _check_profile(profile, folders)
    _check_device(device)
    chosen = {"only": only, "settings": settings, "device": device, "force": force}
    tasks = plan(folders, profile, **chosen, claims=_claims)
    if list_only:
        return _list(tasks, folders, jobs)
    if any(task.reasons for task in tasks):
        check_folders(folders, profile)
        _check_scheduler(scheduler)
    outcomes = _run(tasks, folders, How(jobs, scheduler, timeout))
    return _close(outcomes, folders, profile)


def table(outcomes: Sequence[Outcome]) -> str:
    """Notebook, state, why and seconds, a line each; what failed says why in full."""
    rows = [("notebook", "state", "why", "seconds")]
    for outcome in outcomes:
        why = outcome.why.split("\n")[0].partition("; executed notebook")[0]
        short = len(why) <= WIDTH or outcome.state == "failed"
        why = why if short else f"{why[: WIDTH - 3]}..."
        seconds = f"{outcome.seconds:.1f}" if outcome.seconds else ""
        rows.append((outcome.task.notebook.name, outcome.state, why, seconds))
    wide = [max(min(len(row[i]), WIDTH) for row in rows) for i in range(4)]
    return "\n".join(
        f"{a:<{wide[0]}}  {b:<{wide[1]}}  {c:<{wide[2]}}  {d:>{wide[3]}}" for a, b, c, d in rows
    )


def _list(tasks: Sequence[Task], folders: Folders, jobs: int | None) -> int:
    states = ["would run" if task.reasons else "up to date" for task in tasks]
    print(table([Outcome(task, word, task.why) for task, word in zip(tasks, states)]))
    if told := forecast(tasks, folders, jobs):
        print(f"\n{told}")
    return 0


def _run(tasks: Sequence[Task], folders: Folders, how: How) -> list[Outcome]:
    found: dict[str, Outcome] = {}
    progress = _Progress()
    try:
        for outcome in run(tasks, folders, how=how, tick=progress.tick):
            name = outcome.task.notebook.name
            found[name] = outcome
            if outcome.state != "up to date":
                why = f": {outcome.why}" if outcome.state == "failed" else ""
                told = f"{name} {outcome.state} after {outcome.seconds:.1f} s{why}"
                progress.ended(outcome.task, told)
            with contextlib.suppress(OSError, ValueError):  # tried again, and said, at the end
                write_pages([outcome], folders)
    except (KeyboardInterrupt, SystemExit):
        print("\ninterrupted; what was finished is kept", file=sys.stderr)
        print(table(list(found.values())))
        raise
    return [found[task.notebook.name] for task in tasks]


class _Progress:
    """One line that is written over on a terminal; elsewhere a line of each task in 15 seconds."""

    def __init__(self) -> None:
        self.terminal = sys.stderr.isatty()
        self.lock = threading.Lock()
        self.now: dict[str, str] = {}  # what each running notebook does
        self.written: dict[str, float] = {}

    def tick(self, task: Task, what: str, start: float) -> None:
        now, name = time.monotonic(), task.notebook.name
        with self.lock:
            if name not in self.written:
                self.written[name] = now
                self._write(f"{name}: {task.why}; {what}")
            text = self.now[name] = f"{name} {what} {now - start:.0f} s"
            if self.terminal:
                text = " | ".join(self.now.values())[: shutil.get_terminal_size().columns - 1]
                print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
            elif now - self.written[name] >= 15:
                self.written[name] = now
                self._write(text)

    def ended(self, task: Task, text: str) -> None:
        with self.lock:
            self.now.pop(task.notebook.name, None)
            self._write(text)

    def _write(self, text: str) -> None:
        clear = "\r\033[K" if self.terminal else ""
        print(f"{clear}{text}", file=sys.stderr, flush=True)


def _close(outcomes: Sequence[Outcome], folders: Folders, profile: str) -> int:
    figures = folders.figures / profile
    print(table(outcomes))
    print(f"figures: {figures}")
    failed = any(outcome.state == "failed" for outcome in outcomes)
    scoreboard = figures / "claims.csv"
    ran = any(outcome.state == "ran" for outcome in outcomes)
    if ran or not (scoreboard.is_file() and (figures / "claims.md").is_file()):
        from .. import claims, papers

        try:
            claims.write((), figures, papers.CLAIMS)
        except OSError as error:
            print(f"normkit: {scoreboard} not written: {error.strerror}", file=sys.stderr)
            return 1
    try:
        with scoreboard.open(newline="", encoding="utf-8") as file:
            counts = Counter(row["verdict"] for row in csv.DictReader(file))
    except (OSError, ValueError, KeyError, csv.Error):
        again = "delete it and start again"
        print(f"normkit: {scoreboard} is damaged; {again}", file=sys.stderr)
        return 1
    print("claims: " + ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common()))
    problem = publish(outcomes, folders, profile) if profile in gallery.SHOWN else None
    if problem:
        print(f"normkit: {problem}", file=sys.stderr)
    return int(failed or problem is not None)


def _check_profile(profile: str, folders: Folders) -> None:
    if profile.isidentifier() and folders.kept(profile).is_dir():
        return  # it ran before, and the list of profiles takes seconds to import
    from ..papers import PROFILES

    if profile not in PROFILES:
        raise ValueError(
            f"there is no profile {profile!r}; the nearest is {nearest(profile, PROFILES)}, "
            f"all are {', '.join(PROFILES)}"
        )


def _check_device(device: str | None) -> None:
    if device not in (None, *DEVICES):
        raise ValueError(
            f"there is no device {device!r}; the nearest is {nearest(device, DEVICES)}"
        )
    if device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise ValueError("--device cuda: torch finds no CUDA device here; try auto or cpu")


def _check_scheduler(address: str | None) -> None:
    """Refuse a cluster that does not answer; each notebook connects to it by itself."""
    if address is not None:
        from ..sweep import cluster

        with cluster(address):
            pass


def _claims() -> dict[str, str]:
    from ..papers import CLAIMS

    return {claim.id: claim.paper for claim in CLAIMS}
