"""Whether a claim survives other settings: the runs it needs, what they cost, and to make them."""

import dataclasses
import functools
import itertools
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from normkit import papers, sweep
from normkit.records import Record, Store
from normkit.training import TrainConfig

from .claim_costs import estimate, in_words
from .claim_recipes import RECIPES

__all__ = [
    "Cost",
    "Settings",
    "cost",
    "profile_settings",
    "records",
    "runs",
    "statement",
    "stored",
    "train",
]

CLAIMS = {claim.id: claim for claim in papers.CLAIMS if claim.id in RECIPES}


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is changed in a claim's runs; None takes the profile's value.

    Arguments:
        width: of the first run's network; those of the others change in proportion, and groups
            of channels keep their size.
        epochs: of the first run; those of the others change in proportion, to one at least.
        lr: factor on every learning rate; the rates are those chosen for the profile's own runs.
        seeds: number of repetitions; what is beyond the profile's own seeds follows them.

    Raises:
        ValueError: a value that is not above 0.
    """

    width: int | None = None
    epochs: int | None = None
    lr: float = 1.0
    seeds: int | None = None

    def __post_init__(self) -> None:
        for field, value in dataclasses.asdict(self).items():
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"{field} is {value}; it must be above 0")


class Cost(NamedTuple):
    """What a verdict needs: number of runs, how many of them are stored, seconds for the others.

    Example:
        >>> print(Cost(6, 2, 14.2))
        6 runs, 2 of them stored, about 14 s for the others
    """

    runs: int
    stored: int
    seconds: float

    def __str__(self) -> str:
        left = f"about {in_words(self.seconds)} for the others"
        rest = left if self.stored < self.runs else "nothing to train"
        return f"{self.runs} runs, {self.stored} of them stored, {rest}"


def statement(name: str) -> str:
    """What is claimed, in one sentence.

    Raises:
        ValueError: a claim that is not judged from a handful of runs; those that are, are named.

    Example:
        >>> statement("cn.standard")
        "ConvNorm's clean accuracy is at least BatchNorm's."
    """
    if name not in CLAIMS:
        raise ValueError(f"claim {name!r} is not judged anew here; accepted: {', '.join(RECIPES)}")
    return CLAIMS[name].statement


def profile_settings(name: str, profile: str = "quick") -> Settings:
    """A profile's own width, epochs and number of seeds for a claim.

    Example:
        >>> profile_settings("cn.standard")
        Settings(width=8, epochs=12, lr=1.0, seeds=3)
    """
    statement(name)
    seeds, models = _planned(name, profile, str(Store().root), ())
    return Settings(models[0].width, models[0].epochs or None, 1.0, len(seeds))


def runs(
    name: str, settings: Settings = Settings(), profile: str = "quick"
) -> tuple[list[TrainConfig], list[TrainConfig]]:
    """The runs that choose learning rates, at the profile's size, and those that are judged.

    *In plain words:* while some that choose are not in the store, the judged ones have the rates
    that the others choose, or the smallest.

    Example:
        >>> choosing, judged = runs("ln.layers", Settings(width=16, epochs=10, seeds=4))
        >>> len(choosing), len(judged), {(run.width, run.epochs) for run in judged}
        (0, 16, {(16, 10)})
    """
    own, models = _plan(name, profile)
    base = models[0]
    factors = _Factors(
        (settings.width or base.width) / base.width,
        (settings.epochs or base.epochs) / max(1, base.epochs),
        settings.lr,
    )
    seeds = [*own, *itertools.islice(itertools.count(max(own) + 1), settings.seeds or 0)]
    seeds = seeds[: settings.seeds or len(own)]
    judged = [_changed(run, factors, seed) for seed in seeds for run in models]
    return list(_choosing(name, profile)), judged


class _Factors(NamedTuple):
    width: float
    epochs: float
    lr: float


def _changed(run: TrainConfig, factors: _Factors, seed: int) -> TrainConfig:
    """A run at another width, length and learning rate, and with another seed."""
    made: dict[str, Any] = {"seed": seed, "lr": run.lr * factors.lr}
    made["width"] = max(1, round(run.width * factors.width))
    if run.groups:
        made["groups"] = max(1, round(run.groups * factors.width))
    if run.epochs:
        made["epochs"] = max(1, round(run.epochs * factors.epochs))
        made["warmup_epochs"] = run.warmup_epochs * made["epochs"] / run.epochs
    if run.projection.kind == "singular_values":  # once in as many steps, in proportion
        every = max(1, run.projection.every * made["epochs"] // run.epochs)
        made["projection"] = dataclasses.replace(run.projection, every=every)
    return dataclasses.replace(run, **made)


def cost(name: str, settings: Settings = Settings(), profile: str = "quick") -> Cost:
    """What the verdict needs, and about how long that takes which is not stored.

    Example:
        >>> cost("ln.layers", Settings(seeds=4)).runs
        16
    """
    needed = [run for stage in runs(name, settings, profile) for run in stage]
    store = Store()
    missing = [run for run in needed if not stored(run, store)]
    seconds = estimate(missing, store) / min(sweep.jobs(), max(1, len(missing)))
    return Cost(len(needed), len(needed) - len(missing), seconds)


def train(
    name: str, settings: Settings = Settings(), profile: str = "quick", *,
    check: Callable[[str], None] = lambda words: None,
) -> int:  # fmt: skip
    """Make the runs that the store lacks, as many at a time as there are cores.

    *In plain words:* whatever `check` raises ends it after the runs in progress; every finished
    run is in the store, and the next call makes the others.

    Arguments:
        check: called before each handful of runs with how far it is and the time left.

    Returns:
        how many runs were made.
    """
    store, began, done = Store(), time.monotonic(), 0
    whole = cost(name, settings, profile)
    total = whole.runs - whole.stored
    if not total:
        return 0
    with sweep.process_pool(min(sweep.jobs(), total)) as pool:
        for stage in range(2):  # the runs that choose decide what is judged
            made = runs(name, settings, profile)[stage]
            missing = [run for run in made if not stored(run, store)]
            missing.sort(key=lambda run: estimate([run], store), reverse=True)
            for start in range(0, len(missing), sweep.jobs()):
                spent = time.monotonic() - began
                left = spent / done * (total - done) if done else whole.seconds
                check(f"{done} of {total} runs made, {in_words(left)} left")
                handful = missing[start : start + sweep.jobs()]
                sweep.run(handful, store=store, executor=pool, progress=False)
                done += len(handful)
    return done


def stored(run: TrainConfig, store: Store) -> bool:
    """Whether a run is in the store, by its name alone: its files are read when it is used."""
    return (store.root / _key(run)).is_dir()


def records(made: Sequence[TrainConfig], store: Store) -> list[Record]:
    """The verified records of runs that are in the store.

    Raises:
        ValueError: one is not, or is not sound.
    """
    found = [store.get(run) for run in made]
    if None in found:
        raise ValueError(f"{found.count(None)} of {len(found)} runs are not in {store.root}")
    return found


@functools.lru_cache(maxsize=4096)
def _key(run: TrainConfig) -> str:
    return Store().key(run)


@functools.lru_cache(maxsize=256)
def _choosing(name: str, profile: str) -> tuple[TrainConfig, ...]:
    statement(name)
    return tuple(RECIPES[name].choosing(profile))


def _plan(name: str, profile: str) -> tuple[list[int], list[TrainConfig]]:
    """A claim's seeds, and what is run with each of them, at the profile's size."""
    store = Store()
    there = tuple(run for run in _choosing(name, profile) if stored(run, store))
    return _planned(name, profile, str(store.root), there)


@functools.lru_cache(maxsize=256)
def _planned(
    name: str, profile: str, root: str, there: tuple[TrainConfig, ...]
) -> tuple[list[int], list[TrainConfig]]:
    found = dict(zip(there, records(there, Store(root)), strict=True))
    judged = RECIPES[name].judged(profile, found)
    seeds = list(dict.fromkeys(run.seed for run in judged))
    return seeds, [run for run in judged if run.seed == seeds[0]]
