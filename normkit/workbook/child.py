"""The process of one notebook: starts its kernel, runs its cells, says how far it is."""

import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

__all__ = ["execute", "main"]

Say = Callable[[dict[str, Any]], None]


def execute(job: dict[str, Any], say: Say) -> dict[str, Any]:
    """Execute a notebook with papermill; a kernel that does not start is tried once more.

    Arguments:
        job: notebook, copy, folder, scratch (paths), parameters, limit (seconds per cell).
        say: is told {"cell": id} as each code cell begins.

    Returns:
        {"error": None}, or the error as a sentence and the cell it came from (None: no cell).
    """
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    cell: list[str] = []

    def begin(event: dict[str, Any]) -> None:
        cell[:] = [event["cell"]]
        say(event)

    for attempt in ("first", "second"):
        try:
            _papermill(job, attempt, begin)
            return {"error": None}
        except PapermillExecutionError as error:
            what = _brief(f"{error.ename}: {error.evalue}")
        except CellTimeoutError:
            what = f"it took longer than {job['limit']} s"
        except DeadKernelError:
            what = "the kernel died (out of memory, or a crash in compiled code)"
        except Exception as error:
            what = _brief(f"{type(error).__name__}: {error}")
            if not cell and attempt == "first" and not isinstance(error, OSError):
                continue
        return {"error": what, "cell": cell[0] if cell else None}
    raise AssertionError("the second attempt always returns")


def main() -> None:
    """Read a job from standard input, execute it, write events to standard output.

    The end of standard input means that whoever asked is gone: the kernel and its workers are
    ended at once.
    """
    job = json.loads(sys.stdin.readline())
    leaving = threading.Lock()
    arguments = (job["scratch"], leaving)
    threading.Thread(target=_leave_with_parent, args=arguments, daemon=True).start()
    with os.fdopen(os.dup(1), "w") as channel:
        os.dup2(2, 1)  # what the kernel prints outside of its cells belongs to the log

        def say(event: dict[str, Any]) -> None:
            print(json.dumps(event), file=channel, flush=True)

        result = execute(job, say)
        with leaving:
            say(result)


def _papermill(job: dict[str, Any], attempt: str, say: Say) -> None:
    import papermill
    from traitlets.config import Config

    def begin(cell: Any, cell_index: int) -> None:
        if cell.cell_type == "code":
            say({"cell": cell.get("id", f"cell-{cell_index}")})

    transport = {"transport": "ipc", "ip": os.path.join(job["scratch"], attempt)}
    papermill.execute_notebook(
        job["notebook"],
        job["copy"],
        job["parameters"],
        kernel_name="python3",
        language="python",
        progress_bar=False,
        start_timeout=120,
        execution_timeout=job["limit"],
        cwd=job["folder"],
        on_cell_start=begin,
        config=Config({} if os.name == "nt" else {"KernelManager": transport}),
    )


def _brief(message: str) -> str:
    """The first line of a message, and the last one, which names the cause."""
    lines = [line.strip()[:300] for line in message.splitlines() if line.strip()]
    return " ... ".join(dict.fromkeys((lines[0], lines[-1])))


def _leave_with_parent(scratch: str, leaving: threading.Lock) -> None:
    while os.read(0, 4096):
        continue
    import psutil

    leaving.acquire()  # for good: the other thread may still save the notebook, but not go on
    for process in psutil.Process().children(recursive=True):
        process.kill()
    for _ in range(50):
        shutil.rmtree(scratch, ignore_errors=True)
        if not os.path.exists(scratch):
            break
        time.sleep(0.1)
    os._exit(1)


if __name__ == "__main__":
    main()
