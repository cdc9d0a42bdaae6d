"""The tables read off runs with norm decay, clipped singular values and weight decay."""

import math
from collections.abc import Sequence

import pandas as pd
import torch
from torch import nn

from normkit import attacks, data
from normkit.records import Record
from normkit.training import from_dict, prepare, restore

__all__ = ["chosen_strengths", "norm_history", "refreshed", "regularized"]

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

    Columns: net, method, strength, projected, seed, epoch, layer, kind, norm, value. Runs that
    diverged have no rows.
    """
    columns = ["epoch", "layer", "kind", "norm", "value"]
    tables = [
        record.table("norms")[columns].assign(**_labels(record))
        for record in records
        if record.status == "ok"
    ]
    return pd.concat(tables, ignore_index=True)[[*RUN, *columns]]


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


@torch.no_grad()
def refreshed(records: Sequence[Record]) -> pd.DataFrame:
    """Test accuracy with BatchNorm's running statistics as they are, and estimated afresh.

    *In plain words:* running statistics follow the weights with a delay of some ten steps. Where
    weights shrink quickly, the network that is evaluated is not the one that was trained; one
    pass over the training images shows which of the two has failed.

    Columns: net, method, strength, projected, seed, train, clean, refreshed (accuracies in
    [0, 1]). Runs that diverged have no rows.
    """
    rows = []
    for record in records:
        if record.status != "ok":
            continue
        model, task = restore(record), prepare(from_dict(record.config | {"device": "cpu"}))
        norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        for layer in norms:
            layer.reset_running_stats()
            layer.momentum = None  # the plain average over batches
        model.train()
        for batch in task.images.split(record.config["batch_size"]):
            model(data.to_float(batch))
        images, labels = task.final
        found = attacks.robust_accuracy(model.eval(), data.to_float(images), labels)
        last = record.table("history").iloc[-1]
        row = {"train": last.train_accuracy, "clean": last.test_accuracy, "refreshed": found}
        rows.append(_labels(record) | row)
    return pd.DataFrame(rows, columns=[*RUN, "train", "clean", "refreshed"])
