"""Runs in words, for the line under a figure."""

from collections.abc import Sequence

from normkit.records import Record
from normkit.training import TrainConfig, dataset

__all__ = ["describe", "diverged"]


def describe(configs: Sequence[TrainConfig]) -> str:
    """Images, networks, training, attack and seeds of a set of runs, in one line.

    Example:
        >>> print(describe([TrainConfig(epochs=5, seed=seed) for seed in (0, 1, 2)]))
        digits 8x8, 1,500 training images; resnet8 of width 8; 5 epochs (last one shown), one_cycle
        lr 0.1, batch 128, weight decay 0.0005; He's initialization; 3 seeds
    """
    first = configs[0]
    images = dataset(first.dataset).train_images
    size = first.image_size or images.shape[-1]
    nets = dict.fromkeys(f"{config.model} of width {config.width}" for config in configs)
    words = [f"{first.dataset} {size}x{size}", ", ".join(nets)]
    if first.epochs:
        sizes = {round((c.subset or len(images)) * (1 - c.validation)) for c in configs}
        count = " to ".join(f"{n:,}" for n in sorted({min(sizes), max(sizes)}))
        words[0] += f", {count} training images"
        shown = " (last one shown)" if first.norms or first.final_norms else ""
        words += [f"{_each(configs, 'epochs')} epochs{shown}, {first.schedule} lr "]
        words[-1] += f"{_each(configs, 'lr')}, batch {_each(configs, 'batch_size')}, "
        words[-1] += f"weight decay {_each(configs, 'weight_decay')}"
        names = {"he": "He's initialization", "torch": "torch's initialization"}
        names["he_all"] = "He's initialization of all layers"
        plain = [config for config in configs if config.convolution == "conv"] or configs
        words += [" and ".join(sorted({names[config.initialization] for config in plain}))]
    else:
        words += [f"at initialization, {first.probe_images} images"]
    if attack := first.evaluation.epsilon:
        count = (
            "all" if first.evaluation.images is None else f"the first {first.evaluation.images:,}"
        )
        steps = first.evaluation.steps
        found = f"PGD-{steps}" if first.evaluation.attack == "pgd" else f"APGD ({steps} steps)"
        words += [f"robust: {found} at {attack:.3g} on {count} test images"]
    seeds = len({config.seed for config in configs})
    return "; ".join([*words, f"{seeds} seed{'s' if seeds != 1 else ''}"])


def _each(configs: Sequence[TrainConfig], field: str) -> str:
    """The values that a field takes, in the order of the runs, or their range if many."""
    values = list(dict.fromkeys(getattr(config, field) for config in configs))
    if len(values) > 3:
        return f"{min(values):g} to {max(values):g}"
    return " or ".join(f"{value:g}" for value in values)


def diverged(records: Sequence[Record]) -> str:
    """How many runs ended in a loss that is no number, and which.

    A record's method is read off its configuration: normalization, convolution, adversary,
    penalty, projection and weight decay.
    """
    lost = [record for record in records if record.status != "ok"]
    names = []
    for config, status in ((record.config, record.status) for record in lost):
        method = [config["normalization"], config["convolution"], config["adversary"]["kind"]]
        method = [name for name in method if name not in ("conv", "none")]
        words = [config["model"], *(method + _acting(config) or ["plain"])]
        words += [f"batch {config['batch_size']}", f"lr {config['lr']:g}"]
        names.append(" ".join([*words, f"seed {config['seed']} ({status})"]))
    return f"{len(lost)} of {len(records)} runs diverged" + "".join(f"\n  {n}" for n in names)


def _acting(config: dict) -> list[str]:
    """What acts on gradients and weights, in words."""
    penalty, projection, found = config["penalty"], config["projection"], []
    if penalty["kind"] == "path_sgd":
        found.append("Path-SGD")
    elif penalty["kind"] != "none":
        found.append(f"norm decay {penalty['norm']} {penalty['beta']:g}")
    if projection["kind"] == "enorm":
        found.append(f"ENorm c {projection['c']:g}")
    elif projection["kind"] != "none":
        found.append(f"{projection['kind']} at most {projection['bound']:g}")
    if projection["batch_norm"] is not None:
        found.append(f"BatchNorm at most {projection['batch_norm']:g}")
    if config["weight_decay"]:
        found.append(f"weight decay {config['weight_decay']:g}")
    return found
