"""How good generated images are: in the features of a classifier, or with Inception's weights."""

import dataclasses
import functools
import importlib.util
import os

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from normkit import data
from normkit.data.images import check_images

from .config import TrainConfig
from .loop import train
from .task import generator, prepare

__all__ = ["Scorer", "fidelity", "frechet_distance", "inception_score", "scorer"]

NOISE = 1000  # images of uniform noise whose distance is given as a scale


def frechet_distance(features_a: Tensor, features_b: Tensor) -> float:
    r"""The squared Fréchet distance of two samples, each seen as a normal distribution.

    .. math:: d^2 = \lVert \mu_a - \mu_b \rVert^2
        + \operatorname{tr}\bigl(C_a + C_b - 2 (C_a C_b)^{1/2}\bigr)

    In plain words: how far the means are apart, and how differently the two clouds spread. With
    R the triangular factor of the centered sample, C = R^T R, the last trace is the sum of the
    singular values of R_a R_b^T, so no matrix is inverted or rooted, and a sample may be smaller
    than its number of features.

    Source: Dowson and Landau 1982, doi 10.1016/0047-259X(82)90077-X; on images, Heusel et al.
    2017, arXiv 1706.08500, which calls it FID where the features are Inception's.

    Arguments:
        features_a: one row a sample; at least 2 rows.
        features_b: of another sample.

    Shape:
        (N, D), (M, D) -> a float, computed in float64

    Raises:
        ValueError: other shapes, or a feature that is not finite.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> x = torch.randn(50, 3, dtype=torch.float64)
        >>> round(frechet_distance(x, x), 9), round(frechet_distance(x, 3 * x + 2), 9) == round(
        ...     ((2 * x + 2).mean(0).square() + 4 * x.var(0)).sum().item(), 9)
        (0.0, True)
    """
    samples = {"features_a": features_a, "features_b": features_b}
    for name, sample in samples.items():
        if sample.ndim != 2 or len(sample) < 2 or not sample.isfinite().all():
            found = f"shape {tuple(sample.shape)}, finite: {bool(sample.isfinite().all())}"
            raise ValueError(f"{name} must be 2 or more rows of finite features, found {found}")
    a, b = (sample.detach().cpu().double() for sample in samples.values())
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"features_a has {a.shape[1]} features, features_b {b.shape[1]}")
    roots = [
        torch.linalg.qr((x - x.mean(0)) / (len(x) - 1) ** 0.5, mode="r").R for x in (a, b)
    ]
    common = torch.linalg.svdvals(roots[0] @ roots[1].T).sum()
    spread = sum(root.square().sum() for root in roots) - 2 * common
    return (a.mean(0) - b.mean(0)).square().sum().add(spread).clamp(min=0).item()


def inception_score(probabilities: Tensor) -> float:
    r"""How sure a classifier is of single images, and how many classes it finds among all.

    .. math:: \exp \frac{1}{N} \sum_n \mathrm{KL}\bigl(p(y | x_n) \,\|\, p(y)\bigr), \quad
        p(y) = \frac{1}{N} \sum_n p(y | x_n)

    In plain words: the number of classes if every image is surely of one class and all classes
    are equally frequent; 1 if all images look alike to the classifier.

    Source: Salimans et al. 2016, arXiv 1606.03498, where the classifier is Inception.

    Deviation: over all images at once, where they average over ten splits.

    Arguments:
        probabilities: of the classes, a row an image.

    Shape:
        (N, K) -> a float in [1, K], computed in float64

    Raises:
        ValueError: another shape, a negative probability, or rows that do not sum to 1.

    Example:
        >>> sure, unsure = torch.eye(5), torch.ones(7, 4) / 4
        >>> round(inception_score(sure), 9), round(inception_score(unsure), 9)
        (5.0, 1.0)
    """
    if probabilities.ndim != 2 or not len(probabilities):
        found = tuple(probabilities.shape)
        raise ValueError(f"probabilities must be (N, K) with N above 0, found shape {found}")
    p = probabilities.detach().cpu().double()
    off = (p.sum(1) - 1).abs().max().item()
    if not (p >= 0).all() or not off < 1e-4:
        raise ValueError(
            f"probabilities must be at least 0 and sum to 1 in every row; the smallest is "
            f"{p.min().item():g}, and a sum differs from 1 by {off:g}"
        )
    p = p / p.sum(1, keepdim=True)
    divergence = torch.xlogy(p, p) - torch.xlogy(p, p.mean(0))
    return divergence.sum(1).mean().exp().item()


