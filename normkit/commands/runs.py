"""`runs`: what the store holds, whether it is sound, and what can go."""

import argparse
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .arguments import add_parser, add_store, nearest
from .text import plain, table

if TYPE_CHECKING:
    import pandas as pd

    from normkit.records import Record, Store

__all__ = ["add"]

COLUMNS = ("dataset", "model", "method", "seed", "epochs", "accuracy", "status", "seconds")

DETAILS = """\
list     a table of the finished runs, with keys as short as they are unique
verify   checks every file of every record; exit status 1 if one is not sound
prune    removes damaged records and what killed processes left; with --stale also the
         records that another state of the code or of the data made"""

EXAMPLES = """
runs list --where dataset=digits adversary.kind=pgd
runs verify
runs prune --stale --dry-run
"""


def add(commands: argparse._SubParsersAction) -> None:
    """Add the subcommand."""
    summary = "list, verify or prune the stored runs"
    parser = add_parser(commands, "runs", summary=summary, details=DETAILS, examples=EXAMPLES)
    actions = parser.add_subparsers(required=True, metavar="ACTION")

    def action(name: str, summary: str, examples: str, command: Any) -> argparse.ArgumentParser:
        made = add_parser(actions, name, summary=summary, details=summary, examples=examples)
        add_store(made)
        made.set_defaults(command=command)
        return made

    listing = action("list", "a table of the finished runs", "runs list --where seed=0", _list)
    where = listing.add_argument("--where", nargs="+", action="extend", default=[])
    where.metavar, where.help = "FIELD=VALUE", "only runs with these settings, as in `train --set`"
    action("verify", "check every record; status 1 if one is not sound", "runs verify", _verify)
    example = "runs prune --stale --dry-run"
    prune = action("prune", "remove what is damaged or left over", example, _prune)
    prune.add_argument("--stale", action="store_true", help="also runs of other code or data")
    prune.add_argument("--dry-run", action="store_true", help="say what would go, remove nothing")


def _list(chosen: argparse.Namespace) -> int:
    from normkit import records

    store = records.Store(chosen.store)
    runs = store.table()
    if not len(runs):
        print(f"no sound records in {store.root}")
    else:
        found = _where(runs, chosen.where)
        short = _short(store.keys())
        rows = sorted(_cells(store.open(key), short) for key in found.key)
        print(table(("key", *COLUMNS), [row[-1:] + row[:-1] for row in rows]))
        print(f"{len(found)} of {len(runs)} records in {store.root}")
    damaged = len(store.keys()) - len(runs)
    if damaged:
        print(f"{damaged} more are damaged; `runs verify` says which")
    return 0


def _where(runs: "pd.DataFrame", settings: Sequence[str]) -> "pd.DataFrame":
    """The rows that have the values asked for.

    Raises:
        ValueError: no `=`, or a column that no record has.
    """
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise ValueError(f"--where {setting!r} has no value; write it as field=value")
        if name not in runs.columns:
            near = nearest(name, list(runs.columns))
            raise ValueError(f"--where {name!r} is in no record; nearest: {near}")
        runs = runs[[_equal(value, text.strip()) for value in runs[name]]]
    return runs


def _equal(value: Any, text: str) -> bool:
    """Whether a record's value is what was typed; pandas turns None among numbers into NaN."""
    if value != value:
        return text.lower() == "none"
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(Fraction(text)) == value
        except (ValueError, ZeroDivisionError):
            return False
    return text.lower() in (plain(value).lower(), str(value).lower())


def _short(keys: Sequence[str]) -> int:
    """How many characters tell all keys apart, at least 8."""
    return next(n for n in range(8, 65) if len({key[:n] for key in keys}) == len(keys))


def _cells(record: "Record", short: int) -> list[str]:
    config = record.config
    parts = [config.get("normalization", "-"), config.get("convolution", "conv")]
    parts.append(config.get("adversary", {}).get("kind", "none"))
    method = "+".join(part for part in parts if part not in ("conv", "none")) or "none"
    history = record.table("history") if "history.parquet" in record.manifest["files"] else ()
    accuracy = f"{history.accuracy.iloc[-1]:.4f}" if len(history) else "-"
    named = [str(config.get(name, "-")) for name in ("dataset", "model")]
    counted = [str(config.get(name, "-")) for name in ("seed", "epochs")]
    seconds = f"{record.meta['seconds']:.1f}"
    return [*named, method, *counted, accuracy, record.status, seconds, record.key[:short]]


def _verify(chosen: argparse.Namespace) -> int:
    from normkit import records

    store = records.Store(chosen.store)
    found = store.verify()
    wrong = found[found.status != "ok"]
    for status in wrong.status:
        print(status)
    if len(wrong):
        print(
            f"{len(wrong)} of {len(found)} records in {store.root} are not sound; `runs prune` "
            "removes them, and they are trained again when they are wanted"
        )
        return 1
    print(f"{len(found)} records in {store.root}, all sound")
    return 0


def _prune(chosen: argparse.Namespace) -> int:
    from normkit import records

    store = records.Store(chosen.store)
    stale, unknown = _stale(store) if chosen.stale else (set(), [])
    for reason in unknown:
        print(reason)
    if chosen.dry_run:
        gone, verb = _removable(store, stale), "would remove"
    else:
        gone, verb = store.prune(keep=lambda record: record.key not in stale), "removed"
    for folder in gone:
        print(f"{verb} {folder.relative_to(store.root)}{_why(folder, stale)}")
    print(f"{verb} {len(gone)} of what is in {store.root}")
    return 0


def _why(folder: Path, stale: set[str]) -> str:
    if folder.name in stale:
        return " (made by other code or data)"
    return " (damaged)" if folder.parent.name != ".unfinished" else " (never finished)"


def _stale(store: "Store") -> tuple[set[str], list[str]]:
    """Keys of records that today's code and data would not make; and what cannot be told."""
    from normkit import data, training

    stale, unknown = set(), []
    for key in store.table().key:
        record = store.open(key)
        name = record.config.get("dataset")
        if record.manifest["kind"] != training.TrainConfig.__name__:
            unknown.append(f"kept {key}: it is no training run")
        elif name in data.NAMES and name != "digits" and data.locate(name) is None:
            unknown.append(f"kept {key}: {name} is not here, so nothing can be said")
        elif _key_now(store, record) != key:
            stale.add(key)
    return stale, unknown


def _key_now(store: "Store", record: "Record") -> str | None:
    """The key that the record's configuration has today; None if it is no longer accepted."""
    from normkit import training

    try:
        config = training.from_dict(record.config)
    except (TypeError, ValueError):
        return None
    return store.key(config)


def _removable(store: "Store", stale: set[str]) -> list[Path]:
    from normkit.records.store import SET_ASIDE, UNFINISHED

    found = store.verify()
    wrong = set(found.key[found.status != "ok"]) | stale
    left = [*(store.root / UNFINISHED).glob("*-*"), *(store.root / SET_ASIDE).glob("*")]
    return sorted(left) + [store.root / key for key in sorted(wrong)]
