"""What an optimizer keeps of a weight, and how it must move when the weight is rescaled."""

import weakref

import torch
from torch import Tensor

__all__ = ["OptimizerState", "check_optimizer"]

POWERS = {
    torch.optim.SGD: {"momentum_buffer": -1},
    torch.optim.Adam: {"exp_avg": -1, "exp_avg_sq": -2, "max_exp_avg_sq": -2},
    torch.optim.AdamW: {"exp_avg": -1, "exp_avg_sq": -2, "max_exp_avg_sq": -2},
    torch.optim.NAdam: {"exp_avg": -1, "exp_avg_sq": -2},
    torch.optim.RAdam: {"exp_avg": -1, "exp_avg_sq": -2},
    torch.optim.RMSprop: {"square_avg": -2, "grad_avg": -1},
    torch.optim.Adagrad: {"sum": -2},
}


def check_optimizer(optimizer: torch.optim.Optimizer, parameters: list[Tensor]) -> None:
    """Refuse an optimizer whose state is not known, or that holds none of the parameters.

    Raises:
        TypeError: if it is of another class.
        ValueError: if it holds other parameters.
    """
    if type(optimizer) not in POWERS:
        names = ", ".join(kind.__name__ for kind in POWERS)
        raise TypeError(
            f"optimizer is a {type(optimizer).__name__}, whose state cannot be rescaled; accepted "
            f"are {names}, or None to leave the state as it is"
        )
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if not held & {id(parameter) for parameter in parameters}:
        raise ValueError(
            "optimizer holds none of the parameters that are rescaled; make it from this model's "
            "parameters()"
        )


class OptimizerState:
    """The buffers of an optimizer that go as a power of a weight's scale.

    *In plain words:* where a weight is multiplied by s its gradient is divided by s, so a running
    mean of gradients is divided by s, too, and one of their squares by s^2. Without an optimizer
    gradients that are there are divided, since nobody knows whether they are still to be used.

    Arguments:
        optimizer: or None.
        watched: parameters whose gradients tell whether they have been used.

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(2))
        >>> optimizer = torch.optim.SGD([weight], lr=1.0, momentum=0.9)
        >>> weight.grad = torch.ones(2)
        >>> optimizer.step()
        >>> [(tensor.tolist(), power) for tensor, power in OptimizerState(optimizer, [])(weight)]
        [([1.0, 1.0], -1)]
    """

    def __init__(self, optimizer: torch.optim.Optimizer | None, watched: list[Tensor]):
        self.optimizer, self.watched = optimizer, watched
        self._stepped()  # what is there now is taken to belong to a step before this
        if optimizer is not None:
            me = weakref.ref(self)
            handle = optimizer.register_step_post_hook(lambda *_: me() and me()._stepped())
            weakref.finalize(self, handle.remove)

    def __call__(self, parameter: Tensor) -> list[tuple[Tensor, int]]:
        """The tensors that go with a parameter, each with its power."""
        if self.optimizer is None:
            gradient = parameter.grad
            return [] if gradient is None else [(gradient, -1)]
        state = self.optimizer.state.get(parameter, {})
        powers = POWERS[type(self.optimizer)]
        found = ((state.get(name), power) for name, power in powers.items())
        return [(tensor, power) for tensor, power in found if isinstance(tensor, Tensor)]

    def refuse_unspent(self) -> None:
        """Refuse to act on gradients that no step has used: they belong to the old weights.

        Raises:
            RuntimeError: in the middle of gradient accumulation.
        """
        if self.optimizer is None:
            return
        given = [p.grad for p in self.watched if p.grad is not None]
        if not given or self._is_spent(given[0]):
            return
        held = [p for group in self.optimizer.param_groups for p in group["params"]]
        finite = all(p.grad.isfinite().all() for p in held if p.grad is not None)
        if finite and any(g.any() for g in given):  # a scaler skips steps that are not finite
            raise RuntimeError(
                "the gradients have not been used by a step of the optimizer; call step() after "
                "optimizer.step(), not in the middle of gradient accumulation"
            )

    def _stepped(self) -> None:
        """Note the gradients that a step has used."""
        given = [p.grad for p in self.watched if p.grad is not None]
        self._spent = (weakref.ref(given[0]), given[0]._version) if given else None

    def _is_spent(self, gradient: Tensor) -> bool:
        if self._spent is None:
            return False
        known, version = self._spent
        return known() is gradient and gradient._version == version
