"""What a training step costs under every method, timed in turns."""

import dataclasses

import pandas as pd
import torch

from normkit.records import code_hashes
from normkit.training import Evaluation, train

from ..profiles import choose
from .settings import METHODS, SETTINGS, changed

__all__ = ["StepCost", "step_cost"]

STEPS, EPOCHS = 4, 4


def step_cost(profile: str) -> "StepCost":
    """The measurement of a profile's steps, for `papers.kept`.

    Example:
        >>> step_cost("quick").profile
        'quick'
    """
    return StepCost(profile)


@dataclasses.dataclass(frozen=True)
class StepCost:
    """Times the steps of every method, all methods in turns, on one thread.

    *In plain words:* a short training of a few steps each, of which the fastest epoch counts;
    the rounds are the repetitions.

    Arguments:
        profile: whose network and images.
        rounds: of all methods.
    """

    profile: str
    rounds: int = 3

    def dependencies(self) -> dict[str, str]:
        """The code that is timed."""
        return code_hashes("normkit.training", __name__)

    def tables(self) -> dict[str, pd.DataFrame]:
        """Table "times": method, seed (the round), seconds of a step, ratio to BatchNorm's."""
        grid = choose(SETTINGS, self.profile)
        few = {"subset": STEPS * grid.clean.batch_size, "epochs": EPOCHS}
        few["evaluation"] = Evaluation(clean_every=0)
        base = dataclasses.replace(grid.clean, **few)
        rows = []
        for turn in range(self.rounds):
            for method in METHODS:
                with torch.enable_grad():
                    history = train(changed(grid, base, method, lr=1e-3)).tables["history"]
                rows.append((method, turn, float(history.seconds[1:].min()) / STEPS))
        table = pd.DataFrame(rows, columns=["method", "seed", "seconds"])
        batch = table[table.method == "batch"].set_index("seed").seconds
        return {"times": table.assign(ratio=table.seconds / table.seed.map(batch))}
