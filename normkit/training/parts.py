"""The parts of a run's configuration: how it is attacked, judged, penalized and projected."""

import dataclasses

from .checks import known, not_negative, positive, typed

__all__ = ["Adversary", "ConvolutionOptions", "Evaluation", "Penalty", "Projection"]

ADVERSARIES = ("none", "pgd", "trades", "alp", "free")
ATTACKS = ("pgd", "apgd")
PENALTIES = ("none", "norm_decay", "path_sgd", "ocnn")
DECAYED = ("l1", "linf", "spectral")
KINDS = ("linear", "conv", "batch_norm")
PROJECTIONS = ("none", "norms", "singular_values", "enorm")
PROJECTED = ("l1", "linf")
TREATED = ("rescale", "ignore")
VARIANTS = ("paper", "released")


@dataclasses.dataclass(frozen=True)
class Adversary:
    r"""How training images are attacked.

    With $x'$ the image that the attack finds within `epsilon` (linf) of $x$:

    * `pgd`: $\mathrm{CE}(f(x'), y)$, the attack raises the cross-entropy;
    * `trades`: $\mathrm{CE}(f(x), y) + \beta\,\mathrm{KL}(f(x) \| f(x'))$, the attack raises KL;
    * `alp`: $\tfrac12 \mathrm{CE}(f(x), y) + \tfrac12 \mathrm{CE}(f(x'), y)
      + \beta\,\mathrm{mean}\,(z(x) - z(x'))^2$ on logits z, the attack raises the cross-entropy;
    * `free`: $\mathrm{CE}(f(x'), y)$ with $x' = \mathrm{clip}(x + \delta, 0, 1)$, `repeats` times
      in a row on each batch. The backward pass that gives a step its gradients gives the attack
      its own: $\delta \leftarrow \mathrm{clip}(\delta + \mathrm{step\_size}\,
      \mathrm{sign}\,\partial\mathrm{CE}/\partial\delta, -\epsilon, \epsilon)$.

    The network is in evaluation mode while it is attacked, in training mode when it learns; under
    `free` both are one, in training mode. There, `epochs` are passes over the images with
    `repeats` updates a batch (the paper divides its epochs by `repeats`). A batch is augmented
    once and keeps its learning rate, the training loss and accuracy are means over its updates,
    and a step, where probes or "diverged at step N" count steps, is a batch with all of them.

    Source: Madry et al. 2018; Zhang et al. 2019; Kannan et al. 2018; free: Shafahi et al. 2019,
        algorithm 1, https://arxiv.org/abs/1904.12843

    Deviation: of free, variant="released" follows github.com/shengliu66/ConvNorm.

    Arguments:
        kind: none, pgd, trades, alp or free.
        epsilon: radius, images in [0, 1].
        step_size: length of a step, images in [0, 1].
        steps: number of steps; free takes one at each update.
        beta: weight of the second term of trades and alp.
        repeats: of free: how many updates in a row a batch is used for.
        variant: of free: paper (the perturbation starts at zero once, and each batch inherits the
            last one's, by position in the batch) or released (at zero for each batch).
    """

    kind: str = "none"
    epsilon: float = 8 / 255
    step_size: float = 2 / 255
    steps: int = 7
    beta: float = 1.0
    repeats: int = 4
    variant: str = "paper"

    def __post_init__(self):
        typed(self)
        known("adversary.kind", self.kind, ADVERSARIES)
        known("adversary.variant", self.variant, VARIANTS)
        positive(self, "adversary.", ("epsilon", "step_size", "steps", "repeats"))
        not_negative(self, "adversary.", ("beta",))


