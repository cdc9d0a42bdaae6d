"""The controls of a picker, what is typed into them, and the sentences that it says."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ipywidgets
from torch.nn.modules.conv import _ConvNd

from normkit import layers, networks
from normkit.models import Convolution
from normkit.networks import Network, Reading
from normkit.plots.style import LABELS
from normkit.records import Store

from .live import tried
from .session import layers_of
from .sources import CARRIED, Measured

__all__ = ["checked", "controls", "empty", "first_layer", "line", "numbers", "offer", "opened",
           "size_of", "zoo"]  # fmt: skip

TOLD = ("told by the file", None)
WIDE = {"description_width": "initial"}


def controls(title: str) -> dict[str, ipywidgets.Widget]:
    """The controls of one network, by name; which of them are seen depends on the source."""
    size = "Channels, height and width of an image, such as 3,32,32"
    kinds = [TOLD, *((LABELS.get(name, name), name) for name in layers.NORMALIZATIONS)]
    nets = [(LABELS[name], name) for name in CARRIED]
    return {
        "source": _dropdown(title, "Where the network comes from", (), "26em"),
        "carried": _dropdown("Net", "Small networks trained on digits", nets),
        "method": _dropdown("Method", "How the run trained", (), "22em"),
        "dataset": _dropdown("Data", "What the run was trained on", (), "14em"),
        "run": _dropdown("Run", "Its seed, and what else tells it from the others", (), "26em"),
        "reload": ipywidgets.Button(
            description="Refresh", tooltip="Look into the store again", layout={"width": "6em"}
        ),
        "classifier": _dropdown("Model", "A classifier of torchvision; no download", (), "20em"),
        "classifier_size": _text("Input size", size, "3,32,32", "13em"),
        "path": _text("Path", "A .safetensors file or a state dict of torch.save", "", "28em"),
        "size": _text("Input size", f"{size}; unless the file tells it", "3,32,32", "13em"),
        "mean": _text("Mean", "Of the images by channel, as 0.5,0.5,0.5; or empty", "", "12em"),
        "std": _text("Std", "Deviation of the images by channel; or empty", "", "12em"),
        "normalization": _dropdown("Normalization", "If its tensors do not tell", kinds, "22em"),
        "architecture": _dropdown("Architecture", "A classifier of torchvision", [TOLD], "22em"),
    }  # fmt: skip


def _dropdown(title: str, tip: str, options: Sequence, width: str = "16em") -> ipywidgets.Dropdown:
    return ipywidgets.Dropdown(
        description=title, tooltip=tip, options=options, layout={"width": width}, style=WIDE
    )


def _text(title: str, tip: str, value: str, width: str) -> ipywidgets.Text:
    return ipywidgets.Text(
        value, description=title, tooltip=tip, layout={"width": width}, style=WIDE,
        continuous_update=False,
    )  # fmt: skip


def offer(control: ipywidgets.Dropdown, options: Sequence) -> None:
    """Replace what a dropdown offers; what was chosen stays if it is still there."""
    before = control.value
    values = [option[1] if isinstance(option, tuple) else option for option in options]
    control.options = options
    if values:
        control.value = before if before in values else values[0]
    control.disabled = not values


def zoo(found: Mapping[str, ipywidgets.Widget]) -> None:
    """Offer the classifiers of torchvision, whose import takes a second or two."""
    names = networks.classifiers()
    offer(found["classifier"], names)
    found["classifier"].value = "resnet18"
    offer(found["architecture"], [TOLD, *((name, name) for name in names)])


def size_of(text: str) -> tuple[int, ...]:
    """The shape of an image as it is typed.

    Example:
        >>> size_of("3, 32, 32"), size_of("1x8x8")
        ((3, 32, 32), (1, 8, 8))
    """
    parts = [part for part in re.split(r"[\s,x×()]+", text) if part]
    if len(parts) != 3 or not all(part.isdecimal() and int(part) for part in parts):
        raise ValueError(f"input size is {text!r}; give C,H,W above zero, such as 3,32,32")
    return tuple(map(int, parts))


def numbers(name: str, text: str) -> tuple[float, ...] | None:
    """Numbers between commas, None for nothing.

    Example:
        >>> numbers("mean", "0.5, 0.25"), numbers("mean", " ")
        ((0.5, 0.25), None)
    """
    try:
        return tuple(map(float, text.split(","))) if text.strip() else None
    except ValueError:
        raise ValueError(
            f"{name} is {text!r}; give one number for each channel, such as 0.5,0.5,0.5, or none"
        ) from None


def opened(values: Mapping[str, Any]) -> Measured | str:
    """The network of the file that is named in the controls, or what is missing."""
    if not (path := values["path"].strip()):
        return "Type the path of a checkpoint: a .safetensors file or a state dict of torch.save."
    mean, std = (numbers(name, values[name]) for name in ("mean", "std"))
    reading = Reading(mean, std, values["normalization"], values["architecture"])
    size = size_of(values["size"]) if values["size"].strip() else None
    found = networks.load_file(
        Path(path).expanduser(), size=size, reading=reading, ask="its input size, C,H,W"
    )
    return Measured(found, "")


def checked(network: Network) -> Network:
    """The network, if its weights are finite, an image goes through it, and a layer has a norm.

    Raises:
        ValueError: one of these is not so.
    """
    if not layers_of(network):
        raise ValueError(f"{network.name} has no layer whose norm is known")
    return tried(network)


def first_layer(network: Network) -> str:
    """The name of the first convolution, else of the first layer that has a norm.

    Example:
        >>> from .sources import carried
        >>> first_layer(carried("plain"))
        'stem.convolution'
    """
    known = layers_of(network)
    convolutions = (n for n, part in known.items() if isinstance(part, _ConvNd | Convolution))
    return next(convolutions, next(iter(known), ""))


def line(found: Measured) -> str:
    """A network in one line: name, parameters, input, accuracy if it is known.

    Example:
        >>> from torch import nn
        >>> line(Measured(Network("mine", nn.Linear(4, 3), (4,)), "accuracy 0.5"))
        'mine: 15 parameters, input 4, accuracy 0.5'
    """
    network, words = found
    count = sum(parameter.numel() for parameter in network.model.parameters())
    size = " x ".join(map(str, network.input_size))
    return f"{network.name}: {count:,} parameters, input {size}{', ' * bool(words)}{words}"


def empty(store: Store) -> str:
    """What to do where no run is."""
    return (
        f"No run with weights lies in {store.root}. A notebook makes some, or this: python -m "
        "normkit train --set epochs=3. Then press Refresh; the nets that normkit carries are "
        "there without."
    )
