"""Spectral normalization: of the kernel as a matrix, or of the operator that a layer is."""

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from normkit import norms
from normkit.norms.davidson import random_starts

__all__ = ["OperatorNorm", "OperatorNormConv2d", "power_iteration", "spectral_norm"]

TURNS = 100


def power_iteration(linear: norms.LinearMap, vector: Tensor, turns: int) -> Tensor:
    r"""Turns a vector towards the one that a linear map stretches most.

    .. math:: v \leftarrow \frac{A^T A v}{\lVert A^T A v \rVert}

    In plain words: what the map stretches more gains on what it stretches less.

    Arguments:
        linear: the map, A.
        vector: v, of length 1; it is kept where A^T A v is 0.
        turns: number of steps.

    Shape:
        ``(1, *linear.in_shape)`` to the same.

    Example:
        >>> weight = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
        >>> linear = norms.LinearMap("linear", weight[None], ())
        >>> power_iteration(linear, torch.tensor([[0.6, 0.8]]), 20).round(decimals=6)
        tensor([[1., 0.]])
    """
    with torch.inference_mode(False), torch.enable_grad():
        weight = linear.weight.detach()
        for _ in range(turns):
            vector = vector.detach().requires_grad_()
            stretch = torch.linalg.vector_norm(linear.forward(vector, weight))
            (along,) = torch.autograd.grad(stretch, vector)
            length = torch.linalg.vector_norm(along)
            vector = torch.where(length > 0, along / length, vector)
    return vector.detach()


def _converged(linear: norms.LinearMap) -> Tensor:
    """The vector after many turns, from a start that is always the same."""
    start = random_starts(torch.Size(linear.in_shape).numel(), linear.weight)[:1]
    start = start.reshape(1, *linear.in_shape)
    return power_iteration(linear, start / torch.linalg.vector_norm(start), TURNS)


class OperatorNorm(nn.Module):
    r"""The parametrization of a kernel by its operator's spectral norm on maps of a given size.

    .. math:: W = w / \sigma, \quad \sigma = \lVert A_w v \rVert

    In plain words: in training v takes one turn of the power iteration whenever the weight is
    read, from where it was; after a change of the size it starts afresh, with 100 turns. In
    evaluation it always starts afresh, so that W depends on w and the size alone, and is found
    once for as long as they stay. Before a size is known, W is w.

    Arguments:
        convolution: tells stride, padding, dilation, groups and padding mode.
        n_power_iterations: turns whenever the weight is read in training.

    Shape:
        ``(C_out, C_in / groups, kh, kw)`` to the same.

    Example:
        >>> layer = nn.Conv2d(3, 4, 3)
        >>> norm = OperatorNorm(layer).eval()
        >>> layer.weight = nn.Parameter(norm.normalized(layer.weight, (6, 7)))
        >>> abs(norms.spectral_norm(layer, (6, 7)).lower - 1) < 0.02
        True
    """

    def __init__(self, convolution: nn.Conv2d, *, n_power_iterations: int = 1) -> None:
        super().__init__()
        names = ("stride", "padding", "dilation", "groups", "padding_mode")
        self.geometry = {name: getattr(convolution, name) for name in names}
        self.n_power_iterations, self.size, self._known = n_power_iterations, None, None
        self.register_buffer("vector", torch.empty(0), persistent=False)
        self.register_load_state_dict_post_hook(_forget)

    def forward(self, weight: Tensor) -> Tensor:
        return weight if self.size is None else self.normalized(weight, self.size)

    def normalized(self, weight: Tensor, size: tuple[int, int]) -> Tensor:
        """The weight over the spectral norm of its operator on maps of this size."""
        with torch.inference_mode(False), torch.no_grad():
            kept = norms.convolution_map(weight.detach(), size, **self.geometry)
            vector = self._trained(kept) if self.training else self._evaluated(kept)
        linear = norms.convolution_map(weight, size, **self.geometry)
        sigma = torch.linalg.vector_norm(linear.forward(vector))
        return weight / sigma.clamp(min=torch.finfo(sigma.dtype).tiny)

    def _trained(self, linear: norms.LinearMap) -> Tensor:
        """The vector that training keeps, a turn further; a new tensor, as graphs hold the old."""
        if self.vector.shape[1:] == linear.in_shape:
            vector = self.vector.to(linear.weight)
            self.vector = power_iteration(linear, vector, self.n_power_iterations)
        else:
            self.vector = _converged(linear)
        return self.vector

    def _evaluated(self, linear: norms.LinearMap) -> Tensor:
        """The vector that follows from the weight and the size; that of the last time, if same."""
        if self._known is None or not _same(self._known[0], linear):
            copied = replace(linear, weight=linear.weight.clone())
            self._known = copied, _converged(linear)
        return self._known[1]

    def extra_repr(self) -> str:
        return f"n_power_iterations={self.n_power_iterations}"


