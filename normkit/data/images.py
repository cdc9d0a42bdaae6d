"""Batched operations on uint8 images of shape (N, C, H, W), on any device."""

from collections.abc import Callable
from numbers import Integral

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

__all__ = ["AUGMENTATIONS", "check_images", "crop", "flip", "gaussian_noise", "resize", "shift",
           "to_float"]  # fmt: skip


def check_images(images: Tensor, argument: str = "images") -> None:
    """Refuse what is not a batch of byte images.

    Arguments:
        images: what was given.
        argument: the name under which it was given, for the message.

    Raises:
        ValueError: not uint8, or not four-dimensional.

    Example:
        >>> check_images(torch.zeros(2, 3, 4, 5, dtype=torch.uint8))
        >>> check_images(torch.zeros(3, 4))
        Traceback (most recent call last):
        ValueError: images must be uint8 of shape (N, C, H, W), found float32 of shape (3, 4)
    """
    if images.dtype != torch.uint8 or images.ndim != 4:
        found = f"{str(images.dtype).removeprefix('torch.')} of shape {tuple(images.shape)}"
        raise ValueError(f"{argument} must be uint8 of shape (N, C, H, W), found {found}")


def to_float(images: Tensor) -> Tensor:
    """Bytes to numbers a network takes.

        x = b / 255

    In plain words: black is 0, white is 1, and nothing else is done; subtracting a mean is the
    model's first layer, so that attacks never see it.

    Arguments:
        images: uint8 (N, C, H, W).

    Shape: (N, C, H, W) uint8 -> (N, C, H, W) float32 in [0, 1].

    Raises:
        ValueError: images are not uint8 of four dimensions.

    Example:
        >>> to_float(torch.tensor([[[[0, 51, 255]]]], dtype=torch.uint8))
        tensor([[[[0.0000, 0.2000, 1.0000]]]])
    """
    check_images(images)
    return images.to(torch.float32) / 255


