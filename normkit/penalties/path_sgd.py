"""Path-SGD: gradients divided by what the paths through each weight are worth."""

__all__ = ["PathSGD", "path_factors"]

import copy
import math
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.parametrize import is_parametrized

from normkit.models import Normalize
from normkit.norms.inputs import FAULTS


def path_factors(
    twin: nn.Module, model: nn.Module, input_size: tuple[int, ...]
) -> tuple[float, dict[str, Tensor]]:
    r"""The squared path norm of a model, and what the paths through each weight are worth.

    `phi^2 = sum over paths of prod w^2;  kappa_e = d phi^2 / d(w_e^2)`

    *In plain words:* a path goes from an entry of the input to one of the output; an image of
    ones through the net with squared weights adds all of them up, and one backward pass tells how
    many, times their other weights, go through each. Everything is in float64.

    Arguments:
        twin: a copy of the model in evaluation mode; it is run, and none of its values count.
        model: gives weights and buffers; it is not run.
        input_size: (C, H, W) of an image.

    Example:
        >>> net = nn.Sequential(nn.Linear(1, 2, bias=False), nn.Linear(2, 1, bias=False))
        >>> for layer, weight in zip(net, ([[2.0], [3.0]], [[5.0, 7.0]])):
        ...     layer.weight.data = torch.tensor(weight)
        >>> total, factors = path_factors(net, net, (1,))
        >>> total, factors["0.weight"].tolist()  # (2 5)^2 + (3 7)^2, and 5^2, 7^2
        (541.0, [[25.0], [49.0]])
    """
    with torch.inference_mode(False), torch.enable_grad():
        squares = {
            name: parameter.detach().double().square().requires_grad_()
            for name, parameter in model.named_parameters()
        }
        like = next(iter(squares.values()))
        given = squares | _neutral_buffers(model)
        total = functional_call(twin, given, (like.new_ones(1, *input_size),)).sum()
        slopes = torch.autograd.grad(total, list(squares.values()), allow_unused=True)
    pairs = zip(squares.items(), slopes, strict=True)
    return total.item(), {n: torch.zeros_like(s) if g is None else g for (n, s), g in pairs}


def _neutral_buffers(model: nn.Module) -> dict[str, Tensor]:
    """The buffers in float64; those of an input normalization leave the input as it is."""
    found = {
        name: buffer.double() if buffer.is_floating_point() else buffer
        for name, buffer in model.named_buffers()
    }
    for name, part in model.named_modules():
        if isinstance(part, Normalize):
            prefix = f"{name}." if name else ""
            found[f"{prefix}mean"] = torch.zeros_like(found[f"{prefix}mean"])
            found[f"{prefix}std"] = torch.ones_like(found[f"{prefix}std"])
    return found


