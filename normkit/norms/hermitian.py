"""Batches of Hermitian matrices: products, factorizations, a few Lanczos steps."""

__all__ = ["gram", "indefinite", "lanczos", "lower_blocks", "random_rows"]

import itertools

import torch
from torch import Tensor
from torch.nn.functional import normalize

PANEL = 16
SPLIT = 64
SHORT = 8


def lower_blocks(size: int) -> list[slice]:
    """Ranges of rows whose lower triangle is formed at once: few, and of many entries."""
    count = 4 if size >= SPLIT else 1
    edges = [size * part // count for part in range(count + 1)]
    return [slice(low, high) for low, high in itertools.pairwise(edges)]


def gram(blocks: Tensor) -> Tensor:
    """`K K^H` for each K (count, rows, columns), or `K^T (K^T)^H` if that is smaller."""
    rows = blocks if blocks.shape[1] <= blocks.shape[2] else blocks.mT
    size = rows.shape[1]
    if size < SPLIT:
        return rows @ rows.mH
    products = rows.new_zeros(len(rows), size, size)
    for part in lower_blocks(size):
        products[:, part, : part.stop] = rows[:, part] @ rows[:, : part.stop].mH
    return products.tril_() + products.tril(-1).mH


def indefinite(matrices: Tensor) -> Tensor:
    """Which of the matrices (count, n, n) have no Cholesky factor; only lower triangles are read.

    By panels, since products of many matrices at once are faster than many factorizations.
    """
    count, size, _ = matrices.shape
    if size <= 2 * PANEL:
        return torch.linalg.cholesky_ex(matrices)[1] != 0
    factors = torch.empty_like(matrices)
    unit = torch.eye(PANEL, dtype=matrices.dtype, device=matrices.device)
    failed = torch.zeros(count, dtype=torch.bool, device=matrices.device)
    for low in range(0, size, PANEL):
        high = min(low + PANEL, size)
        panel, known = matrices[:, low:, low:high], factors[:, low:, :low]
        if low:
            panel = torch.baddbmm(panel, known, known[:, : high - low].mH, alpha=-1)
        factor, info = torch.linalg.cholesky_ex(panel[:, : high - low])
        failed |= info != 0
        if high == size or failed.all():
            break
        inverse = torch.linalg.solve_triangular(factor, unit.expand_as(factor), upper=False)
        torch.bmm(panel[:, PANEL:], inverse.mH, out=factors[:, high:, low:high])
    return failed


def random_rows(matrices: Tensor) -> Tensor:
    """A row for each matrix (count, n, n), always the same, without the global generator."""
    generator = torch.Generator().manual_seed(0)
    parts = torch.randn(2, matrices.shape[1], generator=generator, dtype=torch.float64)
    row = torch.complex(*parts) if matrices.is_complex() else parts[0]
    return row.to(matrices).expand(len(matrices), -1)


def lanczos(matrices: Tensor, start: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Quotients `x^H G x` and unit rows `x^H` (count, n) near the top of semidefinite matrices.

    Rows, since `x^H G` reads a matrix faster than `G x`. A start in an invariant subspace ends
    its own iteration: what is left of it is noise then, and becomes zero instead of a direction.
    The quotients are computed from the vectors, so that no fault of the iteration can raise them.
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
        before = torch.linalg.vector_norm(row, dim=2, keepdim=True)
        for _ in range(1 if step < SHORT else 2):
            part = torch.bmm(row, known.mH)
            row = torch.baddbmm(row, part, known, alpha=-1)
            projected[:, step, : step + 1] += part[:, 0]
        length = torch.linalg.vector_norm(row, dim=2, keepdim=True)
        row = (row / length).masked_fill_(length <= noise * before, 0.0)
    top = torch.linalg.eigh(projected)[1][:, :, -1:]
    rows = normalize(torch.bmm(top.mH, basis), dim=2)
    return (torch.bmm(rows, matrices) @ rows.mH).real[:, 0, 0], rows[:, 0]
