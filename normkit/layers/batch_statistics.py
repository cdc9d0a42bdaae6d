"""The two halves of batch normalization: by its variance alone, and by its mean alone."""

import torch
from torch import Tensor

from normkit import norms
from normkit.norms.rules import diagonal

from .channelwise import (
    Channelwise,
    check_maps,
    check_values,
    moments,
    scale_and_shift,
    track_,
    track_variance_,
    wide,
)

__all__ = ["MeanCentering", "VarianceNorm"]


class VarianceNorm(Channelwise):
    r"""Divides each channel by its standard deviation over the batch, and leaves its mean.

    .. math:: y_{nchw} = \gamma_c \, \frac{x_{nchw}}{\sqrt{\sigma_c^2 + \text{eps}}} + \beta_c

    In plain words: batch normalization without the centering; the variance is still that around
    the mean. Evaluation uses ``running_var``, which is unbiased as in torch's BatchNorm.

    Source: Daneshmand et al. 2020, arXiv 2003.01652, as Lubana et al. 2021, arXiv 2106.05956,
    compare it.

    Arguments:
        num_features: channels.
        eps: added to the variance.
        momentum: weight of a new batch in the running variance.
        affine: whether gamma and beta are trained.

    Shape:
        ``(N, C, H, W)`` to the same.

    Raises:
        ValueError: in the forward pass, if the channels are others or if there is a single value
            for each channel in training, which has no variance.

    Example:
        >>> images = torch.randn(64, 3, 5, 5) * 4 + 8
        >>> y = VarianceNorm(3)(images)
        >>> bool((y.std((0, 2, 3)) - 1).abs().max() < 0.01), bool(y.mean() > 1)
        (True, True)
    """

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float = 0.1, affine: bool = True
    ) -> None:
        super().__init__(num_features, affine)
        self.eps, self.momentum = eps, momentum
        self.register_buffer("running_var", torch.ones(num_features))

    def forward(self, x: Tensor) -> Tensor:
        check_maps(self, x)
        var = self._batch_variance(x) if self.training else self.running_var
        return scale_and_shift(x, self.weight * torch.rsqrt(var + self.eps), self.bias)

    def _batch_variance(self, x: Tensor) -> Tensor:
        var = moments(wide(x), over_images=True)[1].flatten()
        track_variance_(self, x, var)
        return var

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, eps={self.eps}, momentum={self.momentum}"


class MeanCentering(Channelwise):
    r"""Subtracts from each channel its mean over the batch, and leaves its variance.

    .. math:: y_{nchw} = \gamma_c \, (x_{nchw} - \mu_c) + \beta_c

    In plain words: batch normalization without the division. Evaluation uses ``running_mean``.

    Source: Salimans and Kingma 2016, arXiv 1602.07868, section 4, as Lubana et al. 2021, arXiv
    2106.05956, compare it.

    Deviation: gamma, which that section leaves to its weight normalization; 1 at the start.

    Arguments:
        num_features: channels.
        momentum: weight of a new batch in the running mean.
        affine: whether gamma and beta are trained.

    Shape:
        ``(N, C, H, W)`` to the same.

    Raises:
        ValueError: in the forward pass, if the channels are others or if there is a single value
            for each channel in training, which centering would make zero.

    Example:
        >>> images = torch.randn(64, 3, 5, 5) * 4 + 8
        >>> y = MeanCentering(3)(images)
        >>> bool(y.mean().abs() < 1e-4), torch.allclose(y.std(), images.std(), rtol=0.1)
        (True, True)
    """

    def __init__(self, num_features: int, momentum: float = 0.1, affine: bool = True) -> None:
        super().__init__(num_features, affine)
        self.momentum = momentum
        self.register_buffer("running_mean", torch.zeros(num_features))

    def forward(self, x: Tensor) -> Tensor:
        check_maps(self, x)
        mean = self._batch_mean(x) if self.training else self.running_mean
        return scale_and_shift(x, self.weight, self.bias - self.weight * mean)

    def _batch_mean(self, x: Tensor) -> Tensor:
        values = x.numel() // self.num_features
        check_values(self, x, values)
        mean = wide(x).sum(0).sum((1, 2)) / values
        track_(self.running_mean, mean, self.momentum)
        return mean

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, momentum={self.momentum}"


@norms.linear_map.register(VarianceNorm)
@norms.linear_map.register(MeanCentering)
def _linear_map(layer, input_size, boundary: str = "zero") -> norms.LinearMap:
    """The diagonal of evaluation, once per pixel of the input size, if one is given."""
    centering = isinstance(layer, MeanCentering)
    scale = layer.weight * (1 if centering else (layer.running_var + layer.eps).rsqrt())
    return diagonal(scale, () if input_size is None else tuple(input_size))
