"""Scaled weight standardization: a convolution whose weights have mean 0 and a fixed variance."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

__all__ = [
    "RELU_GAIN",
    "ScaledWeightStandardization",
    "refuse_single_weight",
    "scaled_ws",
    "standardize",
]

RELU_GAIN = math.sqrt(2 * math.pi / (math.pi - 1))


def standardize(weight: Tensor, gain: float, gamma: Tensor, eps: float) -> Tensor:
    r"""Gives the weights of each output channel mean 0 and a standard deviation set by gamma.

    .. math:: W_k = \text{gain} \, \gamma_k \,
        \frac{w_k - \mu_k}{\sqrt{\sigma_k^2 + \text{eps}} \, \sqrt{\text{fan\_in}}}

    In plain words: mu and sigma are the mean and the biased standard deviation over the fan_in
    weights of output channel k. A ReLU of standard normal input has variance 1 / gain^2 and the
    centered weights are blind to its mean, so the output has variance gamma^2 again.

    Source: Brock et al. 2021, arXiv 2101.08692, section 4.

    Deviation: eps under the root, which the paper leaves out, so that constant weights give 0
    with a finite gradient.

    Arguments:
        weight: ``(C_out, C_in, kh, kw)``.
        gain: ``RELU_GAIN`` = 1.71286 where a ReLU comes before.
        gamma: ``(C_out,)``.
        eps: added to the variance of the weights.

    Shape:
        as ``weight``.

    Example:
        >>> w = standardize(torch.randn(2, 8, 3, 3), 3.0, torch.tensor([1.0, 2.0]), 0.0)
        >>> [round(s, 4) for s in (w.flatten(1).std(1, correction=0) * 72**0.5).tolist()]
        [3.0, 6.0]
    """
    # Torch's layer normalization is this formula, and cheaper than torch.var_mean.
    standardized = F.layer_norm(weight, weight.shape[1:], eps=eps)
    return gain * gamma.reshape(-1, 1, 1, 1) / math.sqrt(weight[0].numel()) * standardized


def refuse_single_weight(name: str, convolution: nn.Conv2d) -> None:
    """Refuses a convolution whose weights would be zero once their mean is subtracted.

    Raises:
        ValueError: if an output channel has a single weight.
    """
    if convolution.weight[0].numel() == 1:
        raise ValueError(
            f"{name} needs at least 2 weights for each output channel, but in_channels="
            f"{convolution.in_channels}, groups={convolution.groups} and kernel_size="
            f"{convolution.kernel_size} give 1, which it would set to zero"
        )


class ScaledWeightStandardization(nn.Module):
    """The parametrization of a weight by ``standardize``, with a learnable gamma that starts at 1.

    Arguments:
        out_channels: output channels of the weight.
        gain: see ``standardize``.
        eps: see ``standardize``.

    Shape:
        ``(out_channels, C_in, kh, kw)`` to the same.

    Example:
        >>> weight = ScaledWeightStandardization(4)(torch.randn(4, 3, 2, 5) + 1)
        >>> bool(weight.mean(dim=(1, 2, 3)).abs().max() < 1e-6)
        True
    """

    def __init__(self, out_channels: int, *, gain: float = RELU_GAIN, eps: float = 1e-8) -> None:
        super().__init__()
        self.gain, self.eps = gain, eps
        self.gamma = nn.Parameter(torch.ones(out_channels))

    def forward(self, weight: Tensor) -> Tensor:
        return standardize(weight, self.gain, self.gamma, self.eps)

    def extra_repr(self) -> str:
        return f"gain={self.gain:.5f}, eps={self.eps}"


def scaled_ws(
    in_channels: int,
    out_channels: int,
    kernel_size: int | tuple[int, int],
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    bias: bool = False,
    *,
    groups: int = 1,
    gain: float = RELU_GAIN,
    eps: float = 1e-8,
) -> nn.Conv2d:
    """Makes a convolution with scaled weight standardization.

    In plain words: an ``nn.Conv2d`` whose ``weight`` is computed from the trained one in every
    forward pass; what is trained is ``parametrizations.weight.original`` and the gamma beside it.

    Source: Brock et al. 2021, arXiv 2101.08692.

    Arguments:
        in_channels: as in ``nn.Conv2d``, like the next four.
        out_channels: channels of the output.
        kernel_size: in pixels.
        stride: in pixels.
        padding: in pixels, with zeros.
        bias: whether a bias is added; it starts at 0.
        groups: as in ``nn.Conv2d``.
        gain: see ``standardize``.
        eps: see ``standardize``.

    Shape:
        as ``nn.Conv2d``.

    Raises:
        ValueError: if an output channel has a single weight, which centering would make zero.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> images = torch.randn(64, 32, 6, 6).relu()
        >>> signal = scaled_ws(32, 256, 3)(images)
        >>> bool((signal.var() - 1).abs() < 0.1)
        True
    """
    convolution = nn.Conv2d(
        in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=bias
    )
    refuse_single_weight("scaled_ws", convolution)
    if bias:
        nn.init.zeros_(convolution.bias)
    standardization = ScaledWeightStandardization(out_channels, gain=gain, eps=eps)
    parametrize.register_parametrization(convolution, "weight", standardization)
    return convolution
