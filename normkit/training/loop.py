"""The trainer: one loop, and three places where a method may act."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from normkit import data

from . import hooks
from .alone import one_thread
from .config import TrainConfig
from .log import Log
from .objective import batch_loss, learning_rate, replays
from .resume import Checkpoint
from .run import Run
from .task import Task, build_model, generator, prepare

__all__ = ["train"]

Hook = Callable[[nn.Module, torch.optim.Optimizer], Callable[[], object]]


def train(
    config: TrainConfig,
    *,
    penalty: Hook | None = None,
    projection: Hook | None = None,
    on_epoch: Callable[[dict], None] | None = None,
    checkpoint: Path | None = None,
) -> Run:
    """Train a network as configured, on one CPU thread or one GPU.

    A method acts in one of three places: in the forward pass (the layers that the configuration
    names), on the gradient (`penalty`: after backward, before the step), or on the weights
    (`projection`: after the step). What the configuration names acts first; a method of your own
    takes `(model, optimizer)` and gives back what is called at every step.

    On a CPU the result is a function of the configuration: one thread, one generator for each
    purpose, and nothing from outside. A loss or weight that is no longer finite ends the run at
    that epoch; its status names the step.

    Arguments:
        config: the run.
        penalty: your own, acts on gradients.
        projection: your own, acts on weights.
        on_epoch: sees every row of the history as it is made.
        checkpoint: a file that keeps the state about once a minute, at the end of an epoch. If it
            is there, training goes on from it, to the same bits as if it had not been stopped.

    Raises:
        ValueError: a checkpoint and a method of your own, whose state nobody knows.

    Example:
        >>> run = train(TrainConfig(epochs=1, subset=128))
        >>> run.status, list(run.tables)
        ('ok', ['history', 'norms', 'probes'])
        >>> again = train(TrainConfig(epochs=1, subset=128))
        >>> torch.equal(run.model.head.weight, again.model.head.weight)
        True
    """
    hooked = penalty is not None or projection is not None
    if hooked and checkpoint is not None:
        raise ValueError("checkpoint is given, and a penalty or projection of your own: choose")
    with one_thread():
        task = prepare(config)
        model = build_model(config, task.form)
        log = Log(config, task, on_epoch)
        trainer = _Trainer(config, task, model, log, penalty, projection)
        if not config.epochs:
            log.probe(model, 0)
        trainer.run(Checkpoint(checkpoint))
    seconds = log.seconds()
    return Run(config, task.form, model.eval(), log.tables(), log.status, seconds, hooked)


class _Trainer:
    """A network, its optimizer, and the generators that feed it."""

    def __init__(self, config: TrainConfig, task: Task, model: nn.Module, log: Log, *given):
        self.config, self.task, self.model, self.log = config, task, model, log
        self.optimizer = _optimizer(config, model)
        self.penalties = hooks.penalty(config, model, task)
        self.projections = hooks.projection(config, model, task, self.optimizer)
        both = (self.penalties, self.projections)
        acting = ([method.step for method in named] for named in both)
        own = ([hook(model, self.optimizer)] if hook else [] for hook in given)
        self.acts = [[*named, *mine] for named, mine in zip(acting, own, strict=True)]
        rows = min(config.batch_size, len(task.images))
        self.perturbation = torch.zeros(rows, *task.form.input_size, device=config.device)
        streams = ("order", "augment", "attack")
        self.streams = {name: generator(config.seed, name) for name in streams}

    def run(self, checkpoint: Checkpoint) -> None:
        """All epochs, or those that a checkpoint leaves."""
        done, state = 0, checkpoint.load()
        if state is not None:
            done = state["epoch"]
            self.load(state)
        for epoch in range(done + 1, self.config.epochs + 1):
            if not self.epoch(epoch):
                break
            if checkpoint.due and epoch < self.config.epochs:
                checkpoint.save({"epoch": epoch} | self.state())

    def state(self) -> dict[str, Any]:
        """All that the next epochs depend on."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "methods": [method.state_dict() for method in (*self.penalties, *self.projections)],
            "perturbation": self.perturbation,
            "streams": {name: stream.get_state() for name, stream in self.streams.items()},
            "log": self.log.state(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        methods = (*self.penalties, *self.projections)
        for method, part in zip(methods, state["methods"], strict=True):
            method.load_state_dict(part)
        self.perturbation.copy_(state["perturbation"])
        for name, stream in self.streams.items():
            stream.set_state(state["streams"][name])
        self.log.load(state["log"])

    def epoch(self, epoch: int) -> bool:
        """One pass over the images; whether every loss was finite."""
        count, size = len(self.task.images), self.config.batch_size
        batches = data.batches(count, size, self.streams["order"])
        first = (epoch - 1) * len(batches)
        losses, hits = [], []
        self.model.train()
        for step, chosen in enumerate(batches, start=first):
            with self.log.probing(self.model, step):
                loss, hit = self.step(chosen, step / len(batches))
            losses.append(loss)
            hits.append(hit)
        finite = torch.stack([*(loss.isfinite() for loss in losses), _finite(self.model)])
        if not finite.all():
            self.log.status = f"diverged at step {first + int((~finite).nonzero()[0])}"
            return False
        accuracy = torch.stack(hits).sum().item() / sum(map(len, batches))
        if self.config.fresh_statistics and epoch == self.config.epochs:
            hooks.refresh_statistics(self.config, self.model, self.task)
        self.log.epoch(self.model, epoch, torch.stack(losses).mean().item(), accuracy)
        return True

    def step(self, chosen: torch.Tensor, progress: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Learn from the chosen images; the loss, and how many were classified rightly.

        One update, or several under free adversarial training: then the means over these.
        """
        config, task = self.config, self.task
        for group in self.optimizer.param_groups:
            group["lr"] = config.lr * learning_rate(config, progress)
        augment = data.AUGMENTATIONS[config.augment]
        chosen = chosen.to(task.images.device)
        images = data.to_float(augment(task.images[chosen], self.streams["augment"]))
        views = replays(images, self.perturbation, config.adversary)
        updates = [self.update(view, task.labels[chosen]) for view in views]
        losses, hits = (torch.stack(found) for found in zip(*updates, strict=True))
        return losses.mean(), hits.double().mean()

    def update(
        self, images: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """One update; the loss, and how many images were classified rightly."""
        self.optimizer.zero_grad()
        stream = self.streams["attack"]
        half = self.config.precision == "bfloat16"
        with torch.autocast(images.device.type, torch.bfloat16, enabled=half):
            loss, hits = batch_loss(self.config, self.model, images, labels, stream)
        loss.backward()
        if not self.act(self.acts[0]):
            loss = loss * torch.nan
        self.optimizer.step()
        if not self.act(self.acts[1]):
            loss = loss * torch.nan
        return loss.detach(), hits

    def act(self, methods: list[Callable[[], object]]) -> bool:
        """Let methods act; whether they could, which values that overflow prevent."""
        try:
            for method in methods:
                method()
        except OverflowError:
            return False
        except ValueError:
            state = (t for t in self.model.state_dict().values() if t.is_floating_point())
            if all(tensor.square().sum().isfinite() for tensor in state):
                raise
            return False
        return True


def _finite(model: nn.Module) -> torch.Tensor:
    return torch.stack([p.detach().isfinite().all() for p in model.parameters()]).all()


def _optimizer(config: TrainConfig, model: nn.Module) -> torch.optim.Optimizer:
    # Path-SGD divides the weight decay as well, so it adds it to the gradient itself.
    decay = 0.0 if config.penalty.kind == "path_sgd" else config.weight_decay
    if config.optimizer == "adam":
        return torch.optim.Adam(model.parameters(), config.lr, weight_decay=decay)
    return torch.optim.SGD(
        model.parameters(),
        config.lr,
        momentum=config.momentum,
        nesterov=config.nesterov and config.momentum > 0,
        weight_decay=decay,
    )
