"""The nets of the four papers: ``build`` makes one by name, ``from_state_dict`` from weights."""

from . import gan
from .checkpoints import Fit, fit_state_dict, from_state_dict
from .parts import Activation, Convolution, Normalize, relu
from .registry import INITIALIZATIONS, NAMES, RECONSTRUCTING, build
from .residual import PadShortcut, SkipInit
from .squeeze import SqueezeExcitation

__all__ = [
    "INITIALIZATIONS",
    "NAMES",
    "RECONSTRUCTING",
    "Activation",
    "Convolution",
    "Fit",
    "Normalize",
    "PadShortcut",
    "SkipInit",
    "SqueezeExcitation",
    "build",
    "fit_state_dict",
    "from_state_dict",
    "gan",
    "relu",
]
