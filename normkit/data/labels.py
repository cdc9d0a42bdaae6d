"""Which images, in which order, under which labels: subsets, splits, noise, batches."""

import difflib
from collections.abc import Iterable, Mapping
from numbers import Integral

import torch
from torch import Generator, Tensor

__all__ = [
    "LABEL_FLIPS",
    "batches",
    "check_choice",
    "first_per_class",
    "noisy_labels",
    "split_validation",
    "subset",
]

#: Asymmetric noise by data set, class -> the class it is taken for; CIFAR-10: bird -> airplane,
#: cat <-> dog, deer -> horse, truck -> automobile (Patrini et al. 2017, arXiv 1609.03683).
LABEL_FLIPS: dict[str, dict[int, int]] = {"cifar10": {2: 0, 3: 5, 4: 7, 5: 3, 9: 1}}


def check_choice(argument: str, value: str, choices: Iterable[str]) -> None:
    """Refuse a name that is not on the list, and name the nearest that is.

    Raises:
        ValueError: value is not among choices; argument says what was being chosen.

    Example:
        >>> check_choice("name", "cifar", ("digits", "cifar10"))
        Traceback (most recent call last):
        ValueError: name must be one of digits, cifar10; found 'cifar', nearest 'cifar10'
    """
    choices = tuple(choices)
    if value not in choices:
        nearest = difflib.get_close_matches(str(value), choices, n=1, cutoff=0)[0]
        raise ValueError(
            f"{argument} must be one of {', '.join(choices)}; found {value!r}, nearest {nearest!r}"
        )


def _check_fraction(fraction: float) -> None:
    if not 0 <= fraction < 1:
        raise ValueError(f"fraction must be in [0, 1), found {fraction!r}")


def first_per_class(labels: Tensor, order: Tensor, n: int) -> Tensor:
    """The n images that come first in an order, each class in proportion to its size.

        k_c = n N_c / N, rounded by largest remainder, so that sum_c k_c = n

    In plain words: deal out n places to the classes, ties to the lower class, then walk through
    the order and take an image while its class has places left.

    Shape: labels (N,), order (N,) a permutation, n at most N -> (n,), ascending indices.

    Example:
        >>> labels = torch.tensor([0, 0, 0, 0, 1, 1])
        >>> first_per_class(labels, torch.tensor([5, 4, 3, 2, 1, 0]), 3)
        tensor([2, 3, 5])
    """
    counts = labels.bincount()
    share, remainder = counts * n // len(labels), counts * n % len(labels)
    share[remainder.argsort(descending=True, stable=True)[: n - share.sum()]] += 1
    order = order[labels[order].argsort(stable=True)]
    rank = torch.arange(len(order)) - (counts.cumsum(0) - counts)[labels[order]]
    return order[rank < share[labels[order]]].sort().values


def subset(labels: Tensor, n: int, generator: Generator) -> Tensor:
    """A random, stratified choice of n images.

        |{i chosen: y_i = c}| = n N_c / N, rounded by largest remainder

    In plain words: a smaller data set with the class proportions of the large one. A class whose
    share n N_c / N is below 1 may go without an image, and some do if n is below their number.

    Arguments:
        labels: int64 (N,), on any device.
        n: how many images, 1 to N.
        generator: on the CPU, the source of the permutation.

    Shape: (N,) -> (n,), ascending indices on the device of the labels.

    Raises:
        ValueError: n is not in 1 ... N.

    Example:
        >>> labels = torch.arange(10).repeat(30)
        >>> chosen = subset(labels, 50, torch.Generator().manual_seed(0))
        >>> labels[chosen].bincount().tolist()
        [5, 5, 5, 5, 5, 5, 5, 5, 5, 5]
    """
    if not isinstance(n, Integral) or not 1 <= n <= len(labels):
        raise ValueError(f"n must be a number of images from 1 to {len(labels)}, found {n!r}")
    order = torch.randperm(len(labels), generator=generator)
    return first_per_class(labels.cpu(), order, n).to(labels.device)