def _forget(norm: OperatorNorm, incompatible_keys) -> None:
    """Lets training start afresh from the weights that were loaded."""
    norm.vector = norm.vector.new_empty(0)


def _same(one: norms.LinearMap, other: norms.LinearMap) -> bool:
    """Whether two maps are equal, entry by entry, and on the same device."""
    a, b = one.weight, other.weight
    alike = one.axes == other.axes and (a.dtype, a.device) == (b.dtype, b.device)
    return alike and torch.equal(a, b)


class OperatorNormConv2d(nn.Conv2d):
    """Torch's convolution, its kernel normalized by ``OperatorNorm`` at the size of its input.

    Arguments:
        n_power_iterations: see ``OperatorNorm``; the others as in ``nn.Conv2d``.

    Shape:
        as ``nn.Conv2d``.

    Example:
        >>> layer = OperatorNormConv2d(3, 8, 3, padding=2, dilation=2, bias=False).eval()
        >>> x = torch.randn(5, 3, 6, 6)
        >>> bool(layer(x).norm() < x.norm())
        True
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        n_power_iterations: int = 1,
    ) -> None:
        sizes = (in_channels, out_channels, kernel_size, stride, padding, dilation)
        super().__init__(*sizes, groups, bias, padding_mode)
        norm = OperatorNorm(self, n_power_iterations=n_power_iterations)
        parametrize.register_parametrization(self, "weight", norm)

    def forward(self, x: Tensor) -> Tensor:
        self.parametrizations.weight[0].size = tuple(x.shape[-2:])
        return super().forward(x)


@norms.linear_map.register
def _linear_map(layer: OperatorNormConv2d, input_size, boundary: str = "zero") -> norms.LinearMap:
    """The operator with the weight that an input of this size sees."""
    size = tuple(input_size) if isinstance(input_size, (tuple, list)) else (input_size,)
    if len(size) != 2 or not all(isinstance(n, int) and n > 0 for n in size):
        name = type(layer).__name__
        raise ValueError(f"input_size {input_size!r} is not 2 positive integers, as {name} wants")
    norm, original = layer.parametrizations.weight[0], layer.parametrizations.weight.original
    weight = norm.normalized(original, size)
    return norms.convolution_map(weight, size, **norm.geometry, boundary=boundary)


def spectral_norm(
    in_channels: int,
    out_channels: int,
    kernel_size: int | tuple[int, int],
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    bias: bool = False,
    *,
    groups: int = 1,
    of: str = "kernel",
    n_power_iterations: int = 1,
) -> nn.Conv2d:
    r"""Makes a convolution whose kernel is divided by a spectral norm.

    .. math:: W = w / \sigma(w)

    In plain words: with ``of="kernel"`` sigma is the norm of the kernel as a matrix, a row for
    each output channel; the operator's is then anything from 1 to sqrt(kh kw), on images that
    hold the kernel whole. With ``of="operator"`` it is the norm of the operator as executed, with
    its borders, at the size of the input. Both are found by power iteration, and the gradient
    goes through sigma.

    Source: Miyato et al. 2018, arXiv 1802.05957; "kernel" is torch's parametrization, which Liu
    et al. 2021, arXiv 2103.00673, compare with.

    Deviation: "operator" is no paper's here. Its state dict holds no vector, so that it loads
    whatever size was seen; evaluation takes 100 turns from a start that is always the same.

    Arguments:
        of: "kernel" or "operator".
        n_power_iterations: turns at each forward pass in training, at least 1.
        others: as ``conv``; a bias starts at 0.

    Shape:
        as ``nn.Conv2d``.

    Raises:
        ValueError: if ``of`` is another word, or n_power_iterations is below 1.

    Example:
        >>> for of in ("kernel", "operator"):
        ...     layer = spectral_norm(4, 8, 3, padding=1, of=of)
        ...     _ = nn.init.ones_(layer.parametrizations.weight.original)
        ...     _ = layer(torch.zeros(1, 4, 32, 32))
        ...     print(round(norms.spectral_norm(layer.eval(), (32, 32)).lower, 2))
        2.98
        1.0
    """
    if of not in ("kernel", "operator"):
        raise ValueError(f"of must be 'kernel' or 'operator', not {of!r}")
    if not isinstance(n_power_iterations, int) or n_power_iterations < 1:
        found = f"not {n_power_iterations!r}"
        raise ValueError(f"n_power_iterations must be a whole number, 1 or more, {found}")
    sizes = (in_channels, out_channels, kernel_size, stride, padding)
    if of == "kernel":
        made = nn.Conv2d(*sizes, groups=groups, bias=bias)
        parametrizations.spectral_norm(made, n_power_iterations=n_power_iterations)
    else:
        options = {"groups": groups, "bias": bias, "n_power_iterations": n_power_iterations}
        made = OperatorNormConv2d(*sizes, **options)
    if bias:
        nn.init.zeros_(made.bias)
    return made
