"""Weight normalization, weight centering, and the ReLU that goes with the first."""

import math

from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from normkit.models import Activation

from .scaled_ws import RELU_GAIN, refuse_single_weight

__all__ = [
    "ScaledReLU",
    "WeightCentering",
    "weight_centering",
    "weight_norm",
    "weight_norm_linear",
]


class ScaledReLU(Activation):
    r"""The ReLU whose output has mean 0 and variance 1 where its input is standard normal.

    .. math:: y = \sqrt{\tfrac{2\pi}{\pi - 1}} \left(\text{ReLU}(x) - \tfrac{1}{\sqrt{2\pi}}\right)

    In plain words: weight normalization leaves to the activation what keeps the signal's mean
    and variance from layer to layer; the gain is 1.71286.

    Source: Arpit et al. 2016, arXiv 1603.01431, as Lubana et al. 2021, arXiv 2106.05956, put it
    behind weight normalization.

    Shape:
        any to the same.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> y = ScaledReLU()(torch.randn(1_000_000))
        >>> bool(y.mean().abs() < 0.01), bool((y.var() - 1).abs() < 0.01)
        (True, True)
    """

    def forward(self, x: Tensor) -> Tensor:
        return RELU_GAIN * (x.relu() - 1 / math.sqrt(2 * math.pi))


def weight_norm(
    in_channels: int,
    out_channels: int,
    kernel_size: int | tuple[int, int],
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    bias: bool = False,
    *,
    groups: int = 1,
) -> nn.Conv2d:
    r"""Makes a convolution whose weights have a trained norm for each output channel.

    .. math:: W_k = \gamma_k \, \frac{w_k}{\lVert w_k \rVert}

    In plain words: torch's weight normalization, but gamma starts at 1 instead of the norm that
    the weights happen to have. What is trained is ``parametrizations.weight.original0`` (gamma)
    and ``original1`` (w). The gradient is right, also that of a penalty on the gradient by the
    input; torch 2.15 gives wrong second derivatives by w.

    Source: Salimans and Kingma 2016, arXiv 1602.07868, equation 2, with the start of Lubana et
    al. 2021, arXiv 2106.05956.

    Deviation: no initialization from a first batch, which Salimans and Kingma have and Lubana et
    al. have not.

    Arguments, Shape: as ``conv``; a bias starts at 0.

    Example:
        >>> rows = weight_norm(3, 4, 5).weight.flatten(1)
        >>> [round(norm, 4) for norm in rows.norm(dim=1).tolist()]
        [1.0, 1.0, 1.0, 1.0]
    """
    convolution = nn.Conv2d(
        in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=bias
    )
    return _of_norm_one(convolution)


def weight_norm_linear(in_features: int, out_features: int, bias: bool = False) -> nn.Linear:
    r"""Makes a linear layer whose weights have a trained norm for each output feature.

    .. math:: W_k = \gamma_k \, \frac{w_k}{\lVert w_k \rVert}

    In plain words: ``weight_norm`` for a linear layer, with the same start, gamma = 1.

    Source, Deviation: as ``weight_norm``.

    Arguments:
        in_features: as in ``nn.Linear``, like the next.
        out_features: features of the output.
        bias: whether a bias is added, which starts at 0.

    Shape:
        as ``nn.Linear``.

    Example:
        >>> layer = weight_norm_linear(5, 3, bias=True)
        >>> [round(norm, 4) for norm in layer.weight.norm(dim=1).tolist()]
        [1.0, 1.0, 1.0]
        >>> layer.bias.tolist()
        [0.0, 0.0, 0.0]
    """
    return _of_norm_one(nn.Linear(in_features, out_features, bias=bias))


def _of_norm_one(layer: nn.Module) -> nn.Module:
    """Parametrizes the layer by weight normalization, every gamma 1 and every bias 0."""
    parametrizations.weight_norm(layer)
    nn.init.ones_(layer.parametrizations.weight.original0)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class WeightCentering(nn.Module):
    r"""The parametrization of a weight that subtracts the mean of each output channel.

    .. math:: W_k = w_k - \mu_k

    Shape:
        ``(C_out, C_in, kh, kw)`` to the same.

    Example:
        >>> import torch
        >>> weight = WeightCentering()(torch.randn(4, 3, 2, 5) + 1)
        >>> bool(weight.mean(dim=(1, 2, 3)).abs().max() < 1e-6)
        True
    """

    def forward(self, weight: Tensor) -> Tensor:
        return weight - weight.mean((1, 2, 3), keepdim=True)


def weight_centering(
    in_channels: int,
    out_channels: int,
    kernel_size: int | tuple[int, int],
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    bias: bool = False,
    *,
    groups: int = 1,
) -> nn.Conv2d:
    r"""Makes a convolution whose weights have mean 0 for each output channel.

    .. math:: W_k = w_k - \mu_k, \quad w \sim N(0, 2 / \text{fan\_in}) \text{ at the start}

    In plain words: the output is blind to what all inputs have in common, such as the positive
    mean behind a ReLU; the scale of the weights is left as it is, so it is drawn as He et al. do
    for a plain convolution. What is trained is ``parametrizations.weight.original``.

    Source: the centering of Huang et al. 2017, Centered Weight Normalization, ICCV, without its
    normalization, as the code of Lubana et al. 2021 has it,
    https://github.com/EkdeepSLubana/BeyondBatchNorm.

    Arguments, Shape: as ``conv``; a bias starts at 0.

    Raises:
        ValueError: if an output channel has a single weight, which centering would make zero.

    Example:
        >>> import torch
        >>> images = torch.rand(2, 3, 8, 8)
        >>> layer = weight_centering(3, 4, 3)
        >>> torch.allclose(layer(images), layer(images + 5), atol=1e-4)
        True
    """
    convolution = nn.Conv2d(
        in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=bias
    )
    refuse_single_weight("weight_centering", convolution)
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
    if bias:
        nn.init.zeros_(convolution.bias)
    parametrize.register_parametrization(convolution, "weight", WeightCentering())
    return convolution
