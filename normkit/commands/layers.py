"""`layers`: the norms of every layer of a network."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from .arguments import add_parser, add_store, one_of, shape, words
from .text import table

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["add", "wide"]

NORMS = ("l1", "linf", "spectral", "frobenius", "stable_rank")

DETAILS = """\
Prints the norms of the linear map of every layer, one row a layer.  Where a norm is known as a
bracket, its two ends are printed, lower..upper.  What is wrong with a layer that cannot be
measured stands below.  Names of torchvision's classifiers work too; their weights are random
then, nothing is downloaded."""

EXAMPLES = """
layers 3f2a
layers net.safetensors --input 3,32,32 --norms l1,linf --csv norms.csv
layers resnet18 --input 3,224,224 --boundary circular
"""


def add(commands: argparse._SubParsersAction) -> None:
    """Add the subcommand."""
    summary = "print the norms of every layer of a network"
    parser = add_parser(commands, "layers", summary=summary, details=DETAILS, examples=EXAMPLES)
    option = parser.add_argument
    option("target", metavar="KEY_OR_CHECKPOINT_OR_TORCHVISION_NAME")
    option("--input", type=shape, metavar="C,H,W", help="of an image; a record knows its own")
    option("--norms", type=words, default=NORMS, metavar="A,B", help=f"of {','.join(NORMS)}")
    option(
        "--boundary",
        type=one_of(("zero", "circular")),
        default="zero",
        help="zero: the operator as executed (default); circular: the taps on the torus",
    )
    option("--csv", metavar="FILE", help="also write the table, one row per layer and norm")
    option("--normalization", metavar="KEY", help="of a checkpoint that does not tell it")
    add_store(parser)
    parser.set_defaults(command=_command)


def _command(chosen: argparse.Namespace) -> int:
    from normkit import norms, records

    from .networks import Bare, load

    if chosen.csv and not Path(chosen.csv).absolute().parent.is_dir():
        raise ValueError(f"--csv {chosen.csv}: there is no folder {Path(chosen.csv).parent}")
    bare = Bare(chosen.input, None, None, chosen.normalization, "--input C,H,W")
    network = load(chosen.target, records.Store(chosen.store), bare, torchvision=True)
    size = chosen.input or network.input_size
    found = norms.layer_table(network.model, size, norms=chosen.norms, boundary=chosen.boundary)
    print(f"{network.name}, input {'x'.join(map(str, size))}, boundary {chosen.boundary}")
    print(wide(found))
    if chosen.csv:
        found.to_csv(chosen.csv, index=False)
        print(f"{len(found)} rows in {chosen.csv}")
    return 0


def wide(found: "pd.DataFrame") -> str:
    """A layer table with one row a layer and one column a norm, and what failed below it.

    Arguments:
        found: as `norms.layer_table` makes it.

    Example:
        >>> import pandas as pd
        >>> row = {"layer": "fc", "kind": "linear", "norm": "l1", "value": 2.5, "lower": 2.5}
        >>> print(wide(pd.DataFrame([row | {"upper": 2.5, "status": "ok", "seconds": 0.01}])))
        layer  kind     l1  seconds
        fc     linear  2.5     0.01
    """
    names = list(dict.fromkeys(found.norm))
    rows, failed = [], {}
    for (layer, kind), group in found.groupby(["layer", "kind"], sort=False):
        cells = {row.norm: _cell(row.value, row.lower, row.upper) for row in group.itertuples()}
        seconds = f"{group.seconds.sum():.2f}"
        rows.append([layer, kind, *(cells.get(name, "-") for name in names), seconds])
        for row in group[group.status != "ok"].itertuples():
            failed.setdefault((layer, row.status), []).append(row.norm)
    lines = [table(["layer", "kind", *names, "seconds"], rows)]
    lines += [f"{layer} ({', '.join(n)}): {status}" for (layer, status), n in failed.items()]
    return "\n".join(lines)


def _cell(value: float, lower: float, upper: float) -> str:
    if value != value:
        return "-"
    ends = (f"{lower:.4g}", f"{upper:.4g}")
    return f"{ends[0]}..{ends[1]}" if ends[0] != ends[1] else f"{value:.4g}"
