"""The arithmetic of the measures: what several of them need of a tensor is computed once."""

import math
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from .eigenvalues import krylov_eigenvalue

__all__ = ["Signal", "as_rows"]


class Signal:
    """Activations as one row for each image, and what the measures of them share.

    In plain words: all that is small is NumPy's, in float64. Channels_last costs no copy.

    Arguments:
        x: outside of autograd, in float32 or float64.

    Example:
        >>> signal = Signal(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
        >>> signal.length.tolist(), signal.inverse.tolist()
        ([5.0, 0.0], [0.2, 0.0])
    """

    def __init__(self, x: Tensor):
        self.shape, self.last = x.shape, _channels_last(x)
        self.rows = as_rows(x)
        self.length = _lengths(self.rows)
        if not (self.length.min() > 1e-15 and self.length.max() < 1e15):
            self._widen()

    def _widen(self) -> None:
        """Goes to float64 where squares of entries left the range of float32."""
        doubtful = torch.from_numpy(~((self.length > 1e-15) & (self.length < 1e15)))
        narrow = self.rows.dtype != torch.float64
        if narrow and self.rows[doubtful.to(self.rows.device)].any():
            self.rows = self.rows.double()
            self.length = _lengths(self.rows)
        self.length[~np.isfinite(self.length)] = math.nan

    @cached_property
    def inverse(self) -> np.ndarray:
        """1 / length, or 0 for a row of zeros."""
        zero = self.length == 0
        return (1 - zero) / (self.length + zero)

    @cached_property
    def sums(self) -> Tensor:
        """The sum of all rows, and that of all rows at unit length, in one pass: (2, D)."""
        weights = np.ones((2, len(self.inverse)))
        weights[1] = self.inverse
        return torch.from_numpy(weights).to(self.rows) @ self.rows

    def cosine(self) -> float:
        n, total = len(self.rows), self.sums[1]
        if n == 1:
            return math.nan
        return (total.dot(total).item() - np.count_nonzero(self.inverse)) / (n * (n - 1))

    def variance(self) -> float:
        square, mean = self.length @ self.length / self.rows.numel(), self._mean
        variance = square - mean @ mean / len(mean)
        # Where the mean is far above the deviation, digits cancelled.
        return variance if variance >= 0.05 * square else self._variances().mean()

    def deviation(self) -> float:
        return np.sqrt(self._variances()).mean()

    @cached_property
    def _mean(self) -> np.ndarray:
        if len(self.shape) < 2:
            raise ValueError(f"x must have shape (N, C, ...); found {tuple(self.shape)}")
        return self._by_channel(self.sums[0])

    def _variances(self) -> np.ndarray:
        """The variance of each channel, from shifted and scaled entries."""
        pixels = self.rows.shape[1] // len(self._mean)
        shift = np.tile(self._mean, pixels) if self.last else np.repeat(self._mean, pixels)
        size = math.sqrt(self.length @ self.length / self.rows.numel()) or 1.0
        centered = (self.rows - torch.from_numpy(shift).to(self.rows)).div_(size)
        ones = torch.ones_like(centered[:, 0])
        left = self._by_channel(ones @ centered)
        variances = self._by_channel(ones @ centered.square_()) - left**2
        return np.maximum(variances, 0) * size**2

    def _by_channel(self, sums: Tensor) -> np.ndarray:
        """Sums (D,) values over the pixels and divides by the entries of a channel."""
        channels = self.shape[1]
        maps = sums.view(-1, channels).T if self.last else sums.view(channels, -1)
        return _wide(maps.sum(dim=1)) * (channels / self.rows.numel())

    def rank(self) -> float:
        n, largest = len(self.rows), None
        if not math.isfinite(self.inverse.sum()):
            return math.nan
        if min(self.rows.shape) > 60:
            largest = krylov_eigenvalue(self.rows, self.inverse, self.sums[1])
        if largest is None:
            unit = self.rows * torch.from_numpy(self.inverse).to(self.rows)[:, None]
            gram = unit @ unit.T if n <= unit.shape[1] else unit.T @ unit
            largest = torch.linalg.eigvalsh(gram.cpu().double())[-1].item()
        return n / max(largest, 1.0)


def as_rows(x: Tensor) -> Tensor:
    """Returns (N, D), an image's numbers in the order in which they lie in memory.

    Example:
        >>> x = torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last)
        >>> as_rows(x).shape, as_rows(x).data_ptr() == x.data_ptr()
        (torch.Size([2, 60]), True)
    """
    return (x.movedim(1, -1) if _channels_last(x) else x).reshape(len(x), -1)


def _channels_last(x: Tensor) -> bool:
    return not x.is_contiguous() and x.ndim > 2 and x.movedim(1, -1).is_contiguous()


def _lengths(rows: Tensor) -> np.ndarray:
    return _wide(torch.linalg.vector_norm(rows, dim=1))


def _wide(values: Tensor) -> np.ndarray:
    return values.cpu().numpy().astype(np.float64)
