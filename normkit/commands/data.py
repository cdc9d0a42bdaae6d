"""`data`: which data sets there are, where they lie, and how to get one."""

import argparse
from pathlib import Path

from .arguments import add_parser
from .text import table

__all__ = ["add"]

IMAGES = {
    "digits": "1,500 + 297 of 1x8x8",
    "mnist": "60,000 + 10,000 of 1x28x28",
    "fashion_mnist": "60,000 + 10,000 of 1x28x28",
    "cifar10": "50,000 + 10,000 of 3x32x32",
    "cifar100": "50,000 + 10,000 of 3x32x32",
}

DETAILS = """\
list   the data sets: how many images (training + test), whether they are here, what a download
       would cost
get    loads one, downloading it if it is not here, and says where it lies and its fingerprint;
       every file's checksum must be the published one"""

EXAMPLES = """
data list
data get cifar10
data get digits
"""


def add(commands: argparse._SubParsersAction) -> None:
    """Add the subcommand."""
    summary = "list the data sets, or get one"
    parser = add_parser(commands, "data", summary=summary, details=DETAILS, examples=EXAMPLES)
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    summary = "the data sets, here or not"
    listing = add_parser(
        actions, "list", summary=summary, details=summary, examples="data list --root ~/data"
    )
    summary = "load a data set, downloading it if need be"
    get = add_parser(actions, "get", summary=summary, details=summary, examples="data get cifar10")
    get.add_argument("name", metavar="NAME", help="as `data list` shows")
    where = "where to look and to download to; default $NORMKIT_DATA, else a cache folder"
    for made, command in ((listing, _list), (get, _get)):
        made.add_argument("--root", metavar="DIR", help=where)
        made.set_defaults(command=command)


def _list(chosen: argparse.Namespace) -> int:
    from normkit import data
    from normkit.data.sources import SOURCES

    root = _root(chosen.root)
    rows = []
    for name in data.NAMES:
        if name == "digits":
            here, cost = "comes with scikit-learn", "none"
        else:
            found = data.locate(name, root)
            here = str(found.relative_to(root)) if found else "not here"
            cost = "none" if found else f"{SOURCES[name].size / 1e6:.0f} MB"
        rows.append([name, IMAGES[name], here, cost])
    print(table(["name", "images", "present", "download"], rows))
    print(f"looked for in {root}")
    return 0


def _get(chosen: argparse.Namespace) -> int:
    from normkit import data

    root = _root(chosen.root)
    found = data.load(chosen.name, root)
    place = data.locate(chosen.name, root) or "in scikit-learn"
    size = "x".join(map(str, found.input_size))
    train, test = len(found.train_labels), len(found.test_labels)
    print(f"{chosen.name}: {train:,} + {test:,} images of {size}, {found.num_classes} classes")
    print(f"lies {place}")
    print(f"fingerprint {found.fingerprint()}")
    if place != "in scikit-learn" and root != data.default_root():
        print(f"runs look in {data.default_root()}; set NORMKIT_DATA={root} for this one")
    return 0


def _root(text: str | None) -> Path:
    from normkit import data

    return Path(text).expanduser() if text else data.default_root()
