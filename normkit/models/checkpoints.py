"""Finds the net that a bare state dict belongs to, also under the names of published weights."""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .registry import NAMES, RESIDUAL, build
from .residual import SHORTCUTS

__all__ = ["Fit", "fit_state_dict", "from_state_dict"]

_SMALL_CNN = {
    "0": "layers.0.convolution",
    "2": "layers.1.convolution",
    "5": "hidden.linear",
    "7": "head",
}
_RESNET = (
    (r"^conv1\.", "stem.convolution."),
    (r"^bn1\.", "stem.normalization."),
    (r"^(linear|fc)\.", "head."),
    (r"\.conv([12])\.", r".convolution\1."),
    (r"\.bn([12])\.", r".normalization\1."),
    (r"\.(shortcut|downsample)\.0\.", ".shortcut.convolution."),
    (r"\.(shortcut|downsample)\.1\.", ".shortcut.normalization."),
)
_WEIGHT = r"\.(weight|parametrizations\.weight\.original1?)$"
_FIRST = re.compile(r"(stem\.convolution|layers\.0\.(convolution|linear))" + _WEIGHT)
_STAGE = re.compile(r"(blocks\.0\.convolution1|layers\.0\.(convolution|linear))" + _WEIGHT)
_HEAD = re.compile(r"head(\.convolution)?" + _WEIGHT)
_BLOCK = re.compile(r"layer(\d+)\.(\d+)\.")


class Fit(NamedTuple):
    """A net's name, the options for ``build``, and the state dict under this package's names."""

    name: str
    options: dict[str, object]
    state: dict[str, Tensor]


def from_state_dict(
    state_dict: Mapping[str, Tensor],
    *,
    input_size: tuple[int, int],
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    normalization: Callable[..., nn.Module] | None = None,
    convolution: Callable[..., nn.Module] = nn.Conv2d,
) -> nn.Module:
    """Builds the net that a state dict belongs to, loads it, and returns it in evaluation mode.

    In plain words: ``fit_state_dict``, then ``build``. What no state dict tells must be given:
    the size of the images and the normalization of the input. The activations are taken to be
    ReLUs, and to stand after the sum of a block unless a normalization at the end says otherwise.

    Arguments:
        state_dict: tensors by name.
        input_size: height and width of an image in pixels.
        mean: of each channel, in [0, 1], that the weights were trained with; or ``None``.
        std: of each channel, likewise.
        normalization: constructor; ``None`` is batch normalization where the state dict has
            running statistics, and no normalization where it has no normalization's weights.
        convolution: constructor of the convolutions.

    Raises:
        ValueError: if no net fits.

    Example:
        >>> trained = build("resnet8", width=4, num_classes=7, shortcut="pad").eval()
        >>> again = from_state_dict(trained.state_dict(), input_size=(32, 32))
        >>> images = torch.rand(2, 3, 32, 32)
        >>> torch.equal(trained(images), again(images))
        True
    """
    fit = fit_state_dict(
        state_dict, input_size=input_size, normalization=normalization, convolution=convolution
    )
    net = build(fit.name, mean=mean, std=std, **fit.options)
    net.load_state_dict(fit.state)
    return net.eval()


def fit_state_dict(
    state_dict: Mapping[str, Tensor],
    *,
    input_size: tuple[int, int],
    normalization: Callable[..., nn.Module] | None = None,
    convolution: Callable[..., nn.Module] = nn.Conv2d,
) -> Fit:
    """Finds the name and the options with which ``build`` makes a net of these names and shapes.

    In plain words: number of classes, width and depth are read off the tensors, then every net
    is made without memory for its weights and compared name by name. Published names are
    translated first: those of the small CNN (0, 2, 5, 7) and those of residual nets (conv1, bn1,
    layer1.0.conv1, shortcut or downsample, linear or fc).

    Arguments:
        state_dict: tensors by name.
        input_size: height and width of an image in pixels.
        normalization: constructor, as in ``from_state_dict``.
        convolution: constructor of the convolutions.

    Raises:
        ValueError: if an entry is not a tensor or empty, if two names mean the same, if the kind
            of normalization cannot be told, or if no net fits: the message names the nearest net
            and the first names that differ.

    Example:
        >>> weights = build("vgg11", width=4, normalization=nn.Identity).state_dict()
        >>> fit = fit_state_dict(weights, input_size=(8, 8))
        >>> fit.name, fit.options["width"], fit.options["normalization"].__name__
        ('vgg11', 4, 'Identity')
    """
    _check_tensors(state_dict)
    state = _renamed(state_dict)
    if len(state) < len(state_dict):
        raise ValueError("state_dict must name every weight once, but two names mean the same")
    fixed = {
        "input_size": input_size,
        "normalization": normalization or _guess_normalization(state),
        "convolution": convolution,
    }
    misfits = []
    for name, read in _candidates(state, input_size):
        differences = _differences(state, name, read | fixed)
        if not differences:
            return Fit(name, read | fixed, state)
        misfits.append((len(differences), name, "; ".join(differences[:3])))
    if not misfits:
        raise ValueError(f"state_dict fits no net; its first names are {sorted(state)[:3]}")
    count, name, first = min(misfits)
    raise ValueError(
        f"state_dict fits no net for images of {tuple(input_size)}; the nearest is {name}, but "
        f"{count} names differ: {first}"
    )


