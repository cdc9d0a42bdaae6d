"""Every trained network of the grid under every measurement."""

import copy
import dataclasses
import functools
from collections.abc import Iterable

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import nn

from normkit import attacks, data, norms, probes, sweep
from normkit.records import Record, Store
from normkit.training import TrainConfig, from_dict, generator, prepare, restore
from normkit.training.task import Task

from ..measured import measuring_code
from ..profiles import choose
from .settings import SETTINGS

__all__ = ["MEASURES", "Measured", "measured"]

MEASURES = ("spectral", "l1", "linf", "slope", "energy")
MEASURES += ("stable_rank", "cosine", "gradient_ratio", "robust")
PROBED = 64  # training images that the probes see
ATTACKED = 20  # steps of PGD


def measured(
    profile: str, records: Iterable[Record], attacked: Iterable[Record] = ()
) -> "Measured":
    """The measurement of trained networks, for `papers.kept`; some are `attacked` and no more."""
    grid = choose(SETTINGS, profile)
    keys, others = (
        tuple(dict.fromkeys(record.key for record in part if record.status == "ok"))
        for part in (records, attacked)
    )
    return Measured(keys, others, grid.epsilon, grid.images)


@dataclasses.dataclass(frozen=True)
class Measured:
    """What stored networks are like: norms, activations, gradients, and accuracy under attack.

    *In plain words:* norms are geometric means over convolutions and dense layers, of the
    operators as executed. `slope` is the steepest gradient that some test image proves, `energy`
    the sum of squared weights as the layers use them. Stable rank and cosine similarity are those
    of the last activations, for a batch of training images in training mode; the gradient ratio
    is that of the first layer's over the last convolution's. All networks are attacked on the
    same images from the same starts, by 20 steps of PGD.

    Arguments:
        networks: keys of the records, in the default store.
        attacked: of those of which the robust accuracy alone is wanted.
        epsilon: linf radius of the attack, images in [0, 1].
        images: number of test images that are attacked.
    """

    networks: tuple[str, ...]
    attacked: tuple[str, ...]
    epsilon: float
    images: int

    def dependencies(self) -> dict[str, str]:
        """The hashes of the code that measures; a key says what its network depends on."""
        used = ("normkit.attacks", "normkit.data", "normkit.layers", "normkit.probes")
        return measuring_code(__name__, *used)

    def tables(self) -> dict[str, pd.DataFrame]:
        """Table "measures": key, measure (of `MEASURES`), value."""
        keys = (*self.networks, *self.attacked)
        with sweep.process_pool(min(sweep.jobs(), len(keys))) as pool:
            found = list(pool.map(self.found, keys))
        rows = [
            (key, name, float(value))
            for key, values in zip(keys, found, strict=True)
            for name, value in values.items()
        ]
        return {"measures": pd.DataFrame(rows, columns=["key", "measure", "value"])}

    @torch.no_grad()
    def found(self, key: str) -> dict[str, float]:
        """The measures of one network."""
        record = Store().open(key)
        config = from_dict(record.config)
        task, model = _task(config.dataset, config.image_size, config.subset), restore(record)
        model = model.to(task.images.device).eval()
        shown = data.to_float(task.test_images[: self.images])
        labels = task.test_labels[: self.images]
        attack = functools.partial(
            attacks.pgd,
            epsilon=self.epsilon,
            step_size=2.5 * self.epsilon / ATTACKED,
            steps=ATTACKED,
            generator=generator(0, "evaluation"),
        )
        robust = {"robust": attacks.robust_accuracy(model, shown, labels, attack)}
        if key not in self.networks:
            return robust
        found = _norms(model, tuple(shown.shape[1:]))
        found["slope"] = norms.lipschitz_lower_bound(model, shown[:PROBED], steps=4).value
        found |= _probed(model, data.to_float(task.images[:PROBED]), task.labels[:PROBED])
        return found | robust


@functools.lru_cache(maxsize=2)
def _task(dataset: str, image_size: int | None, subset: int | None) -> Task:
    return prepare(TrainConfig(dataset=dataset, image_size=image_size, subset=subset))


def _norms(model: nn.Module, size: tuple[int, ...]) -> dict[str, float]:
    kinds = ("l1", "linf", "spectral")
    table = norms.layer_table(model, size, norms=kinds, workers=1)
    table = table[(table.kind != "batch_norm") & (table.status == "ok") & (table.value > 0)]
    found = {norm: np.exp(np.log(rows.value).mean()) for norm, rows in table.groupby("norm")}
    weights = [
        layer.weight.detach().double().square().sum().item()
        for layer in model.modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    ]
    return {**found, "energy": sum(weights)}


def _probed(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    model, names = copy.deepcopy(model).train(), ("stable_rank", "cosine_similarity")
    with torch.enable_grad(), probes.record(model, [*names, "gradient_norm"]) as seen:
        F.cross_entropy(model(images), labels).backward()
    table = seen.table()
    last = {name: table[table.measure == name].value.iloc[-1] for name in names}
    gradients = table[table.measure == "gradient_norm"].value
    ratio = gradients.iloc[0] / gradients.iloc[-2]
    return {
        "stable_rank": last["stable_rank"],
        "cosine": last["cosine_similarity"],
        "gradient_ratio": ratio,
    }
