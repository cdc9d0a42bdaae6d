"""What an attack adds to an image, and what two networks then take it for."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from normkit import attacks
from normkit.networks import Network

from .finite import check_finite
from .images import test_images
from .live import twin

__all__ = ["ATTACKS", "COUNT", "Seen", "attack_image", "predictions"]

COUNT = 64  # images to choose from
STEPS = 20
ATTACKS = {"FGSM": "fgsm", f"PGD-{STEPS}": "pgd", f"APGD-{STEPS}": "apgd"}


class Seen(NamedTuple):
    """What networks take one image for, and the image.

    Arguments:
        table: columns network, state ("clean" or "attacked"), class, probability.
        clean: (1, C, H, W) in [0, 1].
        attacked: the attacked image by the network that was attacked.
        label: the class that the attack leads away from.
        known: whether that is known to be right; else it is what the first network sees.
        words: which images they are.
    """

    table: pd.DataFrame
    clean: Tensor
    attacked: dict[str, Tensor]
    label: int
    known: bool
    words: str


def attack_image(
    model: Callable[[Tensor], Tensor], image: Tensor, label: int, attack: str, epsilon: float
) -> Tensor:
    """The image that an attack of seed 0 finds within epsilon in the largest change of a pixel.

    *In plain words:* PGD takes 20 steps of epsilon / 8 from a random start; APGD 20 steps from one
    whose length it finds itself, and it leaves an image that is taken for another as it is.

    Arguments:
        model: maps images in [0, 1] to logits.
        image: (1, C, H, W) in [0, 1].
        label: the class it leads away from.
        attack: a value of `ATTACKS`.
        epsilon: radius, images in [0, 1]; 0 changes nothing.

    Example:
        >>> model = torch.nn.Linear(2, 2, bias=False)
        >>> _ = model.weight.data.copy_(torch.tensor([[1.0, -1.0], [0.0, 0.0]]))
        >>> attack_image(model, torch.full((1, 2), 0.5), 0, "fgsm", 0.25)
        tensor([[0.2500, 0.7500]])
    """
    labels, start = torch.tensor([label]), torch.Generator().manual_seed(0)
    if attack not in ATTACKS.values():
        raise ValueError(f"attack is {attack!r}; accepted are {', '.join(ATTACKS.values())}")
    if epsilon == 0:
        return image.clone()
    if attack == "fgsm":
        return attacks.fgsm(model, image, labels, epsilon=epsilon)
    if attack == "apgd":
        return attacks.apgd(
            model, image, labels, epsilon=epsilon, steps=STEPS, generator=start
        )
    size = epsilon / 8
    return attacks.pgd(
        model, image, labels, epsilon=epsilon, step_size=size, steps=STEPS, generator=start
    )


def predictions(
    first: Network,
    second: Network | None = None,
    *,
    image: int,
    attack: str,
    epsilon: float,
    own: bool = False,
    check: Callable[[], None] = lambda: None,
) -> Seen:
    """What one or two networks take a test image for, clean and attacked.

    Arguments:
        first: the network that is attacked, knowing its weights; it stays as it is.
        second: another one for the same images, which is shown what fools the first.
        image: index of a test image of the first.
        attack: a value of `ATTACKS`.
        epsilon: radius, images in [0, 1].
        own: attack each network with its own weights, not both with the first one's.
        check: called at each pass through a network.

    Raises:
        ValueError: no such image or attack, or a network that gives no probabilities of classes.
    """
    named = _named(first, second)
    images, labels, words = test_images(first, COUNT)
    if not 0 <= image < len(images):
        raise ValueError(f"image is {image}; there are {words}, from 0 on")
    clean = images[image : image + 1]
    seen = {name: _probabilities(network, clean) for name, network in named.items()}
    sizes = {name: len(values) for name, values in seen.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"the networks have other classes, so they cannot be compared: {sizes}")
    label = int(seen[first.name].argmax()) if labels is None else int(labels[image])
    found: dict[str, Tensor] = {}
    for name, network in named.items() if own else [(first.name, named[first.name])]:
        watched = _watched(network, check)
        found[name] = attack_image(watched, clean, label, attack, epsilon)
    shown = {name: found.get(name, found[first.name]) for name in named}
    after = {name: _probabilities(network, shown[name]) for name, network in named.items()}
    return Seen(_table(seen, after), clean, found, label, labels is not None, words)


def _named(first: Network, second: Network | None) -> dict[str, Network]:
    """Copies of the networks in evaluation mode by names that differ, their weights checked."""
    named = {first.name: first}
    if second is not None:
        named[second.name if second.name != first.name else f"{second.name} (second)"] = second
    for network in named.values():
        check_finite(network)
    return {name: network._replace(model=twin(network.model)) for name, network in named.items()}


def _table(clean: dict[str, np.ndarray], attacked: dict[str, np.ndarray]) -> pd.DataFrame:
    rows = [
        (name, state, number, probability)
        for name in clean
        for state, values in (("clean", clean[name]), ("attacked", attacked[name]))
        for number, probability in enumerate(values)
    ]
    return pd.DataFrame(rows, columns=["network", "state", "class", "probability"])


def _watched(network: Network, check: Callable[[], None]) -> Callable[[Tensor], Tensor]:
    def model(images: Tensor) -> Tensor:
        check()
        return network.model(images)

    return model


@torch.no_grad()
def _probabilities(network: Network, image: Tensor) -> np.ndarray:
    if tuple(image.shape[1:]) != tuple(network.input_size):
        found = "x".join(map(str, image.shape[1:]))
        takes = "x".join(map(str, network.input_size))
        raise ValueError(f"{network.name} takes images of {takes}, and these are {found}")
    logits = network.model(image)
    if not isinstance(logits, Tensor) or logits.ndim != 2 or logits.shape[1] < 2:
        raise ValueError(f"{network.name} gives no logits (N, classes) to attack")
    if not logits.isfinite().all():
        raise ValueError(f"{network.name} gives logits that are NaN or infinite")
    return logits[0].softmax(0).numpy()