def _check_tensors(state_dict: Mapping[str, Tensor]) -> None:
    for key, value in state_dict.items():
        if not isinstance(value, Tensor):
            raise ValueError(
                f"state_dict must hold tensors only, but {key!r} is a {type(value).__name__}"
            )
        if not value.numel():
            raise ValueError(f"state_dict must hold values, but {key!r} is {tuple(value.shape)}")


def _differences(state: Mapping[str, Tensor], name: str, options: dict[str, object]) -> list[str]:
    """Compares names and shapes with those of a net that is made without memory."""
    with torch.device("meta"):
        wanted = _shapes(build(name, **options).state_dict())
    found = _shapes(state)
    return [
        f"{key} is {found.get(key, 'absent')}, not {wanted.get(key, 'absent')}"
        for key in found | wanted
        if found.get(key) != wanted.get(key)
    ]


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Leaves out BatchNorm's counter, which older files lack and torch fills in."""
    return {
        key: tuple(value.shape)
        for key, value in state.items()
        if not key.endswith("num_batches_tracked")
    }


def _guess_normalization(state: Mapping[str, Tensor]) -> Callable[..., nn.Module]:
    if any(key.endswith("running_mean") for key in state):
        return nn.BatchNorm2d
    if any(".normalization" in key for key in state):
        raise ValueError(
            "normalization must be given: state_dict has a normalization without running "
            "statistics, and its weights do not tell which"
        )
    return nn.Identity


def _renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Translates published names; names that follow no published pattern stay as they are."""
    parts = {key: key.partition(".") for key in state}
    if {first for first, _, _ in parts.values()} == set(_SMALL_CNN):
        return {f"{_SMALL_CNN[parts[key][0]]}.{parts[key][2]}": v for key, v in state.items()}
    if "conv1.weight" not in state:
        return dict(state)
    places = {m[0]: (int(m[1]), int(m[2])) for m in map(_BLOCK.match, state) if m}
    order = sorted(places, key=places.get)
    names = {place: f"blocks.{i}." for i, place in enumerate(order)}
    return {_rename(key, names): value for key, value in state.items()}


def _rename(key: str, blocks: Mapping[str, str]) -> str:
    for pattern, name in _RESNET:
        key = re.sub(pattern, name, key)
    block = _BLOCK.match(key)
    return key if block is None else blocks[block[0]] + key[block.end() :]


def _candidates(
    state: Mapping[str, Tensor], input_size: tuple[int, int]
) -> Iterator[tuple[str, dict[str, object]]]:
    """Yields the names and options that agree with the first weights and the last."""
    first, stage, head = (
        next((v for k, v in state.items() if pattern.match(k)), None)
        for pattern in (_FIRST, _STAGE, _HEAD)
    )
    if any(weight is None or weight.dim() < 2 for weight in (first, stage, head)):
        return
    names = _family(state)
    pixels = math.prod(input_size) if "mlp" in names else 1
    common = {
        "num_classes": head.shape[0],
        "in_channels": max(1, first.shape[1] // pixels),
        "width": stage.shape[0],
        "bias": any(re.search(r"(stem|layers\.0)\.(convolution|linear)\.bias$", k) for k in state),
    }
    depth = len({key.split(".")[1] for key in state if key.startswith("layers.")})
    residual = {
        "skip_init": any(".skip_init." in key for key in state),
        "preactivation": any(key.startswith("last.") for key in state),
    }
    for name in names:
        options = {option: value for option, value in residual.items() if option in RESIDUAL[name]}
        options |= {"depth": depth} if name in ("uniform", "mlp") else {}
        kinds = [{"shortcut": kind} for kind in SHORTCUTS if "shortcut" in RESIDUAL[name]]
        yield from ((name, common | options | kind) for kind in kinds or [{}])


def _family(state: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Returns the nets that have a module which this state dict has and the others do not."""
    marks = {
        "blocks.0.gate.": ("senet18",),
        "blocks.0.convolution3.": ("regnetx_200mf",),
        "stem.": tuple(name for name in NAMES if name.startswith("resnet")),
        "hidden.": ("small_cnn",),
        "layers.0.linear.": ("mlp", "autoencoder"),
        "head.convolution.": ("fully_conv_released",),
    }
    for mark, names in marks.items():
        if any(key.startswith(mark) for key in state):
            return names
    return tuple(name for name in NAMES if all(name not in names for names in marks.values()))
