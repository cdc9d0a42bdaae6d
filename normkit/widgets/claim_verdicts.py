"""The verdict on a claim as it was, and as it is from runs with other settings."""

import dataclasses
import functools
import math

import pandas as pd

from normkit import papers
from normkit.claims import Claim, Part, Verdict, combine
from normkit.records import Store, figures_root

from .claim_recipes import RECIPES
from .claim_runs import Settings, profile_settings, records, runs, stored

__all__ = ["before", "compared", "comparison", "rejudged"]

COLUMNS = ["state", "judged", "profile", "part", "verdict", "effect", "low", "high", "n"]
COLUMNS += ["least", "most", "decides"]
SETTINGS = Settings()


def rejudged(
    name: str, settings: Settings = SETTINGS, profile: str = "quick"
) -> Verdict | None:
    """The verdict from the stored runs of these settings; None while some are not made.

    *In plain words:* the paper's own tables and judging functions, on the runs of `runs`.

    Raises:
        ValueError: a claim that is not judged from a handful of runs, or an unknown profile.
    """
    store, stages = Store(), runs(name, settings, profile)
    if not all(stored(run, store) for stage in stages for run in stage):
        return None
    tried, judged = (records(stage, store) for stage in stages)
    base = profile_settings(name, profile)
    given = {n: v for n, v in dataclasses.asdict(settings).items() if v != getattr(base, n)}
    return RECIPES[name].judge(judged, tried, papers.label(profile, **given))


def before(name: str, profile: str = "quick") -> Verdict | None:
    """The verdict that the paper's notebook wrote, else that of the profile's stored runs."""
    claim = _claim(name)
    path = figures_root() / profile / claim.paper / "verdicts.csv"
    if path.is_file():
        table = _read(str(path), path.stat().st_mtime_ns)
        rows = table[table.id == name].rename(columns={"part": "name"})
        if len(rows):
            fields = [field.name for field in dataclasses.fields(Part)]
            parts = [Part(*row) for row in rows[fields].itertuples(index=False)]
            return combine(claim, parts, profile=rows.profile.iloc[0])
    return rejudged(name, profile=profile)


def compared(
    name: str, settings: Settings = SETTINGS, profile: str = "quick"
) -> pd.DataFrame:
    """The parts of both verdicts: `comparison` of `before` and `rejudged`."""
    return comparison(before(name, profile), rejudged(name, settings, profile))


def comparison(old: Verdict | None, new: Verdict | None) -> pd.DataFrame:
    """The parts of two verdicts in one table.

    Columns: state (before or now), judged (the claim's verdict), profile, part, verdict, effect,
    low, high (of the 95 % interval), n, least and most (between which the effect must lie), and
    decides (the part that stands for the claim). A verdict that is missing has the other's parts,
    which are not run.

    Example:
        >>> from normkit.claims import above
        >>> claim = Claim("x", "y", "z")
        >>> old = combine(claim, [above("gap", [0.3, 0.32, 0.29])], profile="quick")
        >>> comparison(old, None)[["state", "judged", "part", "n"]].values.tolist()
        [['before', 'reproduced', 'gap', 3], ['now', 'not run', 'gap', 0]]
    """
    names = [part.name for verdict in (old, new) if verdict for part in verdict.parts] or [""]
    rows = []
    for state, verdict in (("before", old), ("now", new)):
        parts = {part.name: part for part in verdict.parts} if verdict else {}
        judged, label = (verdict.verdict, verdict.profile) if verdict else ("not run", "")
        for name in dict.fromkeys(names):
            part = parts.get(name, Part(name, "not run"))
            numbers = (part.effect, part.low, part.high, part.n, *_limits(part))
            decides = verdict is not None and part == verdict.deciding
            rows.append((state, judged, label, name, part.verdict, *numbers, decides))
    return pd.DataFrame(rows, columns=COLUMNS)


def _limits(part: Part) -> tuple[float, float]:
    """Between what a part's effect must lie, worked out from its slack.

    Slack is the distance to the nearer limit in units of what the part allows: of half the
    interval, or of the tolerance of an identity, whose interval starts at 0.

    Example:
        >>> from normkit.claims import above, exact, flat
        >>> _limits(above("gap", [0.3, 0.32, 0.29]))
        (0.0, inf)
        >>> [round(limit, 6) for limit in _limits(flat("slope", [0.01, -0.02, 0.005], 0.1))]
        [-0.1, 0.1]
        >>> round(_limits(exact("error", [1e-3], 4e-3))[1], 6)
        0.004
    """
    half = part.high - part.effect
    if not (math.isfinite(part.slack) and math.isfinite(half)):
        return 0.0, math.inf
    if part.low == 0 and part.high == part.effect:
        return 0.0, part.effect / (1 - part.slack) if part.slack < 1 else 0.0
    distance = part.slack * max(half, 1e-12)
    if math.isclose(distance, part.effect, rel_tol=1e-3, abs_tol=1e-9):
        return 0.0, math.inf
    return -abs(part.effect) - distance, abs(part.effect) + distance


def _claim(name: str) -> Claim:
    profile_settings(name)
    return next(claim for claim in papers.CLAIMS if claim.id == name)


@functools.lru_cache(maxsize=16)
def _read(path: str, changed: int) -> pd.DataFrame:
    """A table of verdicts, read again only when its file has changed."""
    return pd.read_csv(path)
