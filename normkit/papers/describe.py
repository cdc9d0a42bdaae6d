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
        words[0] += f", {first.subset or len(images):,} training images"
        words += [f"{first.epochs} epochs (last one shown), {first.schedule} lr {first.lr:g}, "]
        words[-1] += f"batch {first.batch_size}, weight decay {first.weight_decay:g}"
        names = {"he": "He's initialization", "torch": "torch's initialization"}
        words += [" and ".join(sorted({names[config.initialization] for config in configs}))]
    else:
        words += [f"at initialization, {first.probe_images} images"]
    if attack := first.evaluation.epsilon:
        count = (
            "all" if first.evaluation.images is None else f"the first {first.evaluation.images:,}"
        )
        words += [f"robust: PGD-{first.evaluation.steps} at {attack:.3g} on {count} test images"]
    seeds = len({config.seed for config in configs})
    return "; ".join([*words, f"{seeds} seed{'s' if seeds != 1 else ''}"])


def diverged(records: Sequence[Record]) -> str:
    """How many runs ended in a loss that is no number, and which.

    A record's method is read off its configuration: adversary, normalization and seed.
    """
    lost = [record for record in records if record.status != "ok"]
    names = [
        f"{r.config['model']} {r.config['adversary']['kind']} {r.config['normalization']} "
        f"seed {r.config['seed']} ({r.status})"
        for r in lost
    ]
    return f"{len(lost)} of {len(records)} runs diverged" + "".join(f"\n  {n}" for n in names)
