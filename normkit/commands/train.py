"""`train`: one run, from settings to a record."""

import argparse
import os
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .arguments import add_parser, add_store, one_of
from .text import table

if TYPE_CHECKING:
    from normkit.records import Record, Store
    from normkit.training import TrainConfig

__all__ = ["add", "train"]

DEVICES = ("auto", "cpu", "cuda")
SHOWN = 5

DETAILS = """\
Trains one network, stores the run, prints the end of its history and the record's key.
A run that the store already holds is shown, not repeated.  A loss that is no longer finite
ends a run as "diverged at step N": that is a result like any other, it is stored and said,
and the exit status is 0.  `train --fields` lists all that --set takes, with defaults."""

EXAMPLES = """
train --set epochs=3 subset=500
train --set normalization=group groups=4 adversary.kind=pgd adversary.epsilon=8/255
train --set dataset=cifar10 model=resnet20 width=16 epochs=10 augment=crop_flip --device auto
train --fields
"""


def add(commands: argparse._SubParsersAction) -> None:
    """Add the subcommand."""
    summary = "train one network and store the run"
    parser = add_parser(commands, "train", summary=summary, details=DETAILS, examples=EXAMPLES)
    option = parser.add_argument
    option("--set", nargs="+", action="extend", default=[], metavar="FIELD=VALUE", dest="settings")
    option("--device", type=one_of(DEVICES), help="auto, cpu or cuda; short for --set device=...")
    option("--force", action="store_true", help="train even if the store holds the run")
    option("--fields", action="store_true", help="list the fields and their defaults, and stop")
    add_store(parser)
    parser.set_defaults(command=_command)


def _command(chosen: argparse.Namespace) -> int:
    if chosen.fields:
        from .fields import field_list

        print(field_list())
        return 0
    device = [f"device={chosen.device}"] if chosen.device else []
    return train([*chosen.settings, *device], store=chosen.store, force=chosen.force)


def train(settings: Sequence[str], *, store: str | None = None, force: bool = False) -> int:
    """Train a configuration, or show its record.

    Arguments:
        settings: `field=value`, a later one wins.
        store: the records' folder; None is `records.default_root()`.
        force: train what the store holds, too; the new record takes the place of the old.

    Returns:
        0, also for a run that diverged.

    Raises:
        ValueError: a setting that no run can have.
        StoreError: the run cannot be stored.
        OSError: the store's folder cannot be made.
    """
    from normkit import records, training

    config = training.from_settings(_resolved(setting) for setting in settings)
    kept = records.Store(store)
    held = _held(kept, config)
    if held and not force:
        print("the store holds this run already, so nothing was trained; --force trains again")
        show(held)
        return 0
    _check_folder(kept)
    run = _train(config)
    if held:
        _remove(held)
    show(run.save(kept))
    return 0


def show(record: "Record") -> None:
    """Print the last rows of a record's history, its status and its key."""
    history = record.table("history")
    test = "held out" if record.config["validation"] else "test"
    if len(history):
        rows = history.tail(SHOWN).itertuples(index=False)
        print(table(["epoch", "loss", "train", test, "robust", "seconds"], map(_cells, rows)))
    else:
        print("no epoch was finished, so there is no history")
    seconds, epochs = record.meta["seconds"], record.config["epochs"]
    more = "" if record.status == "ok" else " (the loss was no longer finite; stored as that)"
    print(f"{len(history)} of {epochs} epochs, {record.status}{more}, {seconds:.1f} s")
    print(f"record {record.key} in {record.folder.parent}")


def _cells(row: Any) -> list[str]:
    numbers = (row.train_loss, row.train_accuracy, row.accuracy, row.robust_accuracy)
    shown = ("-" if number != number else f"{number:.4f}" for number in numbers)
    return [str(row.epoch), *shown, f"{row.seconds:.1f}"]


def _resolved(setting: str) -> str:
    """The setting itself, but for a device: that one is checked, and auto becomes what is here."""
    from normkit import training

    field, _, value = setting.partition("=")
    return f"device={training.resolve_device(value.strip())}" if field == "device" else setting


def _held(store: "Store", config: "TrainConfig") -> "Record | None":
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        record = store.get(config)
    for warning in caught:
        print(f"normkit: {warning.message}", file=sys.stderr)
    return record


def _check_folder(store: "Store") -> None:
    """Refuse a store that cannot be written before the run is made, not after."""
    store.root.mkdir(parents=True, exist_ok=True)
    if not os.access(store.root, os.W_OK):
        raise PermissionError(f"store {store.root} is read-only; name another with --store")


def _train(config: "TrainConfig") -> Any:
    from tqdm import tqdm

    from normkit import training

    with tqdm(
        total=config.epochs,
        desc=f"{config.model} on {config.dataset}",
        bar_format="{desc}: {n_fmt}/{total_fmt} epochs|{bar}| {elapsed} elapsed, {remaining} left",
        disable=None,  # where there is no terminal
    ) as bar:

        def report(row: dict) -> None:
            parts = [f"epoch {row['epoch']}/{config.epochs}", f"loss {row['train_loss']:.4f}"]
            parts += [f"train {row['train_accuracy']:.4f}", f"test {row['accuracy']:.4f}"]
            robust = row["robust_accuracy"]
            parts += [f"robust {robust:.4f}"] if robust == robust else []
            bar.write("  ".join([*parts, f"{row['seconds']:.1f} s"]), file=sys.stderr)
            bar.update()

        return training.train(config, on_epoch=report)


def _remove(record: "Record") -> None:
    """Take a record away in one step, so that no reader sees half of it."""
    from normkit.records.store import UNFINISHED

    aside = record.folder.parent / UNFINISHED
    aside.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{os.getpid()}-", dir=aside) as scratch:
        os.rename(record.folder, Path(scratch) / record.key)
