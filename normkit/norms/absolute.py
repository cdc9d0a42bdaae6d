"""The norms of a layer that follow from taps and geometry at once: l1, linf, Frobenius."""

__all__ = ["frobenius_norm", "l1_norm", "linf_norm"]

from collections import defaultdict
from functools import lru_cache
from itertools import product

import torch
from torch import Tensor, nn

from .maps import Axis, LinearMap
from .rules import measured_map


@lru_cache(maxsize=4096)
def _patterns(axis: Axis, side: str) -> tuple[tuple[tuple[int, ...], ...], ...]:
    """What single outputs ("rows") or single pixels ("columns") of the axis see.

    A pattern lists, for each entry of that row or column, the taps that add up in it.
    """
    entries = defaultdict(list)
    for output, pixel, tap in axis.reads():
        entries[output, pixel].append(tap)
    lines = defaultdict(list)
    for (output, pixel), taps in entries.items():
        lines[output if side == "rows" else pixel].append(tuple(taps))
    return tuple(sorted({tuple(sorted(line)) for line in lines.values()}))


@lru_cache(maxsize=4096)
def _counts(axis: Axis, side: str) -> Tensor | None:
    """How often each pattern holds each tap, the dominated ones dropped; None if taps add up."""
    patterns = _patterns(axis, side)
    if any(len(taps) > 1 for pattern in patterns for taps in pattern):
        return None
    rows = {tuple(pattern.count((tap,)) for tap in range(axis.taps)) for pattern in patterns}
    rows = rows or {(0,) * axis.taps}

    def dominated(row):
        return any(row != other and all(map(int.__le__, row, other)) for other in rows)

    return torch.tensor([row for row in sorted(rows) if not dominated(row)], dtype=torch.float64)


def _contract(values: Tensor, matrices: list[Tensor]) -> Tensor:
    """Multiply a matrix (rows, taps) into each of the last axes, in order."""
    dims = len(matrices)
    for axis, matrix in enumerate(matrices, -dims):
        values = (values.movedim(axis, -1) @ matrix.to(values).mT).movedim(-1, axis)
    return values


def _folded_sum(weight: Tensor, reduced: int, patterns: list) -> Tensor:
    """Largest absolute sum over all choices of patterns when taps add up before the modulus."""
    sums = []
    for choice in product(*patterns):
        matrices = []
        for pattern, taps in zip(choice, weight.shape[3:], strict=True):
            matrix = torch.zeros(len(pattern), taps, dtype=torch.float64)
            for row, members in enumerate(pattern):
                matrix[row, list(members)] = 1
            matrices.append(matrix)
        sums.append(_contract(weight, matrices).abs().sum(reduced).flatten(2).sum(2).max())
    return torch.stack(sums).max()


def absolute_norm(linear: LinearMap, norm: str) -> Tensor:
    """The "l1" or "linf" norm of a linear map, exact for every geometry."""
    rows = (norm == "linf") != linear.transposed
    side, reduced = ("rows", 2) if rows else ("columns", 1)
    counts = [_counts(axis, side) for axis in linear.axes]
    if any(count is None for count in counts):
        return _folded_sum(linear.weight, reduced, [_patterns(a, side) for a in linear.axes])
    return _contract(linear.weight.abs().sum(reduced), counts).max()


def l1_norm(layer: nn.Module, input_size) -> Tensor:
    """The l1 norm of a layer's operator: the largest absolute column sum.

    `||A||_1 = max_j sum_i |A_ij|`

    *In plain words:* the most that one input pixel can move all outputs together. Exact for any
    stride, padding, padding mode, dilation, groups and input size, and differentiable in the
    weights.

    Source: Liang & Huang, "Large Norms of CNN Layers Do Not Hurt Adversarial Robustness",
    AAAI 2021, https://arxiv.org/abs/2009.08435, section on the norms of convolutions.

    Deviation: borders, dilation, groups and unequal sides are exact here; the paper's formula
    holds away from borders.

    Arguments:
        layer: a layer with a known linear map.
        input_size: its spatial input shape in pixels, 1 to 3 numbers; ignored for Linear and
            BatchNorm.

    Shape:
        0-dim, in the dtype of the weights (float32 at least).

    Raises:
        TypeError: if the layer has no known linear map or integer weights.
        ValueError: if the weights are not finite or the input does not fit.

    Example:
        >>> layer = nn.Conv1d(1, 1, 3, padding=1)
        >>> _ = nn.init.constant_(layer.weight, 1.0)
        >>> [l1_norm(layer, (n,)).item() for n in (1, 2, 9)]
        [1.0, 2.0, 3.0]
    """
    return absolute_norm(measured_map(layer, input_size), "l1")


