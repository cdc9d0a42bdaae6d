"""The runs behind norm decay, clipped singular values and weight decay."""

import dataclasses
import functools
from collections.abc import Sequence

from normkit.training import Evaluation, Penalty, Projection, TrainConfig

from ..profiles import choose

__all__ = [
    "DECAYS",
    "MILESTONES",
    "PAPER_NETS",
    "REGULARIZATION",
    "Regularization",
    "regularized_runs",
]

DECAYS = {"nd_l1": "l1", "nd_linf": "linf"}
PAPER_NETS = (("vgg11", 64), ("resnet18", 64), ("senet18", 64), ("regnetx_200mf", 24))
FIVE = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
MILESTONES = (75 / 120, 90 / 120, 100 / 120)
DECADES = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)


@dataclasses.dataclass(frozen=True)
class Regularization:
    """The runs behind ln.accuracy and ln.curves: methods x strengths x seeds on one schedule.

    Images are held out to choose a strength; test images are measured after the last epoch.

    Arguments:
        base: the plain run, which all others change.
        nets: (model, width) pairs.
        betas: strengths of norm decay, from weak to strong.
        weight_decays: strengths of weight decay.
        bounds: on singular values, from weak to strong.
        every: steps from one clipping of singular values to the next; fewer, in proportion,
            where a run has fewer epochs.
        batch_norm: bound of BatchNorm's norms, in the runs that project them.
        projected: the strengths of norm decay in linf that are also run with it.
        seeds: repetitions; methods are compared within a seed.
    """

    base: TrainConfig
    nets: tuple[tuple[str, int], ...] = (("resnet8", 8),)
    betas: tuple[float, ...] = FIVE
    weight_decays: tuple[float, ...] = FIVE
    bounds: tuple[float, ...] = (2.0, 1.5, 1.0, 0.5, 0.1)
    every: int = 100
    batch_norm: float = 1.0
    projected: tuple[float, ...] = (1e-2, 1e-1)
    seeds: tuple[int, ...] = (3, 4, 5)


DIGITS = TrainConfig(
    subset=600,
    validation=0.5,
    test_once=True,
    fresh_statistics=True,
    initialization="torch",
    lr=0.05,
    nesterov=False,
    weight_decay=0.0,
    schedule="step",
    milestones=MILESTONES,
    epochs=30,
    norms=("l1", "linf"),
    norms_every=3,
    final_norms=(),
    evaluation=Evaluation("apgd", epsilon=0.05, steps=8, targets=2, clean_every=0),
)
REGULARIZATION = {
    "smoke": Regularization(
        dataclasses.replace(DIGITS, subset=64, epochs=1),
        nets=(("resnet8", 4),),
        betas=(1e-3, 1e-2),
        weight_decays=(1e-3, 1e-2),
        bounds=(1.0, 0.5),
        every=1,
        projected=(1e-2,),
        seeds=(0,),
    ),
    "quick": Regularization(
        DIGITS,
        betas=DECADES,
        weight_decays=DECADES,
        every=20,
        batch_norm=3.0,
        projected=(1e-2, 3e-2),
    ),
    "cifar10": Regularization(
        dataclasses.replace(
            DIGITS,
            dataset="cifar10",
            image_size=16,
            subset=2000,
            lr=0.1,
            epochs=40,
            augment="flip",
            evaluation=Evaluation(
                "apgd", epsilon=1 / 255, steps=8, targets=2, images=500, clean_every=0
            ),
        ),
        betas=DECADES,
        weight_decays=DECADES,
        every=50,
        batch_norm=3.0,
        projected=(1e-2, 3e-2),
    ),
    "paper": Regularization(
        TrainConfig(
            dataset="cifar10",
            validation=0.1,
            test_once=True,
            fresh_statistics=True,
            initialization="torch",
            epochs=120,
            lr=0.01,
            nesterov=False,
            weight_decay=0.0,
            schedule="step",
            milestones=MILESTONES,
            augment="crop_flip",
            norms_every=5,
            final_norms=(),
            evaluation=Evaluation("apgd", epsilon=1 / 255, steps=100, images=1024, clean_every=5),
        ),
        nets=PAPER_NETS,
    ),
}


def regularized_runs(
    profile: str,
    *,
    seeds: Sequence[int] | None = None,
    epochs: int | None = None,
    device: str = "cpu",
) -> list[TrainConfig]:
    """The configurations behind ln.accuracy and ln.curves; None takes the profile's value.

    Raises:
        ValueError: an unknown profile.

    Example:
        >>> runs = regularized_runs("quick", seeds=[0])
        >>> sum(run.penalty.kind == "norm_decay" for run in runs), len(runs)
        (12, 23)
    """
    setting = choose(REGULARIZATION, profile, seeds=seeds)
    plain = dataclasses.replace(setting.base, device=device)
    if epochs is not None:
        every = max(1, setting.every * epochs // plain.epochs)
        setting = dataclasses.replace(setting, every=every)
        plain = dataclasses.replace(plain, epochs=epochs)
    return [
        dataclasses.replace(run, model=model, width=width, seed=seed)
        for seed in setting.seeds
        for model, width in setting.nets
        for run in _methods(plain, setting)
    ]


def _methods(plain: TrainConfig, setting: Regularization) -> list[TrainConfig]:
    """The plain run, and every method at every strength, from weak to strong."""
    change = functools.partial(dataclasses.replace, plain)
    l1, linf = (
        [change(penalty=Penalty("norm_decay", norm, beta)) for beta in setting.betas]
        for norm in DECAYS.values()
    )
    clip = functools.partial(Projection, "singular_values", every=setting.every)
    held = Projection(batch_norm=setting.batch_norm)
    projected = [run for run in linf if run.penalty.beta in setting.projected]
    return [
        plain,
        *l1,
        *linf,
        *(change(projection=clip(bound=bound)) for bound in setting.bounds),
        *(change(weight_decay=strength) for strength in setting.weight_decays),
        *(dataclasses.replace(run, projection=held) for run in projected),
    ]