@dataclasses.dataclass(frozen=True)
class Scorer:
    """Judges images in the features of a classifier that was trained on real ones.

    In plain words: features are what the classifier's last layer reads; the Fréchet distance is
    that to the test images, which neither the classifier nor a generator has seen, so that
    images copied from the training set are no nearer than new ones. These are not the published
    FID and inception score, whose features are Inception's.

    Arguments:
        model: the classifier, a chain whose last part is linear.
        reference: features of the test images.
        limits: for the eye: `floor`, the distance of the training images; `noise`, that of
            uniform noise; `real_inception`, the score of the test images; `accuracy`, the
            classifier's.
    """

    model: nn.Sequential
    reference: Tensor
    limits: dict[str, float]

    def __call__(self, images: Tensor) -> dict[str, float]:
        """The scores `frechet` and `inception` of images in [0, 1]."""
        features = _features(self.model, images)
        return {
            "frechet": frechet_distance(features, self.reference),
            "inception": inception_score(_probabilities(self.model, features)),
        }


def scorer(config: TrainConfig) -> Scorer:
    """The judge of generated images that a classifier makes; trained once in a process.

    Arguments:
        config: how the classifier is trained, which decides what the real images are.

    Raises:
        ValueError: a classifier that diverged.

    Example:
        >>> config = TrainConfig(width=4, epochs=2, norms=(), final_norms=())
        >>> judge = scorer(config)
        >>> judge is scorer(config), judge.limits["floor"] < judge.limits["noise"]
        (True, True)
        >>> list(judge(torch.rand(20, 1, 8, 8)))
        ['frechet', 'inception']
    """
    return _scorer(config, os.environ.get("NORMKIT_DATA"))


@functools.lru_cache(maxsize=4)
def _scorer(config: TrainConfig, root: str | None) -> Scorer:
    run = train(config)
    if run.status != "ok":
        raise ValueError(f"the classifier that judges images {run.status}; lower its lr")
    task = prepare(config)
    shape = (NOISE, *task.form.input_size)
    noise = torch.rand(shape, generator=generator(0, "noise")).to(config.device)
    real, seen = (
        _features(run.model, data.to_float(images)) for images in (task.test_images, task.images)
    )
    limits = {
        "floor": frechet_distance(seen, real),
        "noise": frechet_distance(_features(run.model, noise), real),
        "real_inception": inception_score(_probabilities(run.model, real)),
        "accuracy": float(run.tables["history"].accuracy.iloc[-1]),
    }
    return Scorer(run.model, real, limits)


@torch.no_grad()
def _features(model: nn.Sequential, images: Tensor) -> Tensor:
    return torch.cat([model[:-1](chunk) for chunk in images.split(500)])


@torch.no_grad()
def _probabilities(model: nn.Sequential, features: Tensor) -> Tensor:
    return model[-1](features).double().softmax(dim=1)


def fidelity(images: Tensor, reference: Tensor, *, device: str = "cpu") -> dict[str, float]:
    """FID and inception score as they are published: in the features of Inception.

    In plain words: torch-fidelity computes them; it downloads Inception's weights (about 90 MB)
    the first time. Numbers compare with a paper's only for as many images as the paper took, of
    32x32 pixels: CIFAR-10's own size.

    Source: torch-fidelity, https://github.com/toshas/torch-fidelity.

    Arguments:
        images: generated, uint8 in three channels.
        reference: real ones, likewise.
        device: cpu or cuda.

    Shape:
        (N, 3, H, W), (M, 3, H, W) -> `fid`, `inception` and `inception_std` over ten splits

    Raises:
        ImportError: torch-fidelity is not installed; how to install it.
        ValueError: images of another type or shape.
    """
    for name, given in (("images", images), ("reference", reference)):
        check_images(given, name)
        if given.shape[1] != 3:
            raise ValueError(f"{name} must have 3 channels, found {given.shape[1]}")
    if importlib.util.find_spec("torch_fidelity") is None:
        raise ImportError("FID needs torch-fidelity: install it with `pip install -e '.[gan]'`")
    from torch_fidelity import calculate_metrics

    inputs = (_Images(given.cpu()) for given in (images, reference))
    found = calculate_metrics(
        **dict(zip(("input1", "input2"), inputs, strict=True)),
        cuda=device == "cuda",
        isc=True,
        fid=True,
        save_cpu_ram=True,  # the images lie in memory: no processes to read them
        verbose=False,
    )
    names = {"fid": "frechet_inception_distance", "inception": "inception_score_mean"}
    names |= {"inception_std": "inception_score_std"}
    return {name: float(found[long]) for name, long in names.items()}


class _Images(TensorDataset):
    """Images one by one, not in tuples."""

    def __getitem__(self, index: int) -> Tensor:
        return super().__getitem__(index)[0]
