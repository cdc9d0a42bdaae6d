"""The subcommands train, evaluate, layers, runs and data; each adds its parser by `add`.

What a subcommand needs is imported when it runs, so that `--help` answers at once.
"""

from . import data, evaluate, layers, runs, train

__all__ = ["data", "evaluate", "layers", "runs", "train"]
