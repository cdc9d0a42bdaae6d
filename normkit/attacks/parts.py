"""What attacks have in common: starts, balls, gradients, and who is misclassified."""

__all__ = ["Model"]

from collections.abc import Callable

import torch
from torch import Tensor

from .checks import check_losses

Model = Callable[[Tensor], Tensor]


def random_point(images, epsilon, norm, generator):
    if norm == "linf":
        offset = torch.rand(images.shape, generator=generator, dtype=images.dtype) * 2 - 1
    else:
        offset = unit(torch.randn(images.shape, generator=generator, dtype=images.dtype))
        share = torch.rand(len(images), generator=generator, dtype=images.dtype)
        offset *= per_image(share ** (1 / images[0].numel()), images)
    return torch.add(images, offset.to(images.device), alpha=epsilon).clamp_(0, 1)


def project(x, images, epsilon, norm):
    offset = x - images
    if norm == "linf":
        offset.clamp_(-epsilon, epsilon)
    else:
        length = torch.linalg.vector_norm(offset.reshape(len(offset), -1), dim=1)
        longest = max(epsilon, torch.finfo(offset.dtype).tiny)  # epsilon may be 0
        offset.mul_(per_image(epsilon / length.clamp_(min=longest), offset))
    return offset.add_(images).clamp_(0, 1)


def unit(direction):
    """Scale each image's direction to Euclidean length 1; one that cannot be becomes zero."""
    rows = direction.reshape(len(direction), -1)
    # By the largest entry first: the squares of a confident net's gradients underflow.
    rows = rows / rows.abs().amax(dim=1, keepdim=True)
    rows = rows / torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows.nan_to_num_(nan=0.0).view(direction.shape)


def per_image(values, images):
    return values.view(-1, *[1] * (images.ndim - 1))


def ascent(model, x, loss):
    """Return d loss / d x, the loss of each image, and the logits."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        logits = model(x)
        values = loss(logits)
    check_losses(values, len(x))
    gradient = torch.autograd.grad(values, x, torch.ones_like(values))[0]
    return gradient, values.detach(), logits.detach()


def correct(logits, labels):
    return (logits.argmax(dim=1) == labels) & ~logits.isnan().any(dim=1)


def ordinary(tensor):
    """Return the tensor without history; one of inference mode must be copied to be usable."""
    return tensor.clone() if tensor.is_inference() else tensor.detach()