def split_validation(
    labels: Tensor, fraction: float, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Two disjoint stratified parts that together are everything.

        |validation| = round(fraction N)

    In plain words: put some training images aside, in proportion to the classes, for choosing
    settings without looking at the test images.

    Arguments:
        labels: int64 (N,), on any device.
        fraction: share of the images to put aside, in [0, 1).
        generator: on the CPU.

    Shape: (N,) -> (N - k,), (k,): indices of the training and of the validation images, ascending.

    Raises:
        ValueError: fraction is outside [0, 1).

    Example:
        >>> labels = torch.arange(10).repeat(30)
        >>> train, validation = split_validation(labels, 0.1, torch.Generator().manual_seed(0))
        >>> torch.equal(torch.cat([train, validation]).sort().values, torch.arange(300))
        True
    """
    _check_fraction(fraction)
    order = torch.randperm(len(labels), generator=generator)
    aside = torch.zeros(len(labels), dtype=torch.bool)
    aside[first_per_class(labels.cpu(), order, round(fraction * len(labels)))] = True
    return tuple(mask.nonzero().squeeze(1).to(labels.device) for mask in (~aside, aside))


def noisy_labels(
    labels: Tensor,
    fraction: float,
    *,
    kind: str = "symmetric",
    num_classes: int,
    generator: Generator,
    variant: str = "paper",
    flips: Mapping[int, int] | None = None,
) -> Tensor:
    """Labels with a known share of errors.

        symmetric:   round(fraction N) labels become another class, each equally likely
        asymmetric:  of every class c in `flips`, round(fraction N_c) labels become flips[c]

    In plain words: symmetric errors are blind, asymmetric ones take a class for its look-alike.
    `LABEL_FLIPS["cifar10"]` has the usual five: "40 %" then changes 20 % of all labels.

    Source: Liu et al. 2021, ConvNorm, arXiv 2103.00673; flips of Patrini et al. 2017,
    arXiv 1609.03683.

    Deviation: variant="released" follows github.com/shengliu66/ConvNorm: symmetric noise draws
    among all classes, the true one too, so that fraction (1 - 1 / num_classes) changes (18 % for
    "20 %" of ten classes); asymmetric noise goes through the classes in ascending order on the
    labels as they stand, so that some cats turned dogs turn back.

    Arguments:
        labels: int64 (N,), on any device; not changed.
        fraction: nominal share of errors, in [0, 1).
        kind: "symmetric" or "asymmetric".
        num_classes: how many classes there are, at least 2.
        generator: on the CPU.
        variant: "paper" or "released".
        flips: asymmetric only, class -> wrong class; None is c -> c + 1 modulo num_classes.

    Shape: (N,) -> (N,), on the device of the labels.

    Raises:
        ValueError: unknown kind or variant; fraction outside [0, 1); a label or a flip that is no
            class.

    Example:
        >>> labels = torch.arange(10).repeat(1000)
        >>> for variant in ("paper", "released"):
        ...     noisy = noisy_labels(labels, 0.2, num_classes=10, variant=variant,
        ...                          generator=torch.Generator().manual_seed(0))
        ...     print(f"{variant} {(noisy != labels).float().mean():.2f}")
        paper 0.20
        released 0.18
    """
    check_choice("kind", kind, ("symmetric", "asymmetric"))
    check_choice("variant", variant, ("paper", "released"))
    _check_fraction(fraction)
    if flips is None:
        flips = {c: (c + 1) % num_classes for c in range(num_classes)}
    classes = {*labels.unique().tolist(), *flips, *flips.values()}
    if num_classes < 2 or not classes <= set(range(num_classes)):
        raise ValueError(
            f"num_classes must be at least 2 and above every label and flip, found {num_classes} "
            f"where the largest is {max(classes, default=0)}"
        )
    change, rule = (_symmetric, num_classes) if kind == "symmetric" else (_asymmetric, flips)
    return change(labels.cpu(), fraction, rule, generator, variant == "paper").to(labels.device)


def _symmetric(
    labels: Tensor, fraction: float, num_classes: int, generator: Generator, exact: bool
) -> Tensor:
    """Some labels redrawn: among the other classes if exact, else among all."""
    count = round(fraction * len(labels))
    chosen = torch.randperm(len(labels), generator=generator)[:count]
    draw = torch.randint(int(exact), num_classes, (count,), generator=generator)
    noisy = labels.clone()
    noisy[chosen] = (labels[chosen] + draw) % num_classes
    return noisy


def _asymmetric(
    labels: Tensor, fraction: float, flips: Mapping[int, int], generator: Generator, exact: bool
) -> Tensor:
    """Part of each class flipped: of the true class if exact, else as the labels stand."""
    noisy = labels.clone()
    for wrong in sorted(flips):
        members = ((labels if exact else noisy) == wrong).nonzero().squeeze(1)
        chosen = torch.randperm(len(members), generator=generator)
        noisy[members[chosen[: round(fraction * len(members))]]] = flips[wrong]
    return noisy


def batches(n: int, batch_size: int, generator: Generator) -> tuple[Tensor, ...]:
    """One epoch: a random order, cut into batches.

    In plain words: every image once; the last batch may be smaller, but is left out when it would
    be a single image, which BatchNorm cannot normalize.

    Arguments:
        n: number of images.
        batch_size: images per batch.
        generator: on the CPU, the source of the order.

    Shape: ceil(n / batch_size) index tensors of up to (batch_size,), on the CPU.

    Raises:
        ValueError: n or batch_size is below 1.

    Example:
        >>> [len(index) for index in batches(23, 10, torch.Generator().manual_seed(0))]
        [10, 10, 3]
        >>> [len(index) for index in batches(21, 10, torch.Generator().manual_seed(0))]
        [10, 10]
    """
    for argument, value in (("n", n), ("batch_size", batch_size)):
        if not isinstance(value, Integral) or value < 1:
            raise ValueError(f"{argument} must be a whole number >= 1, found {value!r}")
    parts = torch.randperm(n, generator=generator).split(batch_size)
    return parts[:-1] if len(parts[-1]) == 1 < batch_size else parts