@dataclasses.dataclass(frozen=True)
class ConvolutionOptions:
    """What a convolution is told beside its shape (see `normkit.layers.convolution`).

    Arguments:
        affine: of conv_norm, as the next three: whether it has a filter r.
        batch_norm: whether it brings a BatchNorm.
        filter_init: how r starts: delta or torch.
        filter_gain: how many times as large.
        variant: of conv_norm and oni: paper or released, where the authors' code differs.
        of: of spectral_norm: whose norm is divided by, the kernel's or the operator's.
    """

    affine: bool = True
    batch_norm: bool = True
    filter_init: str = "delta"
    filter_gain: float = 1.0
    variant: str = "paper"
    of: str = "kernel"

    def __post_init__(self):
        typed(self)
        known("convolution_options.filter_init", self.filter_init, ("delta", "torch"))
        known("convolution_options.variant", self.variant, VARIANTS)
        known("convolution_options.of", self.of, ("kernel", "operator"))
        positive(self, "convolution_options.", ("filter_gain",))


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """When accuracy is measured, and the linf attack that measures robust accuracy.

    Every run is attacked on the same images from the same starts: the first `images` of the
    evaluation set, or of the test images where they are measured, too.

    Arguments:
        attack: pgd; or apgd: APGD on the cross-entropy, then, on the images that resist, APGD on
            the difference of logits towards each of `targets` classes.
        epsilon: radius, images in [0, 1]; 0 measures no robust accuracy.
        step_size: length of a step of pgd, images in [0, 1]; apgd chooses its own.
        steps: number of steps.
        targets: how many classes the second attack of apgd aims at, the likeliest first.
        images: how many images, None for all.
        every: also attack after every so many epochs; 0 only after the last.
        clean_every: epochs from one measurement of the accuracy, or of a reconstruction's loss,
            to the next; 0 only after the last.
    """

    attack: str = "pgd"
    epsilon: float = 0.0
    step_size: float = 2 / 255
    steps: int = 20
    targets: int = 9
    images: int | None = None
    every: int = 0
    clean_every: int = 1

    def __post_init__(self):
        typed(self)
        known("evaluation.attack", self.attack, ATTACKS)
        not_negative(self, "evaluation.", ("epsilon", "every", "clean_every"))
        positive(self, "evaluation.", ("step_size", "steps", "targets", "images"))


@dataclasses.dataclass(frozen=True)
class Penalty:
    """What is done to the gradients of every step (see `normkit.penalties`).

    Arguments:
        kind: none; norm_decay; path_sgd, which divides them, weight decay included, by what
            the paths through each weight are worth; or ocnn, the gradient of how far every
            convolution is from an orthogonal one.
        norm: of norm_decay: l1, linf or spectral.
        beta: strength of norm_decay or ocnn.
        memory: of norm_decay, in [0, 1).
        include: of norm_decay: the kinds of layers that decay, of linear, conv and batch_norm.
    """

    kind: str = "none"
    norm: str = "l1"
    beta: float = 1e-3
    memory: float = 0.5
    include: tuple[str, ...] = ("linear", "conv")

    def __post_init__(self):
        typed(self)
        known("penalty.kind", self.kind, PENALTIES)
        known("penalty.norm", self.norm, DECAYED)
        not_negative(self, "penalty.", ("beta", "memory"))
        if self.memory >= 1:
            raise ValueError(f"penalty.memory is {self.memory}; it must be below 1")
        for kind in self.include:
            known("penalty.include", kind, KINDS)


@dataclasses.dataclass(frozen=True)
class Projection:
    """What changes the weights after a step (see `normkit.projections`).

    Arguments:
        kind: none; norms, to project every slice of every layer to a norm of at most `bound`;
            singular_values, to clip those of every linear layer and, on the torus, convolution;
            or enorm, to balance every hidden unit's incoming norm against its outgoing one.
        norm: of norms: l1 or linf.
        bound: the upper bound.
        every: steps from one projection, or enorm's balancing, to the next.
        alternate: of singular_values: how often clipping and truncation alternate; 0 clips once.
        batch_norm: upper bound of the norms of BatchNorm layers, met after every step; None
            leaves them alone.
        c: of enorm, as all below: how many times the incoming norm the outgoing one becomes.
        p: of the norms that are balanced, at least 1.
        cycles: passes over the network each time.
        biases: rescale (they follow their unit) or ignore (they stay, the function changes).
        through_batch_norm: rescale (BatchNorm's weights follow too) or ignore (likewise).
        variant: paper or released, where the authors' code differs.
    """

    kind: str = "none"
    norm: str = "linf"
    bound: float = 1.0
    every: int = 1
    alternate: int = 0
    batch_norm: float | None = None
    c: float = 1.0
    p: float = 2.0
    cycles: int = 1
    biases: str = "rescale"
    through_batch_norm: str = "rescale"
    variant: str = "paper"

    def __post_init__(self):
        typed(self)
        known("projection.kind", self.kind, PROJECTIONS)
        known("projection.norm", self.norm, PROJECTED)
        known("projection.biases", self.biases, TREATED)
        known("projection.through_batch_norm", self.through_batch_norm, TREATED)
        known("projection.variant", self.variant, VARIANTS)
        positive(self, "projection.", ("bound", "every", "batch_norm", "c", "p", "cycles"))
        if self.p < 1:
            raise ValueError(f"projection.p is {self.p}; it must be at least 1")
        not_negative(self, "projection.", ("alternate",))
