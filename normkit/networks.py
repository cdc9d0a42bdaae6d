"""Networks by what a person types: a record's key, a checkpoint file, a name of torchvision."""

import contextlib
import dataclasses
import difflib
import threading
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from normkit import layers, models, training
from normkit.models.checks import input_normalization
from normkit.records import Record, Store
from normkit.records.tensors import CHECKPOINT, read_tensors

__all__ = ["Network", "Reading", "classifiers", "load", "load_classifier", "load_file",
           "load_record"]  # fmt: skip

Weights = dict[str, Tensor]
Note = dict[str, Any] | None
_ONE_AT_A_TIME = threading.RLock()


class Network(NamedTuple):
    """A network in evaluation mode on the CPU, what to call it, and what it was trained on."""

    name: str
    model: nn.Module
    input_size: tuple[int, ...]
    num_classes: int = 0
    dataset: str | None = None


@dataclasses.dataclass(frozen=True)
class Reading:
    """How weights that carry no configuration are read; None takes what is usual.

    Arguments:
        mean: of the images that the network standardizes, by channel.
        std: of these images.
        normalization: the kind of normalization, where its tensors do not tell.
        architecture: the classifier of torchvision that they belong to, if they do.
    """

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    normalization: str | None = None
    architecture: str | None = None


def classifiers() -> list[str]:
    """The names of torchvision's classifiers; of its other models some fetch weights unasked.

    Example:
        >>> "resnet18" in classifiers(), "fasterrcnn_resnet50_fpn" in classifiers()
        (True, False)
    """
    from torchvision import models as zoo

    return zoo.list_models(module=zoo)


def load(
    target: str,
    *,
    store: Store,
    size: tuple[int, ...] | None = None,
    classifiers: bool = True,
    reading: Reading = Reading(),
    ask: str = "input_size (C, H, W)",
    option: str = "{}",
) -> Network:
    """The network that `target` names: a file, else a record, else one of torchvision.

    Arguments:
        target: path of a checkpoint, beginning of a record's key, or a name of torchvision.
        store: where records are looked up.
        size: (C, H, W) of an image, for a network that does not tell it.
        classifiers: whether a name of torchvision is accepted.
        reading: how weights without a configuration are read.
        ask: what gives the size, for messages.
        option: how a field of `reading` is called, for messages.

    Raises:
        ValueError: nothing or several things have that name, or a file is not safe to read.
        StoreError: the record is damaged.
    """
    return _made(*_find(target, store, classifiers), size, reading, ask, option)


def load_file(
    path: Path,
    *,
    size: tuple[int, ...] | None = None,
    reading: Reading = Reading(),
    ask: str = "input_size (C, H, W)",
    option: str = "{}",
) -> Network:
    """The network in a checkpoint: a file of a store, or a state dict; nothing in it is run.

    Arguments:
        path: of the file.
        size: as for `load`, like all down to `option`.

    Raises:
        ValueError: no file, no checkpoint, not safe to read, or of no known net.
    """
    if not path.is_file():
        found = "is a folder" if path.is_dir() else "is not there"
        raise ValueError(f"{path} {found}; {CHECKPOINT}")
    return _made(str(path), *read_tensors(path), size, reading, ask, option)


def load_record(record: Record) -> Network:
    """The trained network of a record; ValueError if the run kept no weights."""
    return _made(*_recorded(record), None, Reading(), "", "{}")


def load_classifier(name: str, size: tuple[int, ...]) -> Network:
    """A classifier of torchvision for images (C, H, W); nothing is downloaded."""
    title = f"{name} of torchvision, its weights random (seed 0, nothing was downloaded)"
    return Network(title, _random(name), size)


def _made(
    name: str,
    weights: Weights | None,
    note: Note,
    size: tuple[int, ...] | None,
    reading: Reading,
    ask: str,
    option: str,
) -> Network:
    if note:
        for field, value in vars(reading).items():
            if value is not None:
                called = option.format(field)
                raise ValueError(f"{called} must be left out: {name} carries its configuration")
        return _rebuilt(name, weights, note)
    if size is None:
        raise ValueError(f"{name} does not say which images it is for: give {ask}")
    if weights is None:
        return load_classifier(name, size)
    read = _recognized if reading.architecture is None else _named
    return read(name, reading, weights, size)


