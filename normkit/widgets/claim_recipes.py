"""How claims are judged from a handful of runs: which runs, and what reads a verdict off them."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from normkit.claims import Verdict
from normkit.papers import beyond_batchnorm, convnorm, enorm, norm_decay
from normkit.records import Record
from normkit.training import TrainConfig

__all__ = ["RECIPES", "Recipe"]

Runs = list[TrainConfig]
Found = Mapping[TrainConfig, Record]
Judge = Callable[[Sequence[Record], Sequence[Record], str], Verdict]
FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One claim's way from runs to a verdict, made of its paper's own functions.

    Arguments:
        choosing: the runs that choose learning rates, of a profile; of many claims there are none.
        judged: the runs that are judged, of a profile, from what of the choosing runs is there.
        judge: the verdict on the claim from the records of both, the judged ones first.
        trained: whether anything is trained, so that epochs and learning rate matter.
        widths: factors on the width that the comparison stands.
    """

    choosing: Callable[[str], Runs]
    judged: Callable[[str, Found], Runs]
    judge: Judge
    trained: bool = True
    widths: tuple[float, ...] = FACTORS


def _unmade(run: TrainConfig) -> Record:
    """Stands for a run that chooses and is not there: as one that diverged, it chooses nothing."""
    meta = {"status": "not run", "seconds": 0.0}
    return Record(Path(), {"key": "", "config": dataclasses.asdict(run), "meta": meta})


def _filled(runs: Runs, found: Found) -> list[Record]:
    return [found[run] if run in found else _unmade(run) for run in runs]


def _of_convnorm(parts: tuple[str, ...], methods: tuple[str, ...], judge: Callable) -> Recipe:
    def wanted(runs: Runs) -> Runs:
        return [run for run in runs if convnorm.method_of(dataclasses.asdict(run)) in methods]

    def judged(profile: str, found: Found) -> Runs:
        tried = _filled(convnorm.choosing_runs(profile), found)
        setting = convnorm.SETTINGS[profile]
        seeds = setting.seeds if parts == ("clean",) else setting.many
        plans = convnorm.judged_runs(profile, tried, seeds=seeds[:1])
        one = wanted([run for part in parts for run in plans[part]])
        return [dataclasses.replace(run, seed=seed) for seed in seeds for run in one]

    def verdict(records: Sequence[Record], tried: Sequence[Record], label: str) -> Verdict:
        return judge(records, label)

    return Recipe(lambda profile: wanted(convnorm.choosing_runs(profile)), judged, verdict)


def _of_enorm(
    part: str, methods: tuple[str, ...], judge: Judge, initialization: str = ""
) -> Recipe:
    def wanted(runs: Runs) -> Runs:
        named = [run for run in runs if enorm.method_of(dataclasses.asdict(run)) in methods]
        return [run for run in named if initialization in ("", run.initialization)]

    def judged(profile: str, found: Found) -> Runs:
        plans = enorm.choosing_runs(profile)
        tried = {name: _filled(runs, found) for name, runs in plans.items()}
        return wanted(enorm.judged_runs(profile, tried)[part])

    return Recipe(lambda profile: wanted(enorm.choosing_runs(profile)[part]), judged, judge)


def _plain(
    runs: Callable[[str], Runs], judge: Callable[[Sequence[Record], str], Verdict],
    trained: bool = True, widths: tuple[float, ...] = FACTORS,
) -> Recipe:  # fmt: skip
    return Recipe(
        lambda profile: [],
        lambda profile, found: runs(profile),
        lambda records, tried, label: judge(records, label),
        trained,
        widths,
    )


def _conv(records: Sequence[Record], tried: Sequence[Record], label: str) -> Verdict:
    return enorm.judge_conv(enorm.outcomes(records, "initialization"), label)


def _batch(records: Sequence[Record], tried: Sequence[Record], label: str) -> Verdict:
    return enorm.judge_batch(enorm.outcomes(records, "batch_size"), label)


def _autoencoder(records: Sequence[Record], tried: Sequence[Record], label: str) -> Verdict:
    return enorm.judge_autoencoder(enorm.curves(records), label)


def _factor(records: Sequence[Record], tried: Sequence[Record], label: str) -> Verdict:
    return enorm.judge_c(enorm.outcomes(records, "c"), enorm.outcomes(tried, "c"), label)


