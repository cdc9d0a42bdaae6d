"""Simultaneous perturbation: an attack that asks the model for logits, never for gradients."""

__all__ = ["spsa"]

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from .checks import (
    check_classes,
    check_count,
    check_evaluation_mode,
    check_images,
    check_labels,
    check_losses,
    check_positive,
    check_settings,
)
from .losses import margin
from .parts import Model, correct, ordinary, per_image, project

ROWS = 1024  # perturbed images that go through the model at once, or 2 N where that is more


def spsa(model: Model, images: Tensor, labels: Tensor, *, epsilon: float, steps: int,
         samples: int = 128, perturbation: float = 0.01, lr: float = 0.01,
         generator: torch.Generator | None = None,
         loss: Callable[[Tensor, Tensor], Tensor] | None = None) -> Tensor:
    """Climb the loss along slopes that are estimated from differences of the model's answers.

    g = mean over v of v (L(x + c v) - L(x - c v)) / (2 c),   v uniform on {-1, 1}^D
    x <- P(x + Adam(g)),   P = the linf ball, then [0, 1]

    In plain words: move all pixels at once at random, up or down by c, and see whether the loss
    rises; averaged over many such moves, this tells each pixel's share. It finds what gradients
    find where there are any, and still works where they are hidden: rounded inputs, answers that
    are no differentiable function, a loss that is flat. An image leaves as soon as it is
    misclassified (at once, unchanged, if it is to begin with); others come back from the last
    step. No gradient is recorded. A slope that is not finite counts as zero.

    Source: Uesato et al., 2018, algorithm 1, https://arxiv.org/abs/1802.05666

    Deviation: all images of a batch share their directions v, so that an image's steps depend on
        the generator alone and not on the images beside it; each has the paper's distribution.
        An image leaves when it is misclassified, where algorithm 1 takes all its steps.

    Arguments:
        model: maps images in [0, 1] to logits; a module must be in evaluation mode. It is asked
            up to `perturbation` outside of the ball and of [0, 1], too.
        images: floating point, in [0, 1].
        labels: the class of each image, integers.
        epsilon: the radius in units of the pixel range, such as 8 / 255.
        steps: estimates, each of 2 `samples` forward passes for an image, and one to judge it.
        samples: directions in an estimate; its relative error is about sqrt(pixels / samples).
        perturbation: c, in the same units as epsilon.
        lr: Adam's learning rate, about the length of a step, in the same units.
        generator: a generator on the CPU, from which one number is taken to seed all directions;
            None means torch's own.
        loss: `loss(logits, labels) -> (rows,)`, one value for each row, to be raised; None means
            the margin, max_{i != y} z_i - z_y.

    Shape: images (N, ...), labels (N,), logits (N, classes); returns (N, ...).

    Raises:
        ValueError: if an argument is out of its range or the model is in training mode; the
            message names it.

    Example:
        A model that rounds its input has no slope anywhere; `pgd` from the image stays there.

        >>> from normkit.attacks import pgd
        >>> weight = torch.tensor([[9.0, -1.0, 0.0], [0.0, 0.0, 0.0]])
        >>> rounding = lambda x: (20 * x).round() @ weight.T
        >>> attacked = {"images": torch.full((1, 3), 0.5), "labels": torch.tensor([0])}
        >>> pgd(rounding, **attacked, epsilon=0.2, step_size=0.1, steps=9, random_start=False)
        tensor([[0.5000, 0.5000, 0.5000]])
        >>> stream = torch.Generator().manual_seed(0)
        >>> found = spsa(rounding, **attacked, epsilon=0.2, steps=40, perturbation=0.04,
        ...              generator=stream)
        >>> found[:, :2]
        tensor([[0.3000, 0.7000]])
    """
    check_images(images, labels)
    check_settings(epsilon, steps, "linf", 1)
    check_count("samples", samples)
    check_positive("perturbation", perturbation)
    check_positive("lr", lr)
    check_evaluation_mode(model)
    seed = torch.randint(2**62, (), generator=generator).item()
    stream = torch.Generator().manual_seed(seed)
    with torch.inference_mode(False), torch.no_grad():
        images, labels = ordinary(images), ordinary(labels).long()
        logits = model(images)
        check_classes(logits.shape[1], ("margin",), None)
        check_labels(labels, logits.shape[1])
        loss = loss or margin
        check_losses(loss(logits, labels), len(images))
        shape = samples, *images.shape[1:]
        draws = (torch.randint(2, shape, generator=stream, dtype=torch.int8) for _ in range(steps))
        estimate = functools.partial(slope, model, loss, perturbation)
        resists = correct(logits, labels)
        return _climb(model, estimate, images, labels, resists, draws, epsilon, lr)


def _climb(model, estimate, images, labels, resists, draws, epsilon, lr):
    x, result = images, images.clone()
    offset = torch.zeros_like(images, dtype=_at_least_single(images))
    adam = torch.optim.Adam([offset], lr=lr, maximize=True)
    for draw in draws:
        if not resists.any():
            break
        offset.grad = torch.zeros_like(offset)
        offset.grad[resists] = estimate(x[resists], labels[resists], 2 * draw - 1)
        adam.step()
        x = project((images + offset).to(images.dtype), images, epsilon, "linf")
        offset.copy_(x - images)
        result = torch.where(per_image(resists, images), x, result)
        resists[resists.clone()] = correct(model(x[resists]), labels[resists])
    return result


def slope(model, loss, perturbation, x, labels, signs):
    """Estimate the gradient of the loss at x from the model's answers along all signs."""
    dtype = _at_least_single(x)
    total = torch.zeros_like(x, dtype=dtype)
    for part in signs.split(max(1, ROWS // (2 * len(x)))):
        part = part.to(x)  # (k, ...)
        moves = perturbation * part[:, None]
        rows = torch.cat([x + moves, x - moves]).flatten(0, 1)  # (2 k N, ...)
        values = loss(model(rows), labels.repeat(2 * len(part)))
        up, down = values.to(dtype).view(2, len(part), len(x))
        total += torch.tensordot(up - down, part.to(dtype), dims=([0], [0]))
    return (total / (2 * perturbation * len(signs))).nan_to_num_(0.0, 0.0, 0.0)


def _at_least_single(images):
    return torch.promote_types(images.dtype, torch.float32)