def linf_norm(layer: nn.Module, input_size) -> Tensor:
    """The linf norm of a layer's operator: the largest absolute row sum.

    `||A||_inf = max_i sum_j |A_ij|`

    *In plain words:* the most that one output can move when no input pixel moves by more than
    one. Exact for any stride, padding, padding mode, dilation, groups and input size, and
    differentiable in the weights.

    Source: Liang & Huang, "Large Norms of CNN Layers Do Not Hurt Adversarial Robustness",
    AAAI 2021, https://arxiv.org/abs/2009.08435, section on the norms of convolutions.

    Arguments:
        layer: a layer with a known linear map.
        input_size: its spatial input shape in pixels, 1 to 3 numbers; ignored for Linear and
            BatchNorm.

    Shape:
        0-dim, in the dtype of the weights (float32 at least).

    Raises:
        TypeError: if the layer has no known linear map or integer weights.
        ValueError: if the weights are not finite or the input does not fit.

    Example:
        >>> layer = nn.Linear(3, 2).double()
        >>> bool(linf_norm(layer, None) == torch.linalg.matrix_norm(layer.weight, torch.inf))
        True
    """
    return absolute_norm(measured_map(layer, input_size), "linf")


@lru_cache(maxsize=4096)
def _usage(axis: Axis) -> Tensor:
    """Square root of the matrix that counts the entries in which two taps add up."""
    taps = defaultdict(list)
    for output, pixel, tap in axis.reads():
        taps[output, pixel].append(tap)
    usage = torch.zeros(axis.taps, axis.taps, dtype=torch.float64)
    for members in taps.values():
        for tap in members:
            usage[tap, members] += 1
    if torch.equal(usage, usage.diag().diag()):
        return usage.sqrt()
    values, vectors = torch.linalg.eigh(usage)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.mT


def operator_frobenius(linear: LinearMap) -> Tensor:
    """The Frobenius norm of a linear map."""
    return torch.linalg.vector_norm(_contract(linear.weight, [_usage(a) for a in linear.axes]))


def frobenius_norm(layer: nn.Module, input_size, boundary: str = "zero") -> Tensor:
    """The Frobenius norm of a layer's operator, not of its kernel.

    `||A||_F^2 = sum_ij A_ij^2`: each squared weight as often as the operator uses it.

    *In plain words:* the root of the sum of all squared singular values of what the layer does.
    Differentiable in the weights.

    Source: definition, Golub & Van Loan, Matrix Computations, section 2.3.

    Arguments:
        layer: a layer with a known linear map.
        input_size: its spatial input shape in pixels, 1 to 3 numbers. Linear ignores it; of a
            BatchNorm, whose diagonal repeats at every pixel, it gives the number of pixels
            (none: one).
        boundary: "zero" for the operator as executed, "circular" for the taps on the torus.

    Shape:
        0-dim, in the dtype of the weights (float32 at least).

    Raises:
        TypeError: if the layer has no known linear map or integer weights.
        ValueError: if the weights are not finite or the input does not fit.

    Example:
        >>> layer = nn.Conv1d(1, 1, 3, padding=1)
        >>> _ = nn.init.constant_(layer.weight, 1.0)
        >>> frobenius_norm(layer, (6,)).item()         # 4 outputs see 3 taps, 2 see 2: 16 entries
        4.0
    """
    return operator_frobenius(measured_map(layer, input_size, boundary))
