"""Batches of Hermitian matrices: products, factorizations, a few Lanczos steps."""

__all__ = ["diagonal", "gram", "indefinite", "lanczos", "pack", "random_rows", "ritz_rows", "unpack"]

import itertools
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import normalize

PANEL = 16
SPLIT = 64
SHORT = 8


def _row_blocks(size: int) -> list[slice]:
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
    for part in _row_blocks(size):
        products[:, part, : part.stop] = rows[:, part] @ rows[:, : part.stop].mH
    return products.tril_() + products.tril(-1).mH


@lru_cache(maxsize=256)
def _panels(size: int) -> tuple[tuple[slice, slice, slice], ...]:
    """Columns of each panel of a lower triangle, its rows, and its place when they are packed."""
    width, done, panels = (size if size <= 2 * PANEL else PANEL), 0, []
    for low in range(0, size, width):
        high = min(low + width, size)
        entries = (size - low) * (high - low)
        panels.append((slice(low, high), slice(low, size), slice(done, done + entries)))
        done += entries
    return tuple(panels)


@lru_cache(maxsize=256)
def diagonal(size: int) -> Tensor:
    """Where the diagonal is in a packed matrix."""
    return torch.cat([
        place.start + torch.arange(columns.stop - columns.start) * (columns.stop - columns.start + 1)
        for columns, _, place in _panels(size)
    ])


def pack(matrices: Tensor) -> Tensor:
    """Lower triangles of matrices (count, n, n), panel after panel: (count, entries)."""
    parts = [matrices[:, rows, columns].flatten(1) for columns, rows, _ in _panels(matrices.shape[1])]
    return torch.cat(parts, dim=1)


def unpack(packed: Tensor, size: int) -> Tensor:
    """Hermitian matrices (count, n, n) from their packed lower triangles."""
    matrices = packed.new_empty(len(packed), size, size)
    for columns, rows, place in _panels(size):
        part = packed[:, place].unflatten(1, (-1, columns.stop - columns.start))
        matrices[:, rows, columns] = part
        matrices[:, columns, columns.stop :] = part[:, columns.stop - columns.start :].mH
    return matrices


def indefinite(packed: Tensor, size: int) -> Tensor:
    """Which of the matrices, given by their packed lower triangles, have no Cholesky factor.

    By panels, since products of many matrices at once are faster than many factorizations.
    """
    factors = packed.new_empty(len(packed), size, size)
    failed = torch.zeros(len(packed), dtype=torch.bool, device=packed.device)
    for columns, rows, place in _panels(size):
        width = columns.stop - columns.start
        panel = packed[:, place].unflatten(1, (-1, width))
        if columns.start:
            known = factors[:, rows, : columns.start]
            panel = torch.baddbmm(panel, known, known[:, :width].mH, alpha=-1)
        factor, info = torch.linalg.cholesky_ex(panel[:, :width])
        failed |= info != 0
        if columns.stop == size or failed.all():
            break
        unit = torch.eye(width, dtype=packed.dtype, device=packed.device).expand_as(factor)
        inverse = torch.linalg.solve_triangular(factor, unit, upper=False)
        torch.bmm(panel[:, width:], inverse.mH, out=factors[:, columns.stop :, columns])
    return failed


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
    """
    rows = normalize(ritz_rows(matrices, start, steps, 1)[1], dim=2)
    return (torch.bmm(rows, matrices) @ rows.mH).real[:, 0, 0], rows[:, 0]
