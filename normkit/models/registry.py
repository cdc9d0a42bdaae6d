"""The nets by name, and ``build``, which checks every option before it makes one."""

import difflib
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from torch import nn

from .checks import INITIALIZATIONS, check_numbers, check_start, input_normalization
from .enorm import autoencoder, fully_conv
from .parts import Plan, initialized, relu
from .regnet import regnetx
from .residual import SHORTCUTS
from .resnets import resnet
from .squeeze import senet
from .stacks import cfg, mlp, small_cnn, uniform, vgg

__all__ = ["INITIALIZATIONS", "NAMES", "RECONSTRUCTING", "RESIDUAL", "build"]

_OPTIONS = ("shortcut", "skip_init", "preactivation", "activation_before_sum")


class _Net(NamedTuple):
    """How a net is made, its defaults, what it needs or can honor, whether it gives images."""

    make: Callable[[Plan], nn.Module]
    width: int
    depth: int | None = None
    smallest: int = 2
    residual: tuple[str, ...] = ()
    convolutional: bool = True
    images: bool = False


_NETS = {
    "vgg11": _Net(partial(vgg, repeats=(1, 1, 2, 2, 2)), 64),
    "vgg16": _Net(partial(vgg, repeats=(2, 2, 3, 3, 3)), 64),
    "cfg_10": _Net(partial(cfg, multiples=(1, 2, 4, 8, 8), run=2), 64),
    "cfg_20": _Net(partial(cfg, multiples=(1, 2, 4, 4, 8), run=4), 64),
    "cfg_40": _Net(partial(cfg, multiples=(1, 2, 4, 8, 8), run=8), 64),
    "uniform": _Net(uniform, 64, depth=20),
    "resnet8": _Net(partial(resnet, stages=3, blocks=1), 16, residual=_OPTIONS),
    "resnet18": _Net(partial(resnet, stages=4, blocks=2), 64, residual=_OPTIONS),
    "resnet20": _Net(partial(resnet, stages=3, blocks=3), 16, residual=_OPTIONS),
    "resnet56": _Net(partial(resnet, stages=3, blocks=9), 16, residual=_OPTIONS),
    "senet18": _Net(partial(senet, stages=4, blocks=2), 64, residual=_OPTIONS[:2]),
    "regnetx_200mf": _Net(regnetx, 24, residual=("skip_init",)),
    "small_cnn": _Net(small_cnn, 16, smallest=8),
    "fully_conv": _Net(fully_conv, 128),
    "fully_conv_released": _Net(partial(fully_conv, released=True), 128),
    "mlp": _Net(mlp, 500, depth=2, smallest=1, convolutional=False),
    "autoencoder": _Net(autoencoder, 1000, smallest=1, convolutional=False, images=True),
}

NAMES = tuple(_NETS)
RECONSTRUCTING = tuple(name for name, net in _NETS.items() if net.images)
RESIDUAL = {name: net.residual for name, net in _NETS.items()}


