"""Records that another machine made: taken into a store whole, or not at all."""

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from .files import StoreError, publish, read_manifest, reason
from .record import Record
from .store import UNFINISHED, Store

__all__ = ["adopt"]


def adopt(store: Store, key: str, files: Mapping[str, bytes]) -> Record:
    """Put a record that came as bytes into a store; one that is there already, stays.

    *In plain words:* nothing that comes from elsewhere is believed: the manifest has to be of
    this key, and every file has to be as the manifest says, before a reader sees any of it.

    Arguments:
        store: where it goes.
        key: under which it was asked for.
        files: name -> content, the manifest among them.

    Raises:
        StoreError: another record, a damaged one, or a store that cannot be written.
    """
    if odd := [name for name in files if Path(name).name != name or "\0" in name]:
        raise StoreError(f"record {key}: {odd[0]!r} is no file of a record")
    try:
        (store.root / UNFINISHED).mkdir(parents=True, exist_ok=True)
        prefix, folder = f"{os.getpid()}-", store.root / UNFINISHED
        scratch = Path(tempfile.mkdtemp(prefix=prefix, dir=folder))
    except OSError as error:
        raise StoreError(f"store {store.root} cannot be written: {reason(error)}") from error
    try:
        arrived = scratch / key
        arrived.mkdir()
        for name, content in files.items():
            (arrived / name).write_bytes(content)
        read_manifest(arrived)
        publish(arrived, store.root / key)
    except OSError as error:
        raise StoreError(f"record {key} not written: {reason(error)}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return store.open(key)
