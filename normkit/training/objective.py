"""What a step minimizes, how long it is, and what the trained network is judged by."""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from normkit import attacks, data

from .config import TrainConfig
from .parts import Adversary, Evaluation
from .task import generator

__all__ = [
    "attack_loss",
    "batch_loss",
    "learning_rate",
    "reconstruction_loss",
    "replays",
    "robust_accuracy",
]


def batch_loss(
    config: TrainConfig, model: nn.Module, images: Tensor, labels: Tensor, stream: torch.Generator
) -> tuple[Tensor, Tensor]:
    """What a step minimizes, and how many images were classified rightly.

    A reconstruction is judged by its mean squared error per pixel, and classifies nothing: NaN.
    """
    if config.objective == "reconstruction":
        return F.mse_loss(model(images), images), images.new_full((), math.nan)
    loss, logits = attack_loss(model, images, labels, config.adversary, stream)
    return loss, (logits.argmax(1) == labels).sum()


@torch.no_grad()
def reconstruction_loss(model: nn.Module, images: Tensor, batch_size: int = 500) -> float:
    """The mean squared error per pixel of a network that gives images back.

    Arguments:
        model: maps images in [0, 1] to such; used in the mode (train or eval) it is in.
        images: uint8 (N, C, H, W).
        batch_size: how many go through the network at once.

    Example:
        >>> images = torch.full((3, 1, 2, 2), 51, dtype=torch.uint8)  # 0.2
        >>> round(reconstruction_loss(nn.Threshold(0.5, 0.0), images), 6)
        0.04
    """
    chunks = (data.to_float(chunk) for chunk in images.split(batch_size))
    errors = [F.mse_loss(model(chunk), chunk, reduction="sum") for chunk in chunks]
    return torch.stack(errors).double().sum().item() / images.numel()


def attack_loss(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    adversary: Adversary,
    stream: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """The training loss of a batch under an adversary (see `Adversary`), and the logits.

    Arguments:
        model: maps images in [0, 1] to logits; left in training mode.
        images: (N, C, H, W) in [0, 1]; of free: as `replays` gives them.
        labels: (N,).
        adversary: kind, radius and steps of the attack.
        stream: draws the attack's starts.

    Returns:
        the mean loss, and the logits from which training accuracy is counted: of the attacked
        images for pgd and free, of the clean ones otherwise.
    """
    if adversary.kind in ("none", "free"):
        logits = model(images)
        return F.cross_entropy(logits, labels), logits
    attacked = _attacked(model, images, labels, adversary, stream)
    if adversary.kind == "pgd":
        logits = model(attacked)
        return F.cross_entropy(logits, labels), logits
    logits, other = model(images), model(attacked)
    if adversary.kind == "trades":
        p, q = F.softmax(logits, dim=1), F.log_softmax(other, dim=1)
        divergence = F.kl_div(q, p, reduction="batchmean")
        return F.cross_entropy(logits, labels) + adversary.beta * divergence, logits
    both = 0.5 * F.cross_entropy(logits, labels) + 0.5 * F.cross_entropy(other, labels)
    return both + adversary.beta * F.mse_loss(logits, other), logits


def _attacked(model, images, labels, adversary, stream) -> Tensor:
    """The images that the adversary finds; the network is in evaluation mode meanwhile."""
    model.eval()
    goal = None
    if adversary.kind == "trades":
        with torch.no_grad():
            clean = F.softmax(model(images), dim=1)

        def goal(logits: Tensor) -> Tensor:
            return F.kl_div(F.log_softmax(logits, dim=1), clean, reduction="none").sum(1)

    attacked = attacks.pgd(
        model,
        images,
        labels,
        epsilon=adversary.epsilon,
        step_size=adversary.step_size,
        steps=adversary.steps,
        generator=stream,
        loss=goal,
    )
    model.train()
    return attacked


def replays(images: Tensor, perturbation: Tensor, adversary: Adversary) -> Iterator[Tensor]:
    """The images of every update on one batch: once as they are, or as free training has them.

    x' = clip(x + delta, 0, 1)
    delta <- clip(delta + step_size sign(d loss / d delta), -epsilon, epsilon)

    In plain words: who takes images from here computes a loss and its gradients before taking the
    next; the perturbation climbs in between and, once, after the last. Its gradient is zero where
    x + delta lies outside of [0, 1]. A batch smaller than the perturbation uses its first rows.

    Source: Shafahi et al., 2019, algorithm 1, https://arxiv.org/abs/1904.12843

    Arguments:
        images: of the batch, (N, C, H, W) in [0, 1].
        perturbation: (at least N, C, H, W); changed in place.
        adversary: as `Adversary` says; any other kind than free gives the images once.

    Example:
        >>> images, delta = torch.full((2, 3), 0.5), torch.zeros(4, 3)
        >>> for view in replays(images, delta, Adversary("free", epsilon=0.1, step_size=0.03)):
        ...     (view * torch.tensor([1.0, -1.0, 0.0])).sum().backward()
        >>> view[0].detach(), delta[0]  # the last of four, and what the next batch inherits
        (tensor([0.5900, 0.4100, 0.5000]), tensor([ 0.1000, -0.1000,  0.0000]))
    """
    if adversary.kind != "free":
        yield images
        return
    rows = perturbation[: len(images)]
    if adversary.variant == "released":
        rows.zero_()
    for _ in range(adversary.repeats):
        delta = rows.clone().requires_grad_()
        yield (images + delta).clamp(0, 1)
        rows.add_(delta.grad.sign(), alpha=adversary.step_size)
        rows.clamp_(-adversary.epsilon, adversary.epsilon)


def learning_rate(config: TrainConfig, epoch: float) -> float:
    """The factor on the peak learning rate after `epoch` epochs (a real number).

    Example:
        >>> linear = TrainConfig(schedule="linear", epochs=10)
        >>> [learning_rate(linear, e) for e in (0, 5, 10)]
        [1.0, 0.5, 0.0]
    """
    done = epoch / config.epochs
    if config.warmup_epochs and epoch < config.warmup_epochs:
        return (epoch + 1e-2) / (config.warmup_epochs + 1e-2)
    if config.schedule == "linear":
        return 1 - done
    if config.schedule == "one_cycle":
        return max(done / 0.25, 1e-2) if done < 0.25 else (1 - done) / 0.75
    if config.schedule == "step":
        return 0.1 ** sum(done >= milestone for milestone in config.milestones)
    return 1.0


def robust_accuracy(
    model: nn.Module, images: Tensor, labels: Tensor, evaluation: Evaluation
) -> float:
    """Accuracy under the attack of `evaluation`, from the same starts for every model."""
    starts = generator(0, "evaluation")
    common = {"epsilon": evaluation.epsilon, "steps": evaluation.steps, "generator": starts}

    def attack(model: nn.Module, batch: Tensor, truth: Tensor) -> Tensor:
        if evaluation.attack == "apgd":
            return attacks.apgd_ensemble(
                model, batch, truth, targets=evaluation.targets, **common
            )
        return attacks.pgd(model, batch, truth, step_size=evaluation.step_size, **common)

    images, labels = images[: evaluation.images], labels[: evaluation.images]
    return attacks.robust_accuracy(model, data.to_float(images), labels, attack)
