"""Top eigenvectors without the matrix: a block Davidson method from two random starts."""

__all__ = ["dense_matrix", "flat_operator", "random_starts", "ritz_vector"]

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .maps import LinearMap

STARTS = 2
ITERATIONS = 400
ROWS = 240
KEPT = 8
BASIS = 2**26
ENTRIES = 2**26


def flat_operator(linear: LinearMap, weight: Tensor, batch: int) -> tuple[Callable, Callable]:
    """The map and its adjoint on at most `batch` flattened inputs and outputs (count, size).

    The map is linear, so one graph, built at zero, serves every application of the adjoint.
    """
    with torch.enable_grad():
        probe = weight.new_zeros(batch, *linear.in_shape).requires_grad_()
        image = linear.forward(probe, weight)

    def apply(x: Tensor) -> Tensor:
        return linear.forward(x.view(-1, *linear.in_shape), weight).flatten(1)

    def adjoint(y: Tensor) -> Tensor:
        full = y.new_zeros(image.shape).flatten(1)
        full[: len(y)] = y
        (x,) = torch.autograd.grad(image, probe, full.view(image.shape), retain_graph=True)
        return x[: len(y)].flatten(1)

    return apply, adjoint


def dense_matrix(linear: LinearMap, weight: Tensor) -> Tensor:
    """The operator as a matrix, or its transpose: the side with fewer unit vectors is pushed.

    Raises:
        ValueError: if the matrix would not fit in half a gigabyte.
    """
    inputs, outputs = math.prod(linear.in_shape), math.prod(linear.out_shape)
    if inputs * outputs > ENTRIES:
        raise ValueError(
            f"boundary 'zero' needs a dense matrix of {outputs} x {inputs}, more than {ENTRIES} "
            "entries; use boundary 'circular' or a smaller input_size"
        )
    units = torch.eye(min(inputs, outputs), dtype=weight.dtype, device=weight.device)
    apply, adjoint = flat_operator(linear, weight, len(units))
    return apply(units) if inputs <= outputs else adjoint(units)


def random_starts(size: int, like: Tensor) -> Tensor:
    """Two random vectors (2, size), always the same, drawn without the global generator."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(STARTS, size, generator=generator, dtype=torch.float64).to(like)


def _extend(basis: Tensor, count: int, block: Tensor) -> int:
    """Orthogonalize a block into the rows of the basis after `count`; the new count.

    In two passes, since what little one leaves holds its rounding. A remainder at that level is
    noise, and is left out instead of becoming a direction.
    """
    noise = 100 * torch.finfo(basis.dtype).eps
    for x in block:
        floor = noise * torch.linalg.vector_norm(x)
        for _ in range(2):
            x = torch.addmv(x, basis[:count].mT, torch.mv(basis[:count], x), alpha=-1)
        length = torch.linalg.vector_norm(x)
        if length > floor:
            basis[count] = x / length
            count += 1
    return count


def _error(values: Tensor, residual: Tensor, inverse: Tensor | None) -> float:
    """An estimate of what the largest Ritz value lacks: `r^T (tau I - A)^-1 r`, r its residual.

    Without an approximate inverse, `|r|^2` over the gap to the next Ritz value, which far more of
    the spectrum may fill: a hundred times as much, to be safe.
    """
    if inverse is not None:
        return torch.dot(residual, inverse).item()
    gap = max(values[-1].item() - values[:-1].amax().item(), 1e-3 * values[-1].item(), 1e-300)
    return 100 * residual.square().sum().item() / gap


def ritz_vector(operator, start: Tensor, tolerance: float, invert=None) -> Tensor:
    """An approximate top eigenvector (1, size) of a positive semidefinite operator.

    The residuals of the two top Ritz vectors extend the basis, after `invert`, an approximate
    inverse of `tau I - A`, has brought forward what they hold of the top. Without it this is block
    Lanczos (for `A = B^T B` Golub-Kahan-Lanczos) with full reorthogonalization. Two random starts
    share a space, so that two nearly equal eigenvalues do not hide one another. It stops when the
    error estimate of the root of the largest, and its last gain, are below `tolerance`. What it returns is a guess
    in any case, worth what the quotient |B x| / |x| computed from it says.

    Source: Davidson, J. Comput. Phys. 1975; Golub & Van Loan, Matrix Computations, chapter 10.

    Example:
        >>> matrix = torch.diag(torch.arange(1.0, 41.0, dtype=torch.float64))
        >>> x = ritz_vector(lambda x: x @ matrix, random_starts(40, matrix), 1e-9)
        >>> (x[0] @ matrix @ x[0]).round(decimals=6)
        tensor(40., dtype=torch.float64)
    """
    width, size = start.shape
    rows = min(size, max(3 * KEPT, min(ROWS // 4 if invert else ROWS, BASIS // size)))
    basis, images = start.new_empty(2, rows + width, size)
    projected = torch.zeros(rows + width, rows + width, dtype=torch.float64, device=start.device)
    ritz, last, known = start, -1.0, 0
    count = _extend(basis, 0, invert(start) if invert else start)
    for _ in range(ITERATIONS):
        new, known = slice(known, count), count
        images[new] = block = operator(basis[new])
        projected[new, :count] = (block @ basis[:count].mT).double()
        projected[:count, new] = projected[new, :count].mT
        full = count + width > rows
        if invert or full or count % (4 * width) == 0:
            values, vectors = torch.linalg.eigh(projected[:count, :count])
            chosen = vectors[:, -(KEPT if full else width) :].flip(1).mT.to(basis)
            ritz, bent = chosen @ basis[:count], chosen @ images[:count]
            block = bent[:width] - values.flip(0)[:width, None].to(bent) * ritz[:width]
            residual, block = block[0], invert(block) if invert else block
            error = _error(values, residual, block[0] if invert else None)
            error, last = max(error, (values[-1] - last).item()), values[-1]
            if error <= 2 * tolerance * values[-1] or count == size:
                break
            if full:
                known = len(ritz)
                basis[:known], images[:known], projected[:] = ritz, bent, 0.0
                projected[range(known), range(known)] = values.flip(0)[:known]
        count = _extend(basis, known, block)
        if count == known:
            break
    return ritz[:1]
