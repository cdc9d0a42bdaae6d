"""The images, labels and network of a run, prepared as its configuration says."""

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from normkit import data, layers, models, records

from .alone import seeded
from .config import TrainConfig
from .settings import from_dict
from .source import dataset

__all__ = [
    "Form",
    "Task",
    "build_model",
    "generator",
    "prepare",
    "rebuild",
    "resolve_device",
    "restore",
]


@dataclasses.dataclass(frozen=True)
class Task:
    """Training and evaluation images: uint8 (N, C, H, W), and their labels, on one device.

    `final` are the images and labels on which the trained network is judged, where these are
    others than those on which it is watched.
    """

    images: Tensor
    labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    final: tuple[Tensor, Tensor]
    form: "Form"


@dataclasses.dataclass(frozen=True)
class Form:
    """What a network must know of its images before it can be built.

    `mean` and `std`, by channel, are None where the first layer does not standardize.
    """

    input_size: tuple[int, ...]
    num_classes: int
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


def generator(seed: int, stream: str) -> torch.Generator:
    """A CPU generator of its own for every purpose of a run.

    The order of batches does then not depend on how many numbers an attack has drawn, so runs of
    the same seed see the same batches.

    Example:
        >>> draws = [torch.rand(1, generator=generator(0, s)).item() for s in ("order", "attack")]
        >>> draws[0] != draws[1]
        True
    """
    state = int(records.digest([seed, stream])[:15], 16)
    return torch.Generator().manual_seed(state)


def resolve_device(name: str) -> str:
    """\"auto\" as the device that is there: cuda where torch sees one, else cpu.

    Raises:
        ValueError: another name than auto, cpu or cuda, or cuda where there is none.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device {name!r} is not known; accepted: auto, cpu, cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device 'cuda' was asked for and torch sees none; accepted here: cpu")
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def prepare(config: TrainConfig) -> Task:
    """Resize, choose and relabel images; all on the configured device.

    Raises:
        ValueError: a subset larger than the training set, a size that does not divide, or more
            targets than classes.
    """
    source = dataset(config.dataset)
    images, labels = source.train_images, source.train_labels
    test_images, test_labels = final = source.test_images, source.test_labels
    if config.subset is not None:
        chosen = data.subset(labels, config.subset, generator(config.seed, "subset"))
        images, labels = images[chosen], labels[chosen]
    if config.validation:
        stream = generator(config.seed, "validation")
        kept, held = data.split_validation(labels, config.validation, stream)
        test_images, test_labels = images[held], labels[held]
        images, labels = images[kept], labels[kept]
    if config.label_noise:
        labels = data.noisy_labels(
            labels,
            config.label_noise,
            kind=config.label_noise_kind,
            num_classes=source.num_classes,
            generator=generator(config.seed, "noise"),
            flips=data.LABEL_FLIPS.get(config.dataset),
            variant=config.label_noise_variant,
        )
    _check(config, len(images), source.num_classes)
    images, test_images = (_sized(part, config.image_size) for part in (images, test_images))
    judged = (_sized(final[0], config.image_size), final[1]) if config.test_once else ()
    judged = judged or (test_images, test_labels)
    form = _form(images, source.num_classes, config.standardize)
    parts = (images, labels, test_images, test_labels, *judged)
    *watched, last, truth = (part.to(config.device) for part in parts)
    return Task(*watched, final=(last, truth), form=form)


def _check(config: TrainConfig, images: int, num_classes: int) -> None:
    attack = config.evaluation
    if images < 2:
        raise ValueError(f"{images} training image is left; training takes at least 2")
    if attack.attack == "apgd" and attack.epsilon and attack.targets >= num_classes:
        found = f"evaluation.targets is {attack.targets}; of {num_classes} classes"
        raise ValueError(f"{found} at most {num_classes - 1} can be aimed at")


def _sized(images: Tensor, size: int | None) -> Tensor:
    return images if size is None else data.resize(images, size)


def _form(images: Tensor, num_classes: int, standardize: bool) -> Form:
    form = Form(tuple(images.shape[1:]), num_classes)
    if not standardize:
        return form
    pixels = data.to_float(images)
    mean, std = pixels.mean(dim=(0, 2, 3)), pixels.std(dim=(0, 2, 3))
    return dataclasses.replace(form, mean=tuple(mean.tolist()), std=tuple(std.tolist()))


def build_model(config: TrainConfig, form: Form) -> nn.Module:
    """The configured network for images of a form, its weights drawn from the run's seed."""
    channels, *size = form.input_size
    pair = config.pair()
    with seeded(config.seed):
        model = models.build(
            config.model,
            num_classes=form.num_classes,
            in_channels=channels,
            input_size=tuple(size),
            width=config.width,
            depth=config.depth,
            normalization=pair.normalization,
            activation=pair.activation,
            convolution=config.convolve(),
            bias=config.bias,
            shortcut=config.shortcut,
            skip_init=config.skip_init,
            preactivation=config.preactivation,
            activation_before_sum=config.activation_before_sum,
            initialization=config.initialization,
            mean=form.mean,
            std=form.std,
            linear=layers.linear(config.convolution),
        )
    return model.to(config.device, memory_format=torch.channels_last)


def restore(record: records.Record) -> nn.Module:
    """The trained network of a record, on the CPU, in evaluation mode; needs no images.

    Raises:
        ValueError: a record that kept no weights.
    """
    weights = record.weights()
    if not weights:
        raise ValueError(f"record {record.key} kept no weights; it was only initialized")
    return rebuild(record.config, record.meta["form"], weights)


def rebuild(config: Mapping, form: Mapping, weights: Mapping[str, Tensor]) -> nn.Module:
    """A network from the plain values that stand in a record, or in the file of its weights.

    Raises:
        ValueError: a configuration of another version, or weights that do not fit it.
    """
    chosen = dataclasses.replace(from_dict(config), device="cpu")
    plain = {k: tuple(v) if isinstance(v, list) else v for k, v in form.items()}
    model = build_model(chosen, Form(**plain))
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        first = str(error).splitlines()[1:2] or [str(error)]
        raise ValueError(f"weights do not fit {chosen.model}: {first[0].strip()}") from error
    return model.eval()