def build(
    name: str,
    *,
    num_classes: int = 10,
    in_channels: int = 3,
    input_size: tuple[int, int] = (32, 32),
    width: int | None = None,
    depth: int | None = None,
    normalization: Callable[..., nn.Module] = nn.BatchNorm2d,
    convolution: Callable[..., nn.Module] = nn.Conv2d,
    activation: Callable[[int], nn.Module] = relu,
    bias: bool = False,
    shortcut: str = "conv1x1",
    skip_init: bool = False,
    preactivation: bool = False,
    activation_before_sum: bool = False,
    initialization: str = "he",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    linear: Callable[..., nn.Module] = nn.Linear,
) -> nn.Module:
    r"""Builds a net of the four papers, from images in [0, 1] to logits, or to images again.

    In plain words: every convolution and every hidden linear layer is followed by
    ``normalization`` and then by ``activation``, a module of its own; ``nn.Identity`` leaves the
    normalization out. The gates of senet18 have neither but a ReLU, the code of autoencoder has
    neither, and the fully_conv nets normalize behind their third and sixth convolution alone. No
    convolution has a bias unless asked, with or without a normalization, except in small_cnn. No
    map gets smaller than 2x2: a pool or a stride that would do so is skipped. The submodules are
    called ``normalize``, ``layers`` or ``stem`` and ``blocks``, ``pool``, ``flatten`` and
    ``head`` whatever the options.

    Source: the functions ``vgg``, ``cfg``, ``uniform``, ``small_cnn``, ``mlp``, ``resnet``,
    ``senet``, ``regnetx``, ``fully_conv`` and ``autoencoder`` of this package name the paper of
    each net.

    Arguments:
        name: one of ``NAMES``.
        num_classes: number of logits; autoencoder has none and does not use it.
        in_channels: channels of an image.
        input_size: height and width of an image in pixels, at least 2x2 (8x8 for small_cnn, 1x1
            for mlp and autoencoder).
        width: channels of the first stage (units of the first hidden layer); the other widths
            keep their ratio to it, in multiples of 8 in regnetx_200mf. ``None`` is the paper's.
        depth: convolutions of uniform (``None``: 20), hidden layers of mlp (``None``: 2).
        normalization: constructor called with ``num_features``; ``layers.pair`` gives it together
            with the activation that belongs to it.
        convolution: constructor called with ``in_channels, out_channels, kernel_size`` and the
            keywords ``stride``, ``padding``, ``bias``, in regnetx_200mf ``groups``; mlp and
            autoencoder have none, and accept one that is not plain only beside a ``linear`` that
            is not.
        activation: constructor called with ``num_features``.
        bias: give hidden layers a bias, as what normalizes weights alone needs.
        shortcut: of a residual net where the shape changes: a convolution followed by the
            normalization, "conv1x1" or "conv3x3", or "pad" (option A: subsampling, zero channels);
            "all_conv1x1" (option C) is the first on every block.
        skip_init: multiply each residual branch by a learnable number that starts at zero.
        preactivation: residual blocks that normalize and activate before each convolution, which
            those of senet18 do by themselves.
        activation_before_sum: residual blocks that activate the branch, not the sum.
        initialization: "he": plain layers that feed a ReLU start from He's normal weights, with
            fan_in, and zero biases, the head from torch's; "he_all": the head, too, whose outputs
            are then about 2.4 times larger; "torch": all from torch's default.
        mean: of each channel of the data, in [0, 1]; the first layer then subtracts it.
        std: of each channel of the data; the first layer then divides by it.
        linear: constructor of the hidden linear layers of small_cnn, mlp and autoencoder, called
            with ``in_features, out_features`` and the keyword ``bias``.

    Shape:
        the net maps ``(N, in_channels, H, W)`` to ``(N, num_classes)``, autoencoder to the same.

    Raises:
        ValueError: if a name is unknown, a number out of range, or an option not one that this
            net can honor; before anything is built.

    Example:
        >>> import torch
        >>> net = build("resnet20", width=4, mean=(0.5,) * 3, std=(0.25,) * 3)
        >>> net(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 10])
        >>> [name for name, _ in net.named_children()]
        ['normalize', 'stem', 'blocks', 'pool', 'flatten', 'head']
    """
    net = _find(name)
    check_numbers(num_classes=num_classes, in_channels=in_channels, width=width, depth=depth)
    _check_stack(name, net, input_size, depth, convolution, linear, initialization)
    flags = (skip_init, preactivation, activation_before_sum)
    _check_residual(name, net, shortcut, flags)
    sizes = (num_classes, in_channels, tuple(input_size), width or net.width, depth or net.depth)
    parts = (normalization, convolution, linear, activation, bias, shortcut)
    plan = Plan(*sizes, *parts, *flags, input_normalization(mean, std, in_channels))
    return _started(net.make(plan), initialization)


def _started(made: nn.Module, initialization: str) -> nn.Module:
    if initialization == "torch":
        made.apply(_as_torch)
    elif initialization == "he_all":
        initialized(made.head)
    return made


def _as_torch(layer: nn.Module) -> None:
    if type(layer) in (nn.Conv2d, nn.Linear):
        layer.reset_parameters()


def _find(name: str) -> _Net:
    if name not in _NETS:
        nearest = difflib.get_close_matches(str(name), NAMES, n=1, cutoff=0)[0]
        raise ValueError(
            f"there is no net named {name!r}; the nearest is {nearest!r}, all are "
            f"{', '.join(NAMES)}"
        )
    return _NETS[name]


def _check_residual(name: str, net: _Net, shortcut: str, flags: tuple[bool, ...]) -> None:
    if shortcut not in SHORTCUTS:
        nearest = difflib.get_close_matches(str(shortcut), SHORTCUTS, n=1, cutoff=0)[0]
        raise ValueError(
            f"shortcut must be one of {', '.join(SHORTCUTS)}, not {shortcut!r}; the nearest is "
            f"{nearest!r}"
        )
    if all(flags[1:]):
        raise ValueError("preactivation or activation_before_sum may be True, not both")
    asked = (shortcut != "conv1x1" and shortcut, *flags)
    for option, value in zip(_OPTIONS, asked, strict=True):
        if value and option not in net.residual:
            why = "residual blocks of its own" if net.residual else "no residual branches"
            raise ValueError(
                f"{name} has {why}, so {option}={value!r} must be left out; "
                f"{_those(lambda other, option=option: option in other.residual)} take it"
            )


def _check_stack(
    name: str,
    net: _Net,
    input_size: tuple[int, int],
    depth: int | None,
    convolution: Callable[..., nn.Module],
    linear: Callable[..., nn.Module],
    initialization: str,
) -> None:
    check_start(name, net.smallest, input_size, initialization)
    if depth is not None and net.depth is None:
        raise ValueError(
            f"{name} has a fixed depth, so depth={depth} must be left out; "
            f"{_those(lambda other: other.depth)} take one"
        )
    if net.convolutional or convolution is nn.Conv2d:
        return
    made = type(convolution(4, 4, 3, stride=1, padding=1, bias=False))
    if made is not nn.Conv2d and type(linear(4, 4, bias=False)) is nn.Linear:
        raise ValueError(
            f"{name} has no convolutions, so convolution must be left out or make a plain Conv2d, "
            f"not a {made.__name__}"
        )


def _those(honors: Callable[[_Net], object]) -> str:
    return ", ".join(name for name, net in _NETS.items() if honors(net))
