"""How long runs will take, told by those that are stored."""

import dataclasses
import functools
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from normkit import sweep
from normkit.records import Store
from normkit.records.files import MANIFEST
from normkit.training import TrainConfig, from_dict

__all__ = ["estimate", "in_words"]

FREE = ("seed", "lr")  # what changes no run's time


class _Timed(NamedTuple):
    config: dict[str, Any]
    seconds: float


def estimate(configs: Sequence[TrainConfig], store: Store) -> float:
    """Seconds that the runs would take one after the other.

    *In plain words:* the time of the stored run that is most like it (of the same network, under
    the same attack if there is one, then with the most settings in common), times the ratio of
    their work as `sweep.work` has it. Where no run of the network is stored, that work alone.

    Example:
        >>> import tempfile
        >>> runs = [TrainConfig(epochs=epochs) for epochs in (1, 3)]
        >>> short, long = (estimate([run], Store(tempfile.mkdtemp())) for run in runs)
        >>> 2.9 < long / short < 3.1
        True
    """
    root, keys = str(store.root), tuple(store.keys())
    alike = [dataclasses.replace(config, **dict.fromkeys(FREE, 1)) for config in configs]
    return sum(_seconds(config, root, keys) for config in alike)


def in_words(seconds: float) -> str:
    """A time, as precisely as an estimate is.

    Example:
        >>> in_words(0.2), in_words(42.4), in_words(200)
        ('1 s', '42 s', '3.3 minutes')
    """
    return f"{max(1, seconds):.0f} s" if seconds < 90 else f"{seconds / 60:.1f} minutes"


@functools.lru_cache(maxsize=1024)
def _seconds(config: TrainConfig, root: str, keys: tuple[str, ...]) -> float:
    timed = [other for other in _stored(root, keys) if other.config["model"] == config.model]
    if not timed:
        return sweep.work(config)
    mine = _plain(dataclasses.asdict(config))
    nearest = max(timed, key=lambda other: _likeness(mine, other.config))
    return nearest.seconds * sweep.work(config) / sweep.work(from_dict(nearest.config))


def _likeness(mine: dict[str, Any], other: dict[str, Any]) -> tuple[bool, int]:
    """What two configurations share: the attack, and the number of other settings."""
    same = sum(value == other.get(name) for name, value in mine.items())
    attack = mine["adversary"]["kind"] == other["adversary"]["kind"]
    return attack, same


@functools.lru_cache(maxsize=2)
def _stored(root: str, keys: tuple[str, ...]) -> list[_Timed]:
    """The stored training runs by configuration, and the mean time of its seeds and rates."""
    found: dict[str, list[_Timed]] = {}
    for timed in (_timed(root, key) for key in keys):
        if timed is not None:
            config = {n: v for n, v in timed.config.items() if n not in FREE}
            found.setdefault(json.dumps(config, sort_keys=True), []).append(timed)
    return [
        _Timed(same[0].config, sum(timed.seconds for timed in same) / len(same))
        for same in found.values()
    ]


@functools.lru_cache(maxsize=8192)
def _timed(root: str, key: str) -> _Timed | None:
    """A record's configuration and time, unverified; None for one that does not help."""
    try:
        manifest = json.loads((Store(root).root / key / MANIFEST).read_bytes())
        trained = manifest["kind"] == "TrainConfig" and manifest["meta"]["status"] == "ok"
        usable = trained and from_dict(manifest["config"]) is not None
        return _Timed(manifest["config"], manifest["meta"]["seconds"]) if usable else None
    except (OSError, ValueError, KeyError, TypeError):
        return None  # of another version of the code, or not sound


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(values))
