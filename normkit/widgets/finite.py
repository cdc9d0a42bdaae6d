"""What a panel refuses before it measures: weights that are no numbers."""

from torch import Tensor

from normkit.networks import Network

__all__ = ["check_finite"]


def check_finite(network: Network) -> None:
    """Refuse a network one of whose tensors holds NaN or infinity.

    Raises:
        ValueError: it does; the layer is named.

    Example:
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(2, 2))
        >>> model[0].weight.data[0, 0] = float("nan")
        >>> check_finite(Network("mine", model, (2,)))
        Traceback (most recent call last):
        ValueError: layer '0' of mine: its weight has 1 value that is not finite, of 4
    """
    for name, value in network.model.state_dict().items():
        if not isinstance(value, Tensor):  # what a module of its own keeps beside tensors
            continue
        if value.is_floating_point() and not (good := value.isfinite()).all():
            layer, _, tensor = name.rpartition(".")
            bad = int((~good).sum())
            values = f"{bad} value{'s' * (bad > 1)} that {'are' if bad > 1 else 'is'} not finite"
            raise ValueError(
                f"layer {layer!r} of {network.name}: its {tensor} has {values}, of {value.numel()}"
            )
