"""Times side by side: ratios, errors against a reference, and totals of a network."""

import math
from collections.abc import Callable, Sequence

import pandas as pd

from normkit import norms

from . import baselines
from .jobs import Job
from .speed import stopwatch

__all__ = ["absolute_totals", "compare", "errors", "reference"]


def compare(times: pd.DataFrame, ours: str) -> pd.DataFrame:
    """One row per layer: our milliseconds, and what the others take, in ours; then the whole.

    The last two rows are the geometric mean of the rows, and the sum of all times.

    Example:
        >>> times = pd.DataFrame({"layer": ["a", "a", "b", "b"], "method": ["x", "y"] * 2,
        ...     "repetition": 0, "seconds": [0.001, 0.004, 0.001, 0.009], "value": 1.0})
        >>> compare(times, "x").round(3).values.tolist()
        [[1.0, 4.0], [1.0, 9.0], [1.0, 6.0], [2.0, 6.5]]
    """
    best = times.pivot_table("seconds", "layer", "method", "min", sort=False)
    table = best.div(best[ours], axis=0)
    total = best.sum() / best[ours].sum()
    table[ours] = best[ours] * 1e3
    table.loc["geometric mean"] = table.map(math.log).mean().map(math.exp)
    table.loc["sum"] = total
    table.loc["sum", ours] = best[ours].sum() * 1e3
    return table.rename(
        columns={ours: f"{ours}, ms"}
        | {name: f"{name} / {ours}" for name in table if name != ours}
    )


def reference(job: Job, *, most: float = 5e9) -> tuple[float, float, str]:
    """Two numbers that hold the norm on the torus, and how they were found.

    A float64 SVD at every frequency; where that takes more than about `most` nanoseconds, the
    rigorous bracket.
    """
    weight, size, stride = job.form
    outputs, inputs = weight.shape[0], weight.shape[1] * math.prod(stride)
    places = math.prod(size) // math.prod(stride)
    if places * min(outputs, inputs) ** 2 * max(outputs, inputs) > most:
        bracket = norms.spectral_norm(
            job.layer, size, boundary="circular", rtol=1e-8, rigorous=True
        )
        return *bracket, "rigorous bracket"
    value, _ = baselines.fft_svd(weight.double(), size, stride)
    return value, value, "float64 SVD"


def errors(times: pd.DataFrame, references: dict[str, float]) -> pd.DataFrame:
    """Largest relative error of each method, one row per layer.

    Example:
        >>> times = pd.DataFrame({"layer": ["a"], "method": ["x"], "value": [1.5]})
        >>> float(errors(times, {"a": 1.0}).loc["a", "error x"])
        0.5
    """
    off = (times.value / times.layer.map(references) - 1).abs()
    table = times.assign(off=off).pivot_table("off", "layer", "method", "max", sort=False)
    return table.add_prefix("error ")


def absolute_totals(jobs: Sequence[Job], patience: float) -> pd.DataFrame:
    """Milliseconds of l1 and linf over all layers, against sums without and with index sets.

    *In plain words:* the plain sum is the paper's formula as if every tap fell on a pixel, which
    is no norm where a stride or a small map keeps taps apart; the gathers are the l1 norm of the
    strided layers, one set of taps after another.
    """
    rows, strided = [], [job for job in jobs if job.layer.stride != (1, 1)]

    def add(norm: str, layers: Sequence[Job], against: str, other: Callable) -> None:
        ours = norms.l1_norm if norm == "l1" else norms.linf_norm
        mine = stopwatch(lambda: [ours(j.layer, j.size).item() for j in layers], patience)[1]
        theirs = stopwatch(lambda: [other(j) for j in layers], patience)[1]
        rows.append((norm, len(layers), 1e3 * mine, against, theirs / mine))

    add("l1", jobs, "plain sum", lambda j: baselines.plain_sums(j.layer.weight, "l1"))
    add("linf", jobs, "plain sum", lambda j: baselines.plain_sums(j.layer.weight, "linf"))
    add("l1", strided, "gathers", lambda j: baselines.gathered(*j.form, j.layer.padding))
    return pd.DataFrame(rows, columns=["norm", "layers", "ours, ms", "against", "theirs / ours"])
