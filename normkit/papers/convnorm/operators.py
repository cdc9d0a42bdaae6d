"""What is measured of layers: condition numbers, spectral norms, one channel's spectrum."""

from collections.abc import Iterator, Sequence

import pandas as pd
import torch
from torch import Tensor, nn

from normkit import data, layers, norms
from normkit.norms.inputs import input_sizes, weighted_layers
from normkit.records import Record
from normkit.training import dataset, restore

from .methods import method_of

__all__ = ["concept", "conditions", "layer_norms"]

Sized = tuple[str, nn.Module, tuple[int, ...]]


def _convolutions(record: Record) -> Iterator[Sized]:
    """Name, layer and the size of its input, of every convolution of a trained network."""
    model, size = restore(record), tuple(record.meta["form"]["input_size"])
    found = dict(weighted_layers(model))
    sizes = input_sizes(model, found, size)
    for name, layer in found.items():
        if isinstance(layer, nn.Conv2d | layers.ConvNorm2d):
            yield name, layer, sizes[name]


def _periodic(layer: nn.Module, size: tuple[int, ...]) -> tuple[nn.Module, tuple[int, int]]:
    """A layer alone, at stride 1, and what to call its input so that its grid is H + k - 1.

    *In plain words:* ConvNorm's own grid is larger than its input; a convolution is put on a
    torus of that size, its stride left away, so that all methods are measured alike.
    """
    if isinstance(layer, layers.ConvNorm2d):
        return layer.core().double(), (size[0], size[1])
    plain = nn.Conv2d(
        layer.in_channels, layer.out_channels, layer.kernel_size, bias=False, groups=layer.groups
    ).double()
    linear = norms.linear_map(layer, size)
    plain.weight = nn.Parameter(linear.weight.detach().double().flatten(0, 1))
    return plain, layers.own_grid(size, layer.kernel_size)


def layer_norms(records: Sequence[Record]) -> pd.DataFrame:
    """The largest singular value of every convolution of trained networks, on the grid H + k - 1.

    *In plain words:* ConvNorm without its filter and BatchNorm, every other convolution as it is,
    all at stride 1.

    Columns: method, seed, position, layer, kernel_size, out_channels, sigma.
    """
    rows = []
    for record in records:
        if record.status != "ok":
            continue
        method, seed = method_of(record.config), record.config["seed"]
        for position, (name, layer, size) in enumerate(_convolutions(record)):
            alone, grid = _periodic(layer, size)
            sigma = norms.spectral_norm(alone, grid, boundary="circular").lower
            shape = (layer.kernel_size[0], layer.out_channels)
            rows.append((method, seed, position, name, *shape, sigma))
    columns = ["method", "seed", "position", "layer", "kernel_size", "out_channels", "sigma"]
    return pd.DataFrame(rows, columns=columns)


def conditions(records: Sequence[Record]) -> pd.DataFrame:
    """Condition number of each output channel of trained ConvNorm networks, before and after.

    *In plain words:* the channel's taps alone, as a plain convolution on the layer's grid, and as
    a ConvNorm (eps = 0) of one channel, measured by its singular values there, in float64.

    Columns: state (before, after), seed, position, layer, channel, condition.
    """
    rows = []
    for record in records:
        if method_of(record.config) != "conv_norm" or record.status != "ok":
            continue
        for position, (name, layer, size) in enumerate(_convolutions(record)):
            for channel in range(layer.out_channels):
                for state, value in _channel(layer, channel, size).items():
                    rows.append((state, record.config["seed"], position, name, channel, value))
    columns = ["state", "seed", "position", "layer", "channel", "condition"]
    return pd.DataFrame(rows, columns=columns)


def _channel(layer: layers.ConvNorm2d, channel: int, size: tuple) -> dict[str, float]:
    """The condition number of one channel's operator as convolved, and as normalized."""
    taps = layer.weight[channel : channel + 1].detach().double()
    shape = (taps.shape[1], 1, layer.kernel_size)
    how = {"affine": False, "batch_norm": False, "bias": False, "eps": 0.0}
    after = layers.ConvNorm2d(*shape, **how, dtype=torch.float64)
    before = nn.Conv2d(*shape, bias=False, dtype=torch.float64)
    before.weight, after.weight = nn.Parameter(taps), nn.Parameter(taps)
    grid = layers.own_grid(size, layer.kernel_size)
    found = {}
    for state, alone, seen in (("before", before, grid), ("after", after, size)):
        values = norms.singular_values(alone, tuple(seen))
        found[state] = (values.max() / values.min()).item()
    return found


def concept(record: Record, *, layer: int = 0, channel: int = 0, image: int = 0) -> pd.DataFrame:
    """One channel of a trained ConvNorm network, and a test image, from taps to output.

    Columns: panel, row, column, value; see `plots.convnorm.concept`.

    Arguments:
        record: of a network of conv_norm layers that sees images of one channel or more; of
            several channels the taps of the first are shown, and their mean image.
        layer: which of its convolutions of 3 x 3 that read the image.
        channel: which of its output channels.
        image: which of the test images.
    """
    convolution = [found for _, found, _ in _convolutions(record)][layer]
    taps = convolution.weight[channel : channel + 1].detach().double()
    images = dataset(record.config["dataset"]).test_images[image : image + 1]
    if record.config["image_size"]:
        images = data.resize(images, record.config["image_size"])
    x = data.to_float(images).double()
    grid = layers.own_grid(x.shape[2:], convolution.kernel_size)
    spectrum = torch.fft.fft2(taps, s=grid).abs().square().sum(1)[0].sqrt()
    z = nn.functional.conv2d(x, taps, padding=1)[0, 0]
    one = layers.ConvNorm2d(
        taps.shape[1],
        1,
        convolution.kernel_size,
        padding=1,
        bias=False,
        affine=False,
        batch_norm=False,
        eps=0.0,
        dtype=torch.float64,
    )
    one.weight = nn.Parameter(taps)
    panels = {"kernel": taps[0, 0], "spectrum": spectrum, "filter_spectrum": 1 / spectrum}
    panels |= {"product": _gain(one, x.shape[2:]), "filter": torch.fft.ifft2(1 / spectrum).real}
    panels |= {"image": x[0].mean(0), "convolved": z, "normalized": one(x)[0, 0].detach()}
    return pd.concat([_tidy(name, values) for name, values in panels.items()], ignore_index=True)


def _gain(layer: layers.ConvNorm2d, size: Sequence[int]) -> Tensor:
    """What the normalized layer does to each frequency, from its own taps."""
    taps = layers.periodic_taps(layer, (size[0], size[1])).detach()
    return torch.fft.fft2(taps).abs().square().sum(1)[0].sqrt()


def _tidy(name: str, values: Tensor) -> pd.DataFrame:
    rows, columns = values.shape
    index = [(i, j) for i in range(rows) for j in range(columns)]
    table = pd.DataFrame(index, columns=["row", "column"])
    return table.assign(panel=name, value=values.flatten().tolist())
