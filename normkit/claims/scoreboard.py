"""The verdicts on all claims, as the tables that a profile's figures stand beside."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from normkit.records import replace

from .verdicts import Claim, Part, Verdict

__all__ = ["compare", "write"]

VERDICTS = ("reproduced", "not separable", "contradicted", "not run")
COLUMNS = ["id", "paper", "statement", "verdict", "effect", "low", "high", "n", "profile"]
COLUMNS += ["evidence"]
WORDS, NUMBERS = ("id", "part", "verdict", "profile", "evidence"), ("effect", "low", "high")
KINDS = dict.fromkeys(WORDS, str) | dict.fromkeys(NUMBERS, float) | {"n": int, "slack": float}
PARTS = ("id", "part", "verdict", *NUMBERS, "n", "slack", "profile", "evidence")
LARGEST = 1 << 24  # bytes of a table; all of them together have some 100,000
MEND = "delete it and run its notebooks again"


def write(verdicts: Sequence[Verdict], folder: str | Path, catalogue: Sequence[Claim]) -> Path:
    """Put verdicts into a profile's `claims.csv` and `claims.md`; all other claims keep theirs.

    Arguments:
        verdicts: of any number of claims.
        folder: such as `figures/quick`; each paper's parts go to `PAPER/verdicts.csv` in it.
        catalogue: every claim there is; those never judged are listed as "not run".

    Returns:
        the path of `claims.csv`.

    Raises:
        ValueError: a `verdicts.csv` that is there is damaged.
    """
    folder = Path(folder)
    for paper in dict.fromkeys(verdict.claim.paper for verdict in verdicts):
        path = folder / paper / "verdicts.csv"
        mine = [verdict for verdict in verdicts if verdict.claim.paper == paper]
        rows = _parts_table(mine)
        if path.is_file():
            before = _read(path, PARTS)
            rows = pd.concat([before[~before.id.isin(rows.id)], rows])
        replace(path, rows.sort_values("id", kind="stable").to_csv(index=False))
    return _summarize(folder, catalogue)


def compare(root: str | Path, ids: Sequence[str]) -> pd.DataFrame:
    """The verdicts of every profile side by side: a row per claim, a column per profile.

    Arguments:
        root: the folder that holds a folder of figures for each profile.
        ids: of the claims.

    Raises:
        ValueError: a `claims.csv` is damaged.
    """
    columns = {}
    for path in sorted(Path(root).glob("*/claims.csv")):
        table = _read(path, COLUMNS)
        if table.id.duplicated().any():
            raise ValueError(f"{path} lists a claim twice; {MEND}")
        table = table.set_index("id").reindex(ids)
        interval = table.effect.map("{:.3g}".format) + " [" + table.low.map("{:.3g}".format)
        interval += ", " + table.high.map("{:.3g}".format) + "]"
        shown = table.verdict + (", " + interval).where(table.n > 0, "")
        columns[path.parent.name] = shown.fillna("not run")
    return pd.DataFrame(columns, index=pd.Index(ids, name="claim"))


def _read(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """A table that `write` has written; anything else is refused."""
    if not path.is_file() or path.stat().st_size > LARGEST:
        raise ValueError(f"{path} is no file of at most {LARGEST:,} bytes; {MEND}")
    try:
        table = pd.read_csv(path, dtype=KINDS)
        words = [name for name in columns if name in WORDS]
        table[words] = table[words].fillna("")
        plain = isinstance(table.index, pd.RangeIndex) and list(table) == list(columns)
        sound = plain and table.verdict.isin(VERDICTS).all() and (table.n >= 0).all()
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        found = " ".join(str(error).split())
        raise ValueError(f"{path} is no table of verdicts ({found}); {MEND}") from error
    if not sound:
        raise ValueError(f"{path} is no table of verdicts; {MEND}")
    return table


def _summarize(folder: Path, catalogue: Sequence[Claim]) -> Path:
    judged: dict[str, Verdict] = {}
    claims = {claim.id: claim for claim in catalogue}
    for path in sorted(folder.glob("*/verdicts.csv")):
        table = _read(path, PARTS)
        for name, rows in table[table.id.isin(claims)].groupby("id", sort=False):
            fields = [field.name for field in dataclasses.fields(Part)]
            columns = rows.rename(columns={"part": "name"})[fields]
            parts = tuple(Part(*row) for row in columns.itertuples(index=False))
            head = rows.iloc[0]
            judged[name] = Verdict(claims[name], parts, head.profile, head.evidence)
    found = [judged.get(claim.id, Verdict(claim, (), folder.name, "")) for claim in catalogue]
    table = pd.DataFrame([_summary_row(v) for v in found], columns=COLUMNS)
    replace(folder / "claims.md", _markdown(found, folder.name))
    replace(folder / "claims.csv", table.to_csv(index=False))
    return folder / "claims.csv"


def _summary_row(v: Verdict) -> list:
    part = v.deciding
    numbers = [_round(part.effect), _round(part.low), _round(part.high), part.n]
    head = [v.claim.id, v.claim.paper, v.claim.statement, v.verdict]
    return [*head, *numbers, v.profile, v.evidence]


def _parts_table(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    rows = [
        {
            "id": v.claim.id,
            "part": part.name,
            "verdict": part.verdict,
            "effect": _round(part.effect),
            "low": _round(part.low),
            "high": _round(part.high),
            "n": part.n,
            "slack": _round(part.slack),
            "profile": v.profile,
            "evidence": v.evidence,
        }
        for v in verdicts
        for part in v.parts
    ]
    return pd.DataFrame(rows)


def _markdown(verdicts: Sequence[Verdict], profile: str) -> str:
    counts = {name: sum(v.verdict == name for v in verdicts) for name in VERDICTS}
    lines = [f"# Claims, profile `{profile}`", ""]
    lines += [", ".join(f"{count} {name}" for name, count in counts.items()) + ".", ""]
    lines += ["| claim | statement | verdict | effect | 95 % interval | n | parts |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for v in verdicts:
        part, held = v.deciding, sum(p.verdict == "reproduced" for p in v.parts)
        tally = f"{held} of {len(v.parts)} reproduced" if v.parts else ""
        cells = [v.claim.id, v.claim.statement, f"**{v.verdict}**", *part.cells[1:4], tally]
        lines += [f"| {' | '.join(cells)} |"]
    for v in (v for v in verdicts if v.parts):
        lines += ["", f"## {v.claim.id}: {v.verdict}", "", v.claim.statement, ""]
        lines += [v.claim.statistic + (f" Evidence: `{v.evidence}`." if v.evidence else ""), ""]
        lines += ["| part | effect | 95 % interval | n | verdict |", "|---|---|---|---|---|"]
        lines += [f"| {' | '.join(part.cells)} |" for part in v.parts]
    return "\n".join(lines) + "\n"


def _round(value: float) -> float:
    return float(f"{value:.6g}")
