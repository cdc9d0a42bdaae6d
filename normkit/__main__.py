"""The command line: `python -m normkit run | train | evaluate | layers | runs | data`."""

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from .commands import data, evaluate, layers, runs, train
from .commands.arguments import nearest
from .records import StoreError

__all__ = ["main"]

ABOUT = "Train, attack and measure networks; keep their runs; bring the notebooks up to date."

EXIT = """\
exit status: 0 all went well (a run that diverged is a result, too); 1 something failed, or a
record is not sound; 2 what was asked for cannot be done, said in one sentence; 130 Ctrl-C.
`python -m normkit COMMAND --help` has examples."""


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, without the usage above it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"normkit: {message}; see {self.prog} --help\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand.

    Arguments:
        argv: words of the command line; default `sys.argv[1:]`.

    Returns:
        0 if all went well, 1 if something failed, 2 if what was asked for cannot be done, 130
        after Ctrl-C.

    Raises:
        SystemExit: of status 0 after `--help`, of status 2 for words that are not understood.
    """
    parser, commands = _parser()
    words = sys.argv[1:] if argv is None else list(argv)
    if words and not words[0].startswith("-") and words[0] not in commands:
        near, known = nearest(words[0], commands), ", ".join(commands)
        parser.error(f"there is no command {words[0]!r}; nearest: {near}; all are {known}")
    chosen = parser.parse_args(words)
    try:
        return chosen.command(chosen)
    except (ValueError, StoreError, OSError) as error:
        print(f"normkit: {_sentence(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("normkit: stopped; finished runs are kept", file=sys.stderr)
        return 130


def _parser() -> tuple[argparse.ArgumentParser, list[str]]:
    raw = argparse.RawDescriptionHelpFormatter
    named = {"prog": "python -m normkit", "description": ABOUT, "epilog": EXIT}
    parser = _Parser(**named, formatter_class=raw)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_run(commands)
    for module in (train, evaluate, layers, runs, data):
        module.add(commands)
    return parser, list(commands.choices)


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split())


def _add_run(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("run", help="bring the notebooks and their figures up to date")
    add = parser.add_argument
    add("--profile", default="quick", help="smoke, quick (default), cifar10 or paper")
    add("--only", action="append", default=[], metavar="NOTEBOOK|CLAIM", help="repeatable")
    add("--set", action="append", default=[], metavar="NOTEBOOK.PARAMETER=VALUE")
    add("--jobs", type=int, metavar="N", help="processes that train at a time")
    add("--device", help="auto, cpu or cuda")
    add("--force", action="store_true", help="run what is up to date, too")
    add("--list", action="store_true", help="say what would run and why, run nothing")
    parser.epilog = "example: python -m normkit run --profile smoke --only ln.density"
    parser.set_defaults(command=_run)


def _run(chosen: argparse.Namespace) -> int:
    from .workbook import command

    try:
        return command(
            chosen.profile,
            only=chosen.only,
            settings=chosen.set,
            jobs=chosen.jobs,
            device=chosen.device,
            force=chosen.force,
            list_only=chosen.list,
        )
    except OSError as error:
        print(f"normkit: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130  # the workbook has said what was kept


if __name__ == "__main__":
    sys.exit(main())