def _density(records: Sequence[Record], label: str) -> Verdict:
    norms, accuracy = norm_decay.layer_norms(records), norm_decay.accuracies(records)
    return norm_decay.judge_density(norms, accuracy, label)


def _accuracy(records: Sequence[Record], label: str) -> Verdict:
    table = norm_decay.chosen_strengths(norm_decay.regularized(records))
    return norm_decay.judge_accuracy(table, label)


def _pgd_runs(profile: str) -> Runs:
    runs = norm_decay.adversarial_runs(profile)
    return [run for run in runs if run.adversary.kind in ("none", "pgd")]


def _unprojected(profile: str) -> Runs:
    return [
        run
        for run in norm_decay.regularized_runs(profile)
        if run.projection.batch_norm is None
    ]


def _decayed(profile: str) -> Runs:
    runs = _unprojected(profile)
    decays = [run for run in runs if run.penalty.kind == "norm_decay"]
    return [run for run in runs if run == _plain_of(run)] + decays


def _plain_of(run: TrainConfig) -> TrainConfig:
    """The run without anything that acts on norms."""
    plain = TrainConfig()
    bare = {"penalty": plain.penalty, "projection": plain.projection, "weight_decay": 0.0}
    return dataclasses.replace(run, **bare)


def _normalizers(profile: str) -> Runs:
    """The runs of bb.training: large batches, three normalizers, and ResNets without any."""
    runs = beyond_batchnorm.training_runs(profile)
    large = max(run.batch_size for run in runs)
    plain = [
        run
        for run in runs
        if run.batch_size == large and run.normalization in ("batch", "layer", "instance")
    ]
    residual = beyond_batchnorm.residual_runs(profile)
    return plain + [run for run in residual if run.convolution == "weight_norm"]


def _training(records: Sequence[Record], label: str) -> Verdict:
    table = beyond_batchnorm.speeds(records)
    residual = table.method == "weight_norm"
    return beyond_batchnorm.judge_training(table[~residual], table[residual], label)


def _read(table: Callable, judge: Callable) -> Callable[[Sequence[Record], str], Verdict]:
    """The verdict by `judge` on what `table` reads off records."""
    return lambda records, label: judge(table(records), label)


_CN, _LN, _BB, _PAIR = convnorm, norm_decay, beyond_batchnorm, ("batch", "conv_norm")
_STEPS = ("conv_norm", "conv_norm_no_bn", "none", "batch")
_PARTS = ("conv_norm", "conv_norm_no_affine", "conv_norm_no_bn")
_NETS = ("none", "batch", "enorm", "enorm_batch")

RECIPES = {
    "cn.standard": _of_convnorm(("clean",), _PAIR, _read(_CN.outcomes, _CN.judge_standard)),
    "cn.curves": _of_convnorm(("clean",), _STEPS, _read(_CN.curves, _CN.judge_curves)),
    "cn.ablation": _of_convnorm(("clean",), _PARTS, _read(_CN.outcomes, _CN.judge_ablation)),
    "cn.spectral": _of_convnorm(("clean",), _PAIR, _read(_CN.layer_norms, _CN.judge_spectral)),
    "cn.scarcity": _of_convnorm(("scarce",), _PAIR, _read(_CN.outcomes, _CN.judge_scarcity)),
    "cn.noise": _of_convnorm(
        ("symmetric", "asymmetric"), _PAIR, _read(_CN.outcomes, _CN.judge_noise)
    ),
    "en.conv": _of_enorm("conv", _NETS, _conv),
    "en.autoencoder": _of_enorm("autoencoder", ("none", "enorm"), _autoencoder, "he_all"),
    "en.batch": _of_enorm("batch", ("batch", "enorm"), _batch),
    "en.c": _of_enorm("asymmetry", ("enorm",), _factor),
    "ln.density": _plain(_LN.adversarial_runs, _density),
    "ln.layers": _plain(_pgd_runs, _read(_LN.layer_norms, _LN.judge_layers)),
    "ln.accuracy": _plain(_unprojected, _accuracy),
    "ln.curves": _plain(_decayed, _read(_LN.norm_history, _LN.judge_curves)),
    "bb.variance": _plain(
        _BB.depth_runs, _read(_BB.measures, _BB.judge_variance), trained=False
    ),
    "bb.tradeoff": _plain(
        _BB.tradeoff_runs, _read(_BB.speeds, _BB.judge_tradeoff), widths=(1.0, 2.0, 4.0)
    ),
    "bb.training": _plain(_normalizers, _training),
}
