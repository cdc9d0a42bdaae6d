"""Norm decay: a layer's norm falls by the gradient of just what makes it up."""

__all__ = ["NormDecay"]

import math
import warnings
from numbers import Real
from typing import Any

import pandas as pd
import torch
from torch import nn

from normkit.norms.maps import LinearMap
from normkit.norms.rules import check_name

from .included import (
    UNREACHED,
    IncludedLayer,
    add_to_gradients_,
    find_sizes,
    included_layers,
    watch,
)
from .largest import LargestStretch, LargestSums

NORMS = ("l1", "linf", "spectral")
INCLUDED = ("linear", "conv", "batch_norm")


class NormDecay:
    """Norm decay: adds to the gradients what makes up each layer's l1, linf or spectral norm.

    `G <- memory G;  G[argmax set] <- sign(K[argmax set]);  grad += beta G`

    *In plain words:* a layer's norm is the largest of many sums of moduli, so only the weights
    in that sum are pulled towards zero, all by the same amount, and those of sums that were
    the largest before by `memory` times as much for each step since. The sum is that of the
    operator as executed: borders, stride, dilation, groups, padding modes and transposed
    convolutions are exact; the first one counts where several are equally large, and where
    padding folds taps onto one pixel the sign is that of what they add up to. It goes to the
    gradients, after backward and before the optimizer's step, so it works with any optimizer
    and schedule; unscale gradients first where a scaler is used. "spectral" takes the gradient
    of the largest singular value, which involves every weight, so memory has no effect; |A v|
    is reported, a lower bound that converges over the steps and lags where weights move fast
    and two singular values are close. A BatchNorm has one value for all norms, max |gamma| /
    sqrt(var + eps), and the same decay under each. A weight that is computed, such as a
    parametrized one, is read in evaluation mode, and autograd takes the term to its
    parameters. Layers that share a weight each add their term.

    Source: Liang & Huang, "Large Norms of CNN Layers Do Not Hurt Adversarial Robustness",
    AAAI 2021, https://arxiv.org/abs/2009.08435, section on norm decay.

    Deviation: parts of G that fell below the rounding of a fresh one are dropped (2^-23 of it
    in float32, 2^-52 in float64). The released code leaves out layers without a word, computes
    the decay of BatchNorm but never adds it, and in l1 overwrites the weights by their signs
    where stride >= kernel > 1; here nothing of it.

    Arguments:
        model: the network, on any device. Its state dict does not hold G; `state_dict` of this
            object does.
        norm: "l1", "linf" or "spectral".
        beta: strength, 0 or more, the size of the term of each weight in the sum; the attribute
            of this name may be changed between steps.
        memory: what one step leaves of G, from 0 to less than 1.
        include: any of "linear", "conv", "batch_norm".
        input_size: the model's (C, H, W), as in `norms.layer_table`; None for what each layer
            sees at its first call from here on. A layer used twice counts with its first input.

    Attributes:
        skipped: layers left out at the last step, with the reason: frozen, without gradient,
            never called, or with matrices but no known linear map. A layer that is new among
            them is named in a warning.

    Raises:
        ValueError: if an argument is out of range, no layer is of a kind to include, or the model
            does not take the input.

    Example:
        >>> layer = nn.Conv2d(3, 8, 3, padding=1)
        >>> decay = NormDecay(layer, norm="linf", beta=0.1, input_size=(3, 6, 6))
        >>> optimizer, seen = torch.optim.SGD(layer.parameters(), lr=0.1), []
        >>> for _ in range(20):
        ...     optimizer.zero_grad()
        ...     (0 * layer(torch.rand(1, 3, 6, 6))).sum().backward()
        ...     seen += decay.step().value.tolist()
        ...     optimizer.step()
        >>> seen[-1] < seen[10] < seen[0]
        True
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        norm: str = "l1",
        beta: float = 1e-3,
        memory: float = 0.5,
        include: tuple[str, ...] = ("linear", "conv"),
        input_size: tuple[int, ...] | None = None,
    ):
        include = (include,) if isinstance(include, str) else tuple(include)
        _check(norm, beta, memory, include)
        self._layers, self._unknown = included_layers(model, include)
        if not self._layers:
            kinds = " or ".join(include) or "included"
            raise ValueError(f"model has nothing to decay: no layer is {kinds}")
        self.model, self.norm, self.beta, self.memory = model, norm, beta, memory
        self.include, self.skipped, self._told = include, {}, set()
        self._now, self._handles, self._largest, self._rows = 0, [], {}, []
        if input_size is None:
            self._handles = [watch(included) for included in self._layers]
        else:
            find_sizes(model, self._layers, input_size)

    def step(self) -> pd.DataFrame:
        """Add the terms of this step to the gradients; call after backward.

        Shape:
            columns layer (qualified name), kind, norm, value: the norms that this step saw.

        Raises:
            RuntimeError: if the model is in evaluation mode, or no layer has a gradient.
            ValueError: if a layer has no such norm, or weights that are not finite.
        """
        if not self.model.training:
            raise RuntimeError("model is in evaluation mode; call model.train() before training")
        with torch.inference_mode(False), torch.no_grad():
            layers = self._ready()
            values, places = self._look(layers)
            self._now += 1
            for pair, place in zip(layers, places, strict=True):
                self._of(*pair).remember(pair[1], place, self._now)
            terms = [self._of(*pair).terms(pair[1], self._now) for pair in layers]
            add_to_gradients_(layers, terms, self.beta)
        rows = [(included.name, linear.kind, self.norm) for included, linear in layers]
        if rows != self._rows:
            self._rows, self._table = rows, pd.DataFrame(rows, columns=["layer", "kind", "norm"])
        return self._table.assign(value=values)

    def _look(self, layers: list[tuple[IncludedLayer, LinearMap]]) -> tuple[list, list]:
        """The norm of each layer and its place, once all are on their way from the device."""
        found = [self._of(*pair).look(pair[1]) for pair in layers]
        device = found[0][0].device
        columns = zip(*found, strict=True)
        values, places = (torch.stack([x.to(device) for x in c]).tolist() for c in columns)
        for (included, _), value in zip(layers, values, strict=True):
            if not math.isfinite(value):
                raise ValueError(
                    f"layer {included.name!r} has weights that are not finite, so its "
                    f"{self.norm} norm is {value}"
                )
        return values, places

    def _of(self, included: IncludedLayer, linear: LinearMap) -> LargestSums | LargestStretch:
        """What is kept of a layer's norm from step to step."""
        if included not in self._largest:
            single = self.norm != "spectral" or linear.kind == "batch_norm"
            norm = self.norm if self.norm != "spectral" else "linf"
            made = LargestSums(norm, self.memory) if single else LargestStretch()
            self._largest[included] = made
        return self._largest[included]

    def state_dict(self) -> dict[str, Any]:
        """What is remembered from step to step, as plain values and tensors."""
        kept = {included.name: largest.state_dict() for included, largest in self._largest.items()}
        return {"steps": self._now, "layers": kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what another object of the same arguments remembered."""
        self._now = state["steps"]
        for included in self._layers:
            if part := state["layers"].get(included.name):
                norm = self.norm if self.norm != "spectral" else "linf"
                made = LargestSums(norm, self.memory) if "lines" in part else LargestStretch()
                made.load_state_dict(part)
                self._largest[included] = made

    def _ready(self) -> list[tuple[IncludedLayer, LinearMap]]:
        """The layers that have a gradient, and their linear maps; the others are told of."""
        for handle in self._handles:
            handle.remove()
        ready, skipped = [], dict(self._unknown)
        for included in self._layers:
            linear = included.read(self.norm)
            if linear is None:
                skipped[included.name] = UNREACHED
            elif linear.kind in self.include:
                reason = included.missing(linear)
                if reason:
                    skipped[included.name] = reason
                else:
                    ready.append((included, linear))
        if not ready:
            reasons = "; ".join(sorted(set(skipped.values())))
            raise RuntimeError(
                f"no layer has a gradient ({reasons}); call step() after backward()"
            )
        new = [f"{name!r} ({skipped[name]})" for name in skipped if name not in self._told]
        self.skipped, self._told = skipped, self._told | skipped.keys()
        if new:
            warnings.warn(f"norm decay skips {', '.join(new)}", stacklevel=3)
        return ready


def _check(norm: str, beta: float, memory: float, include: tuple[str, ...]) -> None:
    """Refuse what is out of range."""
    check_name("norm", norm, NORMS)
    for kind in include:
        check_name("include", kind, INCLUDED)
    if not (isinstance(beta, Real) and 0 <= beta < math.inf):
        raise ValueError(f"beta {beta!r} is not a finite number, 0 or more")
    if not (isinstance(memory, Real) and 0 <= memory < 1):
        raise ValueError(f"memory {memory!r} is not a number from 0 to less than 1")
