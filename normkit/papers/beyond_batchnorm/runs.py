"""The runs behind the measures at initialization."""

import dataclasses
import math
from collections.abc import Sequence

from normkit.training import TrainConfig

from ..profiles import choose

__all__ = ["SETTINGS", "Initialization", "datasets", "depth_runs", "group_runs"]


@dataclasses.dataclass(frozen=True)
class Initialization:
    """What is measured before any training, and on which networks.

    Arguments:
        base: all that the runs share.
        seeds: repetitions: other weights and other images.
        width: of the ResNet-56 of bb.variance.
        image_size: of its images.
        stack_widths: of the plain stacks of bb.rank; bb.cosine and bb.gradient read the widest.
        depths: of those stacks.
    """

    base: TrainConfig
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    width: int = 16
    image_size: int = 16
    stack_widths: tuple[int, ...] = (8, 16)
    depths: tuple[int, ...] = (10, 20, 40)


INIT = TrainConfig(epochs=0, norms=(), final_norms=(), augment="none")

SETTINGS = {
    "smoke": Initialization(
        dataclasses.replace(INIT, probe_images=16),
        seeds=(0,),
        width=4,
        stack_widths=(4,),
        depths=(4, 8),
    ),
    "quick": Initialization(INIT),
    "cifar10": Initialization(
        dataclasses.replace(INIT, dataset="cifar10"),
        image_size=32,
        width=32,
        stack_widths=(32, 64),
    ),
    "paper": Initialization(
        dataclasses.replace(INIT, dataset="cifar100"),
        image_size=32,
        width=32,
        stack_widths=(32, 64, 128),
    ),
}


def datasets(profile: str) -> tuple[str, ...]:
    """The data sets that a profile reads."""
    return (choose(SETTINGS, profile).base.dataset,)


def depth_runs(
    profile: str, *, seeds: Sequence[int] | None = None, device: str = "cpu"
) -> list[TrainConfig]:
    """The ResNet-56 of bb.variance under every normalizer, without and with SkipInit."""
    setting = choose(SETTINGS, profile, seeds=seeds)
    base = dataclasses.replace(
        setting.base,
        model="resnet56",
        width=setting.width,
        image_size=setting.image_size,
        probes=("activation_variance",),
        device=device,
    )
    return [
        dataclasses.replace(base, seed=seed, skip_init=skip, **method)
        for seed in setting.seeds
        for skip in (False, True)
        for method in _methods(setting.width)
    ]


def group_runs(
    profile: str, *, seeds: Sequence[int] | None = None, device: str = "cpu"
) -> list[TrainConfig]:
    """Plain stacks with GroupNorm, from one group (LayerNorm) to as many as channels.

    Example:
        >>> sorted({run.groups for run in group_runs("quick") if run.width == 16})
        [1, 2, 4, 8, 16]
    """
    setting = choose(SETTINGS, profile, seeds=seeds)
    base = dataclasses.replace(
        setting.base,
        model="uniform",
        normalization="group",
        probes=("stable_rank", "cosine_similarity", "gradient_norm"),
        device=device,
    )
    sizes = [
        (width, 2**i) for width in setting.stack_widths for i in range(int(math.log2(width)) + 1)
    ]
    return [
        dataclasses.replace(base, seed=seed, depth=depth, width=width, groups=count)
        for seed in setting.seeds
        for depth in setting.depths
        for width, count in sizes
    ]


def _methods(width: int) -> list[dict]:
    normalizations = ("none", "batch", "layer", "instance", "group")
    methods = [{"normalization": key} for key in normalizations]
    methods[-1]["groups"] = max(1, width // 4)
    return [*methods, {"normalization": "none", "convolution": "scaled_ws"}]
