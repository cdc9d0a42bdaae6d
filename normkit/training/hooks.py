"""The methods that a configuration names, ready to act at every step."""

from typing import Any, Protocol

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from normkit import data, penalties, projections
from normkit.projections.targets import batch_norms, written_layers

from .config import TrainConfig
from .parts import Projection
from .task import Task

__all__ = ["Method", "penalty", "projection", "refresh_statistics"]


class Method(Protocol):
    """What acts at every step, and what it remembers from one to the next."""

    def step(self) -> object:
        """Act."""

    def state_dict(self) -> dict[str, Any]:
        """What it remembers: tensors and plain values."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Remember that."""


def penalty(config: TrainConfig, model: nn.Module, task: Task) -> list[Method]:
    """What acts on the gradients, after backward."""
    chosen = config.penalty
    size = task.form.input_size
    if chosen.kind == "none":
        return []
    if chosen.kind == "path_sgd":
        decay = config.weight_decay
        return [penalties.PathSGD(model, input_size=size, weight_decay=decay, relative=True)]
    if chosen.kind == "ocnn":
        return [penalties.OCNN(model, weight=chosen.beta, input_size=size)]
    return [
        penalties.NormDecay(
            model,
            norm=chosen.norm,
            beta=chosen.beta,
            memory=chosen.memory,
            include=chosen.include,
            input_size=size,
        )
    ]


def projection(
    config: TrainConfig, model: nn.Module, task: Task, optimizer: torch.optim.Optimizer
) -> list[Method]:
    """What acts on the weights, after a step.

    Raises:
        ValueError: a projection that the network cannot have, or that would never act.
    """
    chosen, methods = config.projection, []
    if chosen.batch_norm is not None:
        batch_norms(model)
    if chosen.kind == "enorm":
        methods.append(_enorm(chosen, model, optimizer))
    elif chosen.kind != "none":
        written_layers(model)
        methods.append(_Bounded(chosen, model, task.form.input_size))
    if chosen.kind != "none":
        _check_every(config, len(task.images))
    if chosen.batch_norm is not None:  # last: balancing moves the norms that are bounded
        methods.append(_BoundedBatchNorm(chosen.batch_norm, model))
    return methods


def _enorm(
    chosen: Projection, model: nn.Module, optimizer: torch.optim.Optimizer
) -> projections.ENorm:
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
    )


class _Bounded:
    """Bounds the norms or singular values of all layers once in some steps."""

    def __init__(self, chosen: Projection, model: nn.Module, size: tuple[int, ...]):
        self.chosen, self.model, self.size, self.steps = chosen, model, size, 0

    def step(self) -> None:
        self.steps += 1
        if self.steps % self.chosen.every:
            return
        model, bound, size = self.model, self.chosen.bound, self.size
        if self.chosen.kind == "norms":
            projections.project_norms_(model, bound, norm=self.chosen.norm, input_size=size)
        else:
            alternate = self.chosen.alternate
            projections.clip_singular_values_(model, bound, size, alternate=alternate)

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]


class _BoundedBatchNorm:
    """Bounds the norms of BatchNorm layers at every step."""

    def __init__(self, bound: float, model: nn.Module):
        self.bound, self.model = bound, model

    def step(self) -> None:
        projections.project_batch_norm_(self.model, self.bound)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


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
