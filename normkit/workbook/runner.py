"""Which notebooks are to run and why, and the runs themselves, two at a time."""

import contextlib
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from . import notebook as notebooks
from . import state
from .datasets import fingerprints, used
from .folders import Folders
from .notebook import Notebook
from .process import execute, terminable
from .times import take

__all__ = ["How", "Outcome", "Task", "plan", "run"]

LIMITS = {"smoke": 900, "quick": 3600, "cifar10": 4 * 3600}  # seconds that a cell may take
FORCED = "forced"
AT_ONCE = 2  # notebooks


@dataclass(frozen=True)
class Task:
    """A notebook in a profile, and why it is to run (no reason: it is up to date).

    Arguments:
        notebook: the source.
        profile: its first parameter.
        parameters: all that are given to it, the profile among them.
        reasons: the first is the most telling.
    """

    notebook: Notebook
    profile: str
    parameters: dict[str, Any]
    reasons: tuple[str, ...]

    @property
    def why(self) -> str:
        """The first reason, and how many more there are."""
        more = f" (+{len(self.reasons) - 1} more)" if len(self.reasons) > 1 else ""
        return f"{self.reasons[0]}{more}" if self.reasons else "nothing it depends on changed"


@dataclass(frozen=True)
class How:
    """On what notebooks train, and how long a cell may take.

    Arguments:
        jobs: processes for the runs that a notebook asks for; None leaves it to `sweep`.
        scheduler: address of the Dask cluster that makes them instead.
        timeout: seconds that a cell may take; None for the profile's limit.
        places: folder of what notebooks that are executed at a time share, see `sweep.place`.
    """

    jobs: int | None = None
    scheduler: str | None = None
    timeout: float | None = None
    places: str | None = None

    @property
    def variables(self) -> dict[str, str]:
        """What a notebook's kernel sees of it."""
        said = {"NORMKIT_JOBS": self.jobs, "NORMKIT_SCHEDULER": self.scheduler}
        said["NORMKIT_PLACES"] = self.places
        return {name: str(value) for name, value in said.items() if value is not None}


@dataclass(frozen=True)
class Outcome:
    """What became of a task: state is "ran", "up to date", "failed" or "would run"."""

    task: Task
    state: str
    why: str
    seconds: float = 0.0


def plan(
    folders: Folders,
    profile: str,
    *,
    only: Sequence[str] = (),
    settings: Sequence[str] = (),
    device: str | None = None,
    force: bool = False,
    claims: Callable[[], dict[str, str]] = dict,
) -> list[Task]:
    """Every notebook that is asked for, with the reasons to run it; nothing is executed.

    Arguments:
        folders: of the workbook.
        profile: name of one.
        only: notebooks or claims.
        settings: `NOTEBOOK.parameter=value`.
        device: given to the notebooks that have such a parameter; None leaves their default.
        force: run what is up to date, too.
        claims: gives id of a claim -> topic of its notebook; called only if it is needed.

    Raises:
        ValueError: an unknown notebook, claim or parameter, or a value of the wrong type.
    """
    books = notebooks.find(folders.project)
    names = {name for book in books for name in (book.name, book.topic)}
    words = {word.strip() for part in only for word in part.split(",")}
    books = notebooks.select(books, only, claims() if words - names else {})
    chosen = notebooks.settings(books, settings)
    tasks = []
    for book in books:
        common = {"profile": profile}
        if device is not None and "device" in book.defaults:
            common["device"] = device
        parameters = common | chosen.get(book.name, {})
        reasons = _reasons(folders, book, profile, parameters)
        reasons += [FORCED] if force and not reasons else []
        tasks.append(Task(book, profile, parameters, tuple(reasons)))
    return tasks


