"""Training: frozen configurations in, tidy tables out."""

from .config import TrainConfig
from .gan import gan_losses, train_gan
from .gan_config import DISCRIMINATORS, GanConfig
from .gan_nets import Gan, build_gan, restore_gan, spectral_conv_norm
from .loop import train
from .objective import attack_loss, learning_rate, robust_accuracy
from .parts import Adversary, ConvolutionOptions, Evaluation, Penalty, Projection
from .run import GanRun, Run
from .scores import Scorer, fidelity, frechet_distance, inception_score, scorer
from .settings import field_names, from_dict, from_settings
from .source import dataset
from .task import Form, build_model, generator, prepare, rebuild, resolve_device, restore

__all__ = [
    "DISCRIMINATORS",
    "Adversary",
    "ConvolutionOptions",
    "Evaluation",
    "Form",
    "Gan",
    "GanConfig",
    "GanRun",
    "Penalty",
    "Projection",
    "Run",
    "Scorer",
    "TrainConfig",
    "attack_loss",
    "build_gan",
    "build_model",
    "dataset",
    "fidelity",
    "field_names",
    "frechet_distance",
    "from_dict",
    "from_settings",
    "gan_losses",
    "generator",
    "inception_score",
    "learning_rate",
    "prepare",
    "rebuild",
    "resolve_device",
    "restore",
    "restore_gan",
    "robust_accuracy",
    "scorer",
    "spectral_conv_norm",
    "train",
    "train_gan",
]
