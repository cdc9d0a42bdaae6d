"""Tables for the figures of ConvNorm, with known numbers, and what reads a figure back."""

from functools import cache
from itertools import product

import numpy as np
import pandas as pd

from normkit.plots import convnorm

NOTE = "digits 8x8, width 8"
METHODS = ["batch", "none", "spectral_norm", "oni", "conv_norm", "ocnn"]
PARTS = ["batch", "none", "conv_norm", "conv_norm_no_bn", "conv_norm_no_affine", "conv_norm_bare"]
MORE = ["own", "conv_norm_released", "conv_norm_spectral", "operator_norm"]
LAYERS = ["stem", "blocks.0.convolution1", "blocks.0.convolution2", "blocks.1.shortcut"]


def accuracies(seeds=3, **levels):
    """A run per combination and seed, its accuracy known from its place in the table."""
    rows = [
        dict(zip(levels, values, strict=True)) | {"seed": seed}
        | {"accuracy": 0.4 + 0.3 * np.sin(index) ** 2 + 0.01 * seed * (1 + np.cos(index))}
        for (index, values), seed in product(enumerate(product(*levels.values())), range(seeds))
    ]  # fmt: skip
    return pd.DataFrame(rows)


def diverge(table, **which):
    bad = np.logical_and.reduce([table[key] == value for key, value in which.items()])
    return table.assign(accuracy=table["accuracy"].mask(bad))


def concept_grids(size=6):
    """A kernel with two input channels, and all that follows from it."""
    rng = np.random.default_rng(0)
    kernels, images = rng.normal(size=(2, 3, 3)), rng.random((2, size, size))
    spectra = np.fft.fft2(kernels, s=(size, size))
    power = (np.abs(spectra) ** 2).sum(0)
    convolved = np.fft.ifft2((spectra * np.fft.fft2(images)).sum(0)).real
    return {
        "kernel": kernels[0], "spectrum": power**0.5, "filter_spectrum": power**-0.5,
        "product": power**0.5 * power**-0.5, "filter": np.fft.ifft2(power**-0.5).real,
        "image": images[0], "convolved": convolved,
        "normalized": np.fft.ifft2(power**-0.5 * np.fft.fft2(convolved)).real,
    }  # fmt: skip


def concept_rows():
    return pd.concat([
        pd.DataFrame([(name, *at, value) for at, value in np.ndenumerate(grid)],
                     columns=["panel", "row", "column", "value"])
        for name, grid in concept_grids().items()
    ])  # fmt: skip


def spectral_rows(methods=METHODS):
    return pd.DataFrame([
        {"method": method, "seed": seed, "position": position, "layer": layer,
         "out_channels": 4 ** (1 + position), "sigma": (1 + index) * np.exp(seed * position / 9)}
        for (index, method), seed, (position, layer) in product(
            enumerate(methods), range(3), enumerate(LAYERS))
    ])  # fmt: skip


def isometry_rows():
    return pd.DataFrame([
        {"state": state, "position": position, "layer": layer, "channel": channel,
         "condition": 1 + 1e-7 * channel if state == "after" else 3.0 ** (channel + position)}
        for state, (position, layer), channel in product(
            ("before", "after"), enumerate(LAYERS), range(5))
    ])  # fmt: skip


def curve_rows():
    table = accuracies(method=PARTS, epoch=range(1, 9))
    table = table.assign(train_accuracy=table["accuracy"] + 0.1)
    lost = (table["method"] == "none") & (table["seed"] == 2) & (table["epoch"] > 4)
    return table.assign(accuracy=table["accuracy"].mask(lost))


def noise_rows():
    table = accuracies(kind=["symmetric", "asymmetric"], level=(0.0, 0.4, 0.8), method=METHODS)
    return diverge(table, kind="symmetric", level=0.8, method="none")


def scarcity_rows():
    return diverge(accuracies(fraction=(0.1, 0.3, 1.0), method=METHODS),
                   fraction=0.1, method="batch", seed=1)  # fmt: skip


def robust_rows():
    here = accuracies(source=["here"], attack=["clean", "FGSM", "PGD-10"], method=METHODS)
    here = diverge(diverge(here, method="none", seed=0), method="oni", attack="FGSM")
    paper = accuracies(4, source=["paper"], attack=["FGSM"], method=["batch", "conv_norm"])
    return pd.concat([here, paper], ignore_index=True)


def standard_rows():
    return robust_rows().rename(columns={"attack": "dataset"})


def blackbox_rows():
    table = accuracies(attack=["SPSA", "transfer"], source=["", "batch", "oni"], method=METHODS)
    return table[(table["attack"] == "SPSA") == (table["source"] == "")]


def gan_rows():
    table = pd.DataFrame([
        {"method": method, "seed": seed, "step": step, "inception": 3 - 2 / (1 + step) + index,
         "frechet": 9 * np.exp(0.1 * seed - step / 300) + index}
        for (index, method), seed, step in product(
            enumerate(["none", "conv_norm"]), range(3), range(0, 301, 50))
    ])  # fmt: skip
    lost = (table["method"] == "none") & (table["seed"] == 2) & (table["step"] > 100)
    scores = ["inception", "frechet"]
    return table.assign(**table[scores].mask(lost))


def sample_rows():
    return pd.DataFrame([
        {"method": method, "index": index, "row": row, "column": column, "channel": channel,
         "value": (index + row / 4 + column / 9 + channel / 50) / 10}
        for method, index, row, column, channel in product(
            ["real", "conv_norm"], range(6), range(2), range(3), range(3))
    ])  # fmt: skip


def scale_rows():
    return pd.DataFrame([
        ("noise", "at 40 %", "digits", 0.02, 0.01, 0.03),
        ("noise", "at 40 %", "CIFAR-10", 0.05, -0.01, 0.11),
        ("noise", "at 80 %", "digits", np.nan, np.nan, np.nan),
        ("noise", "at 80 %", "paper", 0.1, np.nan, np.nan),
        ("clean", "", "digits", -0.01, -0.02, -0.005), ("clean", "", "CIFAR-10", 0.0, -0.1, 0.1),
    ], columns=["claim", "part", "place", "effect", "low", "high"])  # fmt: skip


TABLES = {
    "concept": concept_rows, "spectral": spectral_rows, "isometry": isometry_rows,
    "curves": curve_rows, "noise": noise_rows, "scarcity": scarcity_rows,
    "corruptions": lambda: scarcity_rows().rename(columns={"fraction": "std"}),
    "ablation": lambda: diverge(accuracies(method=PARTS), method="conv_norm_bare", seed=0),
    "standard": standard_rows, "robust": robust_rows, "blackbox": blackbox_rows,
    "gan": gan_rows, "samples": sample_rows, "scale": scale_rows,
}  # fmt: skip
def draw(name, change=lambda table: table, **more):
    return getattr(convnorm, name)(change(TABLES[name]()), note=NOTE, **more)


drawn = cache(draw)


def bottom(figure):
    return figure.get_supxlabel().replace("\n", " ")


def title(axes):
    return axes.get_title(loc="left").replace("\n", " ")


def lines(axes):
    return {line.get_label(): line for line in axes.lines}


def bars(axes, index=0):
    return [bar[:, 1] for bar in axes.collections[index].get_segments() if len(bar)]
