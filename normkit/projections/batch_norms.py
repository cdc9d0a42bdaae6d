"""The projection of BatchNorm layers on a bound of their norm."""

__all__ = ["project_batch_norm_"]

import pandas as pd
import torch
from torch import nn

from .targets import batch_norms, check_bound, check_weights, check_written, known_map

COLUMNS = ["layer", "kind", "norm", "before", "after", "changed", "status"]


def _clip(layer: nn.Module, bound: float) -> int:
    """Clip the weight of a layer; how many of its channels were above the bound.

    Above is what is so in float64 or in the type of the layer, which what is clipped is not: it
    ends four units of rounding below.
    """
    deviations = (layer.running_var.double() + layer.eps).sqrt()
    exact = layer.weight.double().abs() / deviations
    own = layer.weight * (layer.running_var + layer.eps).rsqrt()
    over = (exact > bound) | (own.double().abs() > bound)
    limits = bound * deviations[over] * (1 - 4 * torch.finfo(layer.weight.dtype).eps)
    layer.weight[over] = limits.to(layer.weight.dtype).copysign(layer.weight[over])
    return int(over.sum())


@torch.no_grad()
def project_batch_norm_(model: nn.Module, bound: float) -> pd.DataFrame:
    """Bring the norm of every BatchNorm in evaluation mode down to a bound, in place.

    `gamma_i <- clip(gamma_i, -b, b)  with  b = bound sqrt(var_i + eps)`

    *In plain words:* in evaluation mode the layer multiplies each channel by its weight over its
    running deviation, so the largest such factor is its norm, l1, l2 and linf alike; weights that
    make it larger than the bound are cut back. It holds until the running variance changes.

    Source: Liang & Huang, "Large Norms of CNN Layers Do Not Hurt Adversarial Robustness",
    AAAI 2021, https://arxiv.org/abs/2009.08435.

    Deviation: a clipped weight ends four units of rounding below the bound, so that the norm
    holds it as computed.

    Arguments:
        model: the network, or a single layer, in any mode.
        bound: the largest norm wanted, above 0.

    Shape:
        one row per layer: layer, kind, norm, before, after, changed (how many channels were
        clipped), status: "ok", or why the layer stays above the bound.

    Raises:
        TypeError: if the model is not a module.
        ValueError: if the bound is out of range, the model has no BatchNorm, or one has no
            running statistics, a weight that is computed, or values that are not finite. Nothing
            has been changed then.

    Example:
        >>> layer = nn.BatchNorm2d(3, eps=0.0)
        >>> layer.running_var[:] = torch.tensor([0.25, 1.0, 4.0])
        >>> table = project_batch_norm_(layer, 1.0)
        >>> [round(gamma, 5) for gamma in layer.weight.tolist()]
        [0.5, 1.0, 1.0]
        >>> table[["before", "changed"]].values.tolist()
        [[2.0, 1.0]]
    """
    bound, layers, before = check_bound(bound), batch_norms(model), []
    for name, layer in layers.items():
        linear = known_map(name, layer, None, "linf")
        check_written(name, layer, "linf", layer.weight is None or "weight" in layer._parameters)
        check_weights(name, layer, linear)
        before.append(linear.weight.abs().max().item())
    rows = []
    for (name, layer), norm in zip(layers.items(), before, strict=True):
        changed, status = 0, "ok"
        if layer.weight is not None:
            changed = _clip(layer, bound)
        elif norm > bound:
            status = "above the bound: the layer has no weight to clip (affine=False)"
        after = known_map(name, layer, None, "linf").weight.abs().max().item()
        rows.append((name, "batch_norm", "linf", norm, after, changed, status))
    return pd.DataFrame(rows, columns=COLUMNS)
