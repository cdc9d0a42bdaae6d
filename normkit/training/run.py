"""What training gives back."""

import dataclasses

import pandas as pd
from torch import nn

from normkit import records

from .config import TrainConfig
from .gan_config import GanConfig
from .gan_nets import Gan
from .task import Form

__all__ = ["GanRun", "Run"]


@dataclasses.dataclass(frozen=True)
class Run:
    """What training gives back.

    `tables` holds tidy tables: `history` (one row an epoch), `norms` (epoch, layer, norm) and
    `probes` (step, layer, measure). `status` is "ok" or "diverged at step N". `hooked` says that
    a penalty or projection acted which the configuration does not name.
    """

    config: TrainConfig
    form: Form
    model: nn.Module
    tables: dict[str, pd.DataFrame]
    status: str
    seconds: float
    hooked: bool = False

    def save(self, store: records.Store, *, replace: bool = False) -> records.Record:
        """Put the run into a store (see `Store.put`).

        Raises:
            ValueError: a hook acted, so the configuration alone does not say what was run.
        """
        if self.hooked:
            raise ValueError(
                "a run with a penalty or projection of your own is not stored: it would be found "
                "under a configuration that does not name them; save model.state_dict() instead"
            )
        meta = {
            "status": self.status,
            "seconds": round(self.seconds, 3),
            "threads": 1,
            "seed": self.config.seed,
            "device": self.config.device,
            "form": dataclasses.asdict(self.form),
        }
        weights = self.model.state_dict() if self.config.epochs else None
        return store.put(
            self.config, tables=self.tables, weights=weights, meta=meta, replace=replace
        )


@dataclasses.dataclass(frozen=True)
class GanRun:
    """What `train_gan` gives back.

    `tables` holds `history` (one row a look at the scores; `d_loss` and `g_loss` are means over
    the steps since the last) and `samples` (index, row, column, channel, value in [0, 1]: a sheet
    of 100 images from noise of their own, empty if the run diverged). `limits` are the scorer's.
    `status` is "ok" or "diverged at step N", the first being 1. `seconds` are those of the
    training alone: the classifier is trained once for many runs.
    """

    config: GanConfig
    form: Form
    model: Gan
    tables: dict[str, pd.DataFrame]
    limits: dict[str, float]
    status: str
    seconds: float

    def save(self, store: records.Store, *, replace: bool = False) -> records.Record:
        """Put the run into a store (see `Store.put`); `restore_gan` gives its nets back."""
        meta = {
            "status": self.status,
            "seconds": round(self.seconds, 3),
            "threads": 1,
            "seed": self.config.seed,
            "device": self.config.device,
            "form": dataclasses.asdict(self.form),
            "limits": self.limits,
        }
        weights = self.model.state_dict()
        return store.put(
            self.config, tables=self.tables, weights=weights, meta=meta, replace=replace
        )
