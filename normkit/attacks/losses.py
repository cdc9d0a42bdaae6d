"""What attacks raise: losses of logits, one value for each image."""

__all__ = ["LOSSES", "margin"]

import torch
import torch.nn.functional as F
from torch import Tensor

TINY = 1e-12  # the authors' own guard against equal logits


def cross_entropy(logits: Tensor, labels: Tensor, rivals: Tensor) -> Tensor:
    """Negative log probability of the label; `rivals` are not used."""
    return F.cross_entropy(logits, labels, reduction="none")


def dlr(logits: Tensor, labels: Tensor, rivals: Tensor) -> Tensor:
    """Difference of logits ratio: how far the best other class is ahead, by the spread.

    max_{i != y} z_i - z_y, over z_(1) - z_(3): the scale of the logits cancels. `rivals` are not
    used.

    Example:
        >>> logits, labels = torch.tensor([[3.0, 2.0, 1.0, -5.0]]), torch.tensor([0])
        >>> dlr(logits, labels, labels), dlr(100 * logits, labels, labels)
        (tensor([-0.5000]), tensor([-0.5000]))
    """
    top, order = logits.topk(3)
    other = torch.where(order[:, 0] == labels, top[:, 1], top[:, 0])
    return (other - _of(logits, labels)) / (top[:, 0] - top[:, 2] + TINY)


def targeted(logits: Tensor, labels: Tensor, rivals: Tensor) -> Tensor:
    """The same with a given other class t: z_t - z_y, over z_(1) - (z_(3) + z_(4)) / 2.

    Example:
        >>> logits, rival = torch.tensor([[3.0, 2.0, 1.0, -5.0]]), torch.tensor([2])
        >>> targeted(logits, torch.tensor([0]), rival)
        tensor([-0.4000])
    """
    top = logits.topk(4).values
    return (_of(logits, rivals) - _of(logits, labels)) / (
        top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + TINY
    )


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """How far the best other class is ahead of the label, max_{i != y} z_i - z_y.

    Example:
        >>> margin(torch.tensor([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]]), torch.tensor([0, 2]))
        tensor([-1.,  2.])
    """
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return others.amax(1) - _of(logits, labels)


LOSSES = {"ce": cross_entropy, "dlr": dlr, "targeted": targeted}


def _of(logits: Tensor, classes: Tensor) -> Tensor:
    return logits.gather(1, classes[:, None])[:, 0]
