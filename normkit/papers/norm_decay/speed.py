"""How long the norms of layers take, against what others do; ln.speed and benchmarks/norms.py."""

import dataclasses
import functools
import itertools
import math
import time
from collections.abc import Callable, Sequence

import pandas as pd

from normkit import norms

from ..profiles import choose
from . import baselines
from .jobs import Job, shapes
from ..measured import measuring_code

__all__ = ["Speed", "stopwatch", "timed", "timing"]

SAMPLE = 5
COLUMNS = ("layer", "method", "repetition", "seconds", "value")


@dataclasses.dataclass(frozen=True)
class Speed:
    """The times behind ln.speed: six layers, every norm and every baseline.

    Arguments:
        size: height and width of the input.
        divide: the channels of the six layers are divided by it.
        repetitions: how often everything is timed, in turns.
        patience: seconds that repeating a short call may take, or the power method in full;
            where that would take longer, its time follows from that of a few steps.
    """

    size: int = 32
    divide: int = 1
    repetitions: int = 3
    patience: float = 1.0

    def dependencies(self) -> dict[str, str]:
        """The hashes of the code that is timed and of the code that times."""
        return measuring_code(__name__, baselines.__name__, Job.__module__)

    def tables(self) -> dict[str, pd.DataFrame]:
        """Table "times": columns layer, method, repetition, seconds, value.

        Methods: l1, linf (as executed), bracket, gram_iteration, fft_svd (on the torus),
        power_method (as executed). Gram iteration is timed once.
        """
        jobs = shapes(self.size, self.divide)
        times = self.repetitions, self.patience
        tables = [
            timed(jobs, *times, ("l1", "linf")),
            timed(jobs, *times, ("bracket", "fft_svd")),
            timed(jobs, 1, 0, ("gram_iteration",)),
            timed(jobs, *times, ("power_method",), limit=self.patience),
        ]
        return {"times": pd.concat(tables, ignore_index=True)}


SETTINGS = {
    "smoke": Speed(size=4, divide=8, repetitions=1, patience=0.01),
    "quick": Speed(size=8, patience=0.05),
    "cifar10": Speed(),
    "paper": Speed(),
}


def timing(profile: str) -> Speed:
    """The layers that a profile times, and how patiently.

    Example:
        >>> timing("quick").size, timing("paper").size
        (8, 32)
    """
    return choose(SETTINGS, profile)


def stopwatch(call: Callable[[], object], patience: float = 1.0) -> tuple[object, float]:
    """What a call returns, and its shortest time in seconds: at most 20 tries, or `patience`."""
    times: list[float] = []
    while not times or (len(times) < 20 and sum(times) < patience):
        start = time.perf_counter()
        value = call()
        times.append(time.perf_counter() - start)
    return value, min(times)


def _whole_power(power: Callable[[int], tuple], limit: float) -> tuple[float, float]:
    """Value and seconds of all steps of a power method; it is a nan if they would take too long.

    Then the time of all follows from that of a few, since every step costs the same.
    """
    power(1)  # what is slow only once is no part of a step
    _, few = stopwatch(lambda: power(SAMPLE), limit / 10)
    if few * baselines.STEPS / SAMPLE <= limit:
        value, seconds = stopwatch(lambda: power(baselines.STEPS), 0)
        return value[0], seconds
    _, more = stopwatch(lambda: power(3 * SAMPLE), limit / 10)
    step = max(more - few, 0) / (2 * SAMPLE)
    return math.nan, few + step * (baselines.STEPS - SAMPLE)


METHODS = {
    "l1": lambda job: norms.l1_norm(job.layer, job.size).item(),
    "linf": lambda job: norms.linf_norm(job.layer, job.size).item(),
    "bracket": lambda job: (
        norms.spectral_norm(job.layer, job.size, boundary="circular", rtol=1e-6).lower
    ),
    "davidson": lambda job: norms.spectral_norm(job.layer, job.size, rtol=1e-5).lower,
    "fft_svd": lambda job: baselines.fft_svd(*job.form)[0],
    "gram_iteration": lambda job: baselines.gram_iteration(*job.form)[0],
}
POWERS = {
    "grid_power": lambda job, steps: baselines.grid_power(*job.form, steps=steps),
    "power_method": lambda job, steps: baselines.power_method(job.layer, job.size, steps),
}


def timed(
    jobs: Sequence[Job],
    repetitions: int,
    patience: float,
    methods: Sequence[str],
    *,
    limit: float = 1.0,
) -> pd.DataFrame:
    """How long methods take on every layer, and what they find.

    *In plain words:* as executed `l1`, `linf`, `davidson` (ours, `lower` converged to 1e-5) and
    `power_method`; on the torus `bracket` (ours, to 1e-6), `fft_svd`, `gram_iteration` and
    `grid_power`. Both power methods take 500 steps.

    Arguments:
        repetitions: how often everything is timed, in turns.
        patience: seconds that repeating a short call may take.
        limit: seconds that a power method may take; the time of a longer one is extrapolated
            from a few steps, and its value a nan.

    Shape:
        columns layer, method, repetition, seconds, value.

    Example:
        >>> table = timed(shapes(4, 16), 2, 0, ("bracket", "fft_svd"))
        >>> spread = table.groupby("layer").value.agg(lambda found: found.max() / found.min() - 1)
        >>> len(table), bool((spread < 1e-5).all())
        (24, True)
    """
    rows = []
    for job, repetition, method in itertools.product(jobs, range(repetitions), methods):
        if method in POWERS:
            value, seconds = _whole_power(functools.partial(POWERS[method], job), limit)
        else:
            value, seconds = stopwatch(functools.partial(METHODS[method], job), patience)
        rows.append((job.name, method, repetition, seconds, value))
    return pd.DataFrame(rows, columns=list(COLUMNS))
