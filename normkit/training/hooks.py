"""The methods that a configuration names, ready to act at every step."""

from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from normkit import data, penalties, projections
from normkit.projections.targets import batch_norms, written_layers

from .config import TrainConfig
from .parts import Projection
from .task import Task

__all__ = ["penalty", "projection", "refresh_statistics"]


def penalty(config: TrainConfig, model: nn.Module, task: Task) -> Callable[[], object] | None:
    """What acts on the gradients, after backward; None where the configuration names nothing."""
    chosen = config.penalty
    if chosen.kind == "none":
        return None
    if chosen.kind == "path_sgd":
        return penalties.PathSGD(
            model,
            input_size=task.form.input_size,
            weight_decay=config.weight_decay,
            relative=True,
        ).step
    if chosen.kind == "ocnn":
        return penalties.OCNN(model, weight=chosen.beta, input_size=task.form.input_size).step
    return penalties.NormDecay(
        model,
        norm=chosen.norm,
        beta=chosen.beta,
        memory=chosen.memory,
        include=chosen.include,
        input_size=task.form.input_size,
    ).step


def projection(
    config: TrainConfig, model: nn.Module, task: Task, optimizer: torch.optim.Optimizer
) -> Callable[[], object] | None:
    """What acts on the weights, after a step; None where the configuration names nothing.

    Raises:
        ValueError: a projection that the network cannot have, or that would never act.
    """
    chosen, acts = config.projection, []
    if chosen.batch_norm is not None:
        batch_norms(model)
    if chosen.kind == "enorm":
        acts.append(_enorm(chosen, model, optimizer))
    elif chosen.kind != "none":
        written_layers(model)
        acts.append(_bounded(chosen, model, task.form.input_size))
    if chosen.kind != "none":
        _check_every(config, len(task.images))
    if chosen.batch_norm is not None:  # last: balancing moves the norms that are bounded
        acts.append(partial(projections.project_batch_norm_, model, chosen.batch_norm))

    def act() -> None:
        for each in acts:
            each()

    return act if acts else None


def _enorm(
    chosen: Projection, model: nn.Module, optimizer: torch.optim.Optimizer
) -> Callable[[], object]:
    return projections.ENorm(
        model,
        optimizer,
        c=chosen.c,
        p=chosen.p,
        biases=chosen.biases,
        batch_norm=chosen.through_batch_norm,
        cycles=chosen.cycles,
        every=chosen.every,
        variant=chosen.variant,
    ).step


def _bounded(chosen: Projection, model: nn.Module, size: tuple[int, ...]) -> Callable[[], None]:
    steps = 0

    def act() -> None:
        nonlocal steps
        steps += 1
        if steps % chosen.every:
            return
        if chosen.kind == "norms":
            projections.project_norms_(model, chosen.bound, norm=chosen.norm, input_size=size)
        else:
            projections.clip_singular_values_(
                model, chosen.bound, size, alternate=chosen.alternate
            )

    return act


def _check_every(config: TrainConfig, images: int) -> None:
    steps = config.epochs * -(-images // config.batch_size)
    steps *= config.adversary.repeats if config.adversary.kind == "free" else 1
    if steps and config.projection.every > steps:
        found = f"projection.every is {config.projection.every}"
        raise ValueError(f"{found}, and the run has {steps} steps, so it would never act")


@torch.no_grad()
def refresh_statistics(config: TrainConfig, model: nn.Module, task: Task) -> None:
    """Estimate BatchNorm's running statistics afresh, over one pass of the training images."""
    layers = [layer for layer in model.modules() if isinstance(layer, _BatchNorm)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the plain average over batches
    model.train()
    for batch in task.images.split(config.batch_size):
        if len(batch) > 1:
            model(data.to_float(batch))
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    if config.projection.batch_norm is not None:
        projections.project_batch_norm_(model, config.projection.batch_norm)
