"""What a batch of images looks like at each layer: of a network, and of one not yet trained."""

import dataclasses

import pandas as pd
import torch
import torch.nn.functional as F
from torch import nn

from normkit.networks import Network
from normkit.papers import beyond_batchnorm
from normkit.probes import ACTIVATIONS, LINEAR_MAPS, record
from normkit.training import TrainConfig, train

from .finite import check_finite
from .images import test_images
from .live import twin

__all__ = ["FORWARD", "GROUPED", "initial_config", "measure_initial", "measure_layers",
           "outputs_of"]  # fmt: skip

FORWARD = ("activation_variance", "stable_rank", "cosine_similarity")
GROUPED = ("group", "evonorm_s0")
STACK = r"layers\.\d+\.\w+"  # what Beyond BatchNorm measures of a stack: not its ends


def measure_layers(network: Network, count: int, *, gradient: bool = False) -> pd.DataFrame:
    """Variance, stable rank and cosine similarity of a batch's activations at every layer.

    *In plain words:* a copy of the network in evaluation mode sees test images; what it says of
    each other layer's outputs stands in one table. The gradient is that of the mean
    cross-entropy by a layer's outputs, with the images' labels, or with the classes that the
    network itself names where its classes are not known.

    Arguments:
        network: stays as it is.
        count: images in the batch.
        gradient: the norm of the gradient instead, at convolutions and linear layers.

    Returns:
        columns layer (qualified name), measure, value, position (among the layers, from 1).

    Raises:
        ValueError: weights are not finite, the network does not take the images, nothing in it
            can be measured, or it gives no classes.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
        >>> network = Network("mine", model, (1, 8, 8), 10, "digits")
        >>> measure_layers(network, 16).measure.tolist()
        ['activation_variance', 'stable_rank', 'cosine_similarity']
        >>> measure_layers(network, 16, gradient=True)[["layer", "position"]].values.tolist()
        [['0', 1], ['3', 2]]
    """
    check_finite(network)
    images, labels, _ = test_images(network, count)
    model = twin(network.model).requires_grad_(False)
    images.requires_grad_(gradient)
    measures = ("gradient_norm",) if gradient else FORWARD
    with (
        record(model, measures, layers=_targets(network.name, model, gradient)) as recording,
        torch.set_grad_enabled(gradient),
    ):
        outputs = outputs_of(network._replace(model=model), images)
        if gradient:
            _backward(network, outputs, labels, images)
    return _placed(recording.table())


def _targets(name: str, model: nn.Module, gradient: bool) -> list[str] | None:
    """None where activations are modules, which are found; else the layers that hold weights."""
    wanted = LINEAR_MAPS if gradient else ACTIVATIONS
    if any(isinstance(part, wanted) for part in model.modules()):
        return None
    names = [key for key, part in model.named_modules() if isinstance(part, LINEAR_MAPS)]
    if not names:
        raise ValueError(f"{name} has no activation, convolution or linear layer to measure")
    return names


def outputs_of(network: Network, images: torch.Tensor) -> torch.Tensor:
    """What a network says of images, in the mode that it is in.

    Raises:
        ValueError: it does not take them, or gives no tensor.
    """
    try:
        outputs = network.model(images.clone())
    except RuntimeError as error:
        size = " x ".join(map(str, network.input_size))
        raise ValueError(f"{network.name} does not take images of {size}: {error}") from error
    if not isinstance(outputs, torch.Tensor):
        raise ValueError(f"{network.name} gives a {type(outputs).__name__}, not one tensor")
    return outputs


def _backward(
    network: Network, outputs: torch.Tensor, labels: torch.Tensor | None, images: torch.Tensor
) -> None:
    if outputs.ndim != 2:
        raise ValueError(f"{network.name} gives no classes (N, C), so it has no cross-entropy")
    labels = outputs.argmax(1) if labels is None else labels
    torch.autograd.grad(F.cross_entropy(outputs, labels), images)


def _placed(table: pd.DataFrame) -> pd.DataFrame:
    position = table.groupby("measure").cumcount() + 1
    return table.drop(columns="step").assign(position=position)


def initial_config(
    normalization: str, groups: int | None, *, depth: int, width: int, count: int, gradient: bool
) -> TrainConfig:
    """The run that only initializes a plain stack, and probes it in training mode.

    Source: Lubana et al., "Beyond BatchNorm", NeurIPS 2021, https://arxiv.org/abs/2106.05956.

    Example:
        >>> initial_config("batch", 4, depth=6, width=8, count=16, gradient=False).groups is None
        True
    """
    return dataclasses.replace(
        beyond_batchnorm.SETTINGS["quick"].base,
        model="uniform",
        normalization=normalization,
        groups=groups if normalization in GROUPED else None,
        depth=depth,
        width=width,
        probes=("gradient_norm",) if gradient else FORWARD,
        probe_images=count,
    )


def measure_initial(config: TrainConfig) -> pd.DataFrame:
    """What the probes see of a stack before any training; columns as of `measure_layers`.

    Example:
        >>> config = initial_config("layer", None, depth=6, width=8, count=16, gradient=True)
        >>> measure_initial(config).position.tolist()
        [1, 2, 3, 4, 5, 6]
    """
    table = train(config).tables["probes"]
    return _placed(table[table.layer.str.fullmatch(STACK)].reset_index(drop=True))
