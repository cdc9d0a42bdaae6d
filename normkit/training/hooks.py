"""The methods that a configuration names, ready to act at every step."""

from collections.abc import Callable

from torch import nn

from normkit import penalties, projections

from .config import TrainConfig
from .task import Form

__all__ = ["penalty", "projection"]


def penalty(config: TrainConfig, model: nn.Module, form: Form) -> Callable[[], object] | None:
    """What acts on the gradients, after backward; None where the configuration names nothing."""
    chosen = config.penalty
    if chosen.kind == "none":
        return None
    return penalties.NormDecay(
        model,
        norm=chosen.norm,
        beta=chosen.beta,
        memory=chosen.memory,
        include=chosen.include,
        input_size=form.input_size,
    ).step


def projection(config: TrainConfig, model: nn.Module, form: Form) -> Callable[[], object] | None:
    """What acts on the weights, after a step; None where the configuration names nothing."""
    chosen, size, steps = config.projection, form.input_size, 0
    if chosen.kind == "none" and chosen.batch_norm is None:
        return None

    def act() -> None:
        nonlocal steps
        steps += 1
        if chosen.batch_norm is not None:
            projections.project_batch_norm_(model, chosen.batch_norm)
        if chosen.kind == "none" or steps % chosen.every:
            return
        if chosen.kind == "norms":
            projections.project_norms_(model, chosen.bound, norm=chosen.norm, input_size=size)
        else:
            projections.clip_singular_values_(
                model, chosen.bound, size, alternate=chosen.alternate
            )

    return act
