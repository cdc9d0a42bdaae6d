"""What ``build`` refuses of numbers and names, before it makes anything."""

from collections.abc import Sequence

from torch import nn

from .parts import Normalize

__all__ = ["INITIALIZATIONS", "check_numbers", "check_start", "input_normalization"]

INITIALIZATIONS = ("he", "he_all", "torch")


def check_numbers(**numbers: int | None) -> None:
    """Refuses what is no whole number of at least 1; ``width`` and ``depth`` may be None."""
    for argument, value in numbers.items():
        whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
        optional = argument in ("width", "depth")
        if not whole and not (optional and value is None):
            accepted = "a whole number of at least 1" + (", or None" if optional else "")
            raise ValueError(f"{argument} must be {accepted}, not {value!r}")


def check_start(
    name: str, smallest: int, input_size: tuple[int, int], initialization: str
) -> None:
    """Refuses another start than these, and images that are smaller than a net needs."""
    if initialization not in INITIALIZATIONS:
        raise ValueError(f"initialization must be he, he_all or torch, not {initialization!r}")
    sides = tuple(input_size) if isinstance(input_size, Sequence) else ()
    if len(sides) != 2 or not all(isinstance(n, int) for n in sides):
        raise ValueError(
            f"input_size must be height and width, two whole numbers, not {input_size!r}"
        )
    if min(sides) < smallest:
        raise ValueError(
            f"{name} needs images of at least {smallest}x{smallest} pixels, but "
            f"input_size is {sides}"
        )


def input_normalization(
    mean: Sequence[float] | None, std: Sequence[float] | None, in_channels: int
) -> nn.Module:
    """Makes the first layer: a ``Normalize``, or the identity where nothing is given."""
    if mean is None and std is None:
        return nn.Identity()
    if mean is None or std is None:
        raise ValueError(f"mean and std must be given together, not mean={mean} and std={std}")
    if len(mean) != in_channels or len(std) != in_channels:
        raise ValueError(
            f"mean and std need one number for each of the {in_channels} input channels, but "
            f"mean has {len(mean)} and std has {len(std)}"
        )
    return Normalize(mean, std)