def _find(target: str, store: Store, accepted: bool) -> tuple[str, Weights | None, Note]:
    """What to call the target; its tensors; what a store noted with them."""
    if Path(target).is_file():
        return target, *read_tensors(Path(target))
    keys = [key for key in store.keys() if key.startswith(target)]
    if len(keys) > 1:
        raise ValueError(f"{target!r} begins several keys, type more of it: {', '.join(keys)}")
    if keys:
        return _recorded(store.open(keys[0]))
    zoo, more = (classifiers(), " and no classifier of torchvision") if accepted else ([], "")
    known = store.keys() + zoo
    if target in known:
        return target, None, None
    like = difflib.get_close_matches(target, known, n=1, cutoff=0)
    near = f"; nearest: {like[0]!r}" if known else ", which is empty"
    raise ValueError(f"{target!r} is no file{more} and begins no key in {store.root}{near}")


def _recorded(record: Record) -> tuple[str, Weights, Note]:
    if not (weights := record.weights()):
        raise ValueError(f"record {record.key} kept no weights; it was only initialized")
    return f"record {record.key}", weights, {"config": record.config, "meta": record.meta}


class _InPlace(TorchFunctionMode):
    """Inside, tensors stay on the device where they are."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return args[0] if func is Tensor.to else func(*args, **(kwargs or {}))


def _rebuilt(name: str, weights: Weights, note: Note) -> Network:
    """The network whose configuration stands beside its weights.

    It is first made without memory, so that one which is larger than its weights never is.
    """
    try:
        config, form = note["config"], note["meta"]["form"]
        with torch.device("meta"), _InPlace(), _quiet():
            training.rebuild(config, form, weights)
        model, title = training.rebuild(config, form, weights), f"{config['model']} ({name})"
        return Network(
            title, model, tuple(form["input_size"]), form["num_classes"], config["dataset"]
        )
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError) as error:
        found = f"{type(error).__name__}: {error}"
        raise ValueError(f"{name} carries no configuration of a network ({found})") from error


def _recognized(
    name: str, reading: Reading, weights: Weights, size: tuple[int, ...]
) -> Network:
    made = layers.normalization(reading.normalization) if reading.normalization else None
    try:
        fit = models.fit_state_dict(weights, input_size=size[1:], normalization=made)
        model = models.build(fit.name, mean=reading.mean, std=reading.std, **fit.options)
        model.load_state_dict(fit.state)
    except (ValueError, RuntimeError, IndexError) as error:
        shapes = {key: tuple(weights[key].shape) for key in list(weights)[:3]}
        why = f"it holds {shapes}" if isinstance(error, IndexError) else error
        raise ValueError(f"{name} is of no net that is known here: {why}") from error
    size, classes = (fit.options["in_channels"], *size[1:]), fit.options["num_classes"]
    return Network(f"{fit.name} ({name})", model.eval(), size, classes)


def _named(name: str, reading: Reading, weights: Weights, size: tuple[int, ...]) -> Network:
    """A classifier of torchvision with these weights, of as many classes."""
    made, model = reading.architecture, _random(reading.architecture)
    head, last = list(model.state_dict().items())[-1]
    classes = len(weights.get(head, last))
    model = model if classes == len(last) else _random(made, classes)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        first = "; ".join(line.strip() for line in str(error).splitlines()[1:3])
        raise ValueError(f"{name} is no {made} of torchvision: {first}") from error
    first = input_normalization(reading.mean, reading.std, size[0])
    if not isinstance(first, nn.Identity):
        model = nn.Sequential(OrderedDict(normalize=first, net=model)).eval()
    return Network(f"{made} ({name})", model, size, classes)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No warnings; of several threads one at a time, since the filters belong to the process."""
    with _ONE_AT_A_TIME, warnings.catch_warnings(action="ignore"):
        yield


def _random(name: str, num_classes: int = 1000) -> nn.Module:
    from torchvision.models import get_model

    with torch.random.fork_rng(), _quiet():
        torch.manual_seed(0)
        return get_model(name, weights=None, num_classes=num_classes).eval()
