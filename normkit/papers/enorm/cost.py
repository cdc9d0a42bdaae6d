"""What balancing adds to a training step, against BatchNorm and GroupNorm."""

import dataclasses
import math
import time
from collections.abc import Callable

import pandas as pd
import torch
import torch.nn.functional as F

from normkit import layers, models
from normkit.projections import ENorm
from normkit.records import code_hashes

__all__ = ["Cost", "cost"]


@dataclasses.dataclass(frozen=True)
class Cost:
    """Times training steps of fully connected nets, all alternatives in turns.

    *In plain words:* the plain step is forward pass, backward pass and the optimizer's step. What
    BatchNorm and GroupNorm add is the step with them minus the plain one; what ENorm adds is the
    time of its own step, after the plain one.

    Arguments:
        batch_sizes: images in a step.
        repetitions: of the whole, each the fastest of `rounds` steps.
        rounds: steps of each alternative in a repetition.
        depth: hidden layers.
        width: units of each, and of the input.
        threads: 1, as everything that is measured.
    """

    batch_sizes: tuple[int, ...] = (2, 8, 32, 128, 256)
    repetitions: int = 5
    rounds: int = 15
    depth: int = 8
    width: int = 256
    threads: int = 1

    def dependencies(self) -> dict[str, str]:
        """The code that is timed."""
        return code_hashes("normkit.papers.enorm.cost")

    def tables(self) -> dict[str, pd.DataFrame]:
        """Table times: method, batch_size, repetition, seconds (added), base_seconds."""
        with torch.random.fork_rng(devices=[]):
            return {"times": self._times()}

    def _times(self) -> pd.DataFrame:
        steps = {key: _step(self, key) for key in ("none", "batch", "group")}
        rows = []
        for repetition in range(-1, self.repetitions):  # the first one warms up
            for size in self.batch_sizes:
                images, labels = torch.rand(size, self.width, 1, 1), torch.zeros(size).long()
                found: dict[str, list[float]] = {key: [] for key in (*steps, "enorm")}
                for _ in range(self.rounds):
                    for key, (step, balance) in steps.items():
                        found[key].append(_timed(lambda: step(images, labels)))
                        if balance is not None:
                            found["enorm"].append(_timed(balance))
                fastest = {key: min(values) for key, values in found.items()}
                base = fastest.pop("none")
                rows += [
                    (key, size, repetition, value - base * (key != "enorm"), base)
                    for key, value in fastest.items()
                    if repetition >= 0
                ]
        columns = ["method", "batch_size", "repetition", "seconds", "base_seconds"]
        return pd.DataFrame(rows, columns=columns)


def _step(cost: Cost, key: str) -> tuple[Callable, Callable | None]:
    """A training step with a normalization; without one, the balancing step that may follow."""
    torch.manual_seed(0)
    groups = math.gcd(8, cost.width) if key == "group" else None
    net = models.build(
        "mlp",
        in_channels=cost.width,
        input_size=(1, 1),
        width=cost.width,
        depth=cost.depth,
        normalization=layers.normalization(key, groups=groups),
    )
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-4)
    balance = ENorm(net, optimizer).step if key == "none" else None

    def step(images: torch.Tensor, labels: torch.Tensor) -> None:
        with torch.enable_grad():
            optimizer.zero_grad()
            F.cross_entropy(net(images), labels).backward()
        optimizer.step()

    return step, balance


def _timed(act: Callable[[], object]) -> float:
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


SETTINGS = {
    "smoke": Cost(batch_sizes=(2, 8), repetitions=2, rounds=3, width=32, depth=2),
    "quick": Cost(),
    "cifar10": Cost(depth=20, width=500),
    "paper": Cost(depth=20, width=500),
}


def cost(profile: str) -> Cost:
    """What a profile times."""
    return SETTINGS[profile]
