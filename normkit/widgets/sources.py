"""Where the networks of an explorer come from: files that normkit carries, runs of a store."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from safetensors import safe_open

from normkit import networks
from normkit.networks import Network
from normkit.plots.style import LABELS
from normkit.records import Store, StoreError
from normkit.records.files import MANIFEST

__all__ = ["CARRIED", "Measured", "carried", "carried_file", "measured", "method",
           "recorded", "runs"]  # fmt: skip

CARRIED = ("plain", "pgd", "conv_norm", "enorm")
COLUMNS = ["method", "dataset", "run", "key"]
ALIKE = ("dataset", "seed", "adversary.kind", "penalty.kind", "projection.kind", "convolution",
         "normalization", "device")  # fmt: skip


class Measured(NamedTuple):
    """A network and what is known of its accuracy, in words that may be empty."""

    network: Network
    words: str


def carried_file(name: str) -> Path:
    """The file of a carried network, beside this module."""
    return Path(__file__).with_name("carried") / f"{name}.safetensors"


def carried(name: str) -> Network:
    """One of the four small networks trained on digits that come with the package.

    Arguments:
        name: of `CARRIED`.

    Raises:
        ValueError: another name.

    Example:
        >>> carried("plain").input_size
        (1, 8, 8)
    """
    if name not in CARRIED:
        raise ValueError(f"no net {name!r} is carried; accepted: {', '.join(CARRIED)}")
    return networks.load_file(carried_file(name))._replace(name=LABELS[name])


def measured(name: str) -> Measured:
    """A carried network, and its accuracies when it was made.

    Example:
        >>> measured("plain").words
        'accuracy 0.9..., 0.0... under PGD-20 at 0.15'
    """
    with safe_open(carried_file(name), framework="pt") as file:
        config, known = (json.loads(file.metadata()[part]) for part in ("config", "meta"))
    return Measured(carried(name), _accuracy(known, config))


def recorded(store: Store, key: str) -> Measured:
    """The network of a run, and the last line of its history in words."""
    record = store.open(key)
    history = record.table("history")
    last = {} if history.empty else history.iloc[-1].to_dict()
    return Measured(networks.load_record(record), _accuracy(last, record.config))


def _accuracy(found: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    clean, robust = (found.get(name, math.nan) for name in ("accuracy", "robust_accuracy"))
    attack = config["evaluation"]
    words = [] if math.isnan(clean) else [f"accuracy {clean:.3f}"]
    if not math.isnan(robust):
        kind = f"{attack['attack'].upper()}-{attack['steps']}"
        words.append(f"{robust:.3f} under {kind} at {attack['epsilon']:.3g}")
    return ", ".join(words)


def method(config: Mapping[str, Any]) -> str:
    """How a run trained, in words, from the plain values of its configuration.

    Example:
        >>> import dataclasses
        >>> from normkit.training import Adversary, TrainConfig
        >>> method(dataclasses.asdict(TrainConfig(adversary=Adversary("pgd"))))
        'BatchNorm, PGD-AT'
    """
    penalty, projection = config["penalty"], config["projection"]
    kinds = {
        config["convolution"]: config["convolution"] != "conv",
        config["normalization"]: config["normalization"] != "none",
        config["adversary"]["kind"]: config["adversary"]["kind"] != "none",
        penalty["kind"]: penalty["kind"] != "none",
        projection["kind"]: projection["kind"] != "none",
    }
    more = {
        "free": "free AT",
        "norm_decay": f"norm decay {penalty['norm']}",
        "norms": f"{projection['norm']} norms at most {projection['bound']:g}",
        "singular_values": f"singular values at most {projection['bound']:g}",
    }
    words = [more.get(kind) or LABELS.get(kind, kind) for kind, told in kinds.items() if told]
    if projection["batch_norm"] is not None:
        words.append(f"BatchNorm at most {projection['batch_norm']:g}")
    return ", ".join(words) or LABELS["none"]


def runs(store: Store) -> pd.DataFrame:
    """The runs of classifiers and the like that kept weights: method, dataset, run, key.

    *In plain words:* `run` is the seed, and whatever else tells a run from those of the same
    method and data set. Only manifests are read; a run is verified when it is opened.

    Example:
        >>> list(runs(Store("nowhere")))
        ['method', 'dataset', 'run', 'key']
    """
    found = [known for key in store.keys() if (known := _manifest(store, key))]
    rows = [
        (method(one["config"]), one["config"]["dataset"], one["key"], one["meta"]["status"],
         _flat(one["config"]))
        for one in found
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["method", "dataset", "key", "status", "fields"])
    if table.empty:
        return pd.DataFrame(columns=COLUMNS)
    parts = [_told(part) for _, part in table.groupby(["method", "dataset"])]
    table = pd.concat(parts)
    return table.sort_values(["method", "dataset", "order"])[COLUMNS].reset_index(drop=True)


def _manifest(store: Store, key: str) -> dict[str, Any] | None:
    """What stands in a manifest, if it is that of a trained network with weights."""
    try:
        known = json.loads((store.root / key / MANIFEST).read_bytes())
        wanted = known["kind"] == "TrainConfig" and "weights.safetensors" in known["files"]
    except (OSError, ValueError, KeyError) as error:
        raise StoreError(f"record {key}: {MANIFEST} cannot be read ({error!r})") from error
    return known if wanted else None


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else f"{value}"


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in values.items():
        nested = isinstance(value, Mapping)
        flat |= _flat(value, f"{prefix}{name}.") if nested else {prefix + name: _short(value)}
    return flat


def _told(part: pd.DataFrame) -> pd.DataFrame:
    """Runs of one method and data set, each with its seed and what else is its own."""
    fields = pd.DataFrame(part.fields.tolist(), index=part.index)
    own = [name for name in fields if name not in ALIKE and fields[name].nunique(dropna=False) > 1]
    labels = [
        ", ".join(
            [f"seed {row['seed']}", *(f"{name.split('.')[-1]} {row[name]}" for name in own[:4])]
        )
        for _, row in fields.iterrows()
    ]
    part = part.assign(run=labels, order=fields.seed.astype(int))
    twice = part.run.duplicated(keep=False)
    part.loc[twice, "run"] += ", " + part.key[twice].str.slice(0, 8)
    lost = part.status != "ok"
    part.loc[lost, "run"] += " (" + part.status[lost] + ")"
    return part
