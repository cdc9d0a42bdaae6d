"""`evaluate`: clean and robust accuracy of a record or a checkpoint."""

import argparse
import functools
import math
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .arguments import add_parser, add_store, count, numbers, one_of, radius
from .text import plain, table

if TYPE_CHECKING:
    from torch import Tensor

    from .networks import Network

__all__ = ["add", "wilson"]

# What each attack takes, with the defaults; the step size defaults to 2.5 epsilon / steps.
ATTACKS: dict[str, dict[str, Any]] = {
    "none": {},
    "fgsm": {"epsilon": 8 / 255},
    "pgd": {"epsilon": 8 / 255, "steps": 20, "step_size": None, "norm": "linf", "restarts": 1},
}

DETAILS = """\
Prints the accuracy on test images, clean and attacked, each with the 95 % interval of Wilson
for that many images.  Radii and step sizes are in units of the pixel range [0, 1].  The random
starts of seed 0 are those of training's own robust accuracy.  A .safetensors file is read as
it is, any other only with torch.load(weights_only=True)."""

EXAMPLES = """
evaluate 3f2a --attack pgd --epsilon 8/255 --steps 20 --seed 0
evaluate 3f2a --attack fgsm --epsilon 0.1 --images 100
evaluate net.safetensors --dataset cifar10 --mean .49,.48,.45 --std .2,.2,.2 --epsilon 2/255
"""


def add(commands: argparse._SubParsersAction) -> None:
    """Add the subcommand."""
    summary = "attack a record or a checkpoint"
    parser = add_parser(commands, "evaluate", summary=summary, details=DETAILS, examples=EXAMPLES)
    option = parser.add_argument
    option("target", metavar="KEY_OR_CHECKPOINT", help="a key, as far as it is unique, or a file")
    kinds = one_of(tuple(ATTACKS))
    option("--attack", type=kinds, default="pgd", help="none, fgsm or pgd (default)")
    option("--epsilon", type=radius, metavar="R", help="radius; default 8/255")
    option("--steps", type=count, metavar="N", help="of pgd; default 20")
    option("--step-size", type=radius, metavar="S", help="of pgd; default 2.5 epsilon / steps")
    option("--norm", type=one_of(("linf", "l2")), help="of pgd; linf (default) or l2")
    option("--restarts", type=count, metavar="N", help="of pgd; default 1")
    option("--seed", type=int, default=0, help="of the random starts; default 0")
    option("--images", type=count, metavar="N", help="the first N test images; default all")
    option("--device", type=one_of(("auto", "cpu", "cuda")), default="auto", help="default auto")
    bare = parser.add_argument_group("for a checkpoint that carries no configuration")
    bare.add_argument("--dataset", metavar="NAME", help="as `data list` shows; also for a record")
    bare.add_argument("--mean", type=numbers, metavar="A,B,C", help="of the input; default none")
    bare.add_argument("--std", type=numbers, metavar="A,B,C", help="of the input; default none")
    bare.add_argument("--normalization", metavar="KEY", help="where the weights do not tell it")
    add_store(parser)
    parser.set_defaults(command=_command)


def wilson(hits: int, n: int) -> tuple[float, float]:
    r"""The 95 % interval of a share that is known from n independent cases.

    .. math:: \frac{p + z^2 / 2n \pm z \sqrt{p (1 - p) / n + z^2 / 4n^2}}{1 + z^2 / n},
        \quad p = \text{hits} / n, \; z = 1.95996

    In plain words: all shares that a test at 5 % would not reject; never outside [0, 1], and
    not of width 0 where all cases agree.

    Source: Wilson 1927, https://doi.org/10.1080/01621459.1927.10502953

    Arguments:
        hits: cases that count.
        n: all cases, at least 1.

    Example:
        >>> [round(end, 4) for end in wilson(0, 100)]
        [0.0, 0.037]
    """
    z, p = 1.959963984540054, hits / n
    middle = p + z * z / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def _command(chosen: argparse.Namespace) -> int:
    from normkit import records, training

    from .networks import Bare, load

    attack = _settings(chosen)
    device = training.resolve_device(chosen.device)
    size = training.dataset(chosen.dataset).input_size if chosen.dataset else None
    bare = Bare(size, chosen.mean, chosen.std, chosen.normalization, "--dataset NAME")
    network = load(chosen.target, records.Store(chosen.store), bare)
    name = chosen.dataset or network.config.dataset
    images, labels = _images(network, name, chosen.images)
    total = len(training.dataset(name).test_labels)
    if network.config is None and not chosen.mean:
        print("no --mean and --std: the net gets images in [0, 1] as they are", file=sys.stderr)
    print(f"{network.name}: {len(images)} of the {total} test images of {name}, on {device}")
    rows = _measure(network.model.to(device), images.to(device), labels.to(device), chosen, attack)
    print(table(["attack", "accuracy", "95 % interval", "n", "seconds"], rows))
    return 0


