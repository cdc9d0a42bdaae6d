"""The convolutions whose norms are timed: six shapes, a ResNet-18, a trained network."""

import dataclasses

import torch
from torch import nn

from normkit import models
from normkit.training import TrainConfig, train

__all__ = ["SHAPES", "Job", "resnet", "shapes", "trained"]

SHAPES = ((3, 32, 32), (3, 32, 128), (3, 128, 256), (3, 256, 512), (5, 256, 128), (5, 512, 256))


@dataclasses.dataclass(frozen=True)
class Job:
    """A layer to be measured on an input of a size.

    `weight`, `form` (weight, size, stride) are what the baselines take.
    """

    name: str
    layer: nn.Conv2d
    size: tuple[int, int]

    @property
    def form(self) -> tuple:
        """Weight, input size and stride."""
        return self.layer.weight.detach(), self.size, self.layer.stride


def shapes(size: int, divide: int = 1) -> list[Job]:
    """The six layers of ln.speed, torch's default weights, always the same.

    Example:
        >>> [job.name for job in shapes(32)][:3]
        ['3x3 32->32', '3x3 32->128', '3x3 128->256']
    """
    jobs = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for kernel, inputs, outputs in SHAPES:
            inputs, outputs = inputs // divide, outputs // divide
            layer = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
            jobs.append(Job(f"{kernel}x{kernel} {inputs}->{outputs}", layer, (size, size)))
    return jobs


def resnet(size: int, divide: int = 1) -> list[Job]:
    """The 20 convolutions of a CIFAR ResNet-18 at torch's initialization, each at its own size.

    Example:
        >>> len(resnet(8, divide=16))
        20
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = models.build("resnet18", width=64 // divide, initialization="torch")
    return _jobs(model, torch.zeros(1, 3, size, size))


def trained(size: int, width: int = 64, epochs: int = 8) -> list[Job]:
    """3x3 layers of at least 2 x width channels of a ResNet-8 trained on digits, at another size.

    *In plain words:* training concentrates the singular values, which changes what a search for
    the largest one has to do; the torus on which they are measured is larger than the digits.
    """
    config = TrainConfig(model="resnet8", width=width, epochs=epochs, norms=(), final_norms=())
    jobs = _jobs(train(config).model.float(), torch.zeros(1, 1, 8, 8))
    wide = [j for j in jobs if min(j.layer.weight.shape[:2]) >= 2 * width]
    found = [j for j in wide if j.layer.kernel_size != (1, 1)]
    return [dataclasses.replace(job, size=(size, size)) for job in found]


def _jobs(model: nn.Module, image: torch.Tensor) -> list[Job]:
    """Every convolution of a network with the input that an image of this size brings it."""
    jobs, handles = [], []

    def see(layer: nn.Conv2d, args: tuple) -> None:
        outputs, inputs, kernel, _ = layer.weight.shape
        stride = "" if layer.stride == (1, 1) else f"/{layer.stride[0]}"
        name = f"{len(jobs):02d}: {kernel}x{kernel} {inputs}->{outputs}{stride}"
        jobs.append(Job(name, layer, tuple(args[0].shape[2:])))

    for layer in (layer for layer in model.modules() if isinstance(layer, nn.Conv2d)):
        layer.weight.data = layer.weight.data.contiguous()
        handles.append(layer.register_forward_pre_hook(see))
    with torch.no_grad():
        model.eval()(image)
    for handle in handles:
        handle.remove()
    return jobs
