"""The rows of a run's tables, gathered while it trains."""

import contextlib
import copy
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from normkit import attacks, data, norms, probes

from .config import TrainConfig
from .objective import reconstruction_loss, robust_accuracy
from .task import Task, generator

__all__ = ["Log"]


class Log:
    """The rows of a run's tables."""

    def __init__(self, config: TrainConfig, task: Task, on_epoch: Callable | None):
        self.config, self.task, self.on_epoch = config, task, on_epoch
        self.started = time.perf_counter()  # less what was spent before a checkpoint
        self.status = "ok"
        self.history: list[dict] = []
        self.norms: list[pd.DataFrame] = []
        self.probes: list[pd.DataFrame] = []
        self.recording: probes.Recording | None = None

    def seconds(self) -> float:
        """How long the run has taken, before it was stopped, too."""
        return time.perf_counter() - self.started

    def state(self) -> dict[str, Any]:
        """The rows so far, as plain values."""
        if self.recording:
            self.probes.append(self.recording.table())
            self.recording = None
        tables = {"norms": self.norms, "probes": self.probes}
        plain = {name: [t.to_dict("list") for t in parts] for name, parts in tables.items()}
        return {"seconds": self.seconds(), "history": self.history} | plain

    def load(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.started = time.perf_counter() - state["seconds"]
        self.history = state["history"]
        self.norms = [pd.DataFrame(part) for part in state["norms"]]
        self.probes = [pd.DataFrame(part) for part in state["probes"]]

    def epoch(self, model: nn.Module, epoch: int, loss: float, accuracy: float) -> None:
        config, task, attack = self.config, self.task, self.config.evaluation
        last = epoch == config.epochs
        row = {"epoch": epoch, "train_loss": loss, "train_accuracy": accuracy}
        model.eval()

        def due(every: int) -> bool:
            return last or bool(every and epoch % every == 0)

        row |= self.judge(model, due(attack.clean_every), last)
        measured = attack.epsilon > 0 and due(attack.every)
        robust = robust_accuracy(model, *task.final, attack) if measured else math.nan
        row |= {"robust_accuracy": robust, "seconds": self.seconds()}
        self.history.append(row)
        chosen = config.norms if due(config.norms_every) else ()
        chosen = tuple(dict.fromkeys(chosen + (config.final_norms if last else ())))
        if chosen:
            size = task.form.input_size
            table = norms.layer_table(model, size, norms=chosen).drop(columns="seconds")
            self.norms.append(table.assign(epoch=epoch))
        if self.on_epoch:
            self.on_epoch(row)

    def judge(self, model: nn.Module, wanted: bool, last: bool) -> dict[str, float]:
        """The loss of a reconstruction, or the accuracy, on the watched images if wanted."""
        task, row = self.task, dict.fromkeys(("loss", "accuracy", "test_accuracy"), math.nan)

        def accuracy(images: Tensor, labels: Tensor) -> float:
            return attacks.robust_accuracy(model, data.to_float(images), labels)

        if wanted and self.config.objective == "reconstruction":
            row["loss"] = reconstruction_loss(model, task.test_images)
        elif wanted:
            row["accuracy"] = accuracy(task.test_images, task.test_labels)
        if last and self.config.test_once:
            row["test_accuracy"] = accuracy(*task.final)
        return row

    @contextlib.contextmanager
    def probing(self, model: nn.Module, step: int) -> Iterator[None]:
        """Takes the probes that are due at a step, before it or while it is made inside."""
        config, every = self.config, self.config.probe_every
        if step % every if every else step:
            yield
        elif config.probe_on == "fixed" or not config.probes:
            self.probe(model, step)
            yield
        else:
            self.recording = self.recording or probes.record(model, config.probes)
            self.recording.step = step
            with self.recording:
                yield

    def probe(self, model: nn.Module, step: int) -> None:
        """Probes a twin of the network on the fixed images."""
        config = self.config
        if not config.probes:
            return
        order = torch.randperm(len(self.task.images), generator=generator(config.seed, "probe"))
        chosen = order[: config.probe_images].to(self.task.images.device)
        images = data.to_float(self.task.images[chosen])
        twin = copy.deepcopy(model).train()
        backward = "gradient_norm" in config.probes
        with probes.record(twin, config.probes) as recorded, torch.set_grad_enabled(backward):
            loss = F.cross_entropy(twin(images), self.task.labels[chosen])
            if backward:
                loss.backward()
        self.probes.append(recorded.table().assign(step=step))

    def tables(self) -> dict[str, pd.DataFrame]:
        def joined(parts: list[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
            return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)

        if self.recording:
            self.probes.append(self.recording.table())
        history = ["epoch", "train_loss", "train_accuracy", "loss", "accuracy", "test_accuracy"]
        history += ["robust_accuracy", "seconds"]
        return {
            "history": pd.DataFrame(self.history, columns=history),
            "norms": joined(self.norms, ["epoch", "layer", "kind", "norm", "value"]),
            "probes": joined(self.probes, ["step", "layer", "measure", "value"]),
        }
