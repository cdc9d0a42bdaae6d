"""What a training step costs under every method, timed in turns."""

import dataclasses

import numpy as np
import pandas as pd
import torch

from normkit.records import code_hashes
from normkit.training import Evaluation, TrainConfig, train

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
    the rounds are the repetitions. Singular values are clipped once in that epoch, and what it
    takes is spread over the steps that lie between two clippings in the grid.

    Arguments:
        profile: whose network and images.
        rounds: of all methods.
    """

    profile: str
    rounds: int = 5

    def dependencies(self) -> dict[str, str]:
        """The code that is timed."""
        return code_hashes("normkit.training", __name__)

    def configs(self) -> dict[str, TrainConfig]:
        """The short training of every method.

        Example:
            >>> StepCost("quick").configs()["svc"].projection.every
            4
        """
        grid = choose(SETTINGS, self.profile)
        few = {"subset": STEPS * grid.clean.batch_size, "epochs": EPOCHS}
        few["evaluation"] = Evaluation(clean_every=0)
        base = dataclasses.replace(grid.clean, **few)
        made = {method: changed(grid, base, method, lr=1e-3) for method in METHODS}
        clipping = dataclasses.replace(made["svc"].projection, every=STEPS)
        return made | {"svc": dataclasses.replace(made["svc"], projection=clipping)}

    @torch.enable_grad()
    def tables(self) -> dict[str, pd.DataFrame]:
        """Table "times": method, seed (the round), seconds of a step, ratio to BatchNorm's."""
        train(self.configs()["none"])  # the first training of a process is slow
        rows = []
        for turn in range(self.rounds):
            for method, run in self.configs().items():
                history = train(run).tables["history"]
                rows.append((method, turn, float(history.seconds[1:].min()) / STEPS))
        table = pd.DataFrame(rows, columns=["method", "seed", "seconds"])
        batch = table.seed.map(table[table.method == "batch"].set_index("seed").seconds)
        apart = choose(SETTINGS, self.profile).every
        share = np.where(table.method == "svc", STEPS / apart, 1.0)
        seconds = batch + share * (table.seconds - batch)
        return {"times": table.assign(seconds=seconds, ratio=seconds / batch)}
