"""The runs of the grid: those that choose rates, those that are compared, and variants."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from normkit.records import Record
from normkit.training import TrainConfig

from .. import beyond_batchnorm, convnorm, norm_decay
from ..profiles import choose
from .settings import METHODS, SETTINGS, Grid, changed

__all__ = ["Plan", "borrowed_runs", "choosing_runs", "datasets", "grid_runs", "planned",
           "variant_runs"]  # fmt: skip

Plan = dict[tuple, TrainConfig]


def datasets(profile: str) -> tuple[str, ...]:
    """The data sets that a profile reads."""
    return (choose(SETTINGS, profile).clean.dataset,)


def choosing_runs(
    profile: str, *, seeds: Sequence[int] | None = None, device: str = "cpu"
) -> Plan:
    """The runs that choose the learning rate of each method on images held out, by method, rate.

    Example:
        >>> runs = choosing_runs("quick")
        >>> len(runs), runs["layer", 0.1].validation
        (38, 0.2)
    """
    grid = choose(SETTINGS, profile, seeds=seeds)
    held = {"seed": grid.choosing, "validation": grid.validation, "device": device}
    base = dataclasses.replace(grid.clean, **held, epochs=grid.choosing_epochs)
    pairs = [(method, lr) for method in METHODS for lr in grid.lrs]
    return {(method, lr): changed(grid, base, method, lr=lr) for method, lr in pairs}


def grid_runs(
    profile: str,
    tried: Mapping[tuple, Record],
    *,
    seeds: Sequence[int] | None = None,
    epochs: int | None = None,
    device: str = "cpu",
) -> dict[str, Plan]:
    """The runs that are compared, "clean" and "noise", each by method and seed.

    Arguments:
        profile: smoke, quick, cifar10 or paper; None takes its values, as below.
        tried: the records of `choosing_runs`, by method and rate; a method without one takes the
            first rate.
        seeds: repetitions.
        epochs: passes over the images.
        device: cpu or cuda.
    """
    grid = choose(SETTINGS, profile, seeds=seeds)
    rates, how = _rates(grid, tried), {"device": device} | ({"epochs": epochs} if epochs else {})
    return {
        kind: {
            (method, seed): changed(
                grid, dataclasses.replace(base, **how), method, seed=seed, lr=rates[method]
            )
            for seed in grid.seeds
            for method in METHODS
        }
        for kind, base in (("clean", grid.clean), ("noise", grid.noise))
    }


def variant_runs(
    profile: str,
    plans: Mapping[str, Plan],
    *,
    seeds: Sequence[int] | None = None,
    epochs: int | None = None,
    device: str = "cpu",
) -> Plan:
    """The same with a switch turned to what the authors' code does, by departure and seed.

    *In plain words:* nothing else differs from the run of the grid, the learning rate included.
    Free adversarial training is in the grid in neither form, and stands here in both.

    Example:
        >>> runs = variant_runs("quick", grid_runs("quick", {}))
        >>> runs["group", 5].variant, runs["enorm", 5].projection.variant
        ('released', 'released')
    """
    grid = choose(SETTINGS, profile, seeds=seeds)
    how = {"device": device} | ({"epochs": epochs} if epochs else {})
    found: Plan = {}
    for seed in grid.seeds:
        own = {name: plans["clean"][name, seed] for name in METHODS}
        for method in ("conv_norm", "oni"):
            options = convnorm.changed(grid.clean, f"{method}_released").convolution_options
            found[method, seed] = dataclasses.replace(own[method], convolution_options=options)
        for method in ("group", "evonorm_s0"):
            found[method, seed] = dataclasses.replace(own[method], variant="released")
        told = dataclasses.replace(own["enorm"].projection, variant="released")
        found["enorm", seed] = dataclasses.replace(own["enorm"], projection=told)
        noisy = plans["noise"]["batch", seed]
        found["noise", seed] = dataclasses.replace(noisy, label_noise_variant="released")
        for variant in ("paper", "released"):
            free = dataclasses.replace(grid.free, seed=seed, lr=own["batch"].lr, **how)
            adversary = dataclasses.replace(free.adversary, variant=variant)
            found[f"free_{variant}", seed] = dataclasses.replace(free, adversary=adversary)
    return found


def borrowed_runs(
    profile: str, *, seeds: Sequence[int] | None = None, device: str = "cpu"
) -> dict[str, list[TrainConfig]]:
    """Runs of other notebooks in which a departure shows.

    "adversarial": the first network of `norm_decay`, plain and under PGD-AT; "rule": small batches
    of `beyond_batchnorm`, under the paper's learning rate and under the code's.

    Example:
        >>> {kind: len(runs) for kind, runs in borrowed_runs("quick").items()}
        {'adversarial': 6, 'rule': 18}
    """
    chosen = {"seeds": seeds, "device": device}
    robust = norm_decay.adversarial_runs(profile, **chosen)
    robust = [run for run in robust if run.model == robust[0].model]
    code = beyond_batchnorm.rule_runs(profile, **chosen)
    methods = {run.normalization for run in code}
    paper = [
        run
        for run in beyond_batchnorm.training_runs(profile, **chosen)
        if run.batch_size == code[0].batch_size and run.normalization in methods
        if run.convolution == "conv"
    ]
    plain = [run for run in robust if run.adversary.kind in ("none", "pgd")]
    return {"adversarial": plain, "rule": paper + code}


def planned(
    profile: str,
    finished: Callable[[TrainConfig], Record | None],
    *,
    seeds: Sequence[int] | None = None,
    epochs: int | None = None,
    device: str = "cpu",
) -> list[TrainConfig]:
    """Every run of a profile; a rate that is yet to be chosen is the first of the choice."""
    chosen = {"seeds": seeds, "device": device}
    tries = choosing_runs(profile, **chosen)
    tried = {name: record for name, run in tries.items() if (record := finished(run))}
    plans = grid_runs(profile, tried, epochs=epochs, **chosen)
    variants = variant_runs(profile, plans, epochs=epochs, **chosen)
    own = [run for plan in (tries, *plans.values(), variants) for run in plan.values()]
    borrowed = borrowed_runs(profile, **chosen)
    return [*own, *borrowed["adversarial"], *borrowed["rule"]]


def _rates(grid: Grid, tried: Mapping[tuple, Record]) -> dict[str, float]:
    """The rate of the highest accuracy on images held out; of equals, and of none, the first."""

    def score(method: str, lr: float) -> float:
        record = tried.get((method, lr))
        ended = record is not None and record.status == "ok"
        return record.table("history").accuracy.iloc[-1] if ended else -1.0

    return {
        method: max(grid.lrs, key=lambda lr, name=method: score(name, lr)) for method in METHODS
    }