def run(
    tasks: Sequence[Task],
    folders: Folders,
    *,
    how: How = How(),
    tick: Callable[[Task, str, float], None],
) -> Iterator[Outcome]:
    """Execute the tasks that have a reason to run, and give each when it is done.

    *In plain words:* two notebooks are executed at a time, since one draws on a single core while
    another trains; together they train no more runs at a time than one would. One fails, the
    others run. A notebook that another process is executing is waited for, and then left alone if
    it is up to date.

    Arguments:
        tasks: of `plan`.
        folders: of the workbook.
        how: on what, and for how long.
        tick: told about once a second, from threads, which task runs, what it does, and since when
            (`time.monotonic()`).

    Raises:
        KeyboardInterrupt, SystemExit: on Ctrl-C and SIGTERM, after the notebook's processes ended.
    """
    due = [task for task in tasks if task.reasons]
    yield from (Outcome(task, "up to date", task.why) for task in tasks if not task.reasons)
    if not due:
        return
    stopped = threading.Event()

    def told(task: Task, what: str, start: float) -> None:
        if stopped.is_set():
            raise KeyboardInterrupt  # in its thread, which then ends the notebook's process
        tick(task, what, start)

    with terminable(), tempfile.TemporaryDirectory() as places:
        if len(due) > 1:
            _take_times(due, folders, how, tick)
            how = replace(how, places=places)
        with ThreadPoolExecutor(AT_ONCE) as threads:
            running = [threads.submit(_in_turn, task, folders, how, told) for task in due]
            try:
                for outcome in as_completed(running):
                    yield outcome.result()
            finally:
                stopped.set()
                threads.shutdown(wait=False, cancel_futures=True)


def _take_times(
    due: Sequence[Task], folders: Folders, how: How, tick: Callable[[Task, str, float], None]
) -> None:
    start, books = time.monotonic(), [task.notebook for task in due]
    environment = folders.environment | how.variables
    take(books, due[0].profile, environment, lambda what: tick(due[0], what, start))


def _reasons(folders: Folders, book: Notebook, profile: str, parameters: dict) -> list[str]:
    saved = state.read(folders.kept(profile) / f"{book.name}.json")
    if saved.get("state") != "done":
        return state.reasons(saved, {})
    now = state.inputs(book, parameters)
    now["data"] = fingerprints(saved["data"], folders.runs / "workbook" / "data.json")
    now["figures"] = state.outputs(folders.figures / profile / book.topic)
    return state.reasons(saved, now)


def _in_turn(
    task: Task, folders: Folders, how: How, tick: Callable[[Task, str, float], None]
) -> Outcome:
    start, error = time.monotonic(), None

    def tell(what: str = "waiting for another run of it") -> None:
        tick(task, what, start)

    try:
        with folders.turn(task.profile, task.notebook.name, tell):
            now = _reasons(folders, task.notebook, task.profile, task.parameters)
            forced = [reason for reason in task.reasons if reason == FORCED]
            task = replace(task, reasons=tuple(now or forced))
            if task.reasons:
                error = _run_one(task, folders, how, tell)
    except OSError as problem:
        error = f"{problem.filename or folders.runs}: {problem.strerror or problem}"
    state = "failed" if error else "ran" if task.reasons else "up to date"
    return Outcome(task, state, error or task.why, time.monotonic() - start)


def _run_one(
    task: Task, folders: Folders, how: How, tick: Callable[[str], None]
) -> str | None:
    book, kept = task.notebook, folders.kept(task.profile)
    path, copy = kept / f"{book.name}.json", kept / f"{book.name}.ipynb"
    inputs = state.inputs(book, task.parameters)
    start = time.monotonic()
    state.write(path, {"state": "the last run did not finish"})
    limit = how.timeout or LIMITS.get(task.profile)
    environment = folders.environment | how.variables
    chosen = {"environment": environment, "limit": limit, "tick": tick}
    places = (folders.figures / task.profile, kept)
    error = execute(book, task.parameters, copy, places=places, **chosen)
    if error:
        with contextlib.suppress(OSError):  # of a full disk, which the error names
            state.write(path, {"state": f"the last run failed ({error})"})
        return f"{error}; executed notebook: {copy}" if copy.is_file() else error
    data = fingerprints(used(book, task.parameters), folders.runs / "workbook" / "data.json")
    figures = state.outputs(folders.figures / task.profile / book.topic)
    ran = {"seconds": round(time.monotonic() - start), "machine": _machine(task, how)}
    state.write(path, {"state": "done", **inputs, "data": data, "figures": figures, "run": ran})
    return None


def _machine(task: Task, how: How) -> str:
    """Where a notebook was executed, in one line."""
    import torch

    from ..papers.measured import hardware

    device = (task.notebook.defaults | task.parameters).get("device")
    words = [hardware(1)]
    if device in ("auto", "cuda") and torch.cuda.is_available():
        words.insert(0, torch.cuda.get_device_name())
    words += [f"--jobs {how.jobs}"] if how.jobs else []
    return ", ".join(words + (["--scheduler"] if how.scheduler else []))
