"""Test images for any network: those of its data set, else photographs or digits that are here."""

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from normkit import data, training
from normkit.networks import Network

__all__ = ["test_images"]

LEAST, MOST = 128, 384  # pixels of a photograph that a crop's longer side shows


def test_images(network: Network, count: int) -> tuple[Tensor, Tensor | None, str]:
    """Images that the network takes, the classes they belong to, and which images they are.

    *In plain words:* the first test images of the data set that the network was trained on, at
    the size it takes. Where that is unknown or not on this machine: digits for a network of one
    channel, else crops of scikit-learn's two sample photographs. Nothing is downloaded, and the
    same images come each time.

    Arguments:
        network: its input size is (C, H, W).
        count: how many; a data set of fewer gives all it has.

    Returns:
        Images in [0, 1]; labels, None where the network's classes are others or not known to be
        these; words for a sentence.

    Shape:
        float32 (N, C, H, W), int64 (N,)

    Raises:
        ValueError: the network takes no images, count is not 1 or more, or a file of the data set
            is damaged.

    Example:
        >>> net = Network("mine", torch.nn.Flatten(), (1, 16, 16), 10, "digits")
        >>> images, labels, words = test_images(net, 5)
        >>> images.shape, labels.tolist(), words
        (torch.Size([5, 1, 16, 16]), [3, 4, 1, 3, 0], '5 test images of digits at 16 x 16')
    """
    size = tuple(network.input_size)
    if len(size) != 3 or min(size) < 1:
        raise ValueError(f"{network.name} takes inputs {size}; images are (C, H, W)")
    if count < 1:
        raise ValueError(f"count is {count}; it must be 1 or more")
    if _is_here(network.dataset):
        known = training.dataset(network.dataset)
        images, labels = known.test_images[:count], known.test_labels[:count]
        labels = labels if network.num_classes in (0, known.num_classes) else None
        what = f"test images of {known.name}"
    elif size[0] == 1:
        images, labels = training.dataset("digits").test_images[:count], None
        what = f"digits{_why(network)}"
    else:
        images = torch.cat([_crop(number, size[1:]) for number in range(count)])
        labels = None
        what = f"crops of two photographs{_why(network)}"
    images = _colored(data.to_float(_sized(images, size[1:])), size[0])
    return images, labels, f"{len(images)} {what} at {size[1]} x {size[2]}"


test_images.__test__ = False  # its name is not that of a test


def _is_here(name: str | None) -> bool:
    if name not in data.NAMES:
        return False
    return name in ("digits", "noisy_digits") or data.locate(name) is not None


def _why(network: Network) -> str:
    name = network.dataset
    return f" ({name} is not on this machine)" if name else " (its data set is not known)"


def _sized(images: Tensor, size: tuple[int, ...]) -> Tensor:
    """Byte images at another size: as in training where the factor is whole."""
    try:
        return data.resize(images, size)
    except ValueError:
        return _smooth(images, size)


def _smooth(images: Tensor, size: tuple[int, ...]) -> Tensor:
    return F.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)


def _colored(images: Tensor, channels: int) -> Tensor:
    """Images of another number of channels: their mean for one, else repeated in turn."""
    if channels == images.shape[1]:
        return images
    if channels == 1:
        return images.mean(1, keepdim=True)
    return images[:, torch.arange(channels) % images.shape[1]]


@functools.lru_cache(maxsize=1)
def _photographs() -> tuple[Tensor, ...]:
    from sklearn.datasets import load_sample_images  # scikit-learn takes a second to import

    found = load_sample_images().images
    return tuple(torch.from_numpy(image.copy()).permute(2, 0, 1) for image in found)


@functools.lru_cache(maxsize=256)
def _crop(number: int, size: tuple[int, ...]) -> Tensor:
    """Bytes (1, 3, H, W): a part of one of the photographs, its place drawn from its number."""
    draws = torch.rand(3, generator=torch.Generator().manual_seed(number)).tolist()
    photograph = _photographs()[number % 2]
    side = LEAST + draws[0] * (MOST - LEAST)
    extent = [max(1, round(side * pixels / max(size))) for pixels in size]
    free = [have - take for have, take in zip(photograph.shape[1:], extent, strict=True)]
    y, x = (round(share * room) for share, room in zip(draws[1:], free, strict=True))
    part = photograph[None, :, y : y + extent[0], x : x + extent[1]]
    return _smooth(part, size)
