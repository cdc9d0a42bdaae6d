"""Training: frozen configurations in, tidy tables out."""

from .config import TrainConfig, dataset
from .loop import Run, train
from .objective import attack_loss, learning_rate, robust_accuracy
from .parts import Adversary, ConvolutionOptions, Evaluation, Penalty, Projection
from .settings import field_names, from_dict, from_settings
from .task import Form, build_model, generator, prepare, rebuild, resolve_device, restore

__all__ = [
    "Adversary",
    "ConvolutionOptions",
    "Evaluation",
    "Form",
    "Penalty",
    "Projection",
    "Run",
    "TrainConfig",
    "attack_loss",
    "build_model",
    "dataset",
    "field_names",
    "from_dict",
    "from_settings",
    "generator",
    "learning_rate",
    "prepare",
    "rebuild",
    "resolve_device",
    "restore",
    "robust_accuracy",
    "train",
]
