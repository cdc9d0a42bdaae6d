"""Runs in words, for the line under a figure."""

from collections.abc import Sequence

from normkit.records import Record
from normkit.training import TrainConfig, dataset

__all__ = ["describe", "diverged"]


def describe(configs: Sequence[TrainConfig]) -> str:
    """Images, training and seeds of a set of runs that share them, in one line.

    Example:
        >>> describe([TrainConfig(epochs=5, seed=seed) for seed in (0, 1, 2)])
        'digits at 8x8, 1,500 images; batch 128, lr 0.1, weight decay 0.0005, 5 epochs; 3 seeds'
    """
    first = configs[0]
    images = dataset(first.dataset).train_images
    size = first.image_size or images.shape[-1]
    seeds = len({config.seed for config in configs})
    words = f"{first.dataset} at {size}x{size}, "
    if first.epochs:
        words += f"{first.subset or len(images):,} images; batch {first.batch_size}, lr "
        words += f"{first.lr:g}, weight decay {first.weight_decay:g}, {first.epochs} epochs"
    else:
        words += f"{first.probe_images} images; at initialization"
    if first.evaluation.epsilon:
        attack = first.evaluation
        words += f"; robust: PGD-{attack.steps} at {attack.epsilon:.3g}"
    return f"{words}; {seeds} seed{'s' if seeds != 1 else ''}"


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
