"""What each method of the comparison is, as a change of a run's configuration, and back."""

import dataclasses
from typing import Any

from normkit.training import ConvolutionOptions, Penalty, TrainConfig, from_dict

__all__ = ["METHODS", "changed", "method_of"]

_BARE = {"normalization": "none", "bias": True}
_OWN = {"normalization": "none", "convolution": "conv_norm"}


def _told(**options: Any) -> dict[str, Any]:
    return {"convolution_options": ConvolutionOptions(**options)}


# Without BatchNorm the filter starts at 1.4, He's gain for a ReLU, and layers have a bias.
METHODS: dict[str, dict[str, Any]] = {
    "batch": {},
    "spectral_norm": {"convolution": "spectral_norm"},
    "operator_norm": {"convolution": "spectral_norm", **_told(of="operator")},
    "oni": {"convolution": "oni"},
    "oni_released": {"convolution": "oni", **_told(variant="released")},
    "own": {"convolution": "own"},
    "ocnn": {"penalty": Penalty("ocnn", beta=1e-4)},
    "conv_norm": _OWN,
    "conv_norm_released": _OWN | _told(variant="released", filter_init="torch"),
    "conv_norm_no_affine": _OWN | _told(affine=False),
    "conv_norm_no_bn": _OWN | _told(batch_norm=False, filter_gain=1.4) | {"bias": True},
    "conv_norm_bare": _OWN | _told(batch_norm=False, affine=False) | {"bias": True},
    "none": _BARE,
}


def changed(base: TrainConfig, method: str, **more: Any) -> TrainConfig:
    """A run of a method: the base with what the method changes, and more.

    Example:
        >>> changed(TrainConfig(), "conv_norm", lr=0.03).convolution
        'conv_norm'
    """
    return dataclasses.replace(base, **METHODS[method], **more)


def method_of(config: dict[str, Any]) -> str:
    """The method of a configuration's plain values.

    Raises:
        ValueError: none of `METHODS` is it.

    Example:
        >>> [method_of(dataclasses.asdict(changed(TrainConfig(), m))) == m for m in METHODS]
        [True, True, True, True, True, True, True, True, True, True, True, True, True]
    """
    fields = ("normalization", "convolution", "convolution_options", "penalty")
    run = from_dict(config)
    for name in METHODS:
        made = changed(TrainConfig(), name)
        if all(getattr(made, field) == getattr(run, field) for field in fields):
            return name
    raise ValueError(f"no method of this comparison has {[getattr(run, f) for f in fields]}")
