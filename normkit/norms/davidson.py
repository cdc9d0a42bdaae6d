"""Top eigenvectors without the matrix: a block Davidson method from two random starts."""

__all__ = ["dense_matrix", "flat_operator", "random_starts", "ritz_vector"]

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .maps import LinearMap

WIDTH = 2
ITERATIONS = 400
ROWS = 240
KEPT = 12
TRACKED = 6
LACK = 1.0
CONFIRMED = 2
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
    """Four random vectors (4, size), always the same, drawn without the global generator."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2 * WIDTH, size, generator=generator, dtype=torch.float64).to(like)


class _Space:
    """An orthonormal basis, what the operator makes of it, and the operator within it."""

    def __init__(self, rows: int, like: Tensor):
        self.basis, self.images = like.new_empty(2, rows, like.shape[1])
        # within the basis: x^T A x, and x^T A^T A x
        self.inside = torch.zeros(2, rows, rows, dtype=torch.float64, device=like.device)
        self.count, self.noise = 0, 100 * torch.finfo(like.dtype).eps

    def extend(self, block: Tensor, operator: Callable) -> Tensor:
        """Take the rows of a block into the basis; the images of those that were new.

        Orthogonalized in two passes, since what little one leaves holds its rounding. A remainder
        at that level is noise, and is left out instead of becoming a direction.
        """
        before = self.count
        for x in block[: len(self.basis) - before]:
            floor = self.noise * torch.linalg.vector_norm(x)
            for _ in range(2):
                known = self.basis[: self.count]
                x = torch.addmv(x, known.mT, torch.mv(known, x), alpha=-1)
            length = torch.linalg.vector_norm(x)
            if length > floor:
                self.basis[self.count] = x / length
                self.count += 1
        new, every = slice(before, self.count), slice(0, self.count)
        if before < self.count:
            self.images[new] = operator(self.basis[new])
            for inside, rows in zip(self.inside, (self.basis, self.images), strict=True):
                inside[new, every] = (self.images[new] @ rows[every].mT).double()
                inside[every, new] = inside[new, every].mT.clone()
        return self.images[new]

    def promising(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        """Ritz values, vectors and residuals, those first that may rise the highest.

        A Ritz value lacks about a multiple of its squared residual.
        """
        rows = slice(0, self.count)
        values, vectors = torch.linalg.eigh(self.inside[0, rows, rows])
        bent = ((self.inside[1, rows, rows] @ vectors) * vectors).sum(0)
        rise = LACK * (bent - values.square()).clamp(min=0) / values[-1].clamp(min=1e-300)
        first = (values + rise).argsort(descending=True)[:number]
        chosen = vectors[:, first].mT.to(self.basis)
        raw = chosen @ self.images[rows] - values[first, None].to(chosen) * (
            chosen @ self.basis[rows]
        )
        return values[-1], values[first], raw

    def top(self, number: int) -> tuple[Tensor, Tensor]:
        """The top Ritz vectors and their images, in falling order."""
        rows = slice(0, self.count)
        vectors = torch.linalg.eigh(self.inside[0, rows, rows])[1]
        chosen = vectors[:, -number:].flip(1).mT.to(self.basis)
        return chosen @ self.basis[rows], chosen @ self.images[rows]

    def restart(self) -> None:
        """Keep only the top of the space."""
        basis, images = self.top(KEPT)
        self.count = len(basis)
        self.basis[: self.count], self.images[: self.count] = basis, images
        for inside, rows in zip(self.inside, (basis, images), strict=True):
            inside[: self.count, : self.count] = (images @ rows.mT).double()


def _lacks(largest: Tensor, residuals: Tensor, inverses: Tensor | None) -> Tensor:
    """Estimates of what Ritz values lack: `r^T (tau I - A)^-1 r`, r the residual.

    Without an approximate inverse it is `|r|^2` over 1e-5 of the largest, since nothing is known
    of what is near.
    """
    if inverses is not None:
        return (residuals * inverses).sum(1).double()
    return 1e5 * residuals.double().square().sum(1) / largest.clamp(min=1e-300)


def ritz_vector(operator, start: Tensor, tolerance: float, invert=None) -> Tensor:
    """An approximate top eigenvector (1, size) of a positive semidefinite operator.

    Of the Ritz vectors that have not converged, the residuals of the two that promise most extend
    the basis, after `invert`, an approximate inverse of `tau I - A`, has brought forward what they
    hold of the top. Without it this is block Lanczos (for `A = B^T B` Golub-Kahan-Lanczos) with
    full reorthogonalization. It ends when, by estimate, none of these is above the largest Ritz
    value, up to `tolerance` in its root, and the last gain was no larger; first two fresh random
    starts join, and it has to hold again. What it returns is a guess in any case, worth what the
    quotient |B x| / |x| computed from it says.

    Source: Davidson, J. Comput. Phys. 1975; Golub & Van Loan, Matrix Computations, chapter 10.

    Arguments:
        start: random vectors (4, size), two to begin and two to confirm.

    Example:
        >>> matrix = torch.diag(torch.arange(1.0, 41.0, dtype=torch.float64))
        >>> x = ritz_vector(lambda x: x @ matrix, random_starts(40, matrix), 1e-9)
        >>> (x[0] @ matrix @ x[0]).round(decimals=6)
        tensor(40., dtype=torch.float64)
    """
    rows = min(ROWS // 4 if invert else ROWS, max(3 * KEPT, BASIS // start.numel()))
    rows = min(rows, start.shape[1])
    space, last, until, starts = _Space(rows, start), 0.0, 0, list(start.split(WIDTH))
    turn = invert or torch.clone
    block = turn(starts.pop(0))
    for step in range(ITERATIONS):
        new = space.extend(block, operator)
        if not len(new):
            if not starts:
                break
            new = space.extend(turn(starts.pop()), operator)
        full, block = rows < start.shape[1] and space.count + WIDTH > rows, new
        if invert or full or step % 4 == 3:
            largest, values, raw = space.promising(TRACKED)
            left = torch.linalg.vector_norm(raw, dim=1) > tolerance * largest
            left = left.nonzero()[:WIDTH, 0]
            inverse = turn(raw[left])
            lacks = _lacks(largest, raw[left], inverse if invert else None)
            above = [value - largest.item() for value in (values[left] + lacks).tolist()]
            error, last = max(largest.item() - last, *above, 0.0), largest.item()
            block = inverse if invert or full else new
            if error <= 2 * tolerance * last and step >= until:
                if not starts:
                    break
                block, until = turn(starts.pop()), step + CONFIRMED
            if full:
                space.restart()
    return space.top(1)[0]
