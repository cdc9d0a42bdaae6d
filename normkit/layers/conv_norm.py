"""ConvNorm: a convolution normalized in the Fourier domain, then its filter and BatchNorm."""

import copy
import math
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from normkit.models import Convolution

from .conv_norm_checks import check_arguments, check_input, margins, pair_of
from .inverse_root import inverse_root, own_grid
from .normalized_convolution import cast_device, normalized_convolution
from .running_root import RunningRoot

__all__ = ["ConvNorm2d"]


class ConvNorm2d(Convolution):
    r"""A convolution whose every output channel is an isometry, then a filter and BatchNorm.

    .. math:: z_k = \sum_j a_{k,j} * x_j, \quad \hat z_k = F^{-1} V_k F z_k, \quad
        V_k = \Bigl(\sum_j |F a_{k,j}|^2\Bigr)^{-1/2}, \quad y_k = r_k * \hat z_k + b_k

    In plain words: the Fourier transform of each output channel is divided, at every frequency,
    by the length of that channel's taps at this frequency. F is the transform on the smallest
    periodic grid that holds the full convolution, H + k - 1; afterwards the output is cropped and
    subsampled as padding and stride say, filtered channel by channel by a learned kernel r with
    zero padding, shifted by the bias, and BatchNorm follows. It stands for ``nn.Conv2d`` and the
    ``nn.BatchNorm2d`` behind it. V is a constant in the backward pass, and is recomputed from the
    weights in every forward pass, so any size of image works at any time. The output does not
    change when the taps of a channel are scaled. There are no second derivatives.

    Before r, each channel's operator Q_k has Q_k Q_k^T = I on the grid at stride 1, so that the
    layer's largest singular value there is between 1 and sqrt(C_out); cropping and subsampling
    can only lower it. A dead filter (all taps zero) gives zero, and no gradient revives it.
    ``nn.Conv2d`` crops a padding above k - 1 from zeros; here such images are padded first, as
    they are with a padding mode other than zeros, and the grid is that of the padded image.

    Source: Liu et al. 2021, Convolutional Normalization, arXiv 2103.00673.

    Deviation: eps, which the paper leaves out, relative to the mean of S over frequencies; r
    starts as a unit impulse, not as torch's random kernel, which shrinks a signal about threefold.
    The authors' code keeps a running average of V that it uses in evaluation: ``variant``.

    Arguments:
        in_channels: as in ``nn.Conv2d``, like all down to ``dtype``.
        out_channels: channels of the output.
        kernel_size: in pixels.
        stride: in pixels.
        padding: in pixels, "same" or "valid".
        dilation: pixels between taps.
        groups: groups of channels that do not see each other.
        bias: whether b is there.
        padding_mode: zeros, reflect, replicate or circular.
        device: of the parameters.
        dtype: of the parameters; half precision computes in float32.
        affine: whether r is there.
        batch_norm: whether an ``nn.BatchNorm2d`` follows.
        eps: of S; 0 is the bare definition, where V is 0 at frequencies that no tap reaches.
        filter_init: "delta", a unit impulse, or "torch", what ``nn.Conv2d`` draws.
        filter_gain: r starts that many times as large.
        variant: "paper", or "released" for the running average of V.

    Shape:
        (N, C_in, H, W) or (C_in, H, W), as in ``nn.Conv2d``; the output is channels_last

    Raises:
        ValueError: an argument out of range, or an input smaller than the kernel.
        TypeError: an input of another floating-point type than the weights, outside autocast.

    Example:
        >>> from normkit import norms
        >>> bare = {"bias": False, "affine": False, "batch_norm": False, "eps": 0.0}
        >>> layer = ConvNorm2d(3, 16, 3, padding=1, dtype=torch.float64, **bare)
        >>> sigma = norms.spectral_norm(layer, (8, 8), boundary="circular")
        >>> 1 <= sigma.upper and sigma.lower <= 16**0.5
        True
        >>> channel = ConvNorm2d(3, 1, 3, padding=1, dtype=torch.float64, **bare)
        >>> values = norms.singular_values(channel, (8, 8))
        >>> values.shape, bool((values - 1).abs().max() < 1e-12)  # an isometry
        (torch.Size([100, 1]), True)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | str = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        affine: bool = True,
        batch_norm: bool = True,
        eps: float = 1e-6,
        filter_init: str = "delta",
        filter_gain: float = 1.0,
        variant: str = "paper",
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        steps = (kernel_size, stride, dilation)
        self.kernel_size, self.stride, self.dilation = map(pair_of, steps)
        self.padding = padding if isinstance(padding, str) else pair_of(padding)
        self.padding_mode, self.eps, self.variant = padding_mode, eps, variant
        self.filter_init, self.filter_gain = filter_init, filter_gain
        self._make(affine, bias, batch_norm, {"device": device, "dtype": dtype})

    def _make(self, affine: bool, bias: bool, batch_norm: bool, how: dict) -> None:
        check_arguments(self)
        outputs, taps = self.out_channels, self.kernel_size
        shape = (outputs, self.in_channels // self.groups, *taps)
        self.weight = nn.Parameter(torch.empty(shape, **how))
        self.filter = nn.Parameter(torch.empty(outputs, 1, *taps, **how)) if affine else None
        self.bias = nn.Parameter(torch.empty(outputs, **how)) if bias else None
        weighted = affine or self.variant == "paper"
        made = nn.BatchNorm2d(outputs, affine=weighted, **how) if batch_norm else None
        self.batch_norm = made
        self.running = RunningRoot() if self.variant == "released" else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the taps as ``nn.Conv2d`` does; the filter as asked for; no bias."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            nn.init.zeros_(self.bias)
        if self.filter is None:
            return
        with torch.no_grad():
            if self.filter_init == "delta":
                center = ((n - 1) // 2 for n in self.kernel_size)
                self.filter.zero_()[(..., *center)] = 1
            else:
                nn.init.kaiming_uniform_(self.filter, a=math.sqrt(5))
            self.filter.mul_(self.filter_gain)

    def forward(self, x: Tensor) -> Tensor:
        autocast = check_input(self, x)
        images = x if x.dim() == 4 else x[None]
        with torch.autocast(cast_device(x), enabled=False):
            y = self.linear(images.to(self.weight.dtype) if autocast else images)
            if self.bias is not None:
                y = y + self.bias[:, None, None]
            y = y if self.batch_norm is None else self.batch_norm(y)
        return y if x.dim() == 4 else y[0]

    def linear(self, images: Tensor) -> Tensor:
        """Everything before the bias.

        Shape:
            (N, C_in, H, W) -> (N, C_out, H', W')
        """
        kind = torch.promote_types(images.dtype, torch.float32)
        y, taps = images.to(kind), self.weight.to(kind)
        pads, before, outputs = margins(self, tuple(images.shape[2:]))
        if any(pads):
            mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
            y = F.pad(y, pads, mode=mode)
        if self.kernel_size == (1, 1):
            scale = self.root(taps, (1, 1))[0]
            scale = scale if self.filter is None else scale * self.filter.to(kind).flatten()
            taps = taps * scale.view(-1, 1, 1, 1)
            y = F.conv2d(y, taps, stride=self.stride, padding=before, groups=self.groups)
            return y.to(images.dtype)
        grid = own_grid(y.shape[2:], self.kernel_size, self.dilation)
        y = normalized_convolution(
            y,
            taps,
            self.root(taps, grid),
            stride=self.stride,
            before=before,
            outputs=outputs,
            dilation=self.dilation,
            groups=self.groups,
        )
        return self.filtered(y).to(images.dtype)

    def filtered(self, y: Tensor) -> Tensor:
        """Each channel by its own kernel r, zeros around it; even kernels reach one pixel on."""
        if self.filter is None:
            return y
        left, right = ([(n - odd) // 2 for n in self.kernel_size] for odd in (1, 0))
        if left != right:
            y, left = F.pad(y, (left[1], right[1], left[0], right[0])), (0, 0)
        return F.conv2d(y, self.filter.to(y.dtype), padding=left, groups=self.out_channels)

    def root(self, taps: Tensor, grid: tuple[int, int]) -> Tensor:
        """V on a grid (F, C_out): of these taps, or their running average."""
        root = inverse_root(taps, grid, dilation=self.dilation, eps=self.eps)
        return root if self.running is None else self.running(root, grid)

    def core(self) -> Self:
        """The normalized convolution alone: no filter, bias or BatchNorm; the same taps.

        Example:
            >>> layer = ConvNorm2d(2, 3, 3)
            >>> layer.core().weight is layer.weight, layer.core().filter is None
            (True, True)
        """
        bare = copy.copy(self)
        bare._parameters = self._parameters | {"filter": None, "bias": None}
        bare._modules = self._modules | {"batch_norm": None, "running": None}
        bare.variant = "paper"
        return bare

    def extra_repr(self) -> str:
        said = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"
        said += f", stride={self.stride}, padding={self.padding!r}, dilation={self.dilation}"
        said += f", groups={self.groups}, bias={self.bias is not None}"
        said += f", affine={self.filter is not None}, eps={self.eps:g}"
        return said if self.variant == "paper" else f"{said}, variant={self.variant!r}"
