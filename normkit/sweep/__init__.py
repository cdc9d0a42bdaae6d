"""Runs what the store does not hold, on as many processes as asked."""

from .cost import work
from .dispatch import ClusterError
from .estimate import Estimate, estimate, measure
from .pool import WorkerDied, jobs, place, process_pool
from .remote import cluster
from .running import SweepError, make, run, stamp

__all__ = [
    "ClusterError",
    "Estimate",
    "SweepError",
    "WorkerDied",
    "cluster",
    "estimate",
    "jobs",
    "make",
    "measure",
    "place",
    "process_pool",
    "run",
    "stamp",
    "work",
]
