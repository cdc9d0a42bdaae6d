"""The fast gradient sign method and projected gradient descent."""

__all__ = ["fgsm", "pgd"]

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .checks import check_images, check_settings, check_step
from .parts import Model, ascent, correct, ordinary, per_image, project, random_point, unit


def fgsm(model: Model, images: Tensor, labels: Tensor, *, epsilon: float) -> Tensor:
    """Move every pixel by epsilon in the direction that raises the loss.

    x' = clamp(x + epsilon sign(d loss / d x), 0, 1)

    In plain words: one step of `pgd` from the image itself, the best attack on a linear model.

    Source: Goodfellow, Shlens and Szegedy, 2015, section 4, https://arxiv.org/abs/1412.6572

    Arguments: as for `pgd`.

    Shape: images (N, ...), labels (N,), logits (N, classes); returns (N, ...).

    Raises:
        ValueError: if an argument is out of its range; the message names it.

    Example:
        On a linear model it takes every pixel that matters as far as epsilon allows.

        >>> model = torch.nn.Linear(3, 2, bias=False)
        >>> _ = model.weight.data.copy_(torch.tensor([[1.0, -1.0, 0.0], [0.0, 0.0, 0.0]]))
        >>> fgsm(model, torch.full((1, 3), 0.5), torch.tensor([0]), epsilon=0.25)
        tensor([[0.2500, 0.7500, 0.5000]])
    """
    return pgd(model, images, labels, epsilon=epsilon, step_size=epsilon, steps=1,
               random_start=False)


def pgd(model: Model, images: Tensor, labels: Tensor, *, epsilon: float, step_size: float,
        steps: int, random_start: bool = True, norm: str = "linf", restarts: int = 1,
        generator: torch.Generator | None = None,
        loss: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """Climb the loss by projected gradient steps inside the epsilon ball around each image.

    x <- P(x + step_size sign(g))          linf
    x <- P(x + step_size g / ||g||_2)      l2,      g = d loss / d x, P = the ball, then [0, 1]

    In plain words: many small FGSM steps from a random point, never further than epsilon away.
    The loss is summed over the images, so an image's steps do not depend on its batch (as long
    as the model keeps images apart). Where the gradient is zero or NaN nothing moves. The
    model's mode, its parameters' `grad` and `requires_grad`, the grad mode and the input stay
    as they were; BatchNorm in training mode updates its running statistics, as in any forward.

    Source: Madry et al., 2018, section 2.1, https://arxiv.org/abs/1706.06083

    Deviation: in l2 the projection is on the ball and then on [0, 1]: a point of both, not
        always the nearest.

    Arguments:
        model: maps images in [0, 1] to logits; used in the mode (train or eval) it is in. A
            network for normalized images gets the normalization as its first layer.
        images: floating point, in [0, 1].
        labels: the class of each image, integers.
        epsilon: the radius in units of the pixel range, such as 8 / 255.
        step_size: the length of one step, in the same units and norm.
        steps: how many steps, each one forward and one backward pass.
        random_start: start at a uniformly random point of the ball instead of at the image.
        norm: "linf", or "l2" over all pixels of one image.
        restarts: how often to start afresh; each image keeps its misclassified adversarial
            before others, and among equals the one of highest loss.
        generator: a generator on the CPU, where random starts are drawn so that the device
            changes nothing; None means torch's own.
        loss: `loss(logits) -> (N,)`, one value for each image, to be raised; None means
            cross-entropy. The whole batch goes through at once, so it may close over tensors of
            these images; TRADES, with `clean = model(images).detach().softmax(1)`, raises
            `lambda logits: F.kl_div(logits.log_softmax(1), clean, reduction="none").sum(1)`.

    Shape: images (N, ...), labels (N,), logits (N, classes); returns (N, ...).

    Raises:
        ValueError: if an argument is out of its range, such as images that were normalized
            before; the message names it.

    Example:
        The result is within epsilon of the image, and the loss has risen.

        >>> model = torch.nn.Linear(3, 2, bias=False)
        >>> _ = model.weight.data.copy_(torch.tensor([[1.0, -1.0, 0.0], [0.0, 0.0, 0.0]]))
        >>> images, labels = torch.full((1, 3), 0.5), torch.tensor([0])
        >>> found = pgd(model, images, labels, epsilon=0.25, step_size=0.1, steps=5,
        ...             generator=torch.Generator().manual_seed(0))
        >>> bool((found - images).abs().max() <= 0.25)
        True
        >>> bool(F.cross_entropy(model(found), labels) > F.cross_entropy(model(images), labels))
        True
    """
    check_images(images, labels)
    check_settings(epsilon, steps, norm, restarts)
    check_step(step_size, random_start, restarts)
    with torch.inference_mode(False), torch.no_grad():
        images, labels = ordinary(images), ordinary(labels).long()
        loss = loss or functools.partial(F.cross_entropy, target=labels, reduction="none")
        best = None
        for _ in range(restarts):
            x = random_point(images, epsilon, norm, generator) if random_start else images
            for _ in range(steps):
                gradient, *_ = ascent(model, x, loss)
                direction = gradient.sign() if norm == "linf" else unit(gradient)
                x = project(torch.add(x, direction, alpha=step_size), images, epsilon, norm)
            if restarts > 1:
                logits = model(x)
                scored = x, ~correct(logits, labels), loss(logits)
                best = scored if best is None else _stronger(scored, best)
    return x if best is None else best[0]


def _stronger(new, old):
    """Choose for each image between two (image, misclassified, loss)."""
    choose = (new[1] & ~old[1]) | ((new[1] == old[1]) & (new[2] > old[2]))
    return tuple(torch.where(per_image(choose, a), a, b) for a, b in zip(new, old, strict=True))