class PathSGD:
    """Path-SGD: steps along gradients that do not change where hidden units are rescaled.

    `grad <- (grad + weight_decay w) / kappa,  kappa_e = d phi^2 / d(w_e^2)`

    *In plain words:* a weight through which little flows, because the weights before and after it
    are small, takes a longer step, and one through which much flows a shorter one. Multiply what
    enters a ReLU by s > 0 and divide what leaves it by s: the function stays, SGD's next step is
    another, and this one is the same. kappa is the sum, over all paths from the input to the
    output through the weight, of the product of the squares of the other weights. A bias is a
    weight from a unit that is always 1. What has no weights acts on the squared net as it is: a
    max-pool passes on the largest sum, an average the average. A weight through which no path
    runs has kappa 0 and is given the gradient 0. Call it after backward and before the
    optimizer's step.

    Source: Neyshabur, Salakhutdinov & Srebro, "Path-SGD: Path-Normalized Optimization in Deep
    Neural Networks", NIPS 2015, https://arxiv.org/abs/1506.02617, section 4, with p = 2.

    Deviation: kappa is of the effective paths where weights are shared: exact for convolutions,
    while a weight that a path meets several times, as in a recurrent net, lacks the terms of
    second order (Neyshabur et al. 2016, https://arxiv.org/abs/1605.07154). The weight decay is an
    option of this package, and not invariant under rescaling.

    Arguments:
        model: the network, on any device.
        input_size: the model's (C, H, W); None for what the model sees at its first call from
            here on.
        weight_decay: added to the gradient, times the weight, before it is divided; the optimizer
            should then have none. 0 or more.
        relative: divide every kappa by what their mean over all weights is at the first step, a
            constant, so that learning rates are about those of SGD.

    Raises:
        ValueError: if an argument is out of range, a weight is computed (parametrized), or the
            model is not one in which paths add up, as where a normalization depends on its input;
            at the first step if the input size is not given.

    Example:
        >>> def trained(scale):
        ...     _ = torch.manual_seed(0)
        ...     net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1)).double()
        ...     net[0].weight.data *= scale
        ...     net[0].bias.data *= scale
        ...     net[2].weight.data /= scale
        ...     path, optimizer = PathSGD(net), torch.optim.SGD(net.parameters(), lr=0.1)
        ...     x = torch.rand(5, 3).double()
        ...     for _ in range(10):
        ...         optimizer.zero_grad()
        ...         (net(x) - x.sum(1, keepdim=True)).square().mean().backward()
        ...         path.step()
        ...         optimizer.step()
        ...     return net(x)
        >>> torch.allclose(trained(1.0), trained(100.0))
        True
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        input_size: tuple[int, ...] | None = None,
        weight_decay: float = 0.0,
        relative: bool = False,
    ):
        _check_arguments(model, input_size, weight_decay)
        _check_weights(model)
        self.model, self.weight_decay, self.relative = model, float(weight_decay), relative
        # A copy is run in the model's place: hooks that watch the model do not see it.
        self._twin = copy.deepcopy(model).eval()
        self._size, self._scale, self._handle = None, None, None
        if input_size is None:
            self._handle = model.register_forward_pre_hook(self._see, with_kwargs=True)
        else:
            self._size = tuple(input_size)
            _check_paths(copy.deepcopy(self._twin), self._size)

    def _see(self, model: nn.Module, args: tuple, named: dict) -> None:
        """Note the shape of the model's next input, then leave."""
        self._handle.remove()
        tensors = [x for x in (*args, *named.values()) if isinstance(x, Tensor)]
        if tensors:
            self._size = tuple(tensors[0].shape[1:])

    def step(self) -> None:
        """Divide the gradients; call after backward.

        Raises:
            RuntimeError: if the model is in evaluation mode, was never called, or no parameter
                has a gradient.
            ValueError: if paths do not add up in the model.
            OverflowError: if the squared path norm is no finite number.
        """
        if not self.model.training:
            raise RuntimeError("model is in evaluation mode; call model.train() before training")
        trained = {name: p for name, p in self.model.named_parameters() if p.grad is not None}
        if not trained:
            raise RuntimeError("no parameter has a gradient; call step() after backward()")
        if self._size is None:
            raise RuntimeError("no forward pass called the model: its input size is unknown")
        if self._scale is None and self._handle is not None:
            _check_paths(copy.deepcopy(self._twin), self._size)
        total, factors = path_factors(self._twin, self.model, self._size)
        sums = torch.stack([factor.sum() for factor in factors.values()]).sum().item()
        if not (math.isfinite(total) and math.isfinite(sums)):
            raise OverflowError(
                f"the squared path norm is {total}: weights are too large to go on"
            )
        if self._scale is None:
            count = sum(factor.numel() for factor in factors.values())
            self._scale = sums / count if self.relative and total else 1.0
        with torch.inference_mode(False), torch.no_grad():
            for name, parameter in trained.items():
                kappa = factors[name] / self._scale
                whole = parameter.grad.double() + self.weight_decay * parameter.double()
                parameter.grad.copy_(torch.where(kappa > 0, whole / kappa, 0.0))

    def state_dict(self) -> dict[str, Any]:
        """The mean of kappa at the first step; None before it."""
        return {"scale": self._scale}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with that mean."""
        self._scale = state["scale"]


def _check_arguments(model: nn.Module, input_size, weight_decay: float) -> None:
    """Refuse what is out of range."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__}, not a torch.nn.Module")
    if next(model.parameters(), None) is None:
        raise ValueError("model has no parameters")
    if not (isinstance(weight_decay, Real) and 0 <= weight_decay < math.inf):
        raise ValueError(f"weight_decay {weight_decay!r} is not a finite number, 0 or more")
    listed = isinstance(input_size, tuple | list)
    whole = listed and all(isinstance(n, int) and n > 0 for n in input_size)
    if input_size is not None and not whole:
        raise ValueError(f"input_size {input_size!r} is not (C, H, W) in positive integers")


def _check_weights(model: nn.Module) -> None:
    """Refuse weights that are computed: a path goes through what is trained."""
    for name, part in model.named_modules():
        if is_parametrized(part) or isinstance(vars(part).get("weight"), Tensor):
            raise ValueError(
                f"layer {name!r} ({type(part).__name__}) computes its weight from other tensors, "
                "so Path-SGD has no paths through what is trained; remove the parametrization"
            )


@torch.no_grad()
def _check_paths(twin: nn.Module, input_size: tuple[int, ...]) -> None:
    """Refuse a model in which twice the input is not twice the output, or images see each other.

    Positive weights are drawn for the copy that is given, biases are zero, and what keeps
    statistics takes them from the batch: of all images, or of half of them.
    """
    generator = torch.Generator().manual_seed(0)
    for part in twin.double().modules():
        part.training = next(part.buffers(recurse=False), None) is not None
        if isinstance(part, Normalize):
            part.mean.zero_()
            part.std.fill_(1.0)
        for key, parameter in part.named_parameters(recurse=False):
            drawn = 0.5 + torch.rand(parameter.shape, dtype=torch.float64, generator=generator)
            fan_in = parameter[0].numel() if parameter.dim() > 1 else 1
            parameter.copy_(0 * drawn if key == "bias" else drawn / fan_in)
    drawn = torch.rand(16, *input_size, dtype=torch.float64, generator=generator)
    one = drawn.to(next(twin.parameters()).device)
    try:
        single, double, alone = (twin(x) for x in (one, 2 * one, one[8:]))
        fits = torch.allclose(double, 2 * single, rtol=1e-6, atol=0.0)
        fits = fits and single.any() and torch.allclose(alone, single[8:], rtol=1e-6, atol=0.0)
    except FAULTS as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"input_size {input_size} does not fit the model: {reason}") from error
    if not fits:
        raise ValueError(
            "Path-SGD has no meaning for this model: with positive weights and no biases, twice "
            "the input does not give twice the output, or an output depends on other images of "
            "the batch, as under a normalization of the signal; leave such layers out"
        )
