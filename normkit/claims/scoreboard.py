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


def write(verdicts: Sequence[Verdict], folder: str | Path, catalogue: Sequence[Claim]) -> Path:
    """Put verdicts into a profile's `claims.csv` and `claims.md`; all other claims keep theirs.

    Arguments:
        verdicts: of any number of claims.
        folder: such as `figures/quick`; each paper's parts go to `PAPER/verdicts.csv` in it.
        catalogue: every claim there is; those never judged are listed as "not run".

    Returns:
        the path of `claims.csv`.
    """
    folder = Path(folder)
    for paper in dict.fromkeys(verdict.claim.paper for verdict in verdicts):
        path = folder / paper / "verdicts.csv"
        mine = [verdict for verdict in verdicts if verdict.claim.paper == paper]
        rows = _parts_table(mine)
        if path.is_file():
            before = pd.read_csv(path)
            rows = pd.concat([before[~before.id.isin(rows.id)], rows])
        replace(path, rows.sort_values("id", kind="stable").to_csv(index=False))
    return _summarize(folder, catalogue)


def compare(root: str | Path, ids: Sequence[str]) -> pd.DataFrame:
    """The verdicts of every profile side by side: a row per claim, a column per profile.

    Arguments:
        root: the folder that holds a folder of figures for each profile.
        ids: of the claims.
    """
    columns = {}
    for path in sorted(Path(root).glob("*/claims.csv")):
        table = pd.read_csv(path).set_index("id").reindex(ids)
        interval = table.effect.map("{:.3g}".format) + " [" + table.low.map("{:.3g}".format)
        interval += ", " + table.high.map("{:.3g}".format) + "]"
        shown = table.verdict + (", " + interval).where(table.n > 0, "")
        columns[path.parent.name] = shown.fillna("not run")
    return pd.DataFrame(columns, index=pd.Index(ids, name="claim"))


def _summarize(folder: Path, catalogue: Sequence[Claim]) -> Path:
    judged: dict[str, Verdict] = {}
    claims = {claim.id: claim for claim in catalogue}
    for path in sorted(folder.glob("*/verdicts.csv")):
        table = pd.read_csv(path)
        for name, rows in table[table.id.isin(claims)].groupby("id", sort=False):
            fields = [field.name for field in dataclasses.fields(Part)]
            columns = rows.rename(columns={"part": "name"})[fields]
            parts = tuple(Part(*row) for row in columns.itertuples(index=False))
            head = rows.iloc[0]
            evidence = "" if pd.isna(head.evidence) else head.evidence
            judged[name] = Verdict(claims[name], parts, head.profile, evidence)
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
