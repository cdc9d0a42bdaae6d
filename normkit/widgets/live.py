"""A module that lives in the notebook, as a network: looked at as it is, never changed."""

import contextlib
import copy
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from normkit import training
from normkit.networks import Network
from normkit.norms.inputs import FAULTS, weighted_layers

from .finite import check_finite

__all__ = ["evaluating", "network_of", "tried", "twin"]

GRAY, COLOR = (8, 28, 32, 224), (32, 224, 28, 8)  # usual sizes, likeliest first
ASK = "give input_size=(C, H, W)"


def network_of(
    model: nn.Module,
    input_size: tuple[int, ...] | None = None,
    dataset: str | None = None,
    name: str = "your model",
) -> Network:
    """A module as a network, which is the module itself: no copy, no mode or buffer changed.

    *In plain words:* one image of zeros must go through it. Where no size is given it is that of
    the data set, or the first usual one that works: 8, 28, 32, 224 pixels for one channel, 32,
    224, 28, 8 for more; for a first linear layer also the square images and the vector that have
    as many values as it takes.

    Arguments:
        model: on the CPU.
        input_size: of one image, (C, H, W).
        dataset: a name of `data.NAMES`, for test images.
        name: what to call it.

    Raises:
        TypeError: not a module.
        ValueError: weights that are not finite, not on the CPU or not there yet; a size that the
            module does not take, or none found.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4 * 26 * 26, 5))
        >>> found = network_of(net)
        >>> found.model is net, net.training, found.input_size, found.num_classes
        (True, True, (1, 28, 28), 5)
    """
    if not isinstance(model, nn.Module):
        found = f"a class, {model.__name__}" if isinstance(model, type) else type(model).__name__
        raise TypeError(f"{name} is {found}; give an nn.Module")
    _check_place(model, name)
    if input_size is None and dataset is not None:
        input_size = training.dataset(dataset).input_size
    if input_size is not None:
        return tried(Network(name, model, _shape(input_size), 0, dataset))
    check_finite(Network(name, model, ()))
    sizes, reason = _usual(model), "no layer tells its input"
    for size in sizes:
        try:
            return tried(Network(name, model, size))
        except ValueError as error:
            reason = f"at last: {error.__cause__}"
    tested = f" and it takes none of {', '.join(map(_times, sizes))}" if sizes else ""
    raise ValueError(f"{name} does not say which images it is for{tested}; {ASK} ({reason})")


def tried(network: Network) -> Network:
    """The same network, once one image of zeros went through it; its classes, if it told none.

    Raises:
        ValueError: weights that are not finite, or a forward pass that fails.

    Example:
        >>> tried(Network("mine", nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), (1, 2, 2)))[3]
        3
    """
    check_finite(network)
    try:
        with evaluating(network.model), torch.random.fork_rng(devices=[]):
            output = network.model(torch.zeros(1, *network.input_size))
    except FAULTS as error:
        given, first = _times(network.input_size), next(iter(str(error).splitlines()), "no reason")
        raise ValueError(
            f"{network.name} does not take float32 images of {given}{_wanted(network.model)}; "
            f"another input size (C, H, W) is needed (torch says: {first})"
        ) from error
    if not network.num_classes and isinstance(output, Tensor) and output.dim() == 2:
        return network._replace(num_classes=output.shape[1])
    return network


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; every module's mode and buffers return as they were.

    Example:
        >>> layer = nn.BatchNorm1d(2)
        >>> with evaluating(layer):
        ...     layer.training
        False
        >>> layer.training
        True
    """
    modes = {module: module.training for module in model.modules()}
    kept = [
        (module, name, buffer, buffer.detach().clone())
        for module in modes
        for name, buffer in module.named_buffers(recurse=False)
    ]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for module, name, buffer, before in kept:
            if not torch.equal(buffer, before):
                with torch.no_grad():
                    buffer.copy_(before)
            if getattr(module, name) is not buffer:
                setattr(module, name, buffer)


def twin(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode, to be run where the module itself must not change.

    Example:
        >>> layer = nn.BatchNorm1d(2)
        >>> twin(layer).training, layer.training
        (False, True)
    """
    values = [value for part in model.modules() for value in vars(part).values()]
    made = [value for value in values if isinstance(value, Tensor) and not value.is_leaf]
    known = {id(value): value.detach().clone() for value in made}  # torch copies leaves only
    return copy.deepcopy(model, known).eval()


def _check_place(model: nn.Module, name: str) -> None:
    for key, value in (*model.named_parameters(), *model.named_buffers()):
        if nn.parameter.is_lazy(value):
            raise ValueError(f"{name}: {key} is not initialized; run the model once first")
        if value.device.type != "cpu":
            raise ValueError(
                f"{name}: {key} is on {value.device}, and what is shown is computed on the CPU; "
                "give copy.deepcopy(model).cpu()"
            )


def _shape(size: Any) -> tuple[int, ...]:
    listed = isinstance(size, tuple | list) and len(size) > 0
    if not listed or not all(isinstance(n, int) and n > 0 for n in size):
        raise ValueError(f"input_size is {size!r}; it must be (C, H, W) in positive integers")
    return tuple(size)


def _first(model: nn.Module) -> tuple[str, int] | None:
    """What the first layer that tells its input counts, and how many it wants."""
    for _, layer in weighted_layers(model):
        for attribute in ("in_channels", "in_features"):
            if isinstance(count := vars(layer).get(attribute), int):
                return attribute.removeprefix("in_"), count
    return None


def _usual(model: nn.Module) -> list[tuple[int, ...]]:
    if not (first := _first(model)):
        return []
    what, count = first
    if what == "channels":
        return [(count, side, side) for side in (GRAY if count == 1 else COLOR)]
    sides = ((channels, math.isqrt(count // channels)) for channels in (1, 3))
    square = [(c, side, side) for c, side in sides if c * side * side == count]
    return [*square, (count,)]


def _wanted(model: nn.Module) -> str:
    first = _first(model)
    return f" (its first layer wants {first[1]} {first[0]})" if first else ""


def _times(size: tuple[int, ...]) -> str:
    return " x ".join(map(str, size))
