"""`evaluate`: clean and robust accuracy of a network; `layers`: the norms of its layers."""

import argparse
import functools
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from scipy.stats import binomtest
from torch import Tensor, nn
from tqdm import tqdm

from normkit import attacks, data, models, norms, training
from normkit.networks import Network, Reading, load
from normkit.norms.network import lipschitz_lower_bound, spectral_product
from normkit.records import Store

from . import plain, table

__all__ = ["evaluate", "layers"]

CLIMBED = 16  # test images from which the Lipschitz constant is climbed

# What each attack takes, with the defaults; the step size defaults to 2.5 epsilon / steps.
ATTACKS: dict[str, dict[str, Any]] = {
    "none": {},
    "fgsm": {"epsilon": 8 / 255},
    "pgd": {"epsilon": 8 / 255, "steps": 20, "step_size": None, "norm": "linf", "restarts": 1},
    "apgd": {"epsilon": 8 / 255, "steps": 100, "targets": None, "norm": "linf", "restarts": 1},
}
OPTIONS = tuple(dict.fromkeys(name for settings in ATTACKS.values() for name in settings))


def evaluate(chosen: argparse.Namespace) -> int:
    """Print the accuracy of a record or a checkpoint on test images, clean and attacked."""
    chosen_attacks = _attacks(chosen)
    device = training.resolve_device(chosen.device)
    size = training.dataset(chosen.dataset).input_size if chosen.dataset else None
    network = _network(chosen, size, "--dataset NAME")
    name = chosen.dataset or network.dataset
    images, labels = _images(network, name, chosen.images)
    with torch.no_grad():
        if network.model(images[:1]).dim() != 2:
            raise ValueError(f"{network.name} gives back images, so it has no accuracy")
    total = len(training.dataset(name).test_labels)
    if network.dataset is None and not chosen.mean:
        print("no --mean and --std: the net gets images in [0, 1] as they are", file=sys.stderr)
    print(f"{network.name}: {len(images)} of the {total} test images of {name}, on {device}")
    measured = network.model.to(device), images.to(device), labels.to(device)
    rows = [_row(title, attack, *measured) for title, attack in chosen_attacks.items()]
    print(table(["attack", "accuracy", "95 % interval", "n", "seconds"], rows))
    return 0


def _attacks(chosen: argparse.Namespace) -> dict[str, Callable | None]:
    """No attack, and the chosen one by its settings; an option that it lacks is refused."""
    asked = vars(chosen)
    given = {name: asked[name] for name in OPTIONS if asked[name] is not None}
    for name in given.keys() - ATTACKS[chosen.attack].keys():
        option = name.replace("_", "-")
        raise ValueError(f"--{option} must be left out: --attack {chosen.attack} has none")
    settings = ATTACKS[chosen.attack] | given
    if chosen.attack == "none":
        return {"none": None}
    if chosen.attack == "fgsm":
        attack = functools.partial(attacks.fgsm, **settings)
    else:
        if chosen.attack == "pgd" and settings["step_size"] is None:
            settings["step_size"] = 2.5 * settings["epsilon"] / settings["steps"]
        starts = training.generator(chosen.seed, "evaluation")
        found = {"pgd": attacks.pgd, "apgd": attacks.apgd_ensemble}[chosen.attack]
        attack = functools.partial(found, generator=starts, **settings)
    settings = {name: value for name, value in settings.items() if value is not None}
    shown = (f"{name.replace('_', ' ')} {plain(value)}" for name, value in settings.items())
    return {"none": None, f"{chosen.attack} ({', '.join(shown)})": attack}


def _network(chosen: argparse.Namespace, size: tuple[int, ...] | None, ask: str) -> Network:
    """The network that was asked for, read as the options say."""
    reading = Reading(chosen.mean, chosen.std, chosen.normalization)
    store, classifiers = Store(chosen.store), chosen.classifiers
    how = {"store": store, "size": size, "classifiers": classifiers, "reading": reading}
    return load(chosen.target, **how, ask=ask, option="--{}")


