"""A run depends on its configuration alone: not on threads, nor on what else draws numbers."""

import contextlib
import threading
from collections.abc import Iterator

import torch

__all__ = ["one_thread", "seeded"]

SEEDING = threading.Lock()  # torch initializes from one generator that all threads share


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Numbers that torch draws inside come from a seed, and no numbers outside are changed.

    Example:
        >>> with seeded(0):
        ...     first = torch.rand(1)
        >>> with seeded(0):
        ...     bool(torch.rand(1) == first)
        True
    """
    with SEEDING, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """One thread for the whole process: run side by side in processes, not in threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
