"""A data set as four tensors, and the function that loads one by name."""

import hashlib
import os
import sys
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from . import files
from .images import check_images
from .labels import check_choice, first_per_class
from .noisy import noisy
from .sources import CLASSES, SOURCES

__all__ = ["NAMES", "Dataset", "default_root", "load", "locate"]

#: The data sets `load` knows.
NAMES = ("digits", "noisy_digits", "mnist", "fashion_mnist", "cifar10", "cifar100")

_TENSORS = ("train_images", "train_labels", "test_images", "test_labels")


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images and labels, whole and in memory, on one device.

    In plain words: the sets here are small enough to stay on the device as bytes (CIFAR-10 is
    184 MB), which saves loaders and workers. Tensors are to be treated as constants: a changed set
    is a new one (`dataclasses.replace`), with a fingerprint of its own.

    Arguments:
        train_images: uint8 (N, C, H, W), 255 = white.
        train_labels: int64 (N,), in 0 ... num_classes - 1.
        test_images: uint8 (M, C, H, W).
        test_labels: int64 (M,).
        classes: the classes' names.
        name: of the data set, for messages and figures.

    Raises:
        ValueError: images or labels of another type or shape, or a label that is no class.

    Example:
        >>> digits = load("digits")
        >>> digits.input_size, digits.num_classes, digits.train_images.dtype
        ((1, 8, 8), 10, torch.uint8)
        >>> digits.fingerprint()[:16]  # the same on every machine
        'f9bc3dd2930e2d1f'
    """

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    classes: tuple[str, ...]
    name: str = "custom"

    def __post_init__(self) -> None:
        for split in ("train", "test"):
            images, labels = getattr(self, f"{split}_images"), getattr(self, f"{split}_labels")
            check_images(images, f"{split}_images")
            if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
                raise ValueError(
                    f"{split}_labels must be int64 of shape ({len(images)},), "
                    f"found {labels.dtype} of shape {tuple(labels.shape)}"
                )
            if len(labels) and not 0 <= labels.min() <= labels.max() < len(self.classes):
                raise ValueError(
                    f"{split}_labels must be in 0 ... {len(self.classes) - 1}, "
                    f"found {labels.min().item()} ... {labels.max().item()}"
                )

    @property
    def input_size(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        return tuple(self.train_images.shape[1:])

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.classes)

    def to(self, device: torch.device | str) -> "Dataset":
        """The same data set with its four tensors on a device."""
        return replace(self, **{name: getattr(self, name).to(device) for name in _TENSORS})

    def fingerprint(self) -> str:
        """SHA-256 over the four tensors' names, shapes and bytes, in hexadecimal.

        In plain words: what a result depends on; the same for the same data, whichever file they
        came from and whichever device they are on. Computed once for an instance.

        Example:
            >>> digits = load("digits")
            >>> other = replace(digits, train_labels=digits.train_labels.flip(0))
            >>> digits.fingerprint() == other.fingerprint()
            False
        """
        return self._digest

    @cached_property
    def _digest(self) -> str:
        digest = hashlib.sha256()
        for name in _TENSORS:
            tensor = getattr(self, name)
            digest.update(f"{name}{tuple(tensor.shape)}".encode())
            digest.update(tensor.cpu().contiguous().numpy())
        return digest.hexdigest()


def default_root() -> Path:
    """Where data sets are looked for, and downloaded to.

    In plain words: $NORMKIT_DATA if it is set, else the user's cache directory.

    Example:
        >>> default_root().is_absolute() or "NORMKIT_DATA" in os.environ
        True
    """
    if folder := os.environ.get("NORMKIT_DATA"):
        return Path(folder).expanduser()
    if sys.platform == "darwin":
        cache = Path.home() / "Library" / "Caches"
    else:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "normkit" / "data"


def locate(name: str, root: Path | str | None = None) -> Path | None:
    """The folder or archive that `load` would read, None where it would download or needs none.

    Arguments:
        name: one of `NAMES`.
        root: the folder to look in; None is `default_root()`.

    Raises:
        ValueError: unknown name.

    Example:
        >>> locate("cifar10", "/nowhere") is None
        True
    """
    check_choice("name", name, NAMES)
    if name not in SOURCES:
        return None
    found = files.find(SOURCES[name], Path(root).expanduser() if root else default_root())
    return found and found[1]


def load(name: str, root: Path | str | None = None, download: bool = True) -> Dataset:
    """A data set, from scikit-learn, from official files, or from the network.

    In plain words: "digits" and "noisy_digits" are always there. The others are looked for in the
    root: CIFAR as the unpacked folder or the tar.gz of the binary version or of the python
    version, the MNISTs as the four unpacked IDX files in torchvision's folders. If there is
    nothing, they are downloaded through torchvision, after saying what and how much. Every file's
    checksum must match the official one before it is decoded, pickles before all.

    Digits are the 8 x 8 images of scikit-learn, as round(255 v / 16), split into 1,500 and 297,
    stratified. The images are ordered by the SHA-256 of their bytes, and the first of each class
    in that order are the test images: neither a random generator nor the order in which
    scikit-learn hands them out matters.

    Noisy digits are those 1,500 and 297, each at one of the four places of a 9 x 9 canvas, under
    Gaussian noise of deviation 0.15, from a fixed seed. A fully connected net of 20 hidden layers
    classifies plain digits nearly as well as one of 2; these leave room between methods.

    Source: Alpaydin and Kaynak 1998, https://archive.ics.uci.edu/dataset/80 (digits); LeCun et al.
    1998, http://yann.lecun.com/exdb/mnist/; Xiao et al. 2017, arXiv 1708.07747; Krizhevsky 2009,
    https://www.cs.toronto.edu/~kriz/cifar.html.

    Arguments:
        name: one of `NAMES`.
        root: the folder to look in and to download to; None is `default_root()`.
        download: whether to download what is not found.

    Raises:
        ValueError: unknown name, or a file that is damaged or not the official one.
        FileNotFoundError: not found and not downloaded; says which file to put where.

    Example:
        >>> digits = load("digits")
        >>> len(digits.train_labels), len(digits.test_labels), int(digits.train_images.max())
        (1500, 297, 255)
        >>> noisy = load("noisy_digits")
        >>> noisy.input_size, noisy.fingerprint()[:16]  # the same on every machine
        ((1, 9, 9), '08bd4b1c571ce4b7')
    """
    check_choice("name", name, NAMES)
    if name == "noisy_digits":
        return _with_noise(load("digits"))
    if name == "digits":
        # scikit-learn takes a second to import, which the other data sets need not wait for.
        from sklearn.datasets import load_digits

        return split_digits(*load_digits(return_X_y=True))
    folder = Path(root).expanduser() if root else default_root()
    splits = files.read(name, SOURCES[name], folder, download=download)
    tensors = [torch.from_numpy(array) for split in splits for array in split]
    return Dataset(*tensors, classes=CLASSES[name], name=name)


def split_digits(pixels: np.ndarray, targets: np.ndarray) -> Dataset:
    """scikit-learn's digits as bytes, with the split that `load` describes.

    Shape: pixels (1797, 64) in 0 ... 16, targets (1797,), in any order of rows.
    """
    images = np.round(pixels * (255 / 16)).astype(np.uint8)
    order = sorted(range(len(images)), key=lambda i: hashlib.sha256(images[i].tobytes()).digest())
    images = torch.from_numpy(images[order]).view(-1, 1, 8, 8)
    labels = torch.from_numpy(targets[order].astype(np.int64))
    test = torch.zeros(len(labels), dtype=torch.bool)
    test[first_per_class(labels, torch.arange(len(labels)), 297)] = True
    return Dataset(
        images[~test], labels[~test], images[test], labels[test], CLASSES["digits"], "digits"
    )


def _with_noise(digits: Dataset) -> Dataset:
    """The noisy digits that `load` describes; training and test images share one stream."""
    count = len(digits.train_images)
    images = noisy(torch.cat([digits.train_images, digits.test_images]))
    train, test = images[:count], images[count:]
    return replace(digits, train_images=train, test_images=test, name="noisy_digits")
