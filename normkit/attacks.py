"""Gradient attacks on [0, 1] images, as functions of any callable model."""

import difflib
import functools
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["fgsm", "pgd", "robust_accuracy"]

Model = Callable[[Tensor], Tensor]


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
        model: maps images in [0, 1] to logits; used in the mode (train or eval) it is in.
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
        ValueError: if an argument is out of its range; the message names it.

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
    _check_images(images, labels)
    _check_settings(epsilon, step_size, steps, random_start, norm, restarts)
    with torch.inference_mode(False), torch.no_grad():
        images, labels = _ordinary(images), _ordinary(labels).long()
        loss = loss or functools.partial(F.cross_entropy, target=labels, reduction="none")
        best = None
        for _ in range(restarts):
            x = _random_point(images, epsilon, norm, generator) if random_start else images
            for _ in range(steps):
                gradient = _gradient(model, x, loss)
                direction = gradient.sign() if norm == "linf" else _unit(gradient)
                x = _project(torch.add(x, direction, alpha=step_size), images, epsilon, norm)
            if restarts > 1:
                logits = model(x)
                scored = x, ~_correct(logits, labels), loss(logits)
                best = scored if best is None else _stronger(scored, best)
    return x if best is None else best[0]


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

        >>> model, images, labels = torch.nn.Identity(), torch.eye(4), torch.arange(4)
        >>> [robust_accuracy(model, images, labels, functools.partial(fgsm, epsilon=epsilon))
        ...  for epsilon in (0.4, 0.6)]
        [1.0, 0.0]
    """
    _check_images(images, labels)
    _check_count("batch_size", batch_size)
    correct = 0
    for chunk, classes in zip(images.split(batch_size), labels.split(batch_size), strict=True):
        attacked = chunk if attack is None else attack(model, chunk, classes)
        with torch.no_grad():
            correct += int(_correct(model(attacked), classes).sum())
    return correct / len(images)


def _random_point(images, epsilon, norm, generator):
    if norm == "linf":
        offset = torch.rand(images.shape, generator=generator, dtype=images.dtype) * 2 - 1
    else:
        offset = _unit(torch.randn(images.shape, generator=generator, dtype=images.dtype))
        share = torch.rand(len(images), generator=generator, dtype=images.dtype)
        offset *= _per_image(share ** (1 / images[0].numel()), images)
    return torch.add(images, offset.to(images.device), alpha=epsilon).clamp_(0, 1)


def _project(x, images, epsilon, norm):
    offset = x - images
    if norm == "linf":
        offset.clamp_(-epsilon, epsilon)
    else:
        length = torch.linalg.vector_norm(offset.reshape(len(offset), -1), dim=1)
        longest = max(epsilon, torch.finfo(offset.dtype).tiny)  # epsilon may be 0
        offset.mul_(_per_image(epsilon / length.clamp_(min=longest), offset))
    return offset.add_(images).clamp_(0, 1)


def _unit(direction):
    """Scale each image's direction to Euclidean length 1; one that cannot be becomes zero."""
    rows = direction.reshape(len(direction), -1)
    # By the largest entry first: the squares of a confident net's gradients underflow.
    rows = rows / rows.abs().amax(dim=1, keepdim=True)
    rows = rows / torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows.nan_to_num_(nan=0.0).view(direction.shape)


def _per_image(values, images):
    return values.view(-1, *[1] * (images.ndim - 1))


def _gradient(model, x, loss):
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        values = loss(model(x))
    if values.shape != x.shape[:1]:
        raise ValueError(f"loss must return one value for each image, shape ({len(x)},); found "
                         f"shape {tuple(values.shape)}")
    return torch.autograd.grad(values, x, torch.ones_like(values))[0]


def _correct(logits, labels):
    return (logits.argmax(dim=1) == labels) & ~logits.isnan().any(dim=1)


def _stronger(new, old):
    """Choose for each image between two (image, misclassified, loss)."""
    choose = (new[1] & ~old[1]) | ((new[1] == old[1]) & (new[2] > old[2]))
    return tuple(torch.where(_per_image(choose, a), a, b) for a, b in zip(new, old, strict=True))


def _ordinary(tensor):
    """Return the tensor without history; one of inference mode must be copied to be usable."""
    return tensor.clone() if tensor.is_inference() else tensor.detach()


def _check_images(images, labels):
    if images.ndim < 2 or images.numel() == 0:
        raise ValueError(f"images must be (N, ...) with N >= 1; found {tuple(images.shape)}")
    low, high = (bound.item() for bound in images.aminmax())
    if not (images.is_floating_point() and 0 <= low and high <= 1):
        found = "NaN" if math.isnan(low) else f"{images.dtype} in [{low:g}, {high:g}]"
        raise ValueError(f"images must be floating point in [0, 1]; found {found}: divide bytes "
                         f"by 255, and normalize inside the model")
    if labels.shape != images.shape[:1] or labels.is_floating_point():
        raise ValueError(f"labels must be integers of shape ({len(images)},), one for each "
                         f"image; found {labels.dtype} of shape {tuple(labels.shape)}")


def _check_settings(epsilon, step_size, steps, random_start, norm, restarts):
    for name, value in (("epsilon", epsilon), ("step_size", step_size)):
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} must be finite and >= 0, such as 8 / 255; found {value}")
    _check_count("steps", steps)
    _check_count("restarts", restarts)
    if restarts > 1 and not random_start:
        raise ValueError(f"restarts={restarts} are all the same without random_start=True")
    if norm not in ("linf", "l2"):
        near = difflib.get_close_matches(str(norm), ("linf", "l2"), n=1, cutoff=0)[0]
        raise ValueError(f"norm must be 'linf' or 'l2'; found {norm!r}, nearest is {near!r}")


def _check_count(name, value):
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a whole number >= 1; found {value!r}")
