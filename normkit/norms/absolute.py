"""The norms of a layer that follow from taps and geometry at once: l1, linf, Frobenius."""

__all__ = ["frobenius_norm", "l1_norm", "linf_norm"]

import math
from collections import defaultdict
from functools import lru_cache

import torch
from torch import Tensor, nn

from .maps import Axis, LinearMap
from .patterns import tap_sums
from .rules import check_finite, measured_map, unchecked_map

BLOCKS = {"cpu": 2**18}
BLOCK = 2**24


def _contract(values: Tensor, matrices: list[Tensor], first: int) -> Tensor:
    """Multiply a matrix (rows, taps) into each axis of taps, in order, from axis `first` on."""
    for matrix in matrices:
        values = values.movedim(first, -1) @ matrix.mT
    return values


def absolute_sums(linear: LinearMap, norm: str) -> Tensor:
    """The absolute row sums (linf) or column sums (l1) that can be the largest.

    The weights are read once, on a CPU in blocks whose moduli stay in the cache.

    Shape:
        (groups, lines, patterns): a line is an output channel of its group for the rows of a
        convolution, an input channel for its columns; the patterns are those of the axes, the
        last axis fastest, as in `tap_sums`.
    """
    rows, weight = (norm == "linf") != linear.transposed, linear.weight
    before, after, whole = tap_sums(linear.axes, rows, weight.dtype, weight.device)

    def lines(part: Tensor) -> Tensor:
        part = _contract(part, before, 3).abs()
        if rows:
            return part.flatten(2).sum(2) if whole else part.sum(2)
        return part.sum(1)

    block = BLOCKS.get(weight.device.type, BLOCK)
    if weight.numel() <= block:
        sums = lines(weight)
    else:
        step = -(-weight.shape[1] // -(-weight.numel() // block))
        blocks = [lines(part) for part in weight.split(step, 1)]
        sums = torch.cat(blocks, 1) if rows else sum(blocks)
    if whole:
        sums = (sums if rows else sums.reshape(*sums.shape[:2], -1).sum(2)).unsqueeze(2)
    else:
        sums = _contract(sums.flatten(2) if len(after) == 1 else sums, after, 2)
    return sums.flatten(2)


def absolute_norm(linear: LinearMap, norm: str) -> Tensor:
    """The "l1" or "linf" norm of a linear map, exact for every geometry."""
    return absolute_sums(linear, norm).max()


def _checked_norm(layer: nn.Module, input_size, norm: str) -> Tensor:
    """The norm of a layer; weights that are not finite show in it, and only then are counted."""
    linear = unchecked_map(layer, input_size)
    value = absolute_norm(linear, norm)
    if not math.isfinite(value.item()):
        check_finite(layer, linear.weight.detach())
    return value


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
    return _checked_norm(layer, input_size, "l1")


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
    return _checked_norm(layer, input_size, "linf")


@lru_cache(maxsize=4096)
@torch.inference_mode(False)
def _usage(axis: Axis, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Square root of the matrix that counts the entries in which two taps add up."""
    taps = defaultdict(list)
    for output, pixel, tap in axis.reads():
        taps[output, pixel].append(tap)
    usage = torch.zeros(axis.taps, axis.taps, dtype=torch.float64)
    for members in taps.values():
        for tap in members:
            usage[tap, members] += 1
    if torch.equal(usage, usage.diag().diag()):
        return usage.sqrt().to(device, dtype)
    values, vectors = torch.linalg.eigh(usage)
    return ((vectors * values.clamp(min=0).sqrt()) @ vectors.mT).to(device, dtype)


def operator_frobenius(linear: LinearMap) -> Tensor:
    """The Frobenius norm of a linear map."""
    weight = linear.weight
    usages = [_usage(axis, weight.dtype, weight.device) for axis in linear.axes]
    return torch.linalg.vector_norm(_contract(weight, usages, 3))


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
