"""The data sets that runs share in a process."""

import functools
import os

from normkit import data

__all__ = ["dataset"]


def dataset(name: str) -> data.Dataset:
    """A data set, loaded once per process and data folder."""
    return _dataset(name, os.environ.get("NORMKIT_DATA"))


@functools.lru_cache(maxsize=4)
def _dataset(name: str, root: str | None) -> data.Dataset:
    return data.load(name, root)
