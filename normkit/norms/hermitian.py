"""Batches of Hermitian matrices: products, factorizations, a few Lanczos steps."""

__all__ = ["gram", "indefinite", "lanczos", "random_rows", "ritz_rows"]

import itertools

import torch
from scipy.linalg import lapack
from torch import Tensor
from torch.nn.functional import normalize

POTRF = {
    torch.float32: lapack.spotrf,
    torch.float64: lapack.dpotrf,
    torch.complex64: lapack.cpotrf,
    torch.complex128: lapack.zpotrf,
}
SMALL = 24
SPLIT = 64
PARTS = 4
SHORT = 8


def gram(blocks: Tensor) -> Tensor:
    """`K K^H` for each K (count, rows, columns), or `K^T (K^T)^H` if that is smaller.

    Of large ones the lower triangle is formed, few rows at a time, and mirrored.
    """
    rows = blocks if blocks.shape[1] <= blocks.shape[2] else blocks.mT
    size = rows.shape[1]
    if size < SPLIT:
        return rows @ rows.mH
    conjugates, products = rows.conj().resolve_conj(), rows.new_empty(len(rows), size, size)
    edges = [size * part // PARTS for part in range(PARTS + 1)]
    for low, high in itertools.pairwise(edges):
        block = rows[:, low:high] @ conjugates[:, :high].mT
        products[:, low:high, :high] = block
        products[:, :low, low:high] = block[:, :, :low].mH
    return products


def indefinite(matrices: Tensor) -> Tensor:
    """Which of the matrices (count, n, n) have no Cholesky factor; they are overwritten.

    On the CPU all but small ones go to SciPy's LAPACK, which is two to four times faster than
    torch's on some processors.
    """
    size = matrices.shape[1]
    if matrices.device.type != "cpu" or size < SMALL:
        return torch.linalg.cholesky_ex(matrices)[1] != 0
    factor = POTRF[matrices.dtype]
    views = matrices.contiguous().numpy().swapaxes(1, 2)
    failed = [factor(view, lower=0, clean=0, overwrite_a=1)[1] for view in views]
    return torch.tensor(failed, dtype=torch.int64) != 0


def random_rows(matrices: Tensor) -> Tensor:
    """A row for each matrix (count, n, n), always the same, without the global generator."""
    generator = torch.Generator().manual_seed(0)
    parts = torch.randn(2, matrices.shape[1], generator=generator, dtype=torch.float64)
    row = torch.complex(*parts) if matrices.is_complex() else parts[0]
    return row.to(matrices).expand(len(matrices), -1)


def _lengths(rows: Tensor) -> Tensor:
    """Lengths (count, 1, 1) of rows (count, 1, n)."""
    flat = torch.view_as_real(rows).flatten(2) if rows.is_complex() else rows
    return torch.linalg.vector_norm(flat, dim=2, keepdim=True)


def ritz_rows(matrices: Tensor, start: Tensor, steps: int, wanted: int) -> tuple[Tensor, Tensor]:
    """Top Ritz values (count, wanted) and rows `x^H` (count, wanted, n), the largest last.

    By Lanczos. Rows, since `x^H G` reads a matrix faster than `G x`. A start in an invariant
    subspace ends its own iteration: what is left of it is noise then, and becomes zero instead of
    a direction.
    """
    steps = min(steps, start.shape[1])
    projected = start.new_zeros(len(start), steps, steps)
    basis = start.new_zeros(len(start), steps, start.shape[1])
    noise = 100 * torch.finfo(start.dtype).eps
    row = normalize(start, dim=1)[:, None]
    for step in range(steps):
        basis[:, step] = row[:, 0]
        known = basis[:, : step + 1]
        row = torch.bmm(row, matrices)
        before = _lengths(row)
        for _ in range(1 if step < SHORT else 2):
            part = torch.bmm(row, known.mH)
            row = torch.baddbmm(row, part, known, alpha=-1)
            projected[:, step, : step + 1] += part[:, 0]
        length = _lengths(row)
        row = (row / length).masked_fill_(length <= noise * before, 0.0)
    values, vectors = torch.linalg.eigh(projected)
    return values[:, -wanted:], torch.bmm(vectors[:, :, -wanted:].mH, basis)


def lanczos(matrices: Tensor, start: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Quotients `x^H G x` and unit rows `x^H` (count, n) near the top of semidefinite matrices.

    The quotients are computed from the vectors, so that no fault of the iteration raises them.
    Where the steps would be half of all there are, the matrices are solved instead.
    """
    if 2 * steps >= start.shape[1]:
        rows = torch.linalg.eigh(matrices)[1][:, :, -1:].mH
    else:
        rows = normalize(ritz_rows(matrices, start, steps, 1)[1], dim=2)
    return (torch.bmm(rows, matrices) @ rows.mH).real[:, 0, 0], rows[:, 0]
