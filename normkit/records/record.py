"""One finished run, as it lies in a store."""

import dataclasses
from pathlib import Path
from typing import Any

from .files import StoreError

__all__ = ["Record"]


@dataclasses.dataclass(frozen=True)
class Record:
    """One finished run: what was asked (`config`), what came of it, and how.

    `meta` holds `status` ("ok" or "diverged at step N"), `seconds`, versions, seed, device and
    threads; `table(name)` and `weights()` read the files, whose checksums held when the record
    was opened.
    """

    folder: Path
    manifest: dict[str, Any]

    @property
    def key(self) -> str:
        """The record's name in the store."""
        return self.manifest["key"]

    @property
    def config(self) -> dict[str, Any]:
        """The configuration as plain values; `training.from_dict` makes it one again."""
        return self.manifest["config"]

    @property
    def meta(self) -> dict[str, Any]:
        """Status, seconds, versions, seed, device, threads."""
        return self.manifest["meta"]

    @property
    def status(self) -> str:
        """\"ok\", or the sentence that says what went wrong in the run."""
        return self.meta["status"]

    def table(self, name: str) -> "Any":
        """One of the run's tables as a DataFrame.

        Raises:
            KeyError: if the run has no such table; the message lists those it has.
            StoreError: if its file is no table.
        """
        import pandas as pd

        if f"{name}.parquet" not in self.manifest["files"]:
            has = ", ".join(sorted(Path(f).stem for f in self.manifest["files"])) or "none"
            raise KeyError(f"table {name!r} is not in record {self.key}; it has: {has}")
        try:
            return pd.read_parquet(self.folder / f"{name}.parquet")
        except Exception as error:  # the bytes may be anything, and so may the error
            found = f"{type(error).__name__}: {error}"
            raise StoreError(f"record {self.key}: table {name} not read ({found})") from error

    def weights(self) -> dict[str, "Any"]:
        """The state dict, on the CPU; empty where the run kept none.

        Raises:
            StoreError: if its file holds no tensors.
        """
        from .tensors import read_tensors

        path = self.folder / "weights.safetensors"
        if path.name not in self.manifest["files"]:
            return {}
        try:
            return read_tensors(path)[0]
        except (OSError, ValueError) as error:
            raise StoreError(f"record {self.key}: {error}") from error
