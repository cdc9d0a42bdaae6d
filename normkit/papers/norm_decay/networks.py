"""Three networks that others trained: one architecture, standard, certified and adversarial."""

import dataclasses
import hashlib
import os
from pathlib import Path

import pandas as pd
from safetensors.torch import load_file
from torch import nn

from normkit import attacks, data, models, norms
from normkit.training import Evaluation, dataset, robust_accuracy

from ..measured import measuring_code

__all__ = ["NETWORKS", "Networks", "committed", "weights_folder"]

TABLES = ("accuracy", "norms")
IMAGENET = ((0.485, 0.456, 0.406), (0.225, 0.225, 0.225))
CIFAR = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
NETWORKS = {"standard": IMAGENET, "certified": IMAGENET, "adversarial": CIFAR}


def weights_folder() -> Path | None:
    """Where the three files lie, `$NORMKIT_WEIGHTS`; None if one of them is not there."""
    named = os.environ.get("NORMKIT_WEIGHTS")
    there = named and all(_file(Path(named), name).is_file() for name in NETWORKS)
    return Path(named) if there else None


def _file(folder: Path, name: str) -> Path:
    return folder / f"cifar10_small_cnn_{name}.safetensors"


@dataclasses.dataclass(frozen=True)
class Networks:
    """The norms and accuracies of the three networks, on CIFAR-10's test images.

    Robust accuracy is that under PGD of 20 steps of a sixth of the radius, from one random start.

    Arguments:
        images: number of test images for the clean accuracy.
        attacked: number of test images that are attacked.
        radii: linf radii in levels of a pixel, of 255.
    """

    images: int = 10_000
    attacked: int = 1000
    radii: tuple[int, ...] = (2, 8)

    def dependencies(self) -> dict[str, str]:
        """The hashes of the weights, of the images, and of the code that measures."""
        folder = weights_folder()
        if folder is None:
            raise FileNotFoundError("NORMKIT_WEIGHTS names no folder with the weights of the nets")
        files = {n: hashlib.sha256(_file(folder, n).read_bytes()).hexdigest() for n in NETWORKS}
        found = files | {"data cifar10": dataset("cifar10").fingerprint()}
        code = ("normkit.attacks", "normkit.data", "normkit.models", "normkit.training.objective")
        return found | measuring_code(__name__, *code, "normkit.training.task")

    def tables(self) -> dict[str, pd.DataFrame]:
        """Tables "accuracy" and "norms".

        accuracy: network, attack (none or pgd), radius (of 255), images, accuracy in [0, 1].
        norms: network, and the columns of `layer_table`, of the l1, linf and spectral norms.
        """
        source, folder = dataset("cifar10"), weights_folder()
        rows, tables = [], []
        for name, (mean, std) in NETWORKS.items():
            state = load_file(_file(folder, name))
            given = {"normalization": nn.Identity, "mean": mean, "std": std}
            model = models.from_state_dict(state, input_size=(32, 32), **given)
            images, labels = source.test_images[: self.images], source.test_labels[: self.images]
            clean = attacks.robust_accuracy(model, data.to_float(images), labels)
            rows.append((name, "none", 0, len(images), clean))
            for radius in self.radii:
                robust = robust_accuracy(model, images, labels, self._evaluation(radius / 255))
                rows.append((name, "pgd", radius, self.attacked, robust))
            table = norms.layer_table(
                model, (3, 32, 32), norms=("l1", "linf", "spectral"), rtol=1e-6
            )
            tables.append(table.drop(columns="seconds").assign(network=name))
        columns = ["network", "attack", "radius", "images", "accuracy"]
        return {
            "accuracy": pd.DataFrame(rows, columns=columns),
            "norms": pd.concat(tables, ignore_index=True),
        }

    def _evaluation(self, epsilon: float) -> Evaluation:
        size = {"epsilon": epsilon, "step_size": epsilon / 6, "steps": 20}
        return Evaluation("pgd", **size, images=self.attacked)


def committed() -> dict[str, pd.DataFrame]:
    """The tables of `Networks` as they were measured once, kept beside this module.

    Example:
        >>> found = committed()["accuracy"]
        >>> found[found.attack == "none"].set_index("network").accuracy.to_dict()
        {'standard': 0.761, 'certified': 0.6162, 'adversarial': 0.6975}
    """
    return {name: pd.read_csv(Path(__file__).with_name(f"networks_{name}.csv")) for name in TABLES}
