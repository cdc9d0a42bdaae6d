"""What a run is: frozen, complete, and checked before anything starts."""

import dataclasses
from collections.abc import Callable, Sequence

from normkit import data, layers, models, probes, records

from .checks import known, not_negative, positive, typed
from .parts import Adversary, ConvolutionOptions, Evaluation, Penalty, Projection
from .source import dataset

__all__ = ["TrainConfig"]

OBJECTIVES = ("classification", "reconstruction")
SHORTCUTS = ("conv1x1", "conv3x3", "pad", "all_conv1x1")
OPTIMIZERS = ("sgd", "adam")
PRECISIONS = ("float32", "bfloat16")
SCHEDULES = ("constant", "linear", "one_cycle", "step")
NORMS = ("l1", "linf", "spectral", "frobenius", "stable_rank")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """One run, complete: the same configuration gives the same numbers on a CPU.

    Arguments:
        dataset: a name of `data.NAMES`.
        image_size: height and width to which images are averaged down or repeated up; None keeps.
        subset: number of training images, stratified by class; None takes all.
        validation: fraction of training images held out, evaluated in place of the test images.
        test_once: measure the test images, too, once: after the last epoch.
        fresh_statistics: after the last epoch and before it is measured, estimate BatchNorm's
            running statistics afresh, over one pass of the training images. They follow the
            weights some ten steps behind, and what is evaluated is else not what was trained.
        label_noise: fraction of training labels that are changed.
        label_noise_kind: symmetric or asymmetric.
        label_noise_variant: paper or released, where the authors' code differs.
        objective: classification (cross-entropy), or reconstruction: the mean squared error per
            pixel between the network's output and the augmented image in [0, 1]; the history's
            `loss` is then that of the evaluation images, and every accuracy is NaN.
        model: a name of `models.NAMES`.
        width: channels of the first stage; None is the published one.
        depth: number of layers, for the nets that have a choice; None is their default.
        shortcut: of residual nets: conv1x1, conv3x3, pad (option A) or all_conv1x1 (option C: a
            convolution on every block).
        skip_init: a learned scale, zero at first, on every residual branch.
        preactivation: residual blocks that normalize and activate before each convolution.
        activation_before_sum: residual blocks that activate the branch, not the sum.
        bias: hidden layers have one.
        initialization: he (normal, fan_in), he_all (the head, too) or torch (its default, about
            2.4 times smaller).
        normalization: a key of `layers.NORMALIZATIONS`; with its activation, see `layers.pair`.
        groups: number of groups, for the normalizations that have them.
        group_size: channels in a group, in place of `groups`.
        variant: paper or released, for the normalizations that differ in the authors' code.
        convolution: a key of `layers.CONVOLUTIONS`; hidden linear layers follow, where
            `layers.linear` has such. conv_norm brings its own BatchNorm: normalization none.
        convolution_options: what it is told beside its shape.
        standardize: the first layer subtracts the training set's mean and divides by its
            deviation, by channel.
        optimizer: sgd or adam.
        lr: peak learning rate.
        momentum: of sgd.
        nesterov: Nesterov's form of it.
        weight_decay: the L2 penalty as the optimizer applies it.
        batch_size: images in a batch.
        epochs: passes over the training images; 0 only initializes (and probes).
        schedule: constant, linear (to 0), one_cycle (up for a quarter, then linearly to 0) or
            step (x0.1 at each of `milestones`).
        milestones: fractions of the run, for schedule "step".
        warmup_epochs: linear warm-up before the schedule takes over.
        augment: a name of `data.AUGMENTATIONS`.
        seed: of everything random in the run.
        device: cpu or cuda (see `resolve_device` for "auto").
        precision: of the training steps: float32, or bfloat16 where torch's autocast takes it
            (weights, updates and what is measured stay float32).
        penalty: what is done to gradients.
        projection: what changes weights after a step.
        adversary: how training images are attacked.
        evaluation: when accuracy is measured, and the attack that measures robust accuracy.
        norms: which norms of every layer are kept as epochs go by, of `NORMS`.
        norms_every: epochs from one look at the norms to the next; the last is always kept.
        final_norms: which are kept once more after the last epoch.
        probes: measures of `probes.PROBES`, taken in training mode.
        probe_every: steps between probes; 0 probes only before the first step.
        probe_on: fixed (the same training images each time) or training (the batch at hand,
            while the step is made: costs little, and only without an adversary).
        probe_images: size of the fixed batch.

    Raises:
        ValueError: a value that is not accepted, named with what is.
        TypeError: a value of another type.

    Example:
        >>> TrainConfig(normalization="group", groups=8, epochs=10).normalization
        'group'
        >>> TrainConfig(model="resnet19")
        Traceback (most recent call last):
        ...
        ValueError: model 'resnet19' is not known; nearest: 'resnet18'; accepted: ...
    """

    dataset: str = "digits"
    image_size: int | None = None
    subset: int | None = None
    validation: float = 0.0
    test_once: bool = False
    fresh_statistics: bool = False
    label_noise: float = 0.0
    label_noise_kind: str = "symmetric"
    label_noise_variant: str = "paper"
    objective: str = "classification"
    model: str = "resnet8"
    width: int | None = 8
    depth: int | None = None
    shortcut: str = "conv1x1"
    skip_init: bool = False
    preactivation: bool = False
    activation_before_sum: bool = False
    bias: bool = False
    initialization: str = "he"
    normalization: str = "batch"
    groups: int | None = None
    group_size: int | None = None
    variant: str = "paper"
    convolution: str = "conv"
    convolution_options: ConvolutionOptions = ConvolutionOptions()
    standardize: bool = False
    optimizer: str = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    batch_size: int = 128
    epochs: int = 20
    schedule: str = "one_cycle"
    milestones: tuple[float, ...] = (1 / 3, 2 / 3)
    warmup_epochs: float = 0.0
    augment: str = "shift"
    seed: int = 0
    device: str = "cpu"
    precision: str = "float32"
    penalty: Penalty = Penalty()
    projection: Projection = Projection()
    adversary: Adversary = Adversary()
    evaluation: Evaluation = Evaluation()
    norms: tuple[str, ...] = ("l1", "linf")
    norms_every: int = 1
    final_norms: tuple[str, ...] = NORMS
    probes: tuple[str, ...] = ()
    probe_every: int = 0
    probe_on: str = "fixed"
    probe_images: int = 64

    def __post_init__(self):
        typed(self)
        _check_names(self)
        positive(self, "", ("image_size", "subset", "width", "depth", "groups", "lr"))
        positive(self, "", ("group_size", "batch_size", "probe_images", "norms_every"))
        not_negative(self, "", ("epochs", "warmup_epochs", "probe_every"))
        not_negative(self, "", ("weight_decay", "momentum"))
        for name in ("validation", "label_noise"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be in [0, 1)")
        _check_objective(self)
        if self.test_once and (self.evaluation.every or not self.validation):
            found = f"validation {self.validation:g}, evaluation.every {self.evaluation.every}"
            raise ValueError(f"test_once needs images held out, one attack at the end; {found}")
        if self.warmup_epochs > self.epochs:
            found = f"warmup_epochs is {self.warmup_epochs:g}, epochs {self.epochs}"
            raise ValueError(f"{found}; the warm-up must fit into the run")
        self.convolve()
        self.pair()
        if self.probe_on == "training" and (self.adversary.kind != "none" or not self.epochs):
            found = f"adversary.kind {self.adversary.kind!r} and {self.epochs} epochs"
            raise ValueError(f"probe_on 'training' needs plain training steps, not {found}")

    def pair(self) -> layers.Pair:
        """What stands after a convolution: normalization and activation."""
        grouping = {name: getattr(self, name) for name in ("groups", "group_size", "variant")}
        own = self.convolution_options.batch_norm
        return layers.pair(self.normalization, self.convolution, batch_norm=own, **grouping)

    def convolve(self) -> Callable:
        """The constructor of the convolutions."""
        options = dataclasses.asdict(self.convolution_options)
        return layers.convolution(self.convolution, **options)

    def dependencies(self) -> dict[str, str]:
        """What the result depends on beside the fields: the data's and the code's hashes."""
        code = records.code_hashes("normkit.training").items()
        found = {name: value for name, value in code if not name.startswith("normkit.records")}
        return {f"data {self.dataset}": dataset(self.dataset).fingerprint()} | found


def _check_names(config: TrainConfig) -> None:
    accepted: dict[str, Sequence[str]] = {
        "dataset": data.NAMES,
        "label_noise_kind": ("symmetric", "asymmetric"),
        "label_noise_variant": layers.VARIANTS,
        "objective": OBJECTIVES,
        "model": models.NAMES,
        "shortcut": SHORTCUTS,
        "initialization": models.INITIALIZATIONS,
        "normalization": tuple(layers.NORMALIZATIONS),
        "convolution": tuple(layers.CONVOLUTIONS),
        "optimizer": OPTIMIZERS,
        "schedule": SCHEDULES,
        "variant": layers.VARIANTS,
        "probe_on": ("fixed", "training"),
        "augment": tuple(data.AUGMENTATIONS),
        "device": ("cpu", "cuda"),
        "precision": PRECISIONS,
    }
    for field, names in accepted.items():
        known(field, getattr(config, field), names)
    for field in ("norms", "final_norms"):
        for name in getattr(config, field):
            known(field, name, NORMS)
    for name in config.probes:
        known("probes", name, tuple(probes.PROBES))


def _check_objective(config: TrainConfig) -> None:
    """Refuse a net that does not fit the objective, and what only a classification has."""
    rebuilt = config.objective == "reconstruction"
    if rebuilt != (config.model in models.RECONSTRUCTING):
        gives = "images" if rebuilt else "logits"
        fits = f"reconstruction: {', '.join(models.RECONSTRUCTING)}; classification: the others"
        raise ValueError(
            f"objective {config.objective!r} needs a net that gives {gives}, and model "
            f"{config.model!r} does not; {fits}"
        )
    asked = {
        f"adversary.kind {config.adversary.kind!r}": config.adversary.kind != "none",
        f"evaluation.epsilon {config.evaluation.epsilon:g}": config.evaluation.epsilon > 0,
        f"label_noise {config.label_noise:g}": config.label_noise > 0,
        f"probes {', '.join(config.probes)}": config.probes,
        "test_once True": config.test_once,
    }
    for found, given in asked.items():
        if rebuilt and given:
            raise ValueError(f"objective 'reconstruction' has no labels to use: leave out {found}")
