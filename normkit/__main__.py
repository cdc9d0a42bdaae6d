"""The command line: `python -m normkit run | train | evaluate | layers | runs | data`."""

import argparse
import pkgutil
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from .commands import count, nearest, number, several
from .records import StoreError

__all__ = ["main"]

DEVICES = ("auto", "cpu", "cuda")
NORMS = ("l1", "linf", "spectral", "frobenius", "stable_rank")

ABOUT = """\
Train, attack and measure networks; keep their runs; bring the notebooks up to date.

exit status: 0 all went well (a run that diverged is a result, too); 1 something failed, or a
record is not sound; 2 what was asked for cannot be done, said in one sentence; 130 Ctrl-C.
`python -m normkit COMMAND --help` has examples."""

TRAIN = """\
Trains one network, stores the run, prints the end of its history and the record's key.
A run that the store already holds is shown, not repeated.  A loss that is no longer finite
ends a run as "diverged at step N": a result like any other, of exit status 0.

examples:
  python -m normkit train --set epochs=3 normalization=group groups=4 adversary.kind=pgd
  python -m normkit train --set dataset=cifar10 model=resnet20 augment=crop_flip --device auto
  python -m normkit train --fields"""

EVALUATE = """\
Prints the accuracy on test images, clean and attacked, each with the 95 % interval of Wilson
for that many images.  Radii and step sizes are in units of the pixel range [0, 1].  The random
starts of seed 0 are those of training's own robust accuracy.  apgd finds its own step sizes: on
the cross-entropy, then, where that fails, towards other classes.  Code in a checkpoint never runs.

examples:
  python -m normkit evaluate 3f2a --attack pgd --epsilon 8/255 --steps 20 --seed 0
  python -m normkit evaluate 3f2a --attack apgd --epsilon 8/255 --images 1000
  python -m normkit evaluate net.safetensors --dataset cifar10 --mean .49,.48,.45 --std .2,.2,.2"""

