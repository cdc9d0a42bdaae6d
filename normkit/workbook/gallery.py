"""What the figures' folder holds, as pages that GitHub shows: every claim, every figure."""

import csv
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ..records import replace
from . import state
from .folders import Folders
from .notebook import Notebook, find
from .sections import Section, home, sections

__all__ = ["SHOWN", "write"]

SHOWN = ("quick", "cifar10", "paper")
VERDICTS = ("reproduced", "not separable", "contradicted", "not run")
BEGIN, END = "<!-- scoreboard -->", "<!-- /scoreboard -->"
COLUMNS = {"id", "paper", "statement", "verdict", "effect", "low", "high", "n", "profile"}
ACROSS = 3  # figures in a row
HEAD = """# Figures and verdicts

Written by `./run_all.sh` from the files beside it. A figure stands under the claim whose section
of the notebook draws it. An effect has its 95 % interval and the number of repetitions; a
profile's `claims.md` lists the parts of each claim. The pages are the executed notebooks, each in
one file: download it and open it, no network is needed."""
RAN = """## What ran where

The seconds are those of a notebook's last execution. What the store had was not made again.

| profile | notebook | seconds | machine |
|---|---|---|---|
"""

Row = dict[str, str]


def write(folders: Folders) -> list[Path]:
    """Bring `figures/README.md` up to date, and the table of verdicts in the project's README.

    The latter only has one between two markers, and only if the figures are the project's own.

    Arguments:
        folders: of the workbook.

    Returns:
        the files that changed.

    Raises:
        OSError: a file cannot be read or written.
        ValueError: a notebook or a table of claims is damaged.
    """
    books = find(folders.project)
    written = {folders.figures / "README.md": _gallery(folders, books)}
    readme = folders.project / "README.md"
    if folders.figures == folders.project / "figures" and readme.is_file():
        text = readme.read_text(encoding="utf-8")
        before, begin, rest = text.partition(BEGIN)
        _, end, after = rest.partition(END)
        if end:
            table = _block(folders.figures, books)
            written[readme] = f"{before}{begin}\n\n{table}\n\n{end}{after}"
    changed = [path for path, text in written.items() if _old(path) != text]
    for path in changed:
        replace(path, written[path])
    return changed


def _gallery(folders: Folders, books: Sequence[Notebook]) -> str:
    """The text of `figures/README.md`: by profile and paper every claim and every figure."""
    parts = [HEAD]
    for profile in _profiles(folders.figures):
        rows = _claims(folders.figures / profile)
        parts.append(f"## {profile}\n\n{_counts(rows)} ([parts]({profile}/claims.md)).")
        for book in books:
            parts += _chapter(folders.figures, profile, book, rows)
    machines = _machines(folders, books)
    return "\n\n".join([*parts, *([RAN + "\n".join(machines)] if machines else [])]) + "\n"


def _block(figures: Path, books: Sequence[Notebook]) -> str:
    """The verdicts of each paper in each profile, as a table for the project's README."""
    name, profiles = figures.name, _profiles(figures)
    claims = {profile: _claims(figures / profile) for profile in profiles}
    head = [f"[`{profile}`]({name}/{profile}/claims.md)" for profile in profiles]
    table = [["claims", *head], ["---"] * (1 + len(profiles))]
    for book in books:
        cells = []
        for profile, rows in claims.items():
            mine = [row for row in rows if row["paper"] == book.topic]
            link = f"{name}/README.md#{profile}-{book.topic}"
            cells.append(f"[{_counts(mine)}]({link})" if mine else "")
        if any(cells):
            table.append([_title(book), *cells])
    table.append(["all", *(_counts(rows) for rows in claims.values())])
    places = [f"{profile}/{book.name}" for profile in profiles for book in books]
    pages = [place for place in places if (figures / f"{place}.html").is_file()]
    links = ", ".join(f"[{place}]({name}/{place}.html)" for place in pages)
    told = f"Every figure and verdict on one page: [{name}/README.md]({name}/README.md)."
    told += f" The executed notebooks as pages to download and open: {links}." if links else ""
    return "\n".join(f"| {' | '.join(row)} |" for row in table) + f"\n\n{told}"


def _profiles(figures: Path) -> list[str]:
    return [name for name in SHOWN if (figures / name / "claims.csv").is_file()]


def _claims(folder: Path) -> list[Row]:
    path = folder / "claims.csv"
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        for row in rows:
            row["told"] = _numbers(row)
    except (ValueError, LookupError, TypeError, csv.Error) as error:
        raise ValueError(f"{path} is damaged ({error}); delete it and start again") from error
    return rows


