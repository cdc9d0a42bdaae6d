"""How large the nets of runs are, counted without images or memory."""

import functools
from typing import NamedTuple

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from normkit import models
from normkit.training import GanConfig, TrainConfig

from .cost import IMAGES, trained_on

__all__ = ["Net", "Size", "gan_sizes", "net", "size"]


class Size(NamedTuple):
    """Operations of an image's forward pass, layers with weights, and bytes of all of these."""

    operations: float
    layers: int
    bytes: int


class Net(NamedTuple):
    """What the size of a net depends on."""

    model: str
    width: int | None
    depth: int | None
    shortcut: str
    shape: tuple[int, int, int]
    classes: int
    bare: bool

    def build(self) -> nn.Module:
        """The net itself."""
        channels, *pixels = self.shape
        return models.build(
            self.model,
            num_classes=self.classes,
            in_channels=channels,
            input_size=tuple(pixels),
            width=self.width,
            depth=self.depth,
            shortcut=self.shortcut,
            normalization=nn.Identity if self.bare else nn.BatchNorm2d,
        )


def net(config: TrainConfig) -> Net:
    """The net of a run; other normalizers have BatchNorm's size."""
    shape, classes = trained_on(config)[1], IMAGES[config.dataset].classes
    bare = config.normalization == "none" and config.convolution != "conv_norm"
    named = (config.model, config.width, config.depth, config.shortcut)
    return Net(*named, shape, classes, bare)


def size(config: TrainConfig) -> Size:
    """The size of a run's net.

    Example:
        >>> size(TrainConfig(model="mlp", width=10, depth=1, normalization="none")).operations
        1480.0
    """
    return _size(net(config))


@functools.lru_cache(maxsize=None)
def _size(kind: Net) -> Size:
    with torch.device("meta"):
        return _counted(kind.build(), torch.empty(1, *kind.shape))


def _counted(net: nn.Module, batch: torch.Tensor) -> Size:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net.eval()(batch)
    layers = sum(1 for part in net.modules() if part._parameters)
    state = net.state_dict().values()
    return Size(float(counter.get_total_flops()), layers, sum(t.nbytes for t in state))


def gan_sizes(config: GanConfig) -> tuple[Size, Size]:
    """The sizes of generator and discriminator."""
    shape = trained_on(config)[1]
    return _gan_sizes(config.latent, config.generator_width, config.width, shape)


@functools.lru_cache(maxsize=None)
def _gan_sizes(
    latent: int, generator_width: int, width: int, shape: tuple[int, int, int]
) -> tuple[Size, Size]:
    channels, *pixels = shape
    with torch.device("meta"):
        maker = models.gan.generator(
            latent=latent, out_channels=channels, input_size=tuple(pixels), width=generator_width
        )
        judge = models.gan.discriminator(
            in_channels=channels, input_size=tuple(pixels), width=width
        )
        return _counted(maker, torch.empty(1, latent)), _counted(judge, torch.empty(1, *shape))
