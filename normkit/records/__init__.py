"""The store of runs: found by configuration, written atomically, verified when read."""

from .code import code_hashes
from .files import StoreError, digest, replace
from .places import default_root, figures_root, project_root
from .record import Record
from .store import Store

__all__ = [
    "Record",
    "Store",
    "StoreError",
    "code_hashes",
    "default_root",
    "digest",
    "figures_root",
    "project_root",
    "replace",
]