def _numbers(row: Row) -> str:
    """Effect, interval, n and profile of a claim, in words; empty if nothing was measured."""
    missing = sorted(COLUMNS - {name for name, value in row.items() if value is not None})
    if missing:
        raise LookupError(f"no column {missing[0]}")
    if not int(row["n"]):
        return ""
    effect, low, high = (float(row[name] or "nan") for name in ("effect", "low", "high"))
    interval = f" ({low:.3g} to {high:.3g})" if math.isfinite(low) else ""
    return f" Effect {effect:.3g}{interval}, n = {row['n']}, profile `{row['profile']}`."


def _counts(rows: Iterable[Row]) -> str:
    counts = Counter(row["verdict"] for row in rows)
    return ", ".join(f"{counts[name]} {name}" for name in VERDICTS if counts[name])


def _title(book: Notebook) -> str:
    lines = (line for text in book.text.values() for line in text.splitlines())
    return next((line[2:].strip() for line in lines if line.startswith("# ")), book.name)


def _chapter(figures: Path, profile: str, book: Notebook, rows: Sequence[Row]) -> Iterator[str]:
    """A notebook's heading, and its sections that have a claim or a figure in this profile."""
    folder, found = figures / profile / book.topic, sections(book.path)
    homes: dict[str, Section | None] = {
        path.stem: home(path.stem, found) for path in sorted(folder.glob("*.png"))
    }
    known = {row["id"]: row for row in rows}
    named = {name for section in found for name in section.claims}
    rest = [row["id"] for row in rows if row["paper"] == book.topic and row["id"] not in named]
    loose = Section("Other claims and figures", tuple(rest), ())
    chapters = []
    for section in [*found, loose]:
        claims = [known[name] for name in section.claims if name in known]
        names = [n for n, place in homes.items() if (place or loose) is section]
        names.sort(key=lambda name: _position(name, section))
        if claims or names:
            told = "\n".join(f"- {_claim(row)}" for row in claims)
            pictures = _pictures(figures, folder, names)
            chapters.append("\n\n".join(filter(None, [f"#### {section.title}", told, pictures])))
    if chapters:
        page = f"{profile}/{book.name}.html"
        link = f" ([page]({page}))" if (figures / page).is_file() else ""
        yield f'<a id="{profile}-{book.topic}"></a>\n\n### {profile}: {_title(book)}{link}'
        mine = [row for row in rows if row["paper"] == book.topic]
        yield from [f"{_counts(mine)}."] if mine else []
        yield from chapters


def _position(name: str, section: Section) -> int:
    """Where in its section a figure is drawn, so that a gallery has the notebook's order."""
    single = [Section("", (), (figure,)) for figure in section.figures]
    place = home(name, single)
    return single.index(place) if place else len(single)


def _claim(row: Row) -> str:
    return f"`{row['id']}` **{row['verdict']}**: {row['statement']}{row['told']}"


def _pictures(figures: Path, folder: Path, names: Sequence[str]) -> str:
    """A table of thumbnails; each leads to the picture, its name to the other files."""
    cells = []
    for name in names:
        place = (folder / name).relative_to(figures).as_posix()
        image = f'<img src="{place}.png" width="270" alt="{name}">'
        files = [e for e in ("png", "pdf", "csv") if (folder / f"{name}.{e}").is_file()]
        links = " ".join(f"[{ending}]({place}.{ending})" for ending in files)
        cells.append(f'<a href="{place}.png">{image}</a><br>{name} {links}')
    lines = [cells[i : i + ACROSS] for i in range(0, len(cells), ACROSS)]
    width = min(len(cells), ACROSS)
    lines = [[""] * width, ["---"] * width, *lines] if cells else []
    return "\n".join(f"| {' | '.join([*line, *[''] * (width - len(line))])} |" for line in lines)


def _machines(folders: Folders, books: Sequence[Notebook]) -> list[str]:
    """A line for each notebook whose last execution is known, here or from the text before."""
    before = _old(folders.figures / "README.md").splitlines()
    lines = []
    for profile in _profiles(folders.figures):
        for book in books:
            start = f"| `{profile}` | `{book.name}` | "
            ran: dict[str, Any] = state.read(folders.kept(profile) / f"{book.name}.json")
            told = ran.get("run", {})
            if "seconds" in told and "machine" in told:
                lines.append(f"{start}{told['seconds']} | {told['machine']} |")
            else:
                lines += [line for line in before if line.startswith(start)][:1]
    return lines


def _old(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""
