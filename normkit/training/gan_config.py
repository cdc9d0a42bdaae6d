"""What a run of a generative adversarial network is: frozen, complete, and checked."""

import dataclasses

from normkit import data

from .checks import known, positive, typed
from .config import TrainConfig

__all__ = ["DISCRIMINATORS", "GanConfig"]

DISCRIMINATORS = ("spectral_norm", "conv_norm", "conv_norm_spectral", "batch", "none")
CONV_NORMS = ("conv_norm", "conv_norm_spectral")
LOSSES = ("hinge", "non_saturating")
SCHEDULES = ("constant", "linear")


@dataclasses.dataclass(frozen=True)
class GanConfig:
    """One generative adversarial run, complete: the same one gives the same numbers on a CPU.

    The nets are those of `models.gan`. A step updates the discriminator `critic_steps` times, on
    a batch of real images and one of generated images which BatchNorm sees apart, then the
    generator once, both with Adam. All discriminators of a seed meet the same first generator,
    the same batches and the same noise.

    Source: Miyato et al. 2018, arXiv 1802.05957 (nets, hinge loss, betas); Goodfellow et al. 2014,
    arXiv 1406.2661 (non-saturating loss). The code that Liu et al. released with arXiv 2103.00673
    has no GAN: that ConvNorm stands for every convolution of the discriminator is a reading.

    Deviation: one critic step and larger, linearly falling learning rates by default, where
    Miyato et al. take five at a constant 2e-4; a BatchNorm in ConvNorm only if asked for.

    Arguments:
        dataset: a name of `data.NAMES`.
        image_size: height and width to which images are averaged down or repeated up; None keeps.
        subset: number of training images, stratified by class, the same for every seed; None
            takes all.
        discriminator: what its layers are normalized by: spectral_norm, conv_norm,
            conv_norm_spectral (both, see `spectral_conv_norm`), batch or none. Where it is
            spectral, the last, linear layer is normalized, too.
        batch_norm: of both kinds of conv_norm: whether each layer ends in a BatchNorm, as in the
            authors' code by default.
        filter_norm: of conv_norm_spectral: normalize the filter r, too.
        width: channels of the discriminator's first map.
        generator_width: channels of the generator's last map.
        latent: numbers in a noise vector, standard normal.
        loss: hinge or non_saturating.
        lr_generator: learning rate of the generator.
        lr_discriminator: learning rate of the discriminator.
        betas: of Adam.
        schedule: constant, or linear: both learning rates fall to 0.
        batch_size: real images, and generated ones, in a batch; a last, smaller batch of a pass
            is left out.
        steps: updates of the generator.
        critic_steps: updates of the discriminator for each of those.
        seed: of everything random in the run but the classifier.
        device: cpu or cuda.
        evaluate_every: steps from one look at the scores to the next; the last is always taken.
        score_images: how many images are generated for a look, from the same noise each time.
        classifier_width: of the ResNet-8 whose features judge images (see `Scorer`).
        classifier_epochs: for which it trains, on the same images, from seed 0.

    Raises:
        ValueError: a value that is not accepted, named with what is.
        TypeError: a value of another type.

    Example:
        >>> GanConfig(discriminator="conv_norm", steps=100).classifier().model
        'resnet8'
        >>> GanConfig(discriminator="spectral")
        Traceback (most recent call last):
        ...
        ValueError: discriminator 'spectral' is not known; nearest: 'spectral_norm'; accepted: ...
    """

    dataset: str = "digits"
    image_size: int | None = None
    subset: int | None = None
    discriminator: str = "spectral_norm"
    batch_norm: bool = False
    filter_norm: bool = False
    width: int = 16
    generator_width: int = 16
    latent: int = 32
    loss: str = "hinge"
    lr_generator: float = 2e-3
    lr_discriminator: float = 4e-3
    betas: tuple[float, ...] = (0.0, 0.9)
    schedule: str = "linear"
    batch_size: int = 32
    steps: int = 600
    critic_steps: int = 1
    seed: int = 0
    device: str = "cpu"
    evaluate_every: int = 100
    score_images: int = 1000
    classifier_width: int = 8
    classifier_epochs: int = 15

    def __post_init__(self):
        typed(self)
        known("dataset", self.dataset, data.NAMES)
        known("discriminator", self.discriminator, DISCRIMINATORS)
        known("loss", self.loss, LOSSES)
        known("schedule", self.schedule, SCHEDULES)
        known("device", self.device, ("cpu", "cuda"))
        positive(self, "", ("image_size", "subset", "width", "generator_width", "latent"))
        positive(self, "", ("lr_generator", "lr_discriminator", "batch_size", "steps"))
        positive(self, "", ("critic_steps", "evaluate_every", "score_images"))
        positive(self, "", ("classifier_width", "classifier_epochs"))
        for name in ("batch_size", "score_images"):
            if getattr(self, name) < 2:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 2")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas is {self.betas}; it must be two numbers in [0, 1)")
        for option, kinds in (("batch_norm", CONV_NORMS), ("filter_norm", CONV_NORMS[1:])):
            if getattr(self, option) and self.discriminator not in kinds:
                found = f"{option} is an option of {' and '.join(kinds)}"
                raise ValueError(f"{found}, and discriminator is {self.discriminator!r}")

    def classifier(self) -> TrainConfig:
        """How the classifier is trained in whose features images are judged."""
        return TrainConfig(
            dataset=self.dataset,
            image_size=self.image_size,
            subset=self.subset,
            width=self.classifier_width,
            epochs=self.classifier_epochs,
            device=self.device,
            norms=(),
            final_norms=(),
        )

    def dependencies(self) -> dict[str, str]:
        """What the result depends on beside the fields: the data's and the code's hashes."""
        return self.classifier().dependencies()
