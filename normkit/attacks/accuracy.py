"""Accuracy under an attack."""

__all__ = ["robust_accuracy", "transfer_accuracy"]

from collections.abc import Callable

import torch
from torch import Tensor

from .checks import check_count, check_images
from .parts import Model, correct


def robust_accuracy(model: Model, images: Tensor, labels: Tensor,
                    attack: Callable[[Model, Tensor, Tensor], Tensor] | None = None,
                    batch_size: int = 500) -> float:
    """Return the share of images that the model still classifies correctly under an attack.

    In plain words: each image may be changed by the attack, then the model is asked. Images go
    in order, in chunks of `batch_size`, so an attack with a seeded generator gives the same
    number again. Logits that hold a NaN count as wrong.

    Arguments:
        model: maps images in [0, 1] to logits; used in the mode (train or eval) it is in.
        images: floating point, in [0, 1].
        labels: the class of each image, integers.
        attack: `attack(model, images, labels) -> images`, for instance
            `functools.partial(pgd, epsilon=8 / 255, step_size=2 / 255, steps=20)`;
            None leaves the images alone, which gives the clean accuracy.
        batch_size: how many images are attacked at once.

    Shape: images (N, ...), labels (N,), logits (batch_size, classes).

    Raises:
        ValueError: if an argument is out of its range; the message names it.

    Example:
        The two largest logits are 1 apart: each image resists until epsilon exceeds 1 / 2.

        >>> import functools
        >>> from normkit.attacks import fgsm
        >>> model, images, labels = torch.nn.Identity(), torch.eye(4), torch.arange(4)
        >>> [robust_accuracy(model, images, labels, functools.partial(fgsm, epsilon=epsilon))
        ...  for epsilon in (0.4, 0.6)]
        [1.0, 0.0]
    """
    check_images(images, labels)
    check_count("batch_size", batch_size)
    hits = 0
    for chunk, classes in zip(images.split(batch_size), labels.split(batch_size), strict=True):
        attacked = chunk if attack is None else attack(model, chunk, classes)
        with torch.no_grad():
            hits += int(correct(model(attacked), classes).sum())
    return hits / len(images)


def transfer_accuracy(source: Model, target: Model, images: Tensor, labels: Tensor,
                      attack: Callable[[Model, Tensor, Tensor], Tensor],
                      batch_size: int = 500) -> float:
    """Return the share of images that `target` classifies correctly after an attack on `source`.

    In plain words: the attacker does not have the model, but one of the attacker's own for the
    same task, and hopes that what fools the one fools the other. Images that the target
    misclassifies without an attack count as wrong, as in `robust_accuracy`.

    Source: Papernot, McDaniel and Goodfellow, 2016, https://arxiv.org/abs/1605.07277

    Arguments:
        source: the model that is attacked.
        target: the model that is asked.
        images, labels, attack, batch_size: as for `robust_accuracy`.

    Shape: images (N, ...), labels (N,), logits (batch_size, classes) of both models.

    Raises:
        ValueError: if an argument is out of its range; the message names it.

    Example:
        The source's strongest pixel is not the target's: nothing transfers to it, and what works
        on itself is robust accuracy.

        >>> import functools
        >>> from normkit.attacks import fgsm
        >>> source = lambda images: images[:, :2]
        >>> target = lambda images: images[:, 2:]
        >>> images, labels = torch.tensor([[0.6, 0.4, 0.6, 0.4]]), torch.tensor([0])
        >>> attack = functools.partial(fgsm, epsilon=0.2)
        >>> [transfer_accuracy(source, model, images, labels, attack)
        ...  for model in (source, target)]
        [0.0, 1.0]
    """
    def from_source(model: Model, chunk: Tensor, classes: Tensor) -> Tensor:
        return attack(source, chunk, classes)

    return robust_accuracy(target, images, labels, from_source, batch_size)
