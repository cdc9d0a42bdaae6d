"""What attacks refuse, before any work starts."""

__all__: list[str] = []

import difflib
import math

from torch import nn


def check_images(images, labels):
    if images.ndim < 2 or images.numel() == 0:
        raise ValueError(f"images must be (N, ...) with N >= 1; found {tuple(images.shape)}")
    low, high = (bound.item() for bound in images.aminmax())
    if not (images.is_floating_point() and 0 <= low and high <= 1):
        found = "NaN" if math.isnan(low) else f"{images.dtype} in [{low:g}, {high:g}]"
        raise ValueError(f"images must be floating point in [0, 1]; found {found}: divide bytes "
                         f"by 255, and make normalization the model's first layer")
    if labels.shape != images.shape[:1] or labels.is_floating_point():
        raise ValueError(f"labels must be integers of shape ({len(images)},), one for each "
                         f"image; found {labels.dtype} of shape {tuple(labels.shape)}")


def check_settings(epsilon, steps, norm, restarts):
    _check_length("epsilon", epsilon)
    check_count("steps", steps)
    check_count("restarts", restarts)
    check_choice("norm", norm, ("linf", "l2"))


def check_step(step_size, random_start, restarts):
    _check_length("step_size", step_size)
    if restarts > 1 and not random_start:
        raise ValueError(f"restarts={restarts} are all the same without random_start=True")


def check_positive(name, value):
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be finite and > 0, such as 0.01; found {value}")


def check_count(name, value):
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a whole number >= 1; found {value!r}")


def check_choice(name, value, choices):
    if value not in choices:
        near = difflib.get_close_matches(str(value), choices, n=1, cutoff=0)[0]
        listed = " or ".join(map(repr, choices))
        raise ValueError(f"{name} must be {listed}; found {value!r}, nearest is {near!r}")


def check_evaluation_mode(model):
    if isinstance(model, nn.Module) and model.training:
        raise ValueError("model must be in evaluation mode, model.eval(), so that an image's loss "
                         "does not depend on its batch; found training mode")


def check_targets(losses, targets):
    if targets is None:
        return
    if "targeted" not in losses:
        raise ValueError(f"targets={targets} goes with loss='targeted'; found loss={losses[0]!r}")
    check_count("targets", targets)


def check_classes(classes, losses, targets):
    for loss in losses:
        least = {"dlr": 3, "targeted": 4}.get(loss, 2)
        if classes < least:
            raise ValueError(f"loss={loss!r} needs logits of at least {least} classes; found "
                             f"{classes}")
    if targets is not None and targets >= classes:
        raise ValueError(f"targets must be at most {classes - 1}, the other classes; found "
                         f"{targets}")


def check_labels(labels, classes):
    low, high = (bound.item() for bound in labels.aminmax())
    if low < 0 or high >= classes:
        raise ValueError(f"labels must be in 0 to {classes - 1}, one of the model's {classes} "
                         f"classes; found {low} to {high}")


def check_losses(values, rows):
    if values.shape != (rows,):
        raise ValueError(f"loss must return one value for each image, shape ({rows},); found "
                         f"shape {tuple(values.shape)}")


def _check_length(name, value):
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} must be finite and >= 0, such as 8 / 255; found {value}")
