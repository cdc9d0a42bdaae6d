"""Where the authors' code does something else than their paper, and what that changes."""

import pandas as pd
import torch

from normkit import claims, data

from .verdicts import leads

__all__ = ["changed_shares", "departures"]


def departures(clean: pd.DataFrame, *, level: float = 0.2, num_classes: int = 10) -> pd.DataFrame:
    """What each departure of the released code changes: effect, interval and n.

    *In plain words:* accuracies paired by seed, released minus paper, where runs differ; and the
    share of labels that "symmetric noise" really changes, of 10,000 labels from each of 5 seeds.

    Columns: departure, effect, low, high, n.

    Arguments:
        clean: `outcomes` of the clean runs.
        level: of the noise.
        num_classes: of the labels.
    """
    pairs = {
        "V and r as in the code: running average, torch's start of r": "conv_norm",
        "ONI without its scaling, where kernels have more rows than columns": "oni",
    }
    rows = []
    for name, method in pairs.items():
        part = claims.above(name, leads(clean, f"{method}_released", method).tolist())
        rows.append((name, part.effect, part.low, part.high, part.n))
    shares = changed_shares(level=level, num_classes=num_classes)
    part = claims.above("", shares, margin=level)
    name = f"share of labels changed by symmetric noise of {level:.0%}, minus {level:.0%}"
    rows.append((name, part.effect, part.low, part.high, part.n))
    return pd.DataFrame(rows, columns=["departure", "effect", "low", "high", "n"])


def changed_shares(*, level: float, num_classes: int = 10) -> list[float]:
    """The share of labels that the code's symmetric noise changes, of 10,000, for five seeds.

    Example:
        >>> [round(share, 1) for share in changed_shares(level=0.8, num_classes=2)]
        [0.4, 0.4, 0.4, 0.4, 0.4]
    """
    return [_changed(level, num_classes, seed) for seed in range(5)]


def _changed(level: float, num_classes: int, seed: int) -> float:
    labels = torch.arange(10_000) % num_classes
    how = {"kind": "symmetric", "num_classes": num_classes, "variant": "released"}
    stream = torch.Generator().manual_seed(seed)
    noisy = data.noisy_labels(labels, level, generator=stream, **how)
    return (noisy != labels).double().mean().item()
