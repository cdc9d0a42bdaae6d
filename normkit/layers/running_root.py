"""The running average of ConvNorm's V that the authors' code keeps, and uses in evaluation."""

import math

import torch
from torch import Tensor, nn

__all__ = ["RunningRoot"]

_RAMP, _LEAST = 40_000, 0.01


class RunningRoot(nn.Module):
    r"""The average of V over training steps, with the weights of ConvNorm's authors.

    .. math:: R \leftarrow w_t V + (1 - w_t) R, \quad
        w_t = \max\Bigl(\tfrac12 + \tfrac12 \cos \frac{\pi t}{40000}, 0.01\Bigr)

    In plain words: for the first thousands of steps R is the last V but for a trace, so a network
    is evaluated with the V of the weights before its last step.

    Source: the code of Liu et al. 2021, https://github.com/shengliu66/ConvNorm.

    Deviation: theirs starts as zero, which makes an untrained layer give zero, and ties the layer
    to one size of image; here a grid that training has not seen last gets the V of the weights,
    and a state dict of any size loads.

    Shape:
        (F, C_out) to the same

    Example:
        >>> running, first, second = RunningRoot(), torch.ones(5, 1), 3 * torch.ones(5, 1)
        >>> torch.equal(running(first, (3, 3)), first)
        True
        >>> _ = running.eval()
        >>> torch.equal(running(second, (3, 3)), first)  # one step behind
        True
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("value", torch.empty(0))
        self.register_buffer("grid", torch.zeros(2, dtype=torch.long))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def forward(self, root: Tensor, grid: tuple[int, int]) -> Tensor:
        known = tuple(self.grid.tolist()) == grid
        if not self.training:
            return self.value if known else root
        with torch.no_grad():
            self.steps += 1
            turn = math.pi * min(int(self.steps), _RAMP) / _RAMP
            weight = max(0.5 + 0.5 * math.cos(turn), _LEAST)
            before = self.value if known else torch.zeros_like(root)
            self.value = torch.lerp(before.to(root), root, weight)
            self.grid.copy_(torch.tensor(grid))
        return root

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: object) -> None:
        held = state_dict.get(f"{prefix}value")
        if held is not None:
            self.value = self.value.new_empty(held.shape)
        super()._load_from_state_dict(state_dict, prefix, *args)