LAYERS = """\
Prints the norms of the linear map of every layer; where a norm is known as a bracket, its two
ends, lower..upper.  What is wrong with a layer that cannot be measured stands below, and last
the product of the spectral norms: no plain chain of these layers stretches more (nets with
residual sums may).  --lipschitz shows how much of it some pair of images reaches.  Names of
torchvision's classifiers work too; their weights are random then, nothing is downloaded.

examples:
  python -m normkit layers 3f2a --norms spectral --rtol 1e-5 --lipschitz digits
  python -m normkit layers net.safetensors --input 3,32,32 --norms l1,linf --csv norms.csv
  python -m normkit layers resnet18 --input 3,224,224 --boundary circular"""


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, without the usage above it; names the nearest choice."""

    def error(self, message: str) -> NoReturn:
        if found := re.search(r"invalid choice: '(.+)' \(choose from (.+)\)", message):
            known = found[2].replace("'", "").split(", ")
            message += f"; nearest: {nearest(found[1], known)}"
        self.exit(2, f"normkit: {message}; see {self.prog} --help\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand and return its exit status (see `ABOUT`).

    The subcommand's module is imported only then, so that `--help` answers at once.

    Arguments:
        argv: words of the command line; default `sys.argv[1:]`.

    Raises:
        SystemExit: of status 0 after `--help`, of status 2 for words that are not understood.
    """
    raw = argparse.RawDescriptionHelpFormatter
    parser = _Parser("python -m normkit", description=ABOUT, formatter_class=raw)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in (_add_run, _add_train, _add_evaluate, _add_layers, _add_runs, _add_data):
        add(commands)
    chosen = parser.parse_args(argv)
    try:
        return pkgutil.resolve_name(f"normkit.commands.{chosen.command}")(chosen)
    except (ValueError, StoreError, OSError) as error:
        told = isinstance(error, OSError) and error.strerror and error.filename
        text = f"{error.filename}: {error.strerror}" if told else " ".join(str(error).split())
        print(f"normkit: {text}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("normkit: stopped; finished runs are kept", file=sys.stderr)
        return 130


def _add(commands, name, command, summary, about, store=False) -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = commands.add_parser(name, help=summary, description=about, formatter_class=raw)
    parser.set_defaults(command=command)
    if store:
        where = "folder of the records; default $NORMKIT_RUNS, else runs in the project's folder"
        parser.add_argument("--store", metavar="DIR", help=where)
    return parser


def _add_run(commands: argparse._SubParsersAction) -> None:
    summary = "bring the notebooks and their figures up to date"
    example = "example: python -m normkit run --profile smoke --only ln.density"
    option = _add(commands, "run", "upkeep:run", summary, example).add_argument
    option("--profile", default="quick", help="smoke, quick (default), cifar10 or paper")
    option("--only", action="append", default=[], metavar="NOTEBOOK|CLAIM", help="repeatable")
    option("--set", action="append", default=[], dest="settings", metavar="NOTEBOOK.NAME=VALUE")
    option("--jobs", type=int, metavar="N", help="processes that train at a time")
    option("--device", help="auto, cpu or cuda")
    option("--scheduler", metavar="ADDRESS", help="of a Dask cluster that trains: tcp://HOST:8786")
    option("--timeout", type=int, metavar="SECONDS", help="that a cell may take")
    option("--force", action="store_true", help="run what is up to date, too")
    option("--list", action="store_true", dest="list_only", help="say what would run, and why")


def _add_train(commands: argparse._SubParsersAction) -> None:
    summary = "train one network and store the run"
    option = _add(commands, "train", "train:train", summary, TRAIN, store=True).add_argument
    option("--set", nargs="+", action="extend", default=[], metavar="FIELD=VALUE")
    option("--device", choices=DEVICES, help="auto: cuda where there is one, else cpu")
    option("--force", action="store_true", help="train even if the store holds the run")
    option("--fields", action="store_true", help="list all that --set takes, with defaults")


def _add_evaluate(commands: argparse._SubParsersAction) -> None:
    summary = "attack a record or a checkpoint"
    parser = _add(commands, "evaluate", "measure:evaluate", summary, EVALUATE, store=True)
    option = parser.add_argument
    option("target", metavar="KEY_OR_CHECKPOINT", help="a key, as far as it is unique, or a file")
    option("--attack", choices=("none", "fgsm", "pgd", "apgd"), default="pgd", help="default pgd")
    option("--epsilon", type=number, metavar="R", help="radius; default 8/255")
    option("--steps", type=count, metavar="N", help="of pgd; default 20; of apgd; default 100")
    option("--step-size", type=number, metavar="S", help="of pgd; default 2.5 epsilon / steps")
    option("--targets", type=count, metavar="N", help="classes apgd aims at; default 9, or all")
    option("--norm", choices=("linf", "l2"), help="of pgd and apgd; default linf")
    option("--restarts", type=count, metavar="N", help="of pgd and apgd; default 1")
    option("--seed", type=int, default=0, help="of the random starts; default 0")
    option("--images", type=count, metavar="N", help="the first N test images; default all")
    option("--device", choices=DEVICES, default="auto", help="default auto")
    option = parser.add_argument_group("for a checkpoint without a configuration").add_argument
    option("--dataset", metavar="NAME", help="as `data list` shows; also for a record")
    option("--mean", type=several(number), metavar="A,B,C", help="of the input; default none")
    option("--std", type=several(number), metavar="A,B,C", help="of the input; default none")
    option("--normalization", metavar="KEY", help="where the weights do not tell it")
    parser.set_defaults(classifiers=False)


def _add_layers(commands: argparse._SubParsersAction) -> None:
    summary = "print the norms of every layer of a network"
    parser = _add(commands, "layers", "measure:layers", summary, LAYERS, store=True)
    option, names = parser.add_argument, f"of {','.join(NORMS)}"
    option("target", metavar="KEY_OR_CHECKPOINT_OR_TORCHVISION_NAME")
    option("--input", type=several(count), metavar="C,H,W", help="a record knows its own")
    option("--norms", type=several(str), default=NORMS, metavar="A,B", help=names)
    boundary = "zero: the operator as executed (default); circular: the taps on the torus"
    option("--boundary", choices=("zero", "circular"), default="zero", help=boundary)
    option("--rtol", type=number, default=1e-3, metavar="R", help="of spectral; default 0.001")
    option("--jobs", type=count, metavar="N", help="layers at a time; default one per core")
    climbed = "also a lower bound on the Lipschitz constant, climbed from test images"
    option("--lipschitz", metavar="DATASET", help=climbed)
    option("--csv", metavar="FILE", help="also write the table, one row per layer and norm")
    option("--normalization", metavar="KEY", help="of a checkpoint that does not tell it")
    parser.set_defaults(classifiers=True, mean=None, std=None)


def _add_runs(commands: argparse._SubParsersAction) -> None:
    example = "example: python -m normkit runs "
    parser = _add(commands, "runs", "", "list, verify or prune the stored runs", f"{example}list")
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    summary = "a table of the finished runs, with keys as short as they are unique"
    about = f"{example}list --where dataset=digits adversary.kind=pgd"
    option = _add(actions, "list", "upkeep:list_runs", summary, about, store=True).add_argument
    where = {"metavar": "FIELD=VALUE", "help": "only runs with these settings of `train --set`"}
    option("--where", nargs="+", action="extend", default=[], **where)
    summary = "check every file of every record; exit status 1 if one is not sound"
    _add(actions, "verify", "upkeep:verify", summary, f"{example}verify", store=True)
    summary = "remove damaged records and what killed processes left"
    about = f"{example}prune --stale --dry-run"
    option = _add(actions, "prune", "upkeep:prune", summary, about, store=True).add_argument
    option("--stale", action="store_true", help="also runs of other code or data")
    option("--dry-run", action="store_true", help="say what would go, remove nothing")


def _add_data(commands: argparse._SubParsersAction) -> None:
    example = "example: python -m normkit data "
    parser = _add(commands, "data", "", "list the data sets, or get one", f"{example}get cifar10")
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    summary = "the data sets, whether they are here, and what a download would cost"
    listing = _add(actions, "list", "upkeep:list_data", summary, f"{example}list --root ~/data")
    summary = "load a data set, downloading it if need be, and say where it lies"
    get = _add(actions, "get", "upkeep:get", summary, f"{example}get cifar10")
    get.add_argument("name", metavar="NAME", help="as `data list` shows")
    where = "where to look and to download to; default $NORMKIT_DATA, else a cache folder"
    for parser in (listing, get):
        parser.add_argument("--root", metavar="DIR", type=Path, help=where)


if __name__ == "__main__":
    sys.exit(main())
