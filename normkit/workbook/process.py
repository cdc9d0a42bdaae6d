"""One notebook executed in a process of its own, which ends with whoever asked for it."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ..records import replace
from .folders import unwritable
from .notebook import Notebook

__all__ = ["execute", "terminable"]


def execute(
    notebook: Notebook,
    parameters: dict[str, Any],
    copy: Path,
    *,
    environment: dict[str, str],
    limit: float | None,
    places: Sequence[Path] = (),
    tick: Callable[[str], None],
) -> str | None:
    """Run a notebook and keep the executed copy, of a failed run too.

    Arguments:
        notebook: the source, which stays as it is.
        parameters: those to inject.
        copy: where the executed notebook goes.
        environment: variables for the kernel beside those of this process.
        limit: seconds that a cell may take; None for no limit.
        places: folders that it writes to; the error names those that cannot be written.
        tick: called about once a second with what is going on, such as `cell 3/12 fig-norms`.

    Returns:
        None, or a sentence that names the cell and the error.

    Raises:
        OSError: the copy cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix="nk-", dir=_short(), ignore_cleanup_errors=True) as s:
        scratch = Path(s)
        job = {"notebook": str(notebook.path), "folder": str(notebook.path.parent)}
        job |= {"copy": str(scratch / "copy.ipynb"), "scratch": s}
        job |= {"parameters": parameters, "limit": limit}
        private = {"IPYTHONDIR": str(scratch / "ipython"), "TMPDIR": s}
        private |= {"NORMKIT_PROGRESS": str(scratch / "progress")}
        private |= {"JUPYTER_PREFER_ENV_PATH": "1"}  # this Python's kernel, not the user's own
        with _child(job, environment | private) as child:
            event = _follow(child, list(notebook.code), scratch / "progress", tick)
        problem = _problem(event, child.returncode, scratch / "log")
        if problem:
            full = [why for place in (scratch.parent, *places) if (why := unwritable(place))]
            problem = "; ".join([problem, *full])
        _keep(scratch / "copy.ipynb", copy, problem is None)
    return problem


def _problem(event: dict[str, Any] | None, status: int, log: Path) -> str | None:
    if event is None and status < 0:
        return f"its process was killed ({signal.Signals(-status).name})"
    if event is None:
        lines = log.read_text(errors="replace").strip().splitlines()
        return f"its process ended: {lines[-1] if lines else f'exit status {status}'}"
    if event["error"] is None:
        return None
    place = f"cell {event['cell']}" if event["cell"] else "before the first cell"
    return f"{place}: {event['error']}"


def _keep(executed: Path, copy: Path, needed: bool) -> None:
    """Keep an executed notebook; where there is none, that of an earlier run goes."""
    try:
        content = executed.read_bytes()
        json.loads(content)  # it is torn where its process was killed, or had no room
        replace(copy, content)
    except (OSError, ValueError):
        copy.unlink(missing_ok=True)
        if needed:
            raise


@contextlib.contextmanager
def _child(job: dict[str, Any], environment: dict[str, str]) -> Iterator[subprocess.Popen]:
    with open(Path(job["scratch"]) / "log", "w") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "normkit.workbook.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=job["folder"],
            env=os.environ | environment,
            start_new_session=True,  # Ctrl-C reaches this process alone, which then closes stdin
        )
    try:
        with contextlib.suppress(BrokenPipeError):  # it died; its log says of what
            child.stdin.write(json.dumps(job) + "\n")
            child.stdin.flush()
        yield child
    finally:
        with contextlib.suppress(BrokenPipeError):
            child.stdin.close()
        try:
            child.wait(20)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        child.stdout.close()


def _follow(
    child: subprocess.Popen, cells: list[str], progress: Path, tick: Callable[[str], None]
) -> dict[str, Any] | None:
    """The event that ends a run; None if the process ended without one."""
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def listen() -> None:
        for line in child.stdout:
            lines.put(line)
        lines.put(None)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    what, event = "starting", {}
    while "error" not in event:
        trained = progress.read_text() if progress.is_file() else ""
        tick(f"{what}: {trained}" if trained else what)
        with contextlib.suppress(queue.Empty):
            line = lines.get(timeout=1)
            if line is None:
                return None
            event = json.loads(line)
            progress.unlink(missing_ok=True)
            number = cells.index(event["cell"]) + 1 if event.get("cell") in cells else 1
            what = f"cell {number}/{len(cells)} {event.get('cell', '')}"
    with contextlib.suppress(subprocess.TimeoutExpired):  # then it is killed
        child.wait(60)
        listener.join()
    return event


def _short() -> str | None:
    """A parent for scratch folders: the names of sockets in them end at 104 characters."""
    return "/tmp" if len(tempfile.gettempdir()) > 60 and os.path.isdir("/tmp") else None


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM ends a run as Ctrl-C does: through the code that ends its processes."""

    def leave(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
