"""How a record lies on the disk, and how it gets there whole."""

import dataclasses
import errno
import functools
import hashlib
import json
import os
import platform
import shutil
import sys
import threading
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

__all__ = [
    "MANIFEST",
    "StoreError",
    "digest",
    "publish",
    "read_json",
    "read_manifest",
    "reason",
    "replace",
    "write",
]

MANIFEST = "record.json"
PARTS = {"key": str, "kind": str, "config": dict, "depends": dict, "files": dict, "meta": dict}
LARGEST = 1 << 26  # bytes of JSON


class StoreError(RuntimeError):
    """A record cannot be written or read; the message says which, and what to do."""


def digest(content: Any) -> str:
    """SHA-256 of bytes, or of the canonical JSON of anything else.

    Example:
        >>> digest({"a": 1, "b": (2, 3)}) == digest({"b": [2, 3], "a": 1})
        True
    """
    if not isinstance(content, bytes):
        content = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    return hashlib.sha256(content).hexdigest()


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        OSError: no file, or one that cannot be read.
        ValueError: not JSON, or more of it than anything here writes.
    """
    if not path.is_file():
        raise FileNotFoundError(errno.ENOENT, "there is no such file", str(path))
    if (size := path.stat().st_size) > LARGEST:
        raise ValueError(f"{path} has {size:,} bytes, more than {LARGEST:,}")
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON ({error})") from error


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a record, every file checked against it.

    Raises:
        StoreError: if a file is missing or differs from its checksum.
    """
    key = folder.name
    try:
        manifest = read_json(folder / MANIFEST)
        checksum = manifest.pop("checksum")
        sound = digest(manifest) == checksum and manifest["key"] == key
        _check(manifest)
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise StoreError(f"record {key}: {MANIFEST} cannot be read ({error!r})") from None
    if not sound:
        raise StoreError(f"record {key}: {MANIFEST} differs from its checksum")
    for name, expected in manifest["files"].items():
        if not (folder / name).is_file():
            raise StoreError(f"record {key}: file {name} is missing")
        try:
            with open(folder / name, "rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise StoreError(f"record {key}: file {name} not read: {reason(error)}") from error
        if found != expected:
            raise StoreError(f"record {key}: file {name} differs from its checksum")
    return manifest


def _check(manifest: Mapping[str, Any]) -> None:
    """Whether the parts are of the kinds that `write` writes, and files are of this folder."""
    for name, kind in PARTS.items():
        if not isinstance(manifest[name], kind):
            raise TypeError(f"{name} is a {type(manifest[name]).__name__}")
    for name, kind in {"status": str, "seconds": int | float}.items():
        if not isinstance(manifest["meta"][name], kind):
            raise TypeError(f"meta.{name} is a {type(manifest['meta'][name]).__name__}")
    if odd := [name for name in manifest["files"] if Path(name).name != name or "\0" in name]:
        raise ValueError(f"{odd[0]!r} is no file of a record")


def write(
    folder: Path, key: str, config: Any, tables: Mapping, weights: Any, meta: Mapping
) -> None:
    """Write every file of a record into `folder`, the manifest last."""
    from safetensors.torch import save

    for name, table in tables.items():
        table.to_parquet(folder / f"{name}.parquet", index=False)
    if weights is not None:
        plain = {k: v.detach().cpu().contiguous() for k, v in weights.items()}
        note = {"config": json.dumps(dataclasses.asdict(config)), "meta": json.dumps(dict(meta))}
        (folder / "weights.safetensors").write_bytes(save(plain, metadata=note))
    manifest = {
        "key": key,
        "kind": type(config).__name__,
        "config": json.loads(json.dumps(dataclasses.asdict(config))),
        "depends": config.dependencies(),
        "files": {path.name: digest(path.read_bytes()) for path in sorted(folder.iterdir())},
        "meta": {**meta, "versions": _versions(), "platform": platform.platform()},
    }
    manifest["checksum"] = digest(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True))


def publish(scratch: Path, target: Path, replace: bool = False) -> None:
    """Move a written record to its name in one step, after its bytes are on the disk."""
    for path in scratch.iterdir():
        with open(path, "rb") as file:
            os.fsync(file.fileno())
    if replace and target.is_dir():
        os.rename(target, scratch.with_name(f"{scratch.name}-replaced"))
    try:
        os.rename(scratch, target)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise  # else another process stored the same run first, with the same content
    shutil.rmtree(scratch.with_name(f"{scratch.name}-replaced"), ignore_errors=True)


@functools.cache
def _versions() -> dict[str, str]:
    names = ("normkit", "torch", "numpy", "pandas")
    return {"python": sys.version.split()[0]} | {name: version(name) for name in names}


def replace(path: Path, content: bytes | str) -> None:
    """Write a file whole or not at all; its folder is made.

    Raises:
        OSError: names the file that cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        unfinished.write_bytes(content if isinstance(content, bytes) else content.encode())
        os.replace(unfinished, path)
    except OSError as error:
        error.filename = str(path)  # a full disk names no file
        raise
    finally:
        unfinished.unlink(missing_ok=True)


def reason(error: OSError) -> str:
    """An OSError as a clause that says what to do."""
    if error.errno == errno.ENOSPC or "No space left" in str(error):
        return "no room on the disk; free some space and start again, finished runs are kept"
    return f"{error.strerror or error} ({error.filename})"
