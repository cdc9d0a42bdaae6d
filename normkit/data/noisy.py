"""Digits made harder: moved by a pixel and covered with noise, the same on every machine."""

import numpy as np
import torch
from torch import Tensor

from .images import check_images

__all__ = ["noisy"]


def noisy(images: Tensor, deviation: float = 0.15, seed: int = 0) -> Tensor:
    r"""Images on a canvas that is one pixel larger, each at one of four places, with noise.

        y = round(255 clip(x + deviation z, 0, 1)), z normal with mean 0 and variance 1

    In plain words: the bits of NumPy's PCG64, which no version of it changes, decide everything:
    first two for each image, whether it is moved down and whether right, then 53 for each pixel,
    a uniform number that the inverse of the normal distribution turns into z. The result is in
    whole bytes, so that the last digit of that inverse does not matter.

    Arguments:
        images: uint8 (N, C, H, W).
        deviation: of the noise, in units where white is 1.
        seed: of the places and the noise.

    Shape: (N, C, H, W) uint8 -> (N, C, H + 1, W + 1) uint8, on the CPU.

    Raises:
        ValueError: images are not uint8 of four dimensions.

    Example:
        >>> white = torch.full((400, 1, 2, 2), 255, dtype=torch.uint8)
        >>> places = noisy(white, deviation=0.0)
        >>> len(places.unique(dim=0)), places.flatten(1).count_nonzero(1).unique().tolist()
        (4, [4])
        >>> grey = torch.full((400, 1, 8, 8), 128, dtype=torch.uint8)
        >>> round(noisy(grey)[:, :, 1:8, 1:8].float().div(255).std().item(), 2)
        0.15
    """
    check_images(images)
    count, channels, height, width = images.shape
    bits = np.random.PCG64(seed)
    down, right = (bits.random_raw(2 * count).reshape(2, count) >> 63).astype(bool)
    canvas = np.zeros((count, channels, height + 1, width + 1))
    for index, image in enumerate(images.cpu().numpy()):
        top, left = int(down[index]), int(right[index])
        canvas[index, :, top : top + height, left : left + width] = image
    uniform = ((bits.random_raw(canvas.size) >> 11) + 0.5) * 2.0**-53
    normal = torch.special.ndtri(torch.from_numpy(uniform)).reshape(canvas.shape)
    pixels = torch.from_numpy(canvas) + 255 * deviation * normal
    return pixels.round().clamp(0, 255).to(torch.uint8)
