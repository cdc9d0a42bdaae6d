"""The largest eigenvalue of a Gram matrix that is never formed."""

import math

import numpy as np
import torch
from scipy.linalg.lapack import dstev
from torch import Tensor

__all__ = ["krylov_eigenvalue"]


def krylov_eigenvalue(rows: Tensor, inverse: np.ndarray, image: Tensor) -> float | None:
    """Return the largest eigenvalue of the Gram matrix of unit rows, None where it is not found.

    In plain words: Lanczos' method, started from the vector of ones. Above half the trace an
    eigenvalue is the largest, with a known gap, and residual^2 / gap bounds the error. Below, the
    residual itself must be small and the rows non-negative, so that the ones vector meets
    Perron's.

    Source: Parlett, The Symmetric Eigenvalue Problem, 1998, chapters 11 (the error of a Ritz
    value) and 13 (Lanczos' method).

    Arguments:
        rows: finite, (N, D).
        inverse: 1 / length of each row, or 0.
        image: (D,), the sum of the unit rows.

    Example:
        The cosines between 100 images are 1/2: one eigenvalue is 101 / 2, all others are 1/2.

        >>> rows = torch.cat([torch.eye(100), torch.ones(100, 1)], dim=1)
        >>> inverse = np.full(100, 0.5**0.5)
        >>> round(krylov_eigenvalue(rows, inverse, rows.sum(dim=0) * 0.5**0.5), 4)
        50.5
    """
    tolerance, trace = 10 * torch.finfo(rows.dtype).eps, int(np.count_nonzero(inverse))
    most, n, nonnegative = min(rows.shape) // 12, len(rows), None
    basis, diagonal, beside = np.empty((most, n)), np.zeros(most), np.zeros(most)
    basis[0], image = n**-0.5, image * n**-0.5
    for k in range(1, most):
        so_far = basis[:k]
        new = inverse * rows.mv(image).cpu().numpy()
        along = so_far @ new
        new -= along @ so_far
        new -= (so_far @ new) @ so_far
        diagonal[k - 1], beside[k - 1] = along[-1], math.sqrt(new @ new)
        value, residual = _ritz(diagonal[:k], beside[:k])
        gap = 2 * value - trace - residual
        if residual * residual <= tolerance * value * gap:
            return value
        small = residual <= tolerance * value
        if nonnegative is None and (small or (k == 3 and gap < 0)):
            nonnegative = bool(rows.amin() >= 0)
        if small and nonnegative:
            return value
        if beside[k - 1] <= 1e-7 * trace or (k == 3 and gap < 0 and not nonnegative):
            return None
        basis[k] = new / beside[k - 1]
        image = torch.from_numpy(inverse * basis[k]).to(rows) @ rows
    return None


def _ritz(diagonal: np.ndarray, beside: np.ndarray) -> tuple[float, float]:
    """Returns the largest eigenvalue of a tridiagonal matrix, and the residual of its vector."""
    values, vectors, _ = dstev(diagonal, beside[: max(len(beside) - 1, 1)])
    return values.item(-1), beside.item(-1) * abs(vectors.item(-1))
