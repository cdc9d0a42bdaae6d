"""EvoNorm-B0 and EvoNorm-S0: layers that are normalization and nonlinearity in one."""

import torch
from torch import Tensor, nn

from normkit.models import Activation

from .channelwise import (
    Channelwise,
    check_maps,
    check_values,
    moments,
    scale_and_shift,
    spread,
    track_variance_,
    wide,
)
from .groups import check_variant, divide

__all__ = ["EvoNormB0", "EvoNormS0"]


class EvoNormB0(Channelwise, Activation):
    r"""Divides by the deviation over the batch, or by a linear function of the pixel if greater.

    .. math:: y_{nchw} = \gamma_c \, \frac{x_{nchw}}{\max\!\left(\sqrt{\sigma_c^2 + \text{eps}},
        \; v_c x_{nchw} + \sqrt{\sigma_{nc}^2 + \text{eps}}\right)} + \beta_c

    In plain words: small and negative values pass linearly, as in ``VarianceNorm``; large ones
    saturate at gamma / v. No ReLU follows. sigma_c is over images and pixels, in evaluation the
    square root of ``running_var``, unbiased as in torch's BatchNorm; sigma_nc is over the pixels
    of one image, always. v starts at 1.

    Source: Liu et al. 2020, arXiv 2004.02967, table 1 and appendix A.

    Arguments:
        num_features: channels.
        eps: added to both variances.
        momentum: weight of a new batch in the running variance.
        affine: whether gamma and beta are trained; v always is.

    Shape:
        ``(N, C, H, W)`` to the same.

    Raises:
        ValueError: in the forward pass, if the channels are others or if there is a single value
            for each channel in training, which has no variance.

    Example:
        >>> images = torch.randn(8, 3, 5, 5)
        >>> y = EvoNormB0(3)(images)
        >>> bool(y.max() < 1), bool(y.min() < -1)
        (True, True)
    """

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float = 0.1, affine: bool = True
    ) -> None:
        super().__init__(num_features, affine)
        self.eps, self.momentum = eps, momentum
        self.v = nn.Parameter(torch.ones(num_features))
        self.register_buffer("running_var", torch.ones(num_features))

    def forward(self, x: Tensor) -> Tensor:
        check_maps(self, x)
        mean, var = moments(wide(x))  # (N, C, 1, 1)
        batch_var = self._batch_variance(x, mean, var) if self.training else self.running_var
        deviation = spread((batch_var + self.eps).sqrt(), x)
        linear = x * spread(self.v, x) + (var + self.eps).sqrt()
        # max(a, b) as a + relu(b - a): on a CPU its gradient is far cheaper than torch.maximum's.
        y = x / (deviation + (linear - deviation).relu())
        return scale_and_shift(y, self.weight, self.bias).to(x.dtype)

    def _batch_variance(self, x: Tensor, mean: Tensor, var: Tensor) -> Tensor:
        """Adds up the variance within the images and that of their means."""
        total = (var + (mean - mean.mean(0)).square()).mean(0).flatten()
        track_variance_(self, x, total)
        return total

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, eps={self.eps}, momentum={self.momentum}"


class EvoNormS0(Channelwise, Activation):
    r"""Divides a swish by the standard deviation over a group of channels of one image.

    .. math:: y_{nchw} = \gamma_c \, \frac{x_{nchw} \, \text{sigmoid}(v_c x_{nchw})}
        {\sqrt{\sigma_{ng}^2 + \text{eps}}} + \beta_c

    In plain words: the group normalization without the mean, and a swish in front whose
    steepness v is trained, from 1. No ReLU follows. sigma is that of x, not of the swish.

    Source: Liu et al. 2020, arXiv 2004.02967, table 1 and appendix A; 32 groups are its default.

    Deviation: where the default of 32 does not divide the channels, the greatest common divisor
    of both is used. ``variant="released"`` takes the unbiased variance, as the code of Lubana et
    al. 2021, https://github.com/EkdeepSLubana/BeyondBatchNorm, does: outputs without beta smaller
    by sqrt((m - 1) / m) where m values are a group.

    Arguments:
        num_features: channels.
        eps: added to the variance.
        affine: whether gamma and beta are trained; v always is.
        groups: number of groups.
        group_size: channels in each group, in place of ``groups``.
        variant: whose variance, "paper" (biased) or "released" (unbiased).

    Shape:
        ``(N, C, H, W)`` to the same.

    Raises:
        ValueError: if both are given, if the channels cannot be divided so or if there is no such
            variant; in the forward pass, if the channels are others, or if a group has one
            channel and the map one pixel, which has no variance.

    Example:
        >>> images = torch.randn(4, 6, 5, 5)
        >>> norm = EvoNormS0(6, groups=3)
        >>> _ = torch.nn.init.zeros_(norm.v)
        >>> halves = norm(images).reshape(4, 3, 50)
        >>> torch.allclose(2 * halves.std(2, correction=0), torch.ones(4, 3), atol=1e-4)
        True
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        affine: bool = True,
        *,
        groups: int | None = None,
        group_size: int | None = None,
        variant: str = "paper",
    ) -> None:
        check_variant(variant)
        super().__init__(num_features, affine)
        self.eps, self.variant = eps, variant
        self.num_groups = divide(num_features, groups, group_size)
        self.v = nn.Parameter(torch.ones(num_features))

    def forward(self, x: Tensor) -> Tensor:
        check_maps(self, x)
        swish = x * torch.sigmoid(spread(self.v, x) * x)
        scale = self.weight.reshape(-1, 1, 1) * self._inverse_deviation(x)
        return (swish * scale + spread(self.bias, x)).to(x.dtype)

    def _inverse_deviation(self, x: Tensor) -> Tensor:
        images, channels, height, width = x.shape
        size = channels // self.num_groups
        values = size * height * width
        check_values(self, x, values)
        var = moments(wide(x).reshape(images, self.num_groups, size * height, width))[1]
        if self.variant == "released":
            var = var * (values / (values - 1))
        rstd = torch.rsqrt(var + self.eps)  # (N, G, 1, 1)
        return rstd.expand(-1, -1, size, -1).reshape(images, channels, 1, 1)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, groups={self.num_groups}, variant={self.variant!r}"
