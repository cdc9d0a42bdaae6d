"""A claim, the evidence for it, and a verdict by a rule that was fixed beforehand."""

import dataclasses
import math
from collections.abc import Iterable, Sequence

import numpy as np
from scipy import stats

__all__ = ["Claim", "Part", "Verdict", "above", "below", "combine", "exact", "flat"]

FEWEST = 3


@dataclasses.dataclass(frozen=True)
class Claim:
    """What a paper says, in a form that can fail.

    Arguments:
        id: such as "ln.density".
        paper: the module of `normkit.papers` and the notebook that judge it.
        statement: one sentence.
        statistic: what is measured, in which direction, and what one repetition is.
    """

    id: str
    paper: str
    statement: str
    statistic: str = ""


@dataclasses.dataclass(frozen=True)
class Part:
    """One judged comparison: its effect, 95 % interval and number of repetitions.

    `slack` says how far the evidence lies on the claimed side, in half-widths of the interval;
    the part with the least decides.
    """

    name: str
    verdict: str
    effect: float = math.nan
    low: float = math.nan
    high: float = math.nan
    n: int = 0
    slack: float = -math.inf

    @property
    def cells(self) -> list[str]:
        """Name, effect, interval, n and verdict as the cells of a table."""
        if not self.n:
            return [self.name, "", "", "", self.verdict]
        interval = f"{self.low:.3g} to {self.high:.3g}" if math.isfinite(self.low) else ""
        return [self.name, f"{self.effect:.3g}", interval, str(self.n), self.verdict]


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A claim judged: contradicted if one part is, reproduced if all are, not run if one is not.

    Effect, interval and n are those of the part that decided: of the parts with that verdict, the
    one least on the claimed side.
    """

    claim: Claim
    parts: tuple[Part, ...]
    profile: str
    evidence: str

    @property
    def verdict(self) -> str:
        """reproduced, not separable, contradicted or not run."""
        found = {part.verdict for part in self.parts} or {"not run"}
        order = ("contradicted", "not run", "not separable", "reproduced")
        return next(name for name in order if name in found)

    @property
    def deciding(self) -> Part:
        """The part whose numbers stand for the claim."""
        same = [part for part in self.parts if part.verdict == self.verdict]
        return min(same, key=lambda part: part.slack, default=Part("", "not run"))

    def _repr_markdown_(self) -> str:
        part = self.deciding
        head = f"**{self.claim.id}: {self.verdict}.** {self.claim.statement}"
        rows = "\n".join(f"| {' | '.join(part.cells)} |" for part in self.parts)
        table = f"| part | effect | 95 % interval | n | verdict |\n|---|---|---|---|---|\n{rows}"
        decided = f"Decided by: {part.name}." if len(self.parts) > 1 else ""
        return f"{head}\n\n*{self.claim.statistic}* {decided}\n\n{table}"

    def __str__(self) -> str:
        part = self.deciding
        numbers = f"effect {part.effect:.3g} [{part.low:.3g}, {part.high:.3g}], n = {part.n}"
        return f"{self.claim.id}: {self.verdict} ({numbers}; {part.name})"


def above(name: str, values: Sequence[float], margin: float = 0.0) -> Part:
    """Judge that a paired statistic lies above a margin.

    The effect is the mean of `values - margin` with a 95 % t interval: on the claimed side
    "reproduced", across zero "not separable", on the other side "contradicted". Fewer than three
    finite values are "not run".

    Arguments:
        name: of the comparison.
        values: one number for each repetition, e.g. a difference paired by seed.
        margin: what the statistic must exceed.

    Example:
        >>> above("gap", [0.3, 0.32, 0.29], margin=0.2).verdict
        'reproduced'
        >>> above("gap", [0.1, -0.12, 0.09]).verdict
        'not separable'
        >>> above("gap", [0.3]).verdict
        'not run'
    """
    kept = np.asarray([v for v in values if math.isfinite(v)], dtype=float) - margin
    if len(kept) == 0:
        return Part(name, "not run")
    effect, half = float(kept.mean()), _half_width(kept)
    low, high = effect - half, effect + half
    if len(kept) < FEWEST:
        verdict = "not run"
    elif low > 0:
        verdict = "reproduced"
    else:
        verdict = "contradicted" if high < 0 else "not separable"
    return Part(name, verdict, effect, low, high, len(kept), _slack(effect, half))


def below(name: str, values: Sequence[float], margin: float = 0.0) -> Part:
    """Judge that a statistic lies below a margin: `above` of `margin - value`."""
    return above(name, [margin - value for value in values])


def flat(name: str, values: Sequence[float], margin: float) -> Part:
    """Judge that a statistic stays within `margin` of zero: the interval must lie inside.

    Example:
        >>> flat("slope", [0.01, -0.02, 0.005], margin=0.1).verdict
        'reproduced'
    """
    part = above(name, values)
    if part.verdict == "not run":
        return part
    inside = -margin < part.low and part.high < margin
    outside = part.low > margin or part.high < -margin
    verdict = "reproduced" if inside else "contradicted" if outside else "not separable"
    slack = _slack(margin - abs(part.effect), part.high - part.effect)
    return dataclasses.replace(part, verdict=verdict, slack=slack)


def exact(name: str, errors: Sequence[float], tolerance: float) -> Part:
    """Judge an identity: no error above `tolerance`; the effect is the worst, n the cases."""
    if not len(errors):
        return Part(name, "not run")
    worst = float(np.max(np.abs(errors)))  # a NaN stays one, and fails
    verdict = "reproduced" if worst <= tolerance else "contradicted"
    return Part(
        name, verdict, worst, 0.0, worst, len(errors), _slack(tolerance - worst, tolerance)
    )


def combine(claim: Claim, parts: Iterable[Part], *, profile: str, evidence: str = "") -> Verdict:
    """The verdict on a claim from all of its parts."""
    return Verdict(claim, tuple(parts), profile, evidence)


def _slack(distance: float, half: float) -> float:
    return distance / max(half, 1e-12) if math.isfinite(half) else -math.inf


def _half_width(values: np.ndarray) -> float:
    if len(values) < 2:
        return math.nan
    spread = values.std(ddof=1) / math.sqrt(len(values))
    return float(stats.t.ppf(0.975, len(values) - 1) * spread)
