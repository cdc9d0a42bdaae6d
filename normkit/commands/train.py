"""`train`: one run, from settings to a record."""

import argparse
import inspect
import operator
import os
import re
import sys
import textwrap
import warnings

from tqdm import tqdm

from normkit import training
from normkit.records import Record, Store

from . import plain

__all__ = ["train"]


def train(chosen: argparse.Namespace) -> int:
    """Train a configuration, or show its record, or what can be configured."""
    if chosen.fields:
        print(_fields())
        return 0
    device = [f"device={training.resolve_device(chosen.device)}"] if chosen.device else []
    config = training.from_settings([*chosen.set, *device])
    training.resolve_device(config.device)  # refuses cuda where there is none
    store = Store(chosen.store)
    if not chosen.force and (held := _held(store, config)):
        print("the store holds this run already, so nothing was trained; --force trains again")
        _show(held)
        return 0
    store.root.mkdir(parents=True, exist_ok=True)
    if not os.access(store.root, os.W_OK):
        raise PermissionError(f"store {store.root} is read-only; name another with --store")
    _show(_run(config).save(store, replace=chosen.force))
    return 0


def _fields() -> str:
    """Every field with its default, and what its docstring says, with the names of its lists."""
    lines, listed = [], re.compile(r"(?:a (?:name|key) of )?`([\w.]*[A-Z]+)`")
    for name in training.field_names():
        part, _, field = name.rpartition(".")
        default = training.TrainConfig()
        owner = getattr(default, part) if part else default
        entry = rf"^    {field}: (.+?)(?=^    \w+: |\n\n|\Z)"
        meaning = re.search(entry, inspect.getdoc(type(owner)), re.MULTILINE | re.DOTALL)[1]
        for found in listed.finditer(meaning):
            names = ", ".join(operator.attrgetter(found[1])(training.config))
            meaning = meaning.replace(found[0], names)
        text = " ".join(meaning.replace("`", "").split())
        lines.append(f"{name}={plain(getattr(owner, field))}")
        lines += textwrap.wrap(text, 94, initial_indent="    ", subsequent_indent="    ")
    return "\n".join(lines)


def _held(store: Store, config: training.TrainConfig) -> Record | None:
    with warnings.catch_warnings(record=True, action="always") as caught:
        record = store.get(config)
    for warning in caught:
        print(f"normkit: {warning.message}", file=sys.stderr)
    return record


def _run(config: training.TrainConfig) -> training.Run:
    title = f"{config.model} on {config.dataset}"
    with tqdm(total=config.epochs, desc=title, unit="epoch", disable=None) as bar:

        def report(row: dict) -> None:
            known = (f"{name} {value:.4g}" for name, value in row.items() if value == value)
            bar.write("  ".join(known), file=sys.stderr)
            bar.update()

        return training.train(config, on_epoch=report)


def _show(record: Record) -> None:
    """Print the last rows of a record's history, its status and its key."""
    history = record.table("history")
    if len(history):
        print(history.tail(5).to_string(index=False, na_rep="-", float_format="{:.4f}".format))
    seconds, epochs = record.meta["seconds"], record.config["epochs"]
    more = "" if record.status == "ok" else " (the loss was no longer finite; stored as that)"
    print(f"{len(history)} of {epochs} epochs, {record.status}{more}, {seconds:.1f} s")
    print(f"record {record.key} in {record.folder.parent}")
