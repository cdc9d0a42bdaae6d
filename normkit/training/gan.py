"""Training of a generative adversarial network: two nets, one loop, scores as it goes."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils import parametrize

from normkit import data

from .alone import one_thread
from .gan_config import GanConfig
from .gan_nets import Gan, build_gan
from .resume import Checkpoint
from .run import GanRun
from .scores import Scorer, scorer
from .task import generator, prepare

__all__ = ["gan_losses", "train_gan"]

SHEET = 100  # images that a run keeps
HISTORY = ["step", "d_loss", "g_loss", "frechet", "inception", "seconds"]


def gan_losses(kind: str) -> tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Tensor], Tensor]]:
    r"""What the discriminator and the generator minimize.

    .. math:: L_D = \mathrm{mean}\,\ell(D(x)) + \mathrm{mean}\,\ell(-D(G(z)))

    with l(t) = max(0, 1 - t) for hinge, and log(1 + exp(-t)) for non_saturating;

    .. math:: L_G = -\mathrm{mean}\,D(G(z)) \quad \text{or} \quad \mathrm{mean}\,\ell(D(G(z)))

    In plain words: with the hinge the discriminator stops caring for images that it tells apart
    by a margin of 1; the generator always wants more.

    Source: Miyato et al. 2018, arXiv 1802.05957, equations 16 and 17 (hinge); Goodfellow et al.
    2014, arXiv 1406.2661, section 3.

    Arguments:
        kind: hinge or non_saturating.

    Returns:
        the discriminator's, of its outputs for real and for generated images, and the
        generator's, of the discriminator's outputs for generated images.

    Example:
        >>> critic, maker = gan_losses("hinge")
        >>> sure = torch.tensor([1.0, 3.0])
        >>> critic(sure, -sure).item(), critic(-sure, sure).item(), maker(sure).item()
        (0.0, 6.0, -2.0)
    """
    if kind == "hinge":
        return (
            lambda real, made: F.relu(1 - real).mean() + F.relu(1 + made).mean(),
            lambda made: -made.mean(),
        )
    return (
        lambda real, made: F.softplus(-real).mean() + F.softplus(made).mean(),
        lambda made: F.softplus(-made).mean(),
    )


def train_gan(config: GanConfig, *, checkpoint: Path | None = None) -> GanRun:
    """Train a generator against a discriminator, on one CPU thread or one GPU.

    On a CPU the result is a function of the configuration, as that of `train` is. A loss or
    weight that is no longer finite ends the run at the next look at the scores.

    Arguments:
        config: the run.
        checkpoint: a file that keeps the state about once a minute, at a look at the scores; if
            it is there, training goes on from it, to the same bits.

    Raises:
        ValueError: a batch larger than the training set, or images that cannot be halved; before
            anything is trained.

    Example:
        >>> run = train_gan(GanConfig(steps=2, score_images=50, width=4, classifier_epochs=1))
        >>> run.status, run.tables["history"].step.tolist(), len(run.tables["samples"])
        ('ok', [0, 2], 6400)
    """
    task = prepare(config.classifier())
    if len(task.images) < config.batch_size:
        found = f"batch_size is {config.batch_size}, and there are {len(task.images)} images"
        raise ValueError(f"{found}; a batch must not be larger than the training set")
    with one_thread():
        model = build_gan(config, task.form)
        judge = scorer(config.classifier())
        trainer = _Trainer(config, task.images, model, judge)
        trainer.run(Checkpoint(checkpoint))
        seconds = trainer.seconds()
        tables = {
            "history": pd.DataFrame(trainer.history, columns=HISTORY),
            "samples": _sheet(trainer.images("samples", SHEET if trainer.status == "ok" else 0)),
        }
    limits, status = judge.limits, trainer.status
    return GanRun(config, task.form, model.eval(), tables, limits, status, seconds)


class _Trainer:
    """The two nets, their optimizers, and the generators that feed them."""

    def __init__(self, config: GanConfig, images: Tensor, model: Gan, judge: Scorer):
        self.config, self.real, self.model, self.judge = config, images, model, judge
        self.losses = gan_losses(config.loss)
        self.optimizers = [
            torch.optim.Adam(net.parameters(), betas=config.betas, fused=True)
            for net in (model.discriminator, model.generator)
        ]
        self.noises = generator(config.seed, "noise")
        self.order = generator(config.seed, "order")
        self.status, self.history, self.done = "ok", [], 0
        self.waiting: list[Tensor] = []  # batches of this pass over the images
        self.started = time.perf_counter()  # less what was spent before a checkpoint

    def seconds(self) -> float:
        """How long the run has taken, before it was stopped, too."""
        return time.perf_counter() - self.started

    def batch(self) -> Tensor:
        """The indices of the next whole batch; a new pass over the images follows the last."""
        size = self.config.batch_size
        while not self.waiting:
            chosen = data.batches(len(self.real), size, self.order)
            self.waiting = [part for part in chosen if len(part) == size]
        return self.waiting.pop(0).to(self.real.device)

    def run(self, checkpoint: Checkpoint) -> None:
        """All steps, or those that a checkpoint leaves."""
        config, kept, state = self.config, [], checkpoint.load()
        if state is None:
            self.look(0, [(math.nan, math.nan)])
        else:
            self.load(state)
        for step in range(self.done + 1, config.steps + 1):
            falls = (config.steps - step + 1) / config.steps
            kept.append(self.step(falls if config.schedule == "linear" else 1.0))
            if step % config.evaluate_every and step < config.steps:
                continue
            if lost := self.lost(kept):
                self.status = f"diverged at step {min(step - len(kept) + lost, step)}"
                return
            self.look(step, [(d.item(), g.item()) for d, g in kept])
            self.done, kept = step, []
            if checkpoint.due and step < config.steps:
                checkpoint.save(self.state())

    def lost(self, kept: list[tuple[Tensor, Tensor]]) -> int:
        """The first of these steps, counted from 1, that is not finite; the weights come last."""
        state = (t for t in self.model.state_dict().values() if t.is_floating_point())
        weights = [tensor.isfinite().all() for tensor in state]
        finite = [torch.stack(pair).isfinite().all() for pair in kept]
        lost = (~torch.stack([*finite, torch.stack(weights).all()])).nonzero()
        return int(lost[0]) + 1 if len(lost) else 0

    def state(self) -> dict[str, Any]:
        """All that the next steps depend on."""
        return {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "streams": [stream.get_state() for stream in (self.noises, self.order)],
            "progress": [self.waiting, self.history, self.done],
            "seconds": self.seconds(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.model.load_state_dict(state["model"])
        for optimizer, part in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(part)
        for stream, part in zip((self.noises, self.order), state["streams"], strict=True):
            stream.set_state(part)
        self.waiting, self.history, self.done = state["progress"]
        self.started = time.perf_counter() - state["seconds"]

    def step(self, factor: float) -> tuple[Tensor, Tensor]:
        """One update of the generator, and those of the discriminator before it; both losses."""
        config = self.config
        rates = (config.lr_discriminator, config.lr_generator)
        for optimizer, lr in zip(self.optimizers, rates, strict=True):
            optimizer.param_groups[0]["lr"] = factor * lr
        for _ in range(config.critic_steps):
            loss = self.criticize()
        return loss, self.make()

    def noise(self) -> Tensor:
        shape = (self.config.batch_size, self.config.latent)
        return torch.randn(shape, generator=self.noises).to(self.real.device)

    def criticize(self) -> Tensor:
        critic = self.model.discriminator
        real = data.to_float(self.real[self.batch()])
        with torch.no_grad():
            made = self.model(self.noise())
        with parametrize.cached():  # the same weights for both, from one power iteration
            loss = self.losses[0](critic(real), critic(made))
        return self._update(0, loss)

    def make(self) -> Tensor:
        critic = self.model.discriminator
        critic.requires_grad_(False)
        loss = self.losses[1](critic(self.model(self.noise())))
        made = self._update(1, loss)
        critic.requires_grad_(True)
        return made

    def _update(self, which: int, loss: Tensor) -> Tensor:
        self.optimizers[which].zero_grad()
        loss.backward()
        self.optimizers[which].step()
        return loss.detach()

    @torch.no_grad()
    def images(self, stream: str, count: int) -> Tensor:
        """What the generator makes, in evaluation mode, of the same noise each time."""
        config, made = self.config, self.model.generator.eval()
        noise = torch.randn(count, config.latent, generator=generator(config.seed, stream))
        images = torch.cat([made(part.to(self.real.device)) for part in noise.split(500)])
        made.train()
        return images

    def look(self, step: int, losses: list[tuple[float, float]]) -> None:
        """A row of the history."""
        means = (sum(parts) / len(parts) for parts in zip(*losses, strict=True))
        row = dict(zip(("step", "d_loss", "g_loss"), (step, *means), strict=True))
        row |= self.judge(self.images("score", self.config.score_images))
        self.history.append(row | {"seconds": self.seconds()})


def _sheet(images: Tensor) -> pd.DataFrame:
    """Images (N, C, H, W) as a table, a row a pixel and channel."""
    count, channels, height, width = images.shape
    sizes = {"index": count, "channel": channels, "row": height, "column": width}
    places = torch.cartesian_prod(*(torch.arange(n) for n in sizes.values()))
    table = pd.DataFrame(places.numpy(), columns=list(sizes))
    table["value"] = images.cpu().flatten().numpy()
    return table[["index", "row", "column", "channel", "value"]]
