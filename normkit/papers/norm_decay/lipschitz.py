"""ln.lipschitz: a classifier that is robust on every image, with any Lipschitz constant."""

import dataclasses
import math

import pandas as pd
import torch
from torch import Tensor, nn

from normkit import attacks, data
from normkit.claims import Claim, Verdict, above, combine, exact
from normkit.training import dataset, generator

from ..profiles import choose
from ..measured import measuring_code

__all__ = ["LIPSCHITZ", "NearestClass", "Slopes", "judge_lipschitz", "separation", "slopes"]

TOLERANCE = 1e-6
CONTROL = 4

LIPSCHITZ = Claim(
    "ln.lipschitz",
    "norm_decay",
    "A classifier can be robust on every image with an arbitrarily large Lipschitz constant.",
    "For every slope L of a constructed classifier, n slopes: accuracy on all images and robust "
    "accuracy under targeted APGD are 1, and the steepest slope met between two images of "
    f"different classes is L, relative error at most {TOLERANCE}. Control: at {CONTROL} times the "
    "radius, where no image is certified, the same attack fools more than half of them.",
)


class NearestClass(nn.Module):
    r"""Classifies an image by its nearest example, with logits of any slope.

    $z_k(x) = \tfrac{L}{2}\,(\min_{j \ne k} d_j(x) - d_k(x))$, $d_k$ the linf distance to the
    nearest example of class k

    *In plain words:* a distance changes by at most as much as the image moves, so every logit has
    the Lipschitz constant L in linf, and reaches it half way between two examples. Its sign, and
    with it the class, does not depend on L: where examples of different classes are more than
    2 epsilon apart, no image within epsilon of an example is classified wrongly.

    Source: after Yang et al., NeurIPS 2020, https://arxiv.org/abs/2003.02460; Liang & Huang, AAAI
    2021, https://arxiv.org/abs/2009.08435, on its slope.
    Deviation: the logits are ours, a form for any number of classes.

    Arguments:
        examples: images in [0, 1].
        labels: the class of each.
        slope: L, in logits per unit of the pixel range.

    Shape:
        images (N, C, H, W) to logits (N, classes).

    Example:
        >>> examples = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1)
        >>> model = NearestClass(examples, torch.tensor([0, 1]), slope=10.0)
        >>> model(torch.tensor([0.25, 0.5]).view(2, 1, 1, 1))
        tensor([[ 2.5000, -2.5000],
                [ 0.0000,  0.0000]])
    """

    def __init__(self, examples: Tensor, labels: Tensor, slope: float) -> None:
        super().__init__()
        self.classes, self.slope = int(labels.max()) + 1, slope
        order = labels.argsort(stable=True)
        self.register_buffer("examples", examples.flatten(1)[order])
        self.sizes = labels.bincount(minlength=self.classes).tolist()

    def distances(self, images: Tensor) -> Tensor:
        """linf distance to the nearest example of each class, (N, classes)."""
        pairs = torch.cdist(images.flatten(1), self.examples, p=math.inf)
        return torch.stack([part.amin(1) for part in pairs.split(self.sizes, 1)], 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.slope / 2 * (_others(found := self.distances(images)) - found)


def _others(distances: Tensor) -> Tensor:
    """For each class, the smallest entry of the others."""
    values, places = distances.topk(2, dim=1, largest=False)
    nearest, next_nearest = values.split(1, dim=1)
    own = torch.arange(distances.shape[1], device=distances.device) == places[:, :1]
    return torch.where(own, next_nearest, nearest)


def separation(images: Tensor, labels: Tensor) -> tuple[float, int, int]:
    """The smallest linf distance of two images of different classes, and which two.

    Example:
        >>> images = torch.tensor([0.0, 0.1, 0.5]).view(3, 1, 1, 1)
        >>> distance, first, second = separation(images, torch.tensor([0, 0, 1]))
        >>> round(distance, 3), first, second
        (0.4, 1, 2)
    """
    flat, best = images.flatten(1), (math.inf, 0, 0)
    for start in range(0, len(flat), 256):
        pairs = torch.cdist(flat[start : start + 256], flat, p=math.inf)
        pairs[labels[start : start + 256, None] == labels] = math.inf
        place = int(pairs.argmin())
        found = pairs.flatten()[place].item(), start + place // len(flat), place % len(flat)
        best = min(best, found)
    return best


@dataclasses.dataclass(frozen=True)
class Slopes:
    """The constructed classifier at several slopes, attacked, certified and measured.

    Arguments:
        dataset: a name of `data.NAMES`; its training and test images are the examples.
        image_size: as in `TrainConfig`.
        subset: number of training images, None for all.
        test: number of test images, None for all.
        slopes: in logits per unit of the pixel range.
        attacked: how many images APGD attacks.
        steps: of APGD.
        points: between the two nearest images of different classes.
    """

    dataset: str = "digits"
    image_size: int | None = None
    subset: int | None = None
    test: int | None = None
    slopes: tuple[float, ...] = (1.0, 100.0, 1e4, 1e6)
    attacked: int = 100
    steps: int = 10
    points: int = 401

    def dependencies(self) -> dict[str, str]:
        """The hashes of the images, of the attack, and of this code."""
        code = measuring_code(__name__, "normkit.attacks", "normkit.data", "normkit.training.task")
        return {f"data {self.dataset}": dataset(self.dataset).fingerprint()} | code

    def tables(self) -> dict[str, pd.DataFrame]:
        """Tables "slopes" and "line".

        slopes: slope, separation, epsilon (just below half of it), images, accuracy, certified
        (share of the images that are robust by their distances, which no slope changes),
        attacked, robust (share of them that resists targeted APGD), control (the same at
        `CONTROL` times the radius), measured_slope (the largest between neighboring points of the
        line).
        line: slope, position (in units of epsilon, along the segment between the two nearest
        images of different classes, past both by 1), output (logit of the first one's class).
        """
        images, labels = self._images()
        distance, first, second = separation(images, labels)
        if not distance:
            raise ValueError(f"images {first} and {second} are equal and of different classes")
        epsilon = 0.499 * distance
        ends = 1 + distance / epsilon
        position = torch.linspace(-1, ends, self.points, dtype=torch.float64)
        direction = (images[second] - images[first]) / distance
        segment = images[first] + (position * epsilon)[:, None, None, None] * direction
        certified = _certified(NearestClass(images, labels, 2.0), images, labels, epsilon)
        rows, lines = [], []
        for slope in self.slopes:
            model = NearestClass(images, labels, slope).eval()
            line = model(segment)[:, labels[first]]
            steepest = (line.diff().abs() / (position.diff() * epsilon)).max().item()
            accuracy = attacks.robust_accuracy(model, images, labels, batch_size=256)
            robust, control = (
                self._attacked(model, images, labels, factor * epsilon) for factor in (1, CONTROL)
            )
            found = (slope, distance, epsilon, len(images), accuracy, certified, self.attacked)
            rows.append((*found, robust, control, steepest))
            lines.append(pd.DataFrame({"slope": slope, "position": position, "output": line}))
        columns = ["slope", "separation", "epsilon", "images", "accuracy", "certified"]
        columns += ["attacked", "robust", "control", "measured_slope"]
        table = pd.DataFrame(rows, columns=columns)
        return {"slopes": table, "line": pd.concat(lines, ignore_index=True)}

    def _images(self) -> tuple[Tensor, Tensor]:
        source = dataset(self.dataset)
        images, labels = source.train_images, source.train_labels
        if self.subset is not None:
            kept = data.subset(labels, self.subset, generator(0, "subset"))
            images, labels = images[kept], labels[kept]
        images = torch.cat([images, source.test_images[: self.test]])
        labels = torch.cat([labels, source.test_labels[: self.test]])
        if self.image_size is not None:
            images = data.resize(images, self.image_size)
        return data.to_float(images).double(), labels

    def _attacked(self, model: nn.Module, images: Tensor, labels: Tensor, epsilon: float) -> float:
        starts = generator(0, "evaluation")

        def attack(model: nn.Module, batch: Tensor, truth: Tensor) -> Tensor:
            return attacks.apgd(
                model, batch, truth, epsilon=epsilon, steps=self.steps, loss="targeted",
                targets=3, generator=starts,
            )  # fmt: skip

        chosen = torch.randperm(len(images), generator=generator(0, "chosen"))[: self.attacked]
        return attacks.robust_accuracy(model, images[chosen], labels[chosen], attack, 100)


def _certified(model: NearestClass, images: Tensor, labels: Tensor, epsilon: float) -> float:
    """The share of images that stay right within epsilon.

    Every distance changes by at most epsilon, so an image stays right if the nearest example of
    another class is more than 2 epsilon further away than the nearest of its own.
    """
    gaps = []
    for batch, truth in zip(images.split(256), labels.split(256), strict=True):
        found = model.distances(batch)
        gaps.append((_others(found) - found).gather(1, truth[:, None])[:, 0])
    return (torch.cat(gaps) > 2 * epsilon).double().mean().item()


SLOPES = {
    "smoke": Slopes(subset=100, test=20, slopes=(1.0, 100.0, 1e4), attacked=20, steps=2),
    "quick": Slopes(),
    "cifar10": Slopes("cifar10", image_size=16, subset=900, test=100),
    "paper": Slopes("cifar10", subset=4500, test=500),
}


def slopes(profile: str) -> Slopes:
    """The classifier of a profile, and how it is measured.

    Example:
        >>> slopes("quick").dataset
        'digits'
    """
    return choose(SLOPES, profile)


def judge_lipschitz(table: pd.DataFrame, profile: str) -> Verdict:
    """ln.lipschitz from the table "slopes" of `Slopes`."""
    images, attacked = int(table.images.iloc[0]), int(table.attacked.iloc[0])
    steep = table.measured_slope / table.slope - 1
    parts = [
        exact(f"{images} images: 1 minus accuracy", 1 - table.accuracy, 0.0),
        exact(f"{attacked} images under attack: 1 minus robust accuracy", 1 - table.robust, 0.0),
        exact("relative error of the steepest slope met", steep, TOLERANCE),
        above(f"control: share fooled at {CONTROL} epsilon, minus 1/2", 1 - table.control, 0.5),
    ]
    return combine(LIPSCHITZ, parts, profile=profile, evidence="norm_decay/lipschitz.csv")
