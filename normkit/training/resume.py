"""Training that is stopped goes on where it was: the state of a run in one file."""

import io
import time
import warnings
from pathlib import Path
from typing import Any

import torch

from normkit import records

__all__ = ["SECONDS", "Checkpoint"]

SECONDS = 60.0  # at least so long from one checkpoint of a run to the next
LENGTH = 64  # of the checksum that stands before the state


class Checkpoint:
    """A file that holds the state of a run, whole or not at all.

    *In plain words:* the state is what the loop needs to go on to the same bits: weights,
    optimizer, generators, methods, and the rows so far. It stands behind its SHA-256, so a file
    that was damaged is not gone on with, and is read without unpickling any code.

    Arguments:
        path: the file; None keeps nothing.
        every: seconds from one checkpoint to the next.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "run"
        >>> Checkpoint(path).save({"epoch": 3, "weights": torch.ones(2)})
        >>> Checkpoint(path).load()
        {'epoch': 3, 'weights': tensor([1., 1.])}
    """

    def __init__(self, path: Path | None, every: float = SECONDS):
        self.path, self.every, self.saved = path, every, time.monotonic()

    @property
    def due(self) -> bool:
        """Whether it is time for the next one."""
        return self.path is not None and time.monotonic() - self.saved >= self.every

    def save(self, state: dict[str, Any]) -> None:
        """Write a state of tensors, numbers, words, lists and dictionaries.

        Raises:
            OSError: the file cannot be written.
        """
        content = io.BytesIO()
        torch.save(state, content)
        whole = content.getvalue()
        records.replace(self.path, records.digest(whole).encode() + whole)
        self.saved = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """The state as it was saved, on the CPU; None if there is none, or it was damaged."""
        if self.path is None or not self.path.is_file():
            return None
        content = self.path.read_bytes()
        checksum, content = content[:LENGTH], content[LENGTH:]
        if records.digest(content).encode() != checksum:
            warnings.warn(f"{self.path} is damaged; the run starts anew", stacklevel=2)
            return None
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
