"""`run`, `runs` and `data`: brings what is kept up to date, shows it, throws out what is stale."""

import argparse
import sys

from normkit.records import Record, Store

from . import nearest, table

__all__ = ["get", "list_data", "list_runs", "prune", "run", "verify"]

COLUMNS = "key dataset model method seed epochs accuracy status seconds".split()

IMAGES = {
    "digits": "1,500 + 297 of 1x8x8",
    "noisy_digits": "1,500 + 297 of 1x9x9",
    "mnist": "60,000 + 10,000 of 1x28x28",
    "fashion_mnist": "60,000 + 10,000 of 1x28x28",
    "cifar10": "50,000 + 10,000 of 3x32x32",
    "cifar100": "50,000 + 10,000 of 3x32x32",
}


def run(chosen: argparse.Namespace) -> int:
    """Execute the notebooks that are not up to date."""
    from normkit.workbook import command

    asked = {name: value for name, value in vars(chosen).items() if name != "command"}
    try:
        return command(**asked)
    except OSError as error:
        print(f"normkit: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130  # the workbook has said what was kept


def list_runs(chosen: argparse.Namespace) -> int:
    """Print a table of the finished runs."""
    store = Store(chosen.store)
    found = store.verify()
    sound = [store.open(key) for key in found.key[found.status == "ok"]]
    runs = [record for record in sound if not chosen.where or _matches(record, chosen.where)]
    short = next(n for n in range(8, 65) if len({key[:n] for key in found.key}) == len(found))
    rows = sorted((_row(record, short) for record in runs), key=lambda row: row[1:])
    print(table(COLUMNS, rows), f"{len(runs)} of {len(sound)} records in {store.root}", sep="\n")
    if len(sound) < len(found):
        print(f"{len(found) - len(sound)} more are damaged; `runs verify` says which")
    return 0


def _matches(record: Record, settings: list[str]) -> bool:
    """Whether the settings would change nothing in the record's configuration."""
    from normkit import training

    for setting in settings:
        name, equals, _ = setting.partition("=")
        if not equals or name not in training.field_names():
            near = nearest(name, training.field_names())
            raise ValueError(f"--where {setting!r} is not FIELD=VALUE; nearest field: {near}")
    try:
        config = training.from_dict(record.config)
        return training.from_settings(settings, config) == config
    except (TypeError, ValueError):  # no configuration of today, with or without the settings
        return False


def _row(record: Record, short: int) -> list[str]:
    config, history = record.config, record.table("history")
    if record.manifest["kind"] == "GanConfig":
        asked = config["dataset"], "gan", config["discriminator"], str(config["seed"]), "-"
        return [record.key[:short], *asked, "-", record.status, f"{record.meta['seconds']:.1f}"]
    parts = (config["normalization"], config["convolution"], config["adversary"]["kind"])
    method = "+".join(part for part in parts if part not in ("conv", "none")) or "none"
    accuracy = f"{history.accuracy.iloc[-1]:.4f}" if len(history) else "-"
    asked = config["dataset"], config["model"], method, str(config["seed"]), str(config["epochs"])
    return [record.key[:short], *asked, accuracy, record.status, f"{record.meta['seconds']:.1f}"]


def verify(chosen: argparse.Namespace) -> int:
    """Print which records are not sound; 1 if there are any."""
    store = Store(chosen.store)
    found = store.verify()
    wrong = found.status[found.status != "ok"]
    for status in wrong:
        print(status)
    verdict = f"{len(wrong)} not sound: `runs prune` removes those" if len(wrong) else "all sound"
    print(f"{len(found)} records in {store.root}, {verdict}")
    return int(len(wrong) > 0)


def prune(chosen: argparse.Namespace) -> int:
    """Remove damaged records and leftovers, and with `--stale` what would be made anew."""
    store, stale = Store(chosen.store), set()

    def keep(record: Record) -> bool:
        if chosen.stale and _is_stale(record, store):
            stale.add(record.folder)
        return record.folder not in stale

    verb = "would remove" if chosen.dry_run else "removed"
    gone = store.prune(keep, dry_run=chosen.dry_run)
    for folder in gone:
        why = "made by other code or data" if folder in stale else "damaged or left over"
        print(f"{verb} {folder.relative_to(store.root)} ({why})")
    print(f"{verb} {len(gone)} of what is in {store.root}")
    return 0


def _is_stale(record: Record, store: Store) -> bool:
    """Whether today's code and data would make another record; no if the data is not here."""
    from normkit import data, training
    from normkit.data.sources import SOURCES

    kinds = {kind.__name__: kind for kind in (training.TrainConfig, training.GanConfig)}
    if record.manifest["kind"] not in kinds:
        return False
    try:
        config = training.from_dict(record.config, kinds[record.manifest["kind"]])
    except (TypeError, ValueError):  # no configuration of today
        return True
    here = config.dataset not in SOURCES or data.locate(config.dataset) is not None
    return here and store.key(config) != record.key


def list_data(chosen: argparse.Namespace) -> int:
    """Print the data sets, and which are here."""
    from normkit import data
    from normkit.data.sources import SOURCES

    root, rows = chosen.root or data.default_root(), []
    for name in data.NAMES:
        bundled = name not in SOURCES
        found = "comes with scikit-learn" if bundled else data.locate(name, root)
        cost = "none" if found else f"{SOURCES[name].size / 1e6:.0f} MB"
        rows.append([name, IMAGES[name], str(found or "not here"), cost])
    print(table(["name", "images", "present", "download"], rows))
    print(f"looked for in {root}")
    return 0


def get(chosen: argparse.Namespace) -> int:
    """Load a data set, and print where it lies and its fingerprint."""
    from normkit import data

    found = data.load(chosen.name, chosen.root)
    place = data.locate(chosen.name, chosen.root)
    size, train, test = found.input_size, len(found.train_labels), len(found.test_labels)
    print(f"{chosen.name}: {train:,} + {test:,} images of {'x'.join(map(str, size))}")
    print(f"lies {place or 'in scikit-learn'}\nfingerprint {found.fingerprint()}")
    if place and chosen.root and chosen.root != data.default_root():
        print(f"runs look in {data.default_root()}; set NORMKIT_DATA={chosen.root} for this one")
    return 0
