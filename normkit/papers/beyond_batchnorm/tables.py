"""The tables that figures draw and verdicts judge, read off the records of runs."""

import dataclasses
import math
from collections.abc import Sequence

import pandas as pd

from normkit.records import Record
from normkit.training import TrainConfig, dataset

__all__ = ["histories", "measures", "ranks", "situations", "speeds"]

EARLY = 0.25
ENDS = {"instance": 1.0, "layer": math.inf}
NETS = {
    "cfg_10": "10 layers",
    "cfg_20": "20 layers",
    "cfg_40": "40 layers",
    "resnet56": "ResNet-56",
}


def measures(records: Sequence[Record]) -> pd.DataFrame:
    """What the probes saw, one row per run, step, layer and measure.

    Columns: dataset, net, method, situation, normalization, convolution, groups, depth, width,
    skip_init, seed, epoch (passes over the images before the probe), step, layer, position (depth
    order within a measure), measure, value.
    """
    tables = []
    fields = ["dataset", "normalization", "convolution", "groups", "depth", "width", "skip_init"]
    for record in records:
        config = record.config
        table = record.table("probes")
        table = table[_is_measured(table.layer, config["model"])].reset_index(drop=True)
        labels = {field: config[field] for field in fields} | {
            "net": config["model"],
            "method": _method(config),
            "situation": _situation(config),
            "seed": config["seed"],
            "position": table.groupby(["measure", "step"]).cumcount() + 1,
            "epoch": table.step / max(1, config["probe_every"]),
        }
        tables.append(table.assign(**labels))
    columns = ["dataset", "net", "method", "situation", *fields[1:], "seed", "epoch", "step"]
    columns += ["layer", "position", "measure", "value"]
    return pd.concat(tables, ignore_index=True)[columns]


def histories(records: Sequence[Record]) -> pd.DataFrame:
    """Training curves, one row per run and epoch.

    Columns: those of `speeds` that label a run, epoch, train_loss, train_accuracy, accuracy. A
    run that diverged before its first epoch was over has one row, of epoch 0 and at chance.
    """
    tables = []
    for record in records:
        history = record.table("history")[["epoch", "train_loss", "train_accuracy", "accuracy"]]
        if not len(history):
            chance = _chance(record)
            at_chance = {"train_accuracy": [chance], "accuracy": [chance]}
            history = pd.DataFrame({"epoch": [0], "train_loss": [math.nan]} | at_chance)
        tables.append(history.assign(**_labels(record)))
    return pd.concat(tables, ignore_index=True)


def speeds(records: Sequence[Record]) -> pd.DataFrame:
    """Speed of training and, where it was probed, what was seen before it; one row per run.

    Columns: net (in words), method, dataset, seed, batch_size, lr, group_size (channels; inf for
    LayerNorm), situation (net, batch size and learning rate in words), status; chance; accuracy
    (last epoch's, on the images held out, or test images where none are); cosine (similarity at
    the last layer before the first step); speed, early and final (training accuracy averaged over
    all epochs, over the first quarter of them (one at least), and in the last; epochs after a
    divergence count as chance).
    """
    rows = []
    for record in records:
        config, probes = record.config, record.table("probes")
        chance, epochs = _chance(record), config["epochs"]
        history = record.table("history")
        reached = history.train_accuracy.tolist()
        whole = len(reached) == epochs
        reached += [chance] * (epochs - len(reached))
        early = reached[: max(1, round(EARLY * epochs))]
        seen = probes[(probes.measure == "cosine_similarity") & (probes.step == 0)]
        seen = seen[_is_measured(seen.layer, config["model"])].value
        rows.append(
            _labels(record)
            | {
                "cosine": seen.iloc[-1] if len(seen) else math.nan,
                "speed": sum(reached) / epochs,
                "early": sum(early) / len(early),
                "final": reached[-1],
                "chance": chance,
                "accuracy": history.accuracy.iloc[-1] if whole else chance,
            }
        )
    return pd.DataFrame(rows)


def ranks(records: Sequence[Record]) -> pd.DataFrame:
    """Stable rank of the last layer's activations during training, one row per run and epoch.

    Columns: those of `speeds` that label a run, epoch, value.
    """
    tables = []
    for record in records:
        table = measures([record])
        table = table[table.measure == "stable_rank"]
        last = table[table.position == table.position.max()][["epoch", "value"]]
        tables.append(last.assign(**_labels(record)))
    return pd.concat(tables, ignore_index=True)


def situations(plan: Sequence[TrainConfig]) -> dict[str, list[TrainConfig]]:
    """The runs of each situation, by its name in the tables."""
    found: dict[str, list[TrainConfig]] = {}
    for config in plan:
        found.setdefault(_situation(dataclasses.asdict(config)), []).append(config)
    return found


def _labels(record: Record) -> dict[str, object]:
    config = record.config
    labels = {"net": _net(config), "method": _method(config)}
    labels |= {name: config[name] for name in ("dataset", "seed", "batch_size", "lr")}
    labels["group_size"] = ENDS.get(labels["method"], float(config["group_size"] or math.nan))
    return labels | {"situation": _situation(config), "status": record.status}


def _net(config: dict) -> str:
    name = NETS.get(config["model"], config["model"])
    return f"{name} with SkipInit" if config["skip_init"] else name


def _situation(config: dict) -> str:
    return f"{_net(config)}, batch {config['batch_size']}, lr {config['lr']:.2g}"


def _method(config: dict) -> str:
    return config["convolution"] if config["convolution"] != "conv" else config["normalization"]


def _chance(record: Record) -> float:
    return 1 / dataset(record.config["dataset"]).num_classes


def _is_measured(layers: pd.Series, model: str) -> pd.Series:
    """Where a block ends in a residual net, every activation and convolution in a stack."""
    residual = model.startswith("resnet")
    pattern = r"blocks\.\d+\.activation2" if residual else r"layers\.\d+\.\w+"
    return layers.str.fullmatch(pattern)
