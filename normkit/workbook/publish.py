"""What a run leaves for readers beside the figures: pages of the notebooks, and the gallery."""

from collections.abc import Sequence
from pathlib import Path

from . import gallery
from .folders import Folders
from .runner import Outcome

__all__ = ["publish", "write_pages"]

PAGED = "quick"  # the profile whose executed notebooks become pages


def publish(outcomes: Sequence[Outcome], folders: Folders, profile: str) -> str | None:
    """Write the pages and the gallery that are missing or older than what they show.

    Returns:
        None, or a sentence that says what could not be written.
    """
    figures, index = folders.figures / profile, folders.figures / "README.md"
    try:
        write_pages(outcomes, folders)
        if any(_older(index, page) for page in (figures / "claims.csv", *figures.glob("*.html"))):
            gallery.write(folders)
    except OSError as error:
        return f"{error.filename} not written: {error.strerror}"
    except ValueError as error:
        return str(error)
    return None


def write_pages(outcomes: Sequence[Outcome], folders: Folders) -> None:
    """Write the pages that are missing or older than the notebooks that were executed."""
    for task in [o.task for o in outcomes if o.state in ("ran", "up to date")]:
        copy = folders.kept(task.profile) / f"{task.notebook.name}.ipynb"
        page = folders.figures / task.profile / f"{task.notebook.name}.html"
        if task.profile == PAGED and _older(page, copy):
            from .pages import write

            write(copy, page)


def _older(file: Path, source: Path) -> bool:
    """Whether a file is missing or older than its source, where there is one."""
    if not source.is_file():
        return False
    return not file.is_file() or file.stat().st_mtime < source.stat().st_mtime