def resize(images: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Images at another size, by whole factors only.

        down by f:  y[i, j] = round(mean of the f x f block at (f i, f j)), halves up
        up by f:    y[i, j] = x[i // f, j // f]

    In plain words: shrink by averaging blocks, enlarge by repeating pixels. Both are exact integer
    arithmetic, so every device gives the same bytes. Height and width have a factor each.

    Arguments:
        images: uint8 (N, C, H, W).
        size: the new side in pixels, or (height, width).

    Shape: (N, C, H, W) -> (N, C, height, width).

    Raises:
        ValueError: a new side neither divides the old one nor is a multiple of it.

    Example:
        >>> images = torch.tensor([[[[0, 3], [4, 7]]]], dtype=torch.uint8)
        >>> torch.equal(resize(resize(images, 6), 2), images)  # up, then down: the same
        True
        >>> resize(images, 1)  # 3.5 is rounded up
        tensor([[[[4]]]], dtype=torch.uint8)
    """
    check_images(images)
    height, width = size if isinstance(size, tuple) else (size, size)
    for old, new in zip(images.shape[2:], (height, width)):
        if not isinstance(new, Integral) or new < 1 or (old % new and new % old):
            raise ValueError(
                f"size must divide the images' {tuple(images.shape[2:])} or be a multiple of it, "
                f"found {size}"
            )
    images = _average(images, max(images.shape[2] // height, 1), max(images.shape[3] // width, 1))
    for dim, new in ((2, height), (3, width)):
        images = images.repeat_interleave(new // images.shape[dim], dim)
    return images


def _average(images: Tensor, rows: int, columns: int) -> Tensor:
    """The rounded mean of every rows x columns block, without widening the whole batch."""
    if rows == columns == 1:
        return images
    total = torch.zeros_like(images[:, :, ::rows, ::columns], dtype=torch.int32)
    for i in range(rows):
        for j in range(columns):
            total += images[:, :, i::rows, j::columns]
    block = rows * columns
    return ((2 * total + block) // (2 * block)).to(torch.uint8)


def crop(images: Tensor, padding: int, generator: Generator) -> Tensor:
    """Random crops of the zero-padded images, at the original size.

        y[n, c, i, j] = x[n, c, i + a_n, j + b_n],   a_n, b_n uniform on {-padding, ..., padding}

    In plain words: every image is moved by its own whole pixels; what comes in is black.

    Source: the usual augmentation of CIFAR nets (He et al. 2016, arXiv 1512.03385, section 4.2).

    Arguments:
        images: uint8 (N, C, H, W).
        padding: the largest move, in pixels.
        generator: on the CPU, the source of the 2 N offsets.

    Shape: (N, C, H, W) -> (N, C, H, W).

    Raises:
        ValueError: padding is negative or not whole; images are not uint8 of four dimensions.

    Example:
        >>> dot = torch.zeros(500, 1, 5, 5, dtype=torch.uint8)
        >>> dot[:, :, 2, 2] = 1
        >>> moved = crop(dot, 1, torch.Generator().manual_seed(0))
        >>> bool((moved.sum((1, 2, 3)) == 1).all())  # no dot is lost or doubled
        True
        >>> (moved.sum((0, 1)) > 0).int()  # and it reaches each of its nine places
        tensor([[0, 0, 0, 0, 0],
                [0, 1, 1, 1, 0],
                [0, 1, 1, 1, 0],
                [0, 1, 1, 1, 0],
                [0, 0, 0, 0, 0]], dtype=torch.int32)
    """
    check_images(images)
    if not isinstance(padding, Integral) or padding < 0:
        raise ValueError(f"padding must be a whole number of pixels >= 0, found {padding!r}")
    n, _, height, width = images.shape
    top, left = torch.randint(0, 2 * padding + 1, (2, n), generator=generator).to(images.device)
    padded = F.pad(images, (padding,) * 4)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # (N, C, 2p + 1, 2p + 1, H, W)
    return windows[torch.arange(n, device=images.device), :, top, left]


def flip(images: Tensor, generator: Generator) -> Tensor:
    """Each image mirrored left to right with probability one half.

        y[n, c, i, j] = x[n, c, i, W - 1 - j] if u_n < 1/2, else x[n, c, i, j]

    In plain words: a coin is thrown for every image. Mirror images of digits are no digits.

    Source: the usual augmentation of CIFAR nets (He et al. 2016, arXiv 1512.03385, section 4.2).

    Arguments:
        images: uint8 (N, C, H, W).
        generator: on the CPU, the source of the N coins.

    Shape: (N, C, H, W) -> (N, C, H, W).

    Raises:
        ValueError: images are not uint8 of four dimensions.

    Example:
        >>> images = torch.arange(6, dtype=torch.uint8).reshape(1, 1, 2, 3).repeat(9, 1, 1, 1)
        >>> once = flip(images, torch.Generator().manual_seed(0))
        >>> twice = flip(once, torch.Generator().manual_seed(0))  # the same coins undo it
        >>> torch.equal(once, images), torch.equal(twice, images)
        (False, True)
    """
    check_images(images)
    heads = (torch.rand(len(images), generator=generator) < 0.5).to(images.device)
    return torch.where(heads[:, None, None, None], images.flip(3), images)


def shift(images: Tensor, pixels: int, generator: Generator) -> Tensor:
    """Each image moved by up to `pixels` in both directions, black coming in.

        y[n, c, i, j] = x[n, c, i + a_n, j + b_n],   a_n, b_n uniform on {-pixels, ..., pixels}

    In plain words: the same operation as `crop` with that padding, by the name used for digits.

    Arguments:
        images: uint8 (N, C, H, W).
        pixels: the largest move, in pixels.
        generator: on the CPU, the source of the 2 N offsets.

    Shape: (N, C, H, W) -> (N, C, H, W).

    Raises:
        ValueError: pixels is negative or not whole; images are not uint8 of four dimensions.

    Example:
        >>> images = torch.arange(32, dtype=torch.uint8).reshape(2, 1, 4, 4)
        >>> torch.equal(shift(images, 0, torch.Generator()), images)
        True
    """
    if not isinstance(pixels, Integral) or pixels < 0:
        raise ValueError(f"pixels must be a whole number >= 0, found {pixels!r}")
    return crop(images, pixels, generator)


def gaussian_noise(images: Tensor, std: float, generator: Generator) -> Tensor:
    """Images under normal noise, as bytes again.

        y = round(255 clip(x / 255 + std z, 0, 1)), z normal with mean 0 and variance 1

    In plain words: grain, for measuring how accuracy falls with its strength. One seed gives the
    same grain at every strength, and clipping leaves less of it in black and in white.

    Arguments:
        images: uint8 (N, C, H, W).
        std: deviation of the noise, in [0, 1], in units where white is 1.
        generator: on the CPU, the source of the noise.

    Shape: (N, C, H, W) -> (N, C, H, W).

    Raises:
        ValueError: std is outside [0, 1]; images are not uint8 of four dimensions.

    Example:
        >>> gray = torch.full((9, 3, 40, 40), 128, dtype=torch.uint8)
        >>> round(to_float(gaussian_noise(gray, 0.1, torch.Generator())).std().item(), 3)
        0.1
    """
    check_images(images)
    if not 0 <= std <= 1:
        raise ValueError(f"std must be in [0, 1], where white is 1; found {std!r}")
    noise = 255 * std * torch.randn(images.shape, generator=generator).to(images.device)
    return (images + noise).round_().clamp_(0, 255).to(torch.uint8)


def _crop_flip(images: Tensor, generator: Generator) -> Tensor:
    return flip(crop(images, images.shape[2] // 8, generator), generator)


#: Augmentations by name, each (images, generator) -> images: nothing; a shift by one pixel; a
#: mirror image; a crop by an eighth of the height (4 pixels at 32 x 32) and a mirror image.
AUGMENTATIONS: dict[str, Callable[[Tensor, Generator], Tensor]] = {
    "none": lambda images, generator: images,
    "shift": lambda images, generator: shift(images, 1, generator),
    "flip": flip,
    "crop_flip": _crop_flip,
}
