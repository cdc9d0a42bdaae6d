"""Trained networks under attacks of every kind, and on noisy images."""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import pandas as pd
import torch
from torch import Tensor, nn

from normkit import attacks, data
from normkit.records import Record, Store
from normkit.training import from_dict, generator, prepare, restore

from ..measured import measuring_code
from ..profiles import choose
from .methods import method_of
from .settings import SETTINGS, Attack

__all__ = ["Attacked", "attacked"]

PAIR = ("batch", "conv_norm")
CHUNK = 500  # images that are attacked at once
COLUMNS = {
    "accuracy": ["method", "seed", "attack", "accuracy"],
    "blackbox": ["method", "seed", "attack", "source", "accuracy"],
    "corruptions": ["method", "seed", "std", "accuracy"],
}


def attacked(profile: str, records: Sequence[Record]) -> "Attacked":
    """The measurement of the networks of `judged_runs(...)["robust"]`, for `papers.kept`."""
    keys = tuple(record.key for record in records if record.status == "ok")
    return Attacked(keys, choose(SETTINGS, profile).attack)


@dataclasses.dataclass(frozen=True)
class Attacked:
    """Accuracies of stored networks under attack: each from the same starts as all others.

    Arguments:
        networks: keys of the records, in the default store.
        attack: radius, steps, images.
    """

    networks: tuple[str, ...]
    attack: Attack

    def dependencies(self) -> dict[str, str]:
        """The hashes of the code that attacks; a record's key says what its network depends on."""
        return measuring_code(__name__, "normkit.attacks", "normkit.data", "normkit.layers")

    def tables(self) -> dict[str, pd.DataFrame]:
        """Tables "accuracy", "blackbox" and "corruptions".

        accuracy: method, seed, attack (clean, FGSM, PGD-10, PGD-20), accuracy in [0, 1].
        blackbox: method, seed, attack (SPSA, transfer), source, accuracy; of batch and conv_norm.
        corruptions: method, seed, std, accuracy.
        """
        store = Store()
        records = [store.open(key) for key in self.networks]
        if not records:
            return {name: pd.DataFrame(columns=columns) for name, columns in COLUMNS.items()}
        task = prepare(from_dict(records[0].config))
        device = task.test_images.device
        named = [(method_of(r.config), r.config["seed"], restore(r).to(device)) for r in records]
        images, labels = data.to_float(task.test_images), task.test_labels
        tables = {"accuracy": self._white(named, images, labels)}
        tables["blackbox"] = self._black(named, images, labels)
        tables["corruptions"] = self._noisy(named, task.test_images, labels)
        return tables

    def _white(self, named: list, images: Tensor, labels: Tensor) -> pd.DataFrame:
        chosen, rows = slice(self.attack.images), []
        size = {"epsilon": self.attack.epsilon, "step_size": self.attack.step_size}
        kinds: dict[str, Callable | None] = {"clean": None}
        kinds["FGSM"] = functools.partial(attacks.fgsm, epsilon=self.attack.epsilon)
        kinds |= {f"PGD-{n}": functools.partial(attacks.pgd, steps=n, **size) for n in (10, 20)}
        for method, seed, model in named:
            for name, attack in kinds.items():
                run = self._started(attack) if name.startswith("PGD") else attack
                found = attacks.robust_accuracy(model, images[chosen], labels[chosen], run)
                rows.append((method, seed, name, found))
        return pd.DataFrame(rows, columns=COLUMNS["accuracy"])

    def _started(self, attack: Callable) -> Callable:
        """The attack with random starts that are the same for every network."""
        return functools.partial(attack, generator=generator(0, "evaluation"))

    def _black(self, named: list, images: Tensor, labels: Tensor) -> pd.DataFrame:
        rows, chosen = [], slice(self.attack.queried)
        pair = [one for one in named if one[0] in PAIR]
        asked = functools.partial(
            attacks.spsa,
            epsilon=self.attack.epsilon,
            steps=self.attack.spsa_steps,
            samples=self.attack.spsa_samples,
        )
        for method, seed, model in pair:
            run = self._started(asked)
            found = attacks.robust_accuracy(model, images[chosen], labels[chosen], run)
            rows.append((method, seed, "SPSA", "", found))
        for source in PAIR:
            rows += self._transferred(source, pair, images, labels)
        return pd.DataFrame(rows, columns=COLUMNS["blackbox"])

    def _transferred(self, source: str, pair: list, images: Tensor, labels: Tensor) -> list[tuple]:
        """Accuracy on what PGD finds on the source of the next seed, which is no target's own."""
        chosen, rows = slice(self.attack.images), []
        seeds = sorted({seed for _, seed, _ in pair})
        nets: dict[tuple[str, int], nn.Module] = {(m, seed): model for m, seed, model in pair}
        size = {"epsilon": self.attack.epsilon, "step_size": self.attack.step_size}
        for place, seed in enumerate(seeds):
            other = nets.get((source, seeds[(place + 1) % len(seeds)]))
            targets = {m: nets[m, seed] for m in PAIR if (m, seed) in nets}
            if other is None or len(seeds) < 2:
                continue
            run = self._started(functools.partial(attacks.pgd, steps=20, **size))
            parts = zip(images[chosen].split(CHUNK), labels[chosen].split(CHUNK), strict=True)
            made = torch.cat([run(other, *part) for part in parts])
            for method, model in targets.items():
                found = attacks.robust_accuracy(model, made, labels[chosen])
                rows.append((method, seed, "transfer", source, found))
        return rows

    def _noisy(self, named: list, images: Tensor, labels: Tensor) -> pd.DataFrame:
        rows = []
        for std in (0.0, *self.attack.stds):
            seen = data.gaussian_noise(images, std, torch.Generator().manual_seed(0))
            for method, seed, model in named:
                found = attacks.robust_accuracy(model, data.to_float(seen), labels)
                rows.append((method, seed, std, found))
        return pd.DataFrame(rows, columns=COLUMNS["corruptions"])
