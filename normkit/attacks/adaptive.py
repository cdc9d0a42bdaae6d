"""Auto-PGD: projected gradient ascent that finds each image's step size by itself."""

__all__ = ["apgd", "apgd_ensemble"]

import functools

import torch
from torch import Tensor

from .checks import (
    check_choice,
    check_classes,
    check_evaluation_mode,
    check_images,
    check_labels,
    check_settings,
    check_targets,
)
from .climb import Found, climb_all
from .losses import LOSSES
from .parts import Model, correct, ordinary, per_image, random_point


def apgd(
    model: Model,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    steps: int = 100,
    loss: str = "ce",
    targets: int | None = None,
    norm: str = "linf",
    restarts: int = 1,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Climb the loss with momentum, in steps of 2 epsilon that are halved where they stop paying.

    z = P(x + s d),   x' = P(x + .75 (z - x) + .25 (x - x''))

    d is the sign of the gradient (linf) or the gradient over its length (l2), x'' the point
    before x, P the projection on the ball and on [0, 1]. After 22, 41, 57, 70, 80, 87, 93 and 99
    of 100 steps, the step s of an image is halved, and the image starts again from its best
    point, if its loss rose in less than .75 of the steps since the last such check, or if neither
    the step nor its highest loss have changed since then.

    *In plain words*: PGD that nobody has to tune: each image explores with large steps and then
    refines with small ones. An image that is misclassified at any of its points is done and
    leaves the batch; it comes back at that point (at once, unchanged, if it was misclassified to
    begin with), any other one at its point of highest loss, the clean image among them. Random
    starts are drawn for all images and all runs, so every model gets the same. Runs of several
    targets and restarts share batches of at most N rows, which changes nothing in what an image
    gets. Zero and NaN gradients move nothing.

    Source: Croce and Hein, 2020, algorithm 1 and sections 3 and 4,
        https://arxiv.org/abs/2003.01690

    Deviation: a check after w steps precedes the next step, as in the authors' code, while
        algorithm 1 takes that step and drops it; random starts are those of `pgd`, uniform in the
        ball, where the authors' code scales them to touch its border. `steps` gradients are
        taken, where the authors' code takes one more.

    Arguments:
        model: maps images in [0, 1] to logits; a module must be in evaluation mode.
        images: floating point, in [0, 1].
        labels: the class of each image, integers.
        epsilon: the radius in units of the pixel range, such as 8 / 255.
        steps: gradients a run; one more forward pass judges the last point.
        loss: what is raised: "ce", cross-entropy; "dlr", the difference of logits ratio, which
            needs 3 classes; "targeted", its targeted form, which needs 4: a run for each of the
            `targets` classes that are most likely on the clean image, the label aside.
        targets: None means 9, or all other classes where there are fewer.
        norm: "linf", or "l2" over all pixels of one image.
        restarts: how many random starts each image (and target) gets while it resists.
        generator: a generator on the CPU, where random starts are drawn so that the device
            changes nothing; None means torch's own.

    Shape: images (N, ...), labels (N,), logits (N, classes); returns (N, ...).

    Raises:
        ValueError: if an argument is out of its range, the model is in training mode, or there
            are too few classes; the message names it.

    Example:
        A step size of its own is not asked for, and the worst point of a linear model is found.

        >>> model = torch.nn.Linear(3, 2, bias=False).eval()
        >>> _ = model.weight.data.copy_(torch.tensor([[9.0, -1.0, 0.0], [0.0, 0.0, 0.0]]))
        >>> found = apgd(model, torch.full((1, 3), 0.5), torch.tensor([0]), epsilon=0.25)
        >>> found[:, :2]
        tensor([[0.2500, 0.7500]])
    """
    check_choice("loss", loss, tuple(LOSSES))
    return _attack(
        model, images, labels, (loss,), epsilon, steps, targets, norm, restarts, generator
    )


def apgd_ensemble(
    model: Model,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    steps: int = 100,
    targets: int | None = None,
    norm: str = "linf",
    restarts: int = 1,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return for each image what fools the model: `apgd` on "ce", then on "targeted".

    *In plain words*: two losses fail in different places, so an image counts as robust only if
    it resists both. Images that the first one fools are not attacked again; those that resist
    both come back from the first.

    Source: Croce and Hein, 2020, section 6 (APGD-CE and targeted APGD-DLR, two of the four
        attacks that stand there), https://arxiv.org/abs/2003.01690

    Arguments: as for `apgd`; at least 4 classes.

    Shape: images (N, ...), labels (N,), logits (N, classes); returns (N, ...).

    Raises:
        ValueError: as `apgd`.

    Example:
        Logits that are a thousand times larger leave cross-entropy without a gradient, and the
        targeted difference of logits ratio as it was.

        >>> images, labels = torch.eye(4), torch.arange(4)
        >>> confident, robust = lambda images: 1000 * images, []
        >>> for attack in (apgd, apgd_ensemble):
        ...     starts = torch.Generator().manual_seed(0)
        ...     found = attack(
        ...         confident, images, labels, epsilon=0.51, steps=10, generator=starts)
        ...     robust.append(int((confident(found).argmax(1) == labels).sum()))
        >>> robust[0] >= 3, robust[1]  # a random start alone may fool one
        (True, 0)
    """
    return _attack(
        model,
        images,
        labels,
        ("ce", "targeted"),
        epsilon,
        steps,
        targets,
        norm,
        restarts,
        generator,
    )


def _attack(model, images, labels, losses, epsilon, steps, targets, norm, restarts, generator):
    check_images(images, labels)
    check_settings(epsilon, steps, norm, restarts)
    check_targets(losses, targets)
    check_evaluation_mode(model)
    with torch.inference_mode(False), torch.no_grad():
        images, labels = ordinary(images), ordinary(labels).long()
        model = functools.partial(_logits, model, images.dtype)
        logits = model(images)
        check_classes(logits.shape[1], losses, targets)
        check_labels(labels, logits.shape[1])
        resists, result = correct(logits, labels), images
        for loss in losses:
            goal = LOSSES[loss]
            rivals = _rivals(logits, labels, targets if loss == "targeted" else 1)
            rivals = rivals.repeat(restarts, 1)  # (runs, N)
            starts = torch.stack([random_point(images, epsilon, norm, generator) for _ in rivals])
            found = Found.of_clean(images, goal(logits, labels, rivals[0]), resists, len(rivals))
            climb_all(model, goal, images, labels, rivals, starts, found, epsilon, steps, norm)
            taken = resists & found.fooled if loss != losses[0] else resists
            result = torch.where(per_image(taken, images), found.images, result)
            resists = resists & ~found.fooled
    return result


def _logits(model: Model, dtype: torch.dtype, images: Tensor) -> Tensor:
    """Logits as precise as the images, where a model computes in less."""
    return model(images).to(dtype)


def _rivals(logits: Tensor, labels: Tensor, count: int | None) -> Tensor:
    """The likeliest classes but the label, the likeliest first: (count, N)."""
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return others.topk(min(9, logits.shape[1] - 1) if count is None else count).indices.T
