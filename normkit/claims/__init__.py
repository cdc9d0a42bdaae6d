"""Claims, the evidence for them, and verdicts by a rule that was fixed beforehand."""

from .scoreboard import compare, write
from .verdicts import Claim, Part, Verdict, above, below, combine, exact, flat

__all__ = [
    "Claim",
    "Part",
    "Verdict",
    "above",
    "below",
    "combine",
    "compare",
    "exact",
    "flat",
    "write",
]
