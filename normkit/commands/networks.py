"""Networks by what a person types: a record's key, a checkpoint file, a name of torchvision."""

import dataclasses
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .arguments import nearest

if TYPE_CHECKING:
    from torch import Tensor, nn

    from normkit.records import Record, Store
    from normkit.training import TrainConfig

__all__ = ["Bare", "Network", "find_record", "load", "read_checkpoint"]

INNER = ("state_dict", "model_state_dict", "model")


@dataclasses.dataclass(frozen=True)
class Bare:
    """What a checkpoint without a configuration does not tell, as given on the command line.

    Arguments:
        input_size: (C, H, W) of an image; None is not given.
        mean: of each channel, in [0, 1].
        std: of each channel, in [0, 1].
        normalization: a key of `layers.NORMALIZATIONS`.
        ask: the option that gives the input size, for messages.
    """

    input_size: tuple[int, ...] | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    normalization: str | None
    ask: str


@dataclasses.dataclass(frozen=True)
class Network:
    """A network in evaluation mode on the CPU, what to call it, and its configuration if known."""

    name: str
    model: "nn.Module"
    config: "TrainConfig | None" = None
    input_size: tuple[int, ...] | None = None


def load(target: str, store: "Store", bare: Bare, *, torchvision: bool = False) -> Network:
    """The network that a word names: first a file is looked for, then a record, then torchvision.

    Arguments:
        target: a path, the beginning of a key, or a name of torchvision.
        store: where records are looked for.
        bare: what is to be known of a checkpoint that carries no configuration.
        torchvision: whether torchvision's names count.

    Raises:
        ValueError: nothing or several things have that name, or the file is no checkpoint that
            is safe to read.
        StoreError: the record is damaged.
    """
    if Path(target).is_file():
        weights, values = read_checkpoint(Path(target))
        if values is None:
            return _recognized(target, weights, bare)
        return _configured(target, values, weights, bare)
    record = find_record(target, store)
    if record:
        if not record.weights():
            raise ValueError(f"record {record.key} kept no weights; it was only initialized")
        return _configured(f"record {record.key}", record.config, record.weights(), bare)
    names = _torchvision_names() if torchvision else []
    if target in names:
        return _random(target, bare)
    known = [*store.keys(), *names]
    near = f"; the nearest name is {nearest(target, known)}" if known else ", which is empty"
    more = " and torchvision has no such classifier" if torchvision else ""
    raise ValueError(f"{target!r} is no file and begins no key in {store.root}{more}{near}")


def find_record(key: str, store: "Store") -> "Record | None":
    """The record whose key begins so, None if there is none.

    Raises:
        ValueError: several keys begin so.
        StoreError: the record is damaged.
    """
    found = [name for name in store.keys() if name.startswith(key)]
    if len(found) > 1:
        shown = ", ".join(found[:3]) + (", ..." if len(found) > 3 else "")
        raise ValueError(f"{key!r} begins {len(found)} keys, type more of it: {shown}")
    return store.open(found[0]) if found else None


def read_checkpoint(path: Path) -> tuple[dict[str, "Tensor"], dict[str, Any] | None]:
    """The tensors of a file by name, and the configuration if it carries one.

    In plain words: nothing in the file is run. A `.safetensors` file cannot hold code; any other
    is read by `torch.load` with `weights_only=True`, and refused if that does.

    Arguments:
        path: the file.

    Raises:
        ValueError: the file is damaged or holds anything but tensors.
        OSError: it cannot be opened.
    """
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    import torch

    with open(path, "rb"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # the bytes may be anything, and so may the error
            raise ValueError(
                f"{path} is refused: torch.load(weights_only=True) does not read it "
                f"({type(error).__name__}), and anything else could run code from the file; if "
                "you trust it, convert its state dict with safetensors.torch.save_file"
            ) from error
    for name in INNER:
        if isinstance(loaded, dict) and isinstance(loaded.get(name), dict):
            loaded = loaded[name]
    if not isinstance(loaded, dict):
        raise ValueError(f"{path} holds a {type(loaded).__name__}, not a state dict")
    return {str(name).removeprefix("module."): value for name, value in loaded.items()}, None


def _read_safetensors(path: Path) -> tuple[dict[str, "Tensor"], dict[str, Any] | None]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            weights = {name: file.get_tensor(name) for name in file.keys()}
            note = (file.metadata() or {}).get("config")
        values = json.loads(note) if note else None
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"{path} is damaged or no safetensors file ({error})") from error
    return weights, values


def _configured(
    name: str, values: Mapping[str, Any], weights: dict[str, "Tensor"], bare: Bare
) -> Network:
    from normkit import training

    for option in ("mean", "std", "normalization"):
        if getattr(bare, option) is not None:
            raise ValueError(f"--{option} must be left out: {name} carries its configuration")
    try:
        config = dataclasses.replace(training.from_dict(values), device="cpu")
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{name} carries a configuration of another version: {error}") from error
    task = training.prepare(config)
    model = training.build_model(config, task)
    _fill(model, weights, name)
    title = f"{config.model} ({name})"
    return Network(title, model.eval(), config, tuple(task.test_images.shape[1:]))


def _fill(model: "nn.Module", weights: dict[str, "Tensor"], name: str) -> None:
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        first = str(error).splitlines()[1:2] or [str(error)]
        raise ValueError(
            f"{name} does not fit the net that its configuration makes now: {first[0].strip()}"
        ) from error


def _recognized(target: str, weights: dict[str, "Tensor"], bare: Bare) -> Network:
    from normkit import layers, models

    if bare.input_size is None:
        raise ValueError(f"{target} does not say which images it is for: give {bare.ask}")
    made = layers.normalization(bare.normalization) if bare.normalization else None
    size = {"input_size": bare.input_size[1:], "normalization": made}
    try:
        fit = models.fit_state_dict(weights, **size)
        model = models.build(fit.name, mean=bare.mean, std=bare.std, **fit.options)
        model.load_state_dict(fit.state)
    except IndexError as error:
        raise ValueError(f"{target} holds tensors of a shape that no net has") from error
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{target}: {error}") from error
    return Network(f"{fit.name} ({target})", model.eval(), None, bare.input_size)


def _torchvision_names() -> list[str]:
    """Classifiers only: of the others some fetch a backbone's weights unasked."""
    import torchvision

    return torchvision.models.list_models(module=torchvision.models)


def _random(name: str, bare: Bare) -> Network:
    import torch
    import torchvision

    if bare.input_size is None:
        raise ValueError(f"{name} takes images of many sizes: give {bare.ask}")
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.manual_seed(0)
        model = torchvision.models.get_model(name, weights=None)
    title = f"{name} of torchvision, its weights random (seed 0, nothing was downloaded)"
    return Network(title, model.eval(), None, bare.input_size)
