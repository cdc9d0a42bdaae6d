"""The two nets of a generative adversarial run, as its configuration says."""

import dataclasses
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from normkit import layers, models, records

from .alone import seeded
from .gan_config import GanConfig
from .settings import from_dict
from .task import Form

__all__ = ["Gan", "build_gan", "restore_gan", "spectral_conv_norm"]


class Gan(nn.Module):
    """A generator and its discriminator; called with noise, it gives images.

    Arguments:
        generator: noise (N, latent) to images (N, C, H, W) in [0, 1].
        discriminator: such images to (N, 1), above 0 for "real".
    """

    def __init__(self, generator: nn.Module, discriminator: nn.Module) -> None:
        super().__init__()
        self.generator, self.discriminator = generator, discriminator

    def forward(self, noise: Tensor) -> Tensor:
        return self.generator(noise)


def build_gan(config: GanConfig, form: Form) -> Gan:
    """The two nets for images of a form; the generator's start depends on the seed alone.

    Raises:
        ValueError: images whose height and width cannot be halved.

    Example:
        >>> pair = [build_gan(GanConfig(discriminator=kind), Form((1, 8, 8), 10)) for kind in (
        ...     "none", "conv_norm_spectral")]
        >>> starts = [gan.generator.linear.weight for gan in pair]
        >>> torch.equal(*starts), pair[1](torch.randn(3, 32)).shape
        (True, torch.Size([3, 1, 8, 8]))
    """
    channels, *size = form.input_size
    with seeded(config.seed):
        maker = models.gan.generator(
            latent=config.latent,
            out_channels=channels,
            input_size=tuple(size),
            width=config.generator_width,
        )
        judge = models.gan.discriminator(
            in_channels=channels,
            input_size=tuple(size),
            width=config.width,
            **_critic(config),
        )
    return Gan(maker, judge).to(config.device, memory_format=torch.channels_last)


def restore_gan(record: records.Record) -> Gan:
    """The trained nets of a record, on the CPU, in evaluation mode; needs no images."""
    config = dataclasses.replace(from_dict(record.config, GanConfig), device="cpu")
    form = {k: tuple(v) if isinstance(v, list) else v for k, v in record.meta["form"].items()}
    model = build_gan(config, Form(**form))
    model.load_state_dict(record.weights())
    return model.eval()


def _critic(config: GanConfig) -> dict[str, Callable[..., nn.Module] | bool]:
    """Of what a discriminator is made: constructors, and whether convolutions have a bias."""
    kind, bare = config.discriminator, not config.batch_norm
    chosen = {"batch_norm": config.batch_norm, "filter_norm": config.filter_norm}
    convolutions = {
        "spectral_norm": layers.convolution("spectral_norm"),
        "conv_norm": layers.convolution("conv_norm", batch_norm=config.batch_norm),
        "conv_norm_spectral": partial(spectral_conv_norm, **chosen),
    }
    return {
        "convolution": convolutions.get(kind, layers.convolution("conv")),
        "normalization": nn.BatchNorm2d if kind == "batch" else nn.Identity,
        "linear": _spectral_linear if "spectral" in kind else nn.Linear,
        "bias": bare and kind != "batch",
    }


def spectral_conv_norm(
    in_channels: int,
    out_channels: int,
    kernel_size: int | tuple[int, int],
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    bias: bool = False,
    *,
    batch_norm: bool = False,
    filter_norm: bool = False,
) -> nn.Module:
    r"""Makes a ``ConvNorm2d`` whose taps, and if asked its filter, are spectrally normalized.

    .. math:: a \to a / \sigma(a), \quad r \to r / \sigma(r)

    In plain words: what ``torch.nn.utils.parametrizations.spectral_norm`` does to a layer is to
    divide its ``weight``. ConvNorm does not see that: it is blind to the size of the taps, so the
    function stays, and only the steps that the taps take change. The layer's size is that of
    its filter r, a row of kh kw numbers for each channel. With the rows' matrix divided by its
    norm, too, the operator's is at most sqrt(C_out kh kw), and at most 1 as long as r is, as at
    the start, the same impulse in every channel; without, nothing bounds it. A BatchNorm behind
    it undoes either.

    Source: Miyato et al. 2018, arXiv 1802.05957; Liu et al. 2021, arXiv 2103.00673.

    Deviation: the second has no code for it, so that both readings are here.

    Arguments:
        filter_norm: whether r is normalized.
        batch_norm: whether a BatchNorm follows.
        others: as ``layers.conv_norm``.

    Shape:
        as ``nn.Conv2d``.

    Example:
        >>> makers = [partial(layers.conv_norm, batch_norm=False), spectral_conv_norm]
        >>> makers.append(partial(spectral_conv_norm, filter_norm=True))
        >>> x, outputs = torch.randn(1, 2, 8, 8), []
        >>> for make in makers:
        ...     _ = torch.manual_seed(0)
        ...     outputs.append(make(2, 4, 3).eval()(x))
        >>> torch.allclose(outputs[1], outputs[0], atol=1e-5)
        True
        >>> torch.allclose(outputs[2], outputs[0] / 2, atol=1e-5)  # sqrt(C_out)
        True
    """
    made = layers.conv_norm(
        in_channels, out_channels, kernel_size, stride, padding, bias, batch_norm=batch_norm
    )
    parametrizations.spectral_norm(made, "weight")
    return parametrizations.spectral_norm(made, "filter") if filter_norm else made


def _spectral_linear(in_features: int, out_features: int) -> nn.Linear:
    return parametrizations.spectral_norm(nn.Linear(in_features, out_features))
