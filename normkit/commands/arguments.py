"""How words of the command line become values, and how a subcommand gets its parser."""

import argparse
import difflib
from collections.abc import Callable, Sequence
from fractions import Fraction

__all__ = [
    "add_parser",
    "add_store",
    "count",
    "nearest",
    "numbers",
    "one_of",
    "radius",
    "shape",
    "words",
]


def add_parser(
    commands: argparse._SubParsersAction, name: str, *, summary: str, details: str, examples: str
) -> argparse.ArgumentParser:
    """A subcommand's parser, with examples below its options."""
    shown = "\n".join(f"  python -m normkit {line}" for line in examples.strip().splitlines())
    return commands.add_parser(
        name,
        help=summary,
        description=details,
        epilog=f"examples:\n{shown}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_store(parser: argparse.ArgumentParser) -> None:
    """The option that says where records are."""
    where = "folder of the records; default $NORMKIT_RUNS, else runs in the project's folder"
    parser.add_argument("--store", metavar="DIR", help=where)


def nearest(word: str, known: Sequence[str]) -> str:
    """The known name that is most like `word`, in quotes.

    Example:
        >>> nearest("epoch", ["lr", "epochs"])
        "'epochs'"
    """
    return repr(difflib.get_close_matches(word, known, n=1, cutoff=0)[0])


def one_of(known: Sequence[str]) -> Callable[[str], str]:
    """A converter that accepts the known names only, and names the nearest.

    Example:
        >>> one_of(["fgsm", "pgd"])("pgb")
        Traceback (most recent call last):
        argparse.ArgumentTypeError: 'pgb' is not known; nearest: 'pgd'; accepted: fgsm, pgd
    """

    def convert(word: str) -> str:
        if word not in known:
            near, names = nearest(word, known), ", ".join(known)
            raise argparse.ArgumentTypeError(
                f"{word!r} is not known; nearest: {near}; accepted: {names}"
            )
        return word

    return convert


def words(text: str) -> tuple[str, ...]:
    """Names between commas.

    Example:
        >>> words("l1, linf")
        ('l1', 'linf')
    """
    return tuple(word.strip() for word in text.split(",") if word.strip())


def numbers(text: str) -> tuple[float, ...]:
    """Numbers or fractions between commas.

    Example:
        >>> numbers(".5,1/4")
        (0.5, 0.25)
    """
    return tuple(_number(word) for word in text.split(","))


def radius(text: str) -> float:
    """A number or fraction that is not negative, such as an attack's 8/255.

    Example:
        >>> radius("8/255") == 8 / 255
        True
    """
    value = _number(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is below 0; write it like 8/255")
    return value


def count(text: str) -> int:
    """A whole number above 0.

    Example:
        >>> count("20")
        20
    """
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def shape(text: str) -> tuple[int, ...]:
    """Whole numbers above 0 between commas: the channels, height and width of an image.

    Example:
        >>> shape("3,32,32")
        (3, 32, 32)
    """
    try:
        return tuple(count(part.strip()) for part in text.split(","))
    except argparse.ArgumentTypeError:
        message = f"{text!r} is not an image's channels, height and width, such as 3,32,32"
        raise argparse.ArgumentTypeError(message) from None


def _number(text: str) -> float:
    try:
        return float(Fraction(text.strip()))
    except (ValueError, ZeroDivisionError, OverflowError):
        message = f"{text!r} is not a number or fraction such as 8/255"
        raise argparse.ArgumentTypeError(message) from None
