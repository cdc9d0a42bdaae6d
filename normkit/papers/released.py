"""The four papers' released code beside normkit: what does here what their options do there."""

from pathlib import Path

import pandas as pd

__all__ = ["released", "released_markdown"]

ADDRESSES = {
    "ConvNorm": "https://github.com/shengliu66/ConvNorm",
    "enorm": "https://github.com/facebookresearch/enorm",
    "norm_robustness": "https://github.com/youweiliang/norm_robustness",
    "BeyondBatchNorm": "https://github.com/EkdeepSLubana/BeyondBatchNorm",
}
TITLE = "# From the papers' released code to normkit"
HOW = """\
Find what you used there in the first column; the third is what does it here: a line of Python, \
after `from normkit import ...` of the names in it, or a command, small enough to try. Your own \
network, batch, configuration and finished run stand for `model`, `images`, `labels`, `config`, \
`run`, `record` and their like, `KEY` and `CHECKPOINT` for a stored run and a file of weights."""


def released() -> pd.DataFrame:
    """What stands in the authors' repositories, and what does it in normkit.

    In plain words: one row for each option, key of a configuration, script, notebook and function
    that users call there. The table was made by reading their code; every line of `here` is run
    by the tests.

    Shape:
        columns repository (a key of `ADDRESSES`), there, kind (option, key, script, function or
        notebook), what, here (one line of Python or of a shell; empty if nothing here does it),
        note (why, or a difference that matters).

    Example:
        >>> table = released().set_index(["repository", "there"])
        >>> print(table.here["enorm", "--enorm"])
        training.TrainConfig(projection=training.Projection("enorm", c=1.2))
        >>> print(table.note["ConvNorm", "n_gpu"])
        A run uses one device; several GPUs train several runs at a time.
    """
    return pd.read_csv(Path(__file__).with_name("released.csv"), keep_default_na=False)


def released_markdown() -> str:
    """The table of `released` as a page, a section for each repository.

    Example:
        >>> page = released_markdown().splitlines()
        >>> [line for line in page if line.startswith("## ")][1]
        '## [enorm](https://github.com/facebookresearch/enorm)'
        >>> next(line for line in page if line.startswith("| `--subset_percent`"))
        '| `--subset_percent` | share of the training images | `training.TrainConfig(subset=500)` | ...'
    """
    sections = [
        "\n".join([f"## [{name}]({ADDRESSES[name]})", "", *_lines(part)])
        for name, part in released().groupby("repository", sort=False)
    ]
    return "\n\n".join([TITLE, HOW, *sections]) + "\n"


def _lines(rows: pd.DataFrame) -> list[str]:
    """A table of markdown, in which a bar would end a cell."""
    made = ["| there | what | here | note |", "|---|---|---|---|"]
    for row in rows.replace(r"\|", r"\\|", regex=True).itertuples():
        here = f"`{row.here}`" if row.here else ""
        made.append(f"| `{row.there}` | {row.what} | {here} | {row.note} |")
    return made