def _images(network: Network, name: str, wanted: int | None) -> tuple[Tensor, Tensor]:
    """The first test images at the network's size, in [0, 1]; checked against the network."""
    source, (channels, *size) = training.dataset(name), network.input_size
    images, labels = source.test_images, source.test_labels
    if wanted is not None and wanted > len(images):
        raise ValueError(f"--images is {wanted}; {name} has {len(images)} test images")
    if channels != images.shape[1] or 0 < network.num_classes < source.num_classes:
        raise ValueError(
            f"{network.name} is for {channels} channels and {network.num_classes or 'unknown'} "
            f"classes; {name} has {images.shape[1]} and {source.num_classes}"
        )
    return data.to_float(data.resize(images[:wanted], tuple(size))), labels[:wanted]


def _row(title: str, attack: Callable | None, model, images: Tensor, labels: Tensor) -> list[str]:
    """The accuracy under an attack, and how well it is known."""
    started, hits, n = time.perf_counter(), 0, len(labels)
    batches = list(zip(images.split(500), labels.split(500), strict=True))
    for batch, truth in tqdm(batches, desc=title, unit="batch", leave=False, disable=None):
        hits += round(attacks.robust_accuracy(model, batch, truth, attack) * len(truth))
    low, high = binomtest(hits, n).proportion_ci(method="wilson")
    seconds = f"{time.perf_counter() - started:.1f}"
    return [title, f"{hits / n:.4f}", f"{low:.4f} .. {high:.4f}", str(n), seconds]


def layers(chosen: argparse.Namespace) -> int:
    """Print the norms of the layers of a record, a checkpoint or a net of torchvision."""
    if chosen.csv and not Path(chosen.csv).absolute().parent.is_dir():
        raise ValueError(f"--csv {chosen.csv}: there is no folder {Path(chosen.csv).parent}")
    size = training.dataset(chosen.lipschitz).input_size if chosen.lipschitz else None
    network = _network(chosen, chosen.input or size, "--input C,H,W")
    size = chosen.input or network.input_size
    images = chosen.lipschitz and _images(network, chosen.lipschitz, CLIMBED)[0]
    wanted = {"norms": chosen.norms, "boundary": chosen.boundary, "rtol": chosen.rtol}
    found = norms.layer_table(network.model, size, workers=chosen.jobs, progress=True, **wanted)
    print(f"{network.name}, input {'x'.join(map(str, size))}, boundary {chosen.boundary}")
    print(_wide(found))
    if chosen.csv:
        found.to_csv(chosen.csv, index=False)
        print(f"{len(found)} rows in {chosen.csv}")
    if images is not None:
        bound = lipschitz_lower_bound(network.model, images).value
        starts = f"l2, from {CLIMBED} test images of {chosen.lipschitz}"
        print(f"Lipschitz constant at least {bound:.4g} ({starts})")
    if "spectral" in chosen.norms:
        print(_product(found, network.model))
    return 0


def _product(found: pd.DataFrame, model: nn.Module) -> str:
    """The product of the spectral norms in words, or why there is none."""
    spectral = found[found.norm == "spectral"]
    if failed := (spectral.status != "ok").sum():
        return f"no product of spectral norms: {failed} of {len(spectral)} layers have none"
    inputs = (part for part in model.modules() if isinstance(part, models.Normalize))
    scales = (f" times {1 / part.std.min():.4g} of the input's normalization" for part in inputs)
    product = f"product of spectral norms {_ends(*spectral_product(spectral))}{''.join(scales)}"
    return f"{product} (bounds the Lipschitz constant of a plain chain)"


def _ends(lower: float, upper: float) -> str:
    """A bracket to four digits."""
    low, high = f"{lower:.4g}", f"{upper:.4g}"
    return low if low == high else f"{low}..{high}"


def _wide(found: pd.DataFrame) -> str:
    """A layer table with one row a layer and one column a norm, and what failed below it."""
    cells = list(map(_ends, found.lower, found.upper))
    found = found.assign(cell=cells).replace({"cell": {"nan": "-"}})
    layers = found.groupby(["layer", "kind"], sort=False)
    rows = [[*name, *part.cell, f"{part.seconds.sum():.2f}"] for name, part in layers]
    failed = (
        found[found.status != "ok"].groupby(["layer", "status"], sort=False).norm.agg(", ".join)
    )
    alike = failed.reset_index().groupby(["norm", "status"], sort=False).layer
    lines = [f"{_some(layer)} ({names}): {status}" for (names, status), layer in alike]
    return "\n".join([table(["layer", "kind", *found.norm.unique(), "seconds"], rows), *lines])


def _some(names: pd.Series) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:3]) + f" and {len(names) - 3} more" * (len(names) > 3)