def _settings(chosen: argparse.Namespace) -> dict[str, Any]:
    """What the attack takes; an option that it does not take is refused."""
    takes = ATTACKS[chosen.attack]
    for name in ATTACKS["pgd"]:
        if getattr(chosen, name) is not None and name not in takes:
            option = f"--{name.replace('_', '-')}"
            raise ValueError(f"{option} must be left out: --attack {chosen.attack} has none")
    given = {name: getattr(chosen, name) for name in takes}
    settings = {name: takes[name] if v is None else v for name, v in given.items()}
    if settings.get("step_size", 0) is None:
        settings["step_size"] = 2.5 * settings["epsilon"] / settings["steps"]
    return settings


def _images(network: "Network", name: str, wanted: int | None) -> tuple["Tensor", "Tensor"]:
    """The first test images at the network's size, in [0, 1]; checked against the network."""
    import torch

    from normkit import data, training

    source = training.dataset(name)
    images, labels = source.test_images, source.test_labels
    if wanted is not None and wanted > len(images):
        raise ValueError(f"--images is {wanted}; {name} has {len(images)} test images")
    if network.config and network.config.image_size:
        images = data.resize(images, network.config.image_size)
    images, labels = data.to_float(images[:wanted]), labels[:wanted]
    try:
        with torch.no_grad():
            classes = network.model(images[:1]).shape[1]
    except RuntimeError as error:
        size = "x".join(map(str, images.shape[1:]))
        message = f"{network.name} does not take images of {size}, as those of {name} are"
        raise ValueError(message) from error
    if classes < source.num_classes:
        raise ValueError(
            f"{network.name} tells {classes} classes, and {name} has {source.num_classes}"
        )
    return images, labels


def _measure(
    model: Any, images: "Tensor", labels: "Tensor", chosen: argparse.Namespace, settings: dict
) -> list[list[str]]:
    from tqdm import tqdm

    from normkit import attacks

    measure = functools.partial(attacks.robust_accuracy, model, images, labels)
    rows = [_row("none", measure, labels)]
    if settings:
        shown = (f"{name.replace('_', ' ')} {plain(value)}" for name, value in settings.items())
        with tqdm(total=len(images), desc=chosen.attack, unit="image", disable=None) as bar:
            attack = _attack(chosen.attack, settings, chosen.seed, bar)
            name = f"{chosen.attack} ({', '.join(shown)})"
            rows.append(_row(name, functools.partial(measure, attack), labels))
    return rows


def _attack(kind: str, settings: dict[str, Any], seed: int, bar: Any) -> Callable:
    from normkit import attacks, training

    starts = training.generator(seed, "evaluation")

    def attack(model: Any, images: "Tensor", labels: "Tensor") -> "Tensor":
        if kind == "fgsm":
            found = attacks.fgsm(model, images, labels, **settings)
        else:
            found = attacks.pgd(model, images, labels, generator=starts, **settings)
        bar.update(len(images))
        return found

    return attack


def _row(name: str, measure: Callable[[], float], labels: "Tensor") -> list[str]:
    started = time.perf_counter()
    accuracy = measure()
    seconds = time.perf_counter() - started
    low, high = wilson(round(accuracy * len(labels)), len(labels))
    interval = f"{low:.4f} .. {high:.4f}"
    return [name, f"{accuracy:.4f}", interval, str(len(labels)), f"{seconds:.1f}"]
