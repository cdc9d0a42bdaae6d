"""Every run that a notebook asks for, known before it starts."""

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from normkit import data
from normkit.data.sources import SOURCES
from normkit.records import Record, Store
from normkit.training import Adversary, GanConfig, TrainConfig, resolve_device

from . import across_papers, beyond_batchnorm, convnorm, enorm, norm_decay

__all__ = ["is_here", "planned", "tour_runs"]


def planned(
    topic: str, profile: str, store: Store, *, device: str = "auto", **chosen: Any
) -> list[TrainConfig | GanConfig]:
    """The runs of a notebook, finished ones among them; a notebook that trains nothing has none.

    *In plain words:* some runs choose the learning rates of others. While they are not in the
    store, the others stand here at the first rate of the choice, which costs the same.

    Arguments:
        topic: of the notebook: its name without the number.
        profile: smoke, quick, cifar10 or paper.
        store: where finished runs are.
        device: auto, cpu or cuda.
        chosen: the notebook's other parameters, such as seeds and epochs; those that decide no
            run are passed over.

    Example:
        >>> import tempfile
        >>> runs = planned("norm_decay", "paper", Store(tempfile.mkdtemp()))
        >>> sorted({run.model for run in runs})
        ['regnetx_200mf', 'resnet18', 'senet18', 'vgg11']
    """

    def finished(config: TrainConfig) -> Record | None:
        return store.get(config) if is_here(config) else None

    makers: dict[str, Callable[..., list]] = {
        "tour": tour_runs,
        "norm_decay": _norm_decay,
        "beyond_batchnorm": _beyond_batchnorm,
    }
    papers = {"across_papers": across_papers, "convnorm": convnorm, "enorm": enorm}
    makers |= {name: partial(p.planned, finished=finished) for name, p in papers.items()}
    if topic not in makers:
        return []
    known = inspect.signature(makers[topic]).parameters
    chosen = {name: value for name, value in chosen.items() if name in known}
    return list(makers[topic](profile, device=resolve_device(device), **chosen))


def is_here(config: TrainConfig | GanConfig) -> bool:
    """Whether a run's images are on this machine; without them no run can be looked up."""
    return config.dataset not in SOURCES or data.locate(config.dataset) is not None


def tour_runs(
    profile: str, *, seeds: Sequence[int], epochs: int, device: str = "cpu"
) -> list[TrainConfig]:
    """A small network of digits, trained plainly and against a PGD adversary, with every seed.

    In the smallest profile it is one seed and one epoch.

    Example:
        >>> [run.adversary.kind for run in tour_runs("quick", seeds=[0], epochs=20)]
        ['none', 'pgd']
    """
    seeds, epochs = (seeds[:1], 1) if profile == "smoke" else (seeds, epochs)
    base = TrainConfig(epochs=epochs, initialization="torch", device=device)
    against = Adversary("pgd", epsilon=0.15, step_size=0.1, steps=2)
    return [
        dataclasses.replace(base, seed=seed, adversary=adversary)
        for seed in seeds
        for adversary in (Adversary(), against)
    ]


def _norm_decay(
    profile: str,
    *,
    seeds: Sequence[int] | None = None,
    epochs: int | None = None,
    epsilon: float | None = None,
    device: str = "cpu",
) -> list[TrainConfig]:
    chosen = {"seeds": seeds, "epochs": epochs, "device": device}
    runs = norm_decay.adversarial_runs(profile, epsilon=epsilon, **chosen)
    return [*runs, *norm_decay.regularized_runs(profile, **chosen), *norm_decay.other_start(runs)]


def _beyond_batchnorm(
    profile: str, *, seeds: Sequence[int] | None = None, device: str = "cpu"
) -> list[TrainConfig]:
    parts = ("depth", "group", "training", "residual", "tradeoff", "rule")
    makers = [getattr(beyond_batchnorm, f"{part}_runs") for part in parts]
    return [run for maker in makers for run in maker(profile, seeds=seeds, device=device)]
