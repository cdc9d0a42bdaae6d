"""Auto-PGD's climb: many rows at once, each with its own step size, until its image is fooled."""

__all__ = ["Found", "checkpoints", "climb_all"]

import dataclasses
import functools

import torch
from torch import Tensor

from .parts import ascent, correct, per_image, project, unit

MOMENTUM, ENOUGH_RISES = 0.75, 0.75  # alpha and rho of the paper
CROWDED = 8  # rows leave the batch when one in so many is done


def checkpoints(steps: int) -> list[int]:
    """Return after how many steps the step sizes are judged.

    w_j = ceil(p_j steps), p_0 = 0, p_1 = .22, p_{j+1} = p_j + max(p_j - p_{j-1} - .03, .06).

    Example:
        >>> checkpoints(100)
        [0, 22, 41, 57, 70, 80, 87, 93, 99]
    """
    found, share, width = [], 0, 25  # in hundredths: exact
    while (after := -(-share * steps // 100)) < steps:
        found.append(after)
        width = max(width - 3, 6)
        share += width
    return sorted(set(found))


@dataclasses.dataclass
class Found:
    """What is known of each image: a point, its loss, and the first run that fooled the model."""

    images: Tensor
    loss: Tensor
    run: Tensor  # -1 if the clean image is misclassified, `runs` if it resists so far
    runs: int

    @classmethod
    def of_clean(cls, images: Tensor, loss: Tensor, resists: Tensor, runs: int) -> "Found":
        """Start from the clean images and their loss."""
        return cls(images.clone(), loss.clone(), torch.where(resists, runs, -1), runs)

    @property
    def fooled(self) -> Tensor:
        """Whether the model misclassifies the point, one for each image."""
        return self.run < self.runs

    def note(self, rows: "Rows", wrong: Tensor) -> bool:
        """Keep misclassified rows, unless an earlier run has fooled the model on their image."""
        new = wrong & (rows.run < self.run[rows.who])
        if any_new := bool(new.any()):
            self.run.scatter_reduce_(0, rows.who[new], rows.run[new], "amin")
            new &= rows.run == self.run[rows.who]  # no image twice
            self.images[rows.who[new]] = rows.x[new]
        return any_new

    def keep_highest(self, rows: "Rows") -> None:
        """Keep the best points of rows whose image resists."""
        for run in rows.run.unique():  # no image twice in a run
            better = (rows.run == run) & ~self.fooled[rows.who] & (rows.top > self.loss[rows.who])
            self.images[rows.who[better]] = rows.best[better]
            self.loss[rows.who[better]] = rows.top[better]


@dataclasses.dataclass
class Rows:
    """Images on their way up, one row for each image and run."""

    who: Tensor
    run: Tensor
    image: Tensor
    label: Tensor
    rival: Tensor
    x: Tensor
    before: Tensor  # the point before x
    best: Tensor  # the point of highest loss
    slope: Tensor  # the gradient there
    top: Tensor  # the loss there
    last: Tensor  # the loss at x
    mark: Tensor  # the highest loss at the last check
    rises: Tensor  # how often the loss rose since then
    halved: Tensor  # whether the step was halved then
    step: Tensor

    @classmethod
    def at(
        cls, x: Tensor, who: Tensor, run: Tensor, image, label, rival, epsilon: float
    ) -> "Rows":
        """Start at x, where nothing is known yet."""
        step = torch.full_like(who, 2 * epsilon, dtype=x.dtype)
        low, none = torch.full_like(step, -torch.inf), torch.zeros_like(who)
        points = x, x, x, torch.zeros_like(x)
        return cls(who, run, image, label, rival, *points, low, low, low, none, none > 0, step)

    def kept(self, mask: Tensor) -> "Rows":
        """Return the rows where the mask is true."""
        return Rows(*(values[mask] for values in vars(self).values()))

    def look(self, gradient: Tensor, loss: Tensor) -> None:
        """Take in the gradient and the loss at x."""
        better = loss > self.top
        self.rises += loss > self.last
        self.last = loss
        self.top = torch.where(better, loss, self.top)
        better = per_image(better, self.x)
        self.best = torch.where(better, self.x, self.best)
        self.slope = torch.where(better, gradient, self.slope)

    def check(self, gradient: Tensor, width: int) -> Tensor:
        """Halve the steps that no longer pay, and go back to the best point; its gradient."""
        stuck = ~self.halved & (self.top == self.mark)
        self.halved = stuck | (self.rises < ENOUGH_RISES * width)
        self.step = torch.where(self.halved, self.step / 2, self.step)
        self.last = torch.where(self.halved, self.top, self.last)
        self.mark, self.rises = self.top, torch.zeros_like(self.rises)
        back = per_image(self.halved, self.x)
        self.x = torch.where(back, self.best, self.x)
        return torch.where(back, self.slope, gradient)

    def move(self, gradient: Tensor, epsilon: float, norm: str, momentum: float) -> None:
        """Step along the gradient, and on in the direction of the last step."""
        ahead = gradient.sign() if norm == "linf" else unit(gradient)
        ahead = ahead.mul_(per_image(self.step, self.x)).add_(self.x)
        ahead = project(ahead, self.image, epsilon, norm).sub_(self.x).mul_(momentum)
        ahead.add_(self.x - self.before, alpha=1 - momentum).add_(self.x)
        self.before, self.x = self.x, project(ahead, self.image, epsilon, norm)


def climb(model, goal, rows: Rows, found: Found, epsilon: float, steps: int, norm: str) -> None:
    """Take the rows up until their images are fooled or their steps are over."""
    points = checkpoints(steps)
    widths = {after: after - before for before, after in zip([0, *points], points, strict=False)}
    for k in range(steps):
        loss = functools.partial(goal, labels=rows.label, rivals=rows.rival)
        gradient, values, logits = ascent(model, rows.x, loss)
        rows.look(gradient, values)
        if found.note(rows, ~correct(logits, rows.label)):
            stay = rows.run < found.run[rows.who]
            if not stay.any():
                return
            if CROWDED * stay.sum() <= (CROWDED - 1) * len(stay):
                rows, gradient = rows.kept(stay), gradient[stay]
        if k in widths:
            gradient = rows.check(gradient, widths[k])
        rows.move(gradient, epsilon, norm, MOMENTUM if k else 1.0)
    logits = model(rows.x)
    rows.look(rows.slope, goal(logits, rows.label, rows.rival))
    found.note(rows, ~correct(logits, rows.label))
    found.keep_highest(rows)


def climb_all(model, goal, images, labels, rivals, starts, found, epsilon, steps, norm) -> None:
    """Climb from every start, in batches of at most as many rows as there are images."""
    runs, n = rivals.shape
    jobs = torch.arange(runs * n, device=images.device)
    while len(jobs := jobs[jobs // n < found.run[jobs % n]]):
        run, who = jobs[:n] // n, jobs[:n] % n
        jobs = jobs[n:]
        given = images[who], labels[who], rivals[run, who]
        rows = Rows.at(starts[run, who], who, run, *given, epsilon)
        climb(model, goal, rows, found, epsilon, steps, norm)
