"""A folder of finished runs, addressed by what they depend on."""

import contextlib
import dataclasses
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from .files import MANIFEST, StoreError, digest, publish, read_json, read_manifest, reason, write
from .places import default_root
from .record import Record
from .unfinished import claimed, leftovers, remove

__all__ = ["Store"]

UNFINISHED = ".unfinished"
SET_ASIDE = "corrupt"


class Store:
    """Runs by configuration.

    A configuration is a frozen dataclass with a method `dependencies() -> dict[str, str]` that
    names what its result depends on beside itself (the data's fingerprint, the code's hashes).
    A record's key is the hash of the one, a dash, and the hash of the other, so a change of the
    code never returns an old result and `why_missing` can say what changed.

    Arguments:
        root: folder of the store; created at the first `put`. Default: `default_root()`.
    """

    def __init__(self, root: str | Path | None = None):
        self.root = Path(root).absolute() if root is not None else default_root()

    def key(self, config: Any) -> str:
        """The name under which a configuration's run is kept."""
        return f"{_config_hash(config)}-{digest(config.dependencies())[:12]}"

    def get(self, config: Any) -> Record | None:
        """The verified record of a configuration, or None; a corrupt one is set aside first."""
        key = self.key(config)
        if not (self.root / key).is_dir():
            return None
        try:
            return self.open(key)
        except StoreError as error:
            kept = self._set_aside(key)
            warnings.warn(f"{error}; set aside in {kept}, the run is repeated", stacklevel=2)
            return None

    def open(self, key: str) -> Record:
        """The verified record of a key.

        Raises:
            StoreError: if there is none, or a file is missing or differs from its checksum.
        """
        folder = self.root / key
        if not folder.is_dir():
            raise StoreError(f"record {key!r} is not in {self.root}; `runs list` shows what is")
        return Record(folder, read_manifest(folder))

    def put(
        self,
        config: Any,
        *,
        tables: Mapping[str, Any],
        weights: Mapping[str, Any] | None = None,
        meta: Mapping[str, Any],
        replace: bool = False,
    ) -> Record:
        """Write a finished run; a reader sees all of it or nothing.

        Arguments:
            config: what was run.
            tables: name -> DataFrame.
            weights: a state dict, or None.
            meta: at least `status` and `seconds`; versions and platform are added.
            replace: let it take the place of a record of the same key, which otherwise stays.

        Raises:
            StoreError: no room on the disk, or a folder that cannot be written.
        """
        key = self.key(config)
        try:
            (self.root / UNFINISHED).mkdir(parents=True, exist_ok=True)
            scratch = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=self.root / UNFINISHED))
        except OSError as error:
            raise StoreError(f"store {self.root} cannot be written: {reason(error)}") from error
        try:
            write(scratch, key, config, tables, weights, meta)
            publish(scratch, self.root / key, replace)
        except OSError as error:
            why = f"record {key} not written to {self.root}: {reason(error)}"
            raise StoreError(why) from error
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return self.open(key)

    @contextlib.contextmanager
    def claim(self, config: Any) -> Iterator[Path]:
        """Inside the block no other process makes this run; gives the file for its checkpoint.

        A process that comes second waits, and should then look whether the run is there.

        Raises:
            StoreError: a folder that cannot be written.
        """
        with contextlib.ExitStack() as stack:
            try:
                path = stack.enter_context(claimed(self.root / UNFINISHED, self.key(config)))
            except OSError as error:
                why = f"store {self.root} cannot be written: {reason(error)}"
                raise StoreError(why) from error
            yield path

    def keys(self) -> list[str]:
        """The keys of all records, sorted."""
        return sorted(path.parent.name for path in self.root.glob(f"*-*/{MANIFEST}"))

    def table(self, query: Mapping[str, Any] | None = None) -> "Any":
        """One row per sound record: key, status, seconds and every field of its configuration.

        Arguments:
            query: column -> value that a row must have, e.g. `{"dataset": "digits"}`; fields of
                a nested part are named with a dot: `{"adversary.kind": "pgd"}`.

        Raises:
            KeyError: a column that no record has.
        """
        import pandas as pd

        sound = self.verify()
        rows = []
        for key in sound.key[sound.status == "ok"]:
            record = self.open(key)
            head = {"key": key, "status": record.status, "seconds": record.meta["seconds"]}
            rows.append(head | _flatten(record.config))
        table = pd.DataFrame(rows, columns=None if rows else ["key", "status", "seconds"])
        for column, value in (query or {}).items():
            if column not in table.columns:
                raise KeyError(f"column {column!r} is in no record; columns: {list(table)}")
            table = table[table[column] == value]
        return table.reset_index(drop=True)

    def verify(self) -> "Any":
        """A DataFrame with columns key and status: "ok", or what is wrong with the record."""
        import pandas as pd

        rows = []
        for key in self.keys():
            try:
                self.open(key)
                rows.append((key, "ok"))
            except StoreError as error:
                rows.append((key, str(error)))
        return pd.DataFrame(rows, columns=["key", "status"])

    def prune(
        self, keep: Callable[[Record], bool] | None = None, *, dry_run: bool = False
    ) -> list[Path]:
        """Remove what killed processes left, what was set aside, and records not to `keep`.

        Returns:
            what was removed, or with `dry_run` would be.
        """
        gone = list(leftovers(self.root / UNFINISHED))
        gone += (self.root / SET_ASIDE).glob("*")
        for key, status in self.verify().itertuples(index=False):
            if status != "ok" or (keep is not None and not keep(self.open(key))):
                gone.append(self.root / key)
        for path in () if dry_run else gone:
            remove(path)
        return gone

    def why_missing(self, config: Any) -> str:
        """Why a configuration has no record: never run, or what changed since it was."""
        older = self.root.glob(f"{_config_hash(config)}-*/{MANIFEST}")
        before = max(older, key=lambda path: path.stat().st_mtime, default=None)
        try:
            old = read_json(before)["depends"] if before else None
        except (OSError, ValueError, KeyError, TypeError):
            old = None
        if not isinstance(old, dict):
            return "not run yet"
        new = config.dependencies()
        changed = [name for name in sorted(old | new) if old.get(name) != new.get(name)]
        more = f" (+{len(changed) - 1} more)" if len(changed) > 1 else ""
        return f"{changed[0]} changed{more}" if changed else "not run yet"

    def _set_aside(self, key: str) -> Path:
        target = self.root / SET_ASIDE
        target.mkdir(exist_ok=True)
        kept = target / f"{key}-{time.time_ns()}"
        return (self.root / key).rename(kept)


def _config_hash(config: Any) -> str:
    content = {"kind": type(config).__name__, "config": dataclasses.asdict(config)}
    return digest(content)[:20]


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        nested = isinstance(value, dict)
        flat |= _flatten(value, f"{prefix}{name}.") if nested else {prefix + name: value}
    return flat
