"""Filter response normalization, and the thresholded linear unit that goes with it."""

import torch
from torch import Tensor, nn

from normkit.models import Activation

from .channelwise import Channelwise, check_maps, moments, spread, wide

__all__ = ["TLU", "FilterResponseNorm"]


class FilterResponseNorm(Channelwise):
    r"""Divides each channel of each image by its root mean square over the pixels.

    .. math:: y_{nchw} = \gamma_c \, \frac{x_{nchw}}{\sqrt{\nu_{nc}^2 + |\text{eps}|}} + \beta_c,
        \quad \nu_{nc}^2 = \frac{1}{HW} \sum_{hw} x_{nchw}^2

    In plain words: instance normalization without the mean. Nothing is centered, so a ReLU after
    it would be fed with a bias; the paper puts ``TLU`` there. On a map of one pixel what is left
    is the sign: gamma x / sqrt(x^2 + eps) + beta, which differs from gamma sign(x) + beta by
    less than gamma eps / (2 x^2). It is not refused, as the paper uses it there with eps trained.

    Source: Singh and Krishnan 2020, arXiv 1911.09737, section 3.

    Arguments:
        num_features: channels.
        eps: added to the mean square; ``None`` is 1e-6, or 1e-4 if it is trained.
        learnable_eps: whether eps is a parameter, one number that starts at ``eps``.

    Shape:
        ``(N, C, H, W)`` to the same.

    Raises:
        ValueError: in the forward pass, if the channels are others.

    Example:
        >>> images = torch.randn(4, 3, 5, 7) + 2
        >>> y = FilterResponseNorm(3)(images)
        >>> torch.allclose(y.square().mean((2, 3)), torch.ones(4, 3))
        True
        >>> FilterResponseNorm(2)(torch.tensor([0.5, -8.0]).reshape(1, 2, 1, 1)).flatten()
        tensor([ 1.0000, -1.0000], grad_fn=...)
    """

    def __init__(
        self, num_features: int, eps: float | None = None, *, learnable_eps: bool = False
    ) -> None:
        super().__init__(num_features, affine=True)
        start = (1e-4 if learnable_eps else 1e-6) if eps is None else eps
        self.eps = nn.Parameter(torch.tensor(start)) if learnable_eps else start

    def forward(self, x: Tensor) -> Tensor:
        check_maps(self, x)
        mean, var = moments(wide(x))
        scale = torch.rsqrt(var + mean.square() + abs(self.eps))  # (N, C, 1, 1)
        gamma = self.weight.reshape(-1, 1, 1)
        return (x * (gamma * scale) + spread(self.bias, x)).to(x.dtype)

    def extra_repr(self) -> str:
        learnable = isinstance(self.eps, nn.Parameter)
        eps = "trained" if learnable else f"{self.eps:.3g}"
        return f"{self.num_features}, eps={eps}, learnable_eps={learnable}"


class TLU(Activation):
    r"""The thresholded linear unit: a ReLU whose threshold is trained for each channel.

    .. math:: z_{nchw} = \max(y_{nchw}, \tau_c) = \text{ReLU}(y_{nchw} - \tau_c) + \tau_c

    In plain words: tau starts at 0, where this is the ReLU. Computed in the second form, which
    rounds the last digit, but has the gradient of a ReLU and its price.

    Source: Singh and Krishnan 2020, arXiv 1911.09737, section 3.

    Arguments:
        num_features: channels.

    Shape:
        ``(N, C, H, W)`` to the same.

    Raises:
        ValueError: in the forward pass, if the channels are others.

    Example:
        >>> maps = torch.randn(2, 3, 4, 4)
        >>> torch.equal(TLU(3)(maps), maps.relu())
        True
    """

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features
        self.tau = nn.Parameter(torch.zeros(num_features))

    def forward(self, y: Tensor) -> Tensor:
        check_maps(self, y)
        tau = spread(self.tau.to(y.dtype), y)
        return (y - tau).relu() + tau

    def extra_repr(self) -> str:
        return f"{self.num_features}"
