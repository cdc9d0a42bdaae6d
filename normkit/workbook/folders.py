"""Where a workbook lies, whether that can be written, and whose turn a notebook is."""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from ..records import default_root, figures_root, project_root

__all__ = ["Folders", "check_folders", "unwritable"]


@dataclass(frozen=True)
class Folders:
    """Where a workbook lies: the project, its figures and its runs.

    Arguments:
        project: holds the folder `notebooks`.
        runs: the store, which also keeps the executed notebooks.
        figures: gets a folder for every profile.
    """

    project: Path = field(default_factory=project_root)
    runs: Path = field(default_factory=default_root)
    figures: Path = field(default_factory=figures_root)

    def kept(self, profile: str) -> Path:
        """The folder of executed notebooks and of what they depended on."""
        return self.runs / "workbook" / profile

    @property
    def environment(self) -> dict[str, str]:
        """What a kernel is told; one thread: cores are for training, and bits stay the same."""
        told = {"NORMKIT_FIGURES": str(self.figures), "NORMKIT_RUNS": str(self.runs)}
        told["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", "1")
        if "NORMKIT_DATA" in os.environ:
            told["NORMKIT_DATA"] = str(Path(os.environ["NORMKIT_DATA"]).expanduser().absolute())
        return told

    @contextlib.contextmanager
    def turn(self, profile: str, name: str, waiting: Callable[[], None]) -> Iterator[None]:
        """Inside the block no other process runs this notebook in this profile.

        The system lets go of the lock when its holder dies, however it dies.

        Arguments:
            profile: of the run.
            name: of the notebook.
            waiting: called once a second while another process has its turn.

        Raises:
            OSError: the lock cannot be written.
        """
        path = self.runs / "workbook" / f"{profile}-{name}.lock"
        lock = FileLock(path, poll_interval=0.1)
        while not lock.is_locked:
            try:
                lock.acquire(timeout=1)
            except Timeout:
                waiting()
        try:
            yield
            path.unlink(missing_ok=True)
        finally:
            lock.release()


def check_folders(folders: Folders, profile: str) -> None:
    """Make sure that figures and runs can be written.

    Raises:
        OSError: names the folder, the problem, and the variable that chooses another one.
    """
    places = {"NORMKIT_FIGURES": folders.figures / profile, "NORMKIT_RUNS": folders.kept(profile)}
    for variable, folder in places.items():
        if problem := unwritable(folder):
            raise OSError(
                f"{problem}; nothing was started; make room or rights, or name another folder "
                f"in {variable}"
            )


def unwritable(folder: Path) -> str | None:
    """What is wrong with writing into a folder, which is made; None if there is nothing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(1 << 20))
    except OSError as error:
        return f"{folder} cannot be written ({error.strerror})"
    return None
