"""The comparisons of ConvNorm with other methods, at each profile's size."""

import dataclasses

from normkit.training import Adversary, GanConfig, TrainConfig

__all__ = ["SETTINGS", "Attack", "Experiments"]

TABLE = ("batch", "spectral_norm", "oni", "ocnn", "conv_norm")
PARTS = ("conv_norm_no_bn", "conv_norm_no_affine", "none")
RELEASED = ("conv_norm_released", "oni_released")
PAIR = ("batch", "conv_norm")


@dataclasses.dataclass(frozen=True)
class Attack:
    """How trained networks are attacked.

    Arguments:
        epsilon: linf radius, images in [0, 1].
        step_size: of PGD.
        images: number of test images for FGSM and PGD.
        queried: number of them for SPSA, which asks the network thousands of times an image.
        spsa_steps: its steps.
        spsa_samples: pairs of questions in one of its steps.
        stds: strengths of Gaussian noise, as a standard deviation of images in [0, 1].
    """

    epsilon: float
    step_size: float
    images: int
    queried: int
    spsa_steps: int
    spsa_samples: int
    stds: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Experiments:
    """All runs of a profile, each method at the learning rate chosen on images held out.

    Arguments:
        clean: what runs on the clean images share; another data set than `others` if given.
        free: what runs under free adversarial training share.
        noise: what runs on noisy labels share.
        scarce: what runs on few images share, of `fractions` of `images`.
        attack: how the networks of `free` are attacked.
        images: number of training images of all but `scarce`.
        methods: those of the clean comparison.
        robust: those of free adversarial training.
        others: a second data set, on which `batch` and `conv_norm` are compared.
        lrs: the choice of learning rates.
        choosing_epochs: epochs of the runs that choose.
        levels: fractions of labels, redrawn among the other classes.
        asymmetric: fractions, each class taken for one other.
        fractions: of the training images.
        scarce_steps: updates on few images, however few; None keeps the epochs.
        gan: the generative runs; None for none.
        gans: what is compared in the discriminator.
        seeds: repetitions.
        many: repetitions of noise and scarcity.
    """

    clean: TrainConfig
    free: TrainConfig
    noise: TrainConfig
    scarce: TrainConfig
    attack: Attack
    images: int
    methods: tuple[str, ...] = (*TABLE, *PARTS, *RELEASED)
    robust: tuple[str, ...] = TABLE
    others: TrainConfig | None = None
    lrs: tuple[float, ...] = (0.03, 0.1)
    choosing_epochs: int = 5
    levels: tuple[float, ...] = (0.2, 0.4, 0.6, 0.8)
    asymmetric: tuple[float, ...] = (0.4,)
    fractions: tuple[float, ...] = (0.1, 0.3, 0.7)
    gan: GanConfig | None = GanConfig(steps=400)
    gans: tuple[str, ...] = ("spectral_norm", "conv_norm", "conv_norm_spectral")
    scarce_steps: int | None = 100
    seeds: tuple[int, ...] = (5, 6, 7)
    many: tuple[int, ...] = (5, 6, 7, 8, 9)
    choosing: int = 100
    validation: float = 0.2


_DIGITS = TrainConfig(
    model="resnet8", width=8, epochs=12, weight_decay=1e-4, norms=(), final_norms=()
)
_QUICK = Experiments(
    clean=_DIGITS,
    free=dataclasses.replace(
        _DIGITS, epochs=6, adversary=Adversary("free", epsilon=0.1, step_size=0.1)
    ),
    noise=dataclasses.replace(_DIGITS, epochs=6),
    scarce=dataclasses.replace(_DIGITS, batch_size=32),
    attack=Attack(0.1, 0.025, 297, 60, 20, 16, (0.1, 0.2, 0.3, 0.4)),
    images=1500,
)
_TINY = {"epochs": 1, "subset": 128, "width": 4}


def _small(base: TrainConfig) -> TrainConfig:
    return dataclasses.replace(base, **_TINY)


_CIFAR = TrainConfig(
    dataset="cifar10",
    image_size=16,
    subset=3000,
    model="resnet8",
    width=16,
    epochs=20,
    weight_decay=1e-4,
    augment="crop_flip",
    norms=(),
    final_norms=(),
)
_PAPER = TrainConfig(
    dataset="cifar10",
    model="resnet18",
    width=64,
    epochs=120,
    lr=0.1,
    nesterov=False,
    weight_decay=1e-4,
    schedule="step",
    augment="crop_flip",
    standardize=True,
    norms=(),
    final_norms=(),
)
_EIGHT = 8 / 255

SETTINGS = {
    "smoke": dataclasses.replace(
        _QUICK,
        **{name: _small(getattr(_QUICK, name)) for name in ("clean", "free", "noise", "scarce")},
        attack=Attack(0.1, 0.05, 32, 16, 2, 8, (0.2, 0.4)),
        images=128,
        lrs=(0.1,),
        choosing_epochs=1,
        levels=(0.4, 0.8),
        fractions=(0.5,),
        scarce_steps=4,
        gan=dataclasses.replace(
            GanConfig(), steps=4, width=4, generator_width=4, score_images=64, evaluate_every=2
        ),
        many=(5, 6, 7),
    ),
    "quick": _QUICK,
    "cifar10": dataclasses.replace(
        _QUICK,
        clean=_CIFAR,
        free=dataclasses.replace(
            _CIFAR, epochs=8, adversary=Adversary("free", epsilon=_EIGHT, step_size=_EIGHT)
        ),
        noise=dataclasses.replace(_CIFAR, epochs=10),
        scarce=_CIFAR,
        attack=Attack(_EIGHT, 2 / 255, 1000, 60, 20, 32, (0.05, 0.1, 0.2)),
        images=3000,
        methods=(*TABLE, "conv_norm_no_bn", "conv_norm_no_affine", "none"),
        levels=(0.2, 0.6),
        asymmetric=(),
        fractions=(),
        gan=None,
    ),
    "paper": dataclasses.replace(
        _QUICK,
        clean=_PAPER,
        free=dataclasses.replace(
            _PAPER,
            epochs=30,
            adversary=Adversary("free", epsilon=_EIGHT, step_size=_EIGHT),
        ),
        noise=_PAPER,
        scarce=_PAPER,
        others=dataclasses.replace(_PAPER, dataset="cifar100", epochs=150, milestones=(0.4, 0.8)),
        attack=Attack(_EIGHT, 2 / 255, 10_000, 1000, 100, 128, (0.05, 0.1, 0.2)),
        images=50_000,
        methods=("own", "operator_norm", "conv_norm_bare", *_QUICK.methods),
        lrs=(0.1,),
        choosing_epochs=1,
        asymmetric=(0.2, 0.4),
        fractions=(0.1, 0.3, 0.5, 0.7),
        scarce_steps=None,
        gan=GanConfig(
            dataset="cifar10",
            width=64,
            generator_width=64,
            latent=128,
            batch_size=64,
            steps=100_000,
            critic_steps=5,
            lr_generator=2e-4,
            lr_discriminator=2e-4,
            schedule="constant",
            evaluate_every=5_000,
            score_images=10_000,
        ),
        seeds=(6, 8, 10, 666),
        many=(0, 1, 2, 3, 4),
    ),
}
