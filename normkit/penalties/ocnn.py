"""OCNN: convolutions drawn towards operators that keep lengths."""

__all__ = ["OCNN", "orthogonality_error"]

import math
import warnings
from dataclasses import replace
from numbers import Real
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from normkit.norms.maps import LinearMap

from .included import (
    UNREACHED,
    IncludedLayer,
    add_to_gradients_,
    find_sizes,
    included_layers,
    watch,
)

KIND = "conv"
NORM = "ocnn"
NOT_ONE = "as executed it is no convolution, but a matrix"


def orthogonality_error(linear: LinearMap) -> Tensor:
    r"""How far a convolution is from one whose singular values are 1.

    `|Conv(K, K, padding=P, stride=S) - I|_F^2 - max(0, M - N),  P = floor((k - 1) / S) S`

    *In plain words:* the products of each filter with every other, shifted by any multiple of the
    stride at which they overlap, should be 0, and 1 with itself unshifted: then the rows of the
    operator's matrix are orthonormal. If there are more of them (M an output pixel) than inputs
    that they can read (N), the columns should be, and the same sum is M - N at the least. Away
    from borders it is the mean over all frequencies of `sum (sigma^2 - 1)^2`, over the first
    min(M, N) singular values of each. A kernel of 1 x 1 has no shifts, so that it is
    `|K K^T - I|^2`, or `|K^T K - I|^2` for more outputs than inputs. Groups add up.

    Source: Wang, Chen, Chakraborty & Yu, "Orthogonal Convolutional Neural Networks", CVPR 2020,
    https://arxiv.org/abs/1911.12207.

    Deviation: the constant, which Achour, Malgouyres & Mamalet, JMLR 2022,
    https://arxiv.org/abs/2108.05623, subtract; it leaves the gradient as it is.

    Arguments:
        linear: the convolution, or its transpose, which has the same singular values.

    Example:
        >>> from normkit.norms import linear_map
        >>> layer = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        >>> _ = nn.init.dirac_(layer.weight)
        >>> orthogonality_error(linear_map(layer, (8, 8))).item()
        0.0
    """
    weight = linear.weight
    groups, outputs, inputs, *taps = weight.shape
    # Shifts by the stride are whole taps only at every `step`-th, where taps are dilated.
    steps = [axis.stride // math.gcd(axis.stride, axis.dilation) for axis in linear.axes]
    reach = [(count - 1) // step for count, step in zip(taps, steps, strict=True)]
    pads = [n * step for n, step in zip(reach, steps, strict=True)]
    convolve = (F.conv1d, F.conv2d, F.conv3d)[len(taps) - 1]
    images = weight.transpose(0, 1).flatten(1, 2)
    products = convolve(images, weight.flatten(0, 1), stride=steps, padding=pads, groups=groups)
    wanted = torch.zeros_like(products)
    center = (slice(None), slice(None), *reach)
    wanted[center] = torch.eye(outputs).to(wanted).repeat(1, groups)
    read = inputs * math.prod(map(min, taps, steps))
    return (products - wanted).square().sum() - groups * max(0, outputs - read)


class OCNN:
    r"""OCNN's penalty: adds to the gradients what draws every convolution towards orthogonality.

    `grad += weight dE / dK`, E the `orthogonality_error` of each layer

    *In plain words:* where E is 0 a convolution keeps the lengths of its inputs, away from
    borders, or of what of them it can pass on. Every convolution of the model counts, whatever its
    kernel, stride, dilation and groups, transposed ones, too; its padding does not matter. Call it
    after backward and before the optimizer's step. A weight that is computed, such as a
    parametrized one, is read in evaluation mode, and autograd takes the term to its parameters.
    Layers that share a weight each add their term.

    Source: Wang, Chen, Chakraborty & Yu, CVPR 2020, https://arxiv.org/abs/1911.12207; the default
    weight is that of Liu et al. 2021, https://arxiv.org/abs/2103.00673.

    Deviation: the released code, also that of Liu et al., penalizes the root of the sum, of the
    first convolution of some blocks and the shortcuts of ResNets, found by name. It pads kernels
    of 3 by 1 whatever the stride: at stride 1 products at shifts of 2 are left out, and at stride
    2 those are compared that no two outputs share, and none is of a filter with itself unshifted.

    Arguments:
        model: the network, on any device.
        weight: strength, 0 or more; the attribute of this name may be changed between steps.
        input_size: the model's (C, H, W), as in `norms.layer_table`; None for what each layer
            sees at its first call from here on.

    Attributes:
        skipped: convolutions left out at the last step, with the reason: frozen, without
            gradient or never called; and layers with matrices but no known linear map. A layer
            that is new among them is named in a warning.

    Raises:
        TypeError: if the model is no module.
        ValueError: if the weight is out of range, the model has no convolution, or it does not
            take the input.

    Example:
        >>> layer = nn.Conv2d(3, 8, 3, padding=1)
        >>> penalty = OCNN(layer, weight=0.1, input_size=(3, 6, 6))
        >>> optimizer, seen = torch.optim.SGD(layer.parameters(), lr=1.0), []
        >>> for _ in range(50):
        ...     optimizer.zero_grad()
        ...     (0 * layer(torch.rand(1, 3, 6, 6))).sum().backward()
        ...     seen += penalty.step().value.tolist()
        ...     optimizer.step()
        >>> seen[-1] < 0.05 * seen[0]
        True
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        weight: float = 1e-4,
        input_size: tuple[int, ...] | None = None,
    ):
        if not isinstance(model, nn.Module):
            raise TypeError(f"model is a {type(model).__name__}, not a torch.nn.Module")
        if not (isinstance(weight, Real) and 0 <= weight < math.inf):
            raise ValueError(f"weight {weight!r} is not a finite number, 0 or more")
        self._layers, self._unknown = included_layers(model, (KIND,))
        if not self._layers:
            raise ValueError("model has no convolution to penalize")
        self.model, self.weight, self.skipped, self._told = model, weight, {}, set()
        self._handles = []
        if input_size is None:
            self._handles = [watch(included) for included in self._layers]
        else:
            find_sizes(model, self._layers, input_size)

    def step(self) -> pd.DataFrame:
        """Add the terms of this step to the gradients; call after backward.

        Shape:
            columns layer (qualified name), kind, norm ("ocnn"), value: the errors that this step
            saw, without the weight.

        Raises:
            RuntimeError: if the model is in evaluation mode, or no convolution has a gradient.
            ValueError: if a layer's linear map is not known, or its weights are not finite.
        """
        if not self.model.training:
            raise RuntimeError("model is in evaluation mode; call model.train() before training")
        with torch.inference_mode(False), torch.no_grad():
            layers = self._ready()
            found = [_slope(linear) for _, linear in layers]
            device = found[0][0].device
            values = torch.stack([value.to(device) for value, _ in found]).tolist()
            for (included, _), value in zip(layers, values, strict=True):
                if not math.isfinite(value):
                    raise ValueError(
                        f"layer {included.name!r} has weights that are not finite, so its "
                        f"orthogonality error is {value}"
                    )
            terms = [[((), 1.0, gradient)] for _, gradient in found]
            add_to_gradients_(layers, terms, self.weight)
        names = [included.name for included, _ in layers]
        return pd.DataFrame({"layer": names, "kind": KIND, "norm": NORM, "value": values})

    def state_dict(self) -> dict[str, Any]:
        """Nothing: a step does not depend on those before it."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing is remembered."""

    def _ready(self) -> list[tuple[IncludedLayer, LinearMap]]:
        """The convolutions that have a gradient, and their maps; the others are told of."""
        for handle in self._handles:
            handle.remove()
        ready, skipped = [], dict(self._unknown)
        for included in self._layers:
            linear = included.read(NORM)
            reason = UNREACHED if linear is None else None
            if linear is not None and linear.kind == KIND:
                reason = included.missing(linear) if linear.axes else NOT_ONE
                if reason is None:
                    ready.append((included, linear))
            if reason is not None:
                skipped[included.name] = reason
        if not ready:
            reasons = "; ".join(sorted(set(skipped.values())))
            raise RuntimeError(
                f"no convolution has a gradient ({reasons}); call step() after backward()"
            )
        new = [f"{name!r} ({skipped[name]})" for name in skipped if name not in self._told]
        self.skipped, self._told = skipped, self._told | skipped.keys()
        if new:
            warnings.warn(f"OCNN skips {', '.join(new)}", stacklevel=3)
        return ready


def _slope(linear: LinearMap) -> tuple[Tensor, Tensor]:
    """The error of a convolution and its gradient by the effective weight."""
    with torch.enable_grad():
        weight = linear.weight.detach().requires_grad_()
        value = orthogonality_error(replace(linear, weight=weight))
        return value.detach(), torch.autograd.grad(value, weight)[0]
