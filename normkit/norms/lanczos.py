"""Top singular vectors without the matrix: block Golub-Kahan-Lanczos from two starts."""

__all__ = ["dense_matrix", "flat_operator", "random_starts", "ritz_vectors"]

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .maps import LinearMap

STARTS = 2
CYCLES = 8
BASIS = 2**26
ENTRIES = 2**26


def flat_operator(linear: LinearMap, weight: Tensor, batch: int) -> tuple[Callable, Callable]:
    """The map and its adjoint on batches (batch, size) of flattened inputs and outputs.

    The map is linear, so one graph, built at zero, serves every application of the adjoint.
    """
    with torch.enable_grad():
        probe = weight.new_zeros(batch, *linear.in_shape).requires_grad_()
        image = linear.forward(probe, weight)

    def apply(x: Tensor) -> Tensor:
        return linear.forward(x.view(probe.shape), weight).flatten(1)

    def adjoint(y: Tensor) -> Tensor:
        (x,) = torch.autograd.grad(image, probe, y.view(image.shape), retain_graph=True)
        return x.flatten(1)

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


def _orthogonal(x: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """x without its part in the basis (count, size), and the coefficients of that part.

    Done twice where much is taken away, since what is left then holds more rounding than x.
    """
    coefficients = torch.zeros_like(x[:1]).expand(len(basis))
    for _ in range(2):
        before = torch.linalg.vector_norm(x)
        part = torch.mv(basis.conj(), x)
        coefficients = coefficients + part
        x = torch.addmv(x, basis.mT, part, alpha=-1)
        if torch.linalg.vector_norm(x) > 0.7 * before:
            break
    return x, coefficients


def _extend(basis: Tensor, count: int, block: Tensor, floor: float) -> Tensor:
    """Orthogonalize a block into the rows of the basis after `count`; the coefficients, by column.

    A remainder at rounding level is noise: its row stays zero instead of becoming a direction.
    """
    columns = block.new_zeros(count + len(block), len(block))
    for place, x in enumerate(block):
        known = count + place
        x, columns[:known, place] = _orthogonal(x, basis[:known])
        length = torch.linalg.vector_norm(x)
        columns[known, place] = length = torch.where(length > floor, length, 0.0)
        basis[known] = x * torch.where(length > 0, 1 / length, 0.0)
    return columns


def _top(projected: Tensor, outside: Tensor, tolerance: float) -> tuple[Tensor, Tensor, bool]:
    """Eigenvalues and vectors of the projected operator, and whether the largest has converged."""
    values, vectors = torch.linalg.eigh(projected, UPLO="U")
    residual = torch.linalg.vector_norm(outside @ vectors[-len(outside) :, -1])
    gap = torch.maximum(values[-1] - values[-2], 1e-3 * values[-1]).clamp(min=1e-300)
    return values, vectors, bool(residual**2 / gap <= 2 * tolerance * values[-1])


def _cycle(operator, start: Tensor, tolerance: float, steps: int) -> tuple[Tensor, bool]:
    """Block Lanczos from the rows of start; the top Ritz vectors, and whether they converged."""
    width = len(start)
    noise = 100 * torch.finfo(start.dtype).eps
    basis = start.new_empty((steps + 1) * width, start.shape[1])
    projected = torch.zeros(2 * (steps * width,), dtype=basis.dtype, device=basis.device)
    _extend(basis, 0, start, 0.0)
    scale, last = 0.0, -1.0
    for count in range(width, (steps + 1) * width, width):
        images = operator(basis[count - width : count])
        scale = max(scale, torch.linalg.vector_norm(images, dim=1).max().item())
        columns = _extend(basis, count, images, noise * scale)
        projected[:count, count - width : count] = columns[:count]
        if count % (4 * width) == 0 or count == steps * width:
            part = projected[:count, :count].to(torch.promote_types(basis.dtype, torch.float64))
            values, vectors, small = _top(part, columns[count:].to(part), tolerance)
            steady = values[-1] - last <= 2 * tolerance * values[-1]
            last = values[-1]
            if small and steady:
                break
    ritz = vectors[:, -width:].flip(1).mT.to(basis)
    return ritz @ basis[:count], small


def ritz_vectors(operator, start: Tensor, tolerance: float) -> Tensor:
    """Approximate top eigenvectors (2, size) of a positive semidefinite operator, best first.

    Block Lanczos with full reorthogonalization from two starts at once, restarted from the Ritz
    vectors when the basis is full: for `operator = A^T A` it is Golub-Kahan-Lanczos, and a second
    start in the same space, so that two nearly equal singular values do not hide one another. It
    stops when the error estimate of the root of the eigenvalue is below `tolerance`. What it
    returns is a guess in any case, worth what the quotient |A x| / |x| computed from it says.

    Source: Golub & Kahan 1965; Golub & Van Loan, Matrix Computations, sections 10.3 and 10.4.

    Example:
        >>> matrix = torch.diag(torch.arange(1.0, 41.0, dtype=torch.float64))
        >>> x = ritz_vectors(lambda x: x @ matrix, random_starts(40, matrix), 1e-9)
        >>> (x[0] @ matrix @ x[0]).round(decimals=6)
        tensor(40., dtype=torch.float64)
    """
    rows = min(300, start.shape[1], max(24, BASIS // start.shape[1]))
    steps = -(-rows // len(start))
    for _ in range(CYCLES):
        start, converged = _cycle(operator, start, tolerance, steps)
        if converged:
            break
    return start
