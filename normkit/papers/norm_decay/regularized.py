"""The tables read off runs with norm decay, clipped singular values and weight decay."""

import math
from collections.abc import Sequence

import pandas as pd

from normkit.records import Record

__all__ = ["chosen_strengths", "norm_history", "regularized"]

RUN = ["net", "method", "strength", "projected", "seed"]


def regularized(records: Sequence[Record]) -> pd.DataFrame:
    """Accuracies after the last epoch, one row per run.

    Columns: net, method, strength (0 for plain), projected (BatchNorm is), seed, train,
    validation, clean and robust (of test images, in [0, 1]; NaN where the run diverged), status.
    """
    rows = []
    for record in records:
        row = _labels(record) | dict.fromkeys(("train", "validation", "clean", "robust"), math.nan)
        if record.status == "ok":
            last = record.table("history").iloc[-1]
            row |= {"train": last.train_accuracy, "validation": last.accuracy}
            row |= {"clean": last.test_accuracy, "robust": last.robust_accuracy}
        rows.append(row | {"status": record.status})
    return pd.DataFrame(rows)


def chosen_strengths(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of `regularized` without projection, and whether their strength is the chosen one.

    *In plain words:* of each method's strengths, that of the highest accuracy on the images held
    out, averaged over seeds; of equals the weakest. A strength at which a run diverged is none.

    Example:
        >>> row = {"net": "cnn", "method": "wd", "projected": False, "seed": 0, "status": "ok"}
        >>> found = chosen_strengths(pd.DataFrame([
        ...     {**row, "strength": 0.1, "validation": 0.8},
        ...     {**row, "strength": 0.2, "validation": 0.9}]))
        >>> found.chosen.tolist()
        [False, True]
    """
    table = table[~table.projected]
    runs = table.groupby(["net", "method", "strength"], sort=False)
    means = runs.validation.agg(lambda values: values.mean(skipna=False)).fillna(-1)
    best = means.groupby(level=["net", "method"], sort=False).transform("max")
    first = means[means == best].reset_index("strength").groupby(level=[0, 1]).strength.first()
    chosen = first.loc[pd.MultiIndex.from_frame(table[["net", "method"]])].to_numpy()
    return table.assign(chosen=table.strength == chosen)


def norm_history(records: Sequence[Record]) -> pd.DataFrame:
    """Every layer's norms as a run goes on, one row per run, epoch, layer and norm.

    Columns: net, method, strength, projected, seed, epoch, layer, kind, norm, value. A run that
    diverged has rows of its last epoch alone, with nans.
    """
    columns = ["epoch", "layer", "kind", "norm", "value"]
    tables = []
    for record in records:
        table = record.table("norms") if record.status == "ok" else _lost(record)
        tables.append(table[columns].assign(**_labels(record)))
    return pd.concat(tables, ignore_index=True)[[*RUN, *columns]]


def _lost(record: Record) -> pd.DataFrame:
    config = record.config
    kinds = ["conv", "batch_norm"] if config["normalization"] == "batch" else ["conv"]
    rows = [{"kind": kind, "norm": norm} for kind in kinds for norm in config["norms"]]
    return pd.DataFrame(rows).assign(epoch=config["epochs"], layer="", value=math.nan)


def _labels(record: Record) -> dict:
    """Method, strength, projected and seed, as its configuration tells."""
    config = record.config
    penalty, projection = config["penalty"], config["projection"]
    method, strength = "plain", 0.0
    if penalty["kind"] == "norm_decay":
        method, strength = f"nd_{penalty['norm']}", penalty["beta"]
    elif projection["kind"] == "singular_values":
        method, strength = "svc", projection["bound"]
    elif config["weight_decay"]:
        method, strength = "wd", config["weight_decay"]
    projected = projection["batch_norm"] is not None
    return dict(
        zip(RUN, (config["model"], method, strength, projected, config["seed"]), strict=True)
    )
