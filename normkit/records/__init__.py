"""The store of runs: found by configuration, written atomically, verified when read."""

from .code import code_hashes
from .files import StoreError, digest
from .store import Record, Store, default_root, project_root

__all__ = [
    "Record",
    "Store",
    "StoreError",
    "code_hashes",
    "default_root",
    "digest",
    "project_root",
]
