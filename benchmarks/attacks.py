"""What a gradient of Auto-PGD costs beside one of plain PGD. All ratios in one run.

    python benchmarks/attacks.py [--nets NET ...] [--device cuda] [--rounds 10] [--steps 50]

Nets: `digits` (resnet8 of width 8, 297 images of 8x8 pixels, 1 channel), `few` (the same, 32
images) and `color` (resnet18 of width 16, 64 images of 32x32 pixels). Each attack takes the same
number of gradients, counted at the net, from the same images and labels (the net's own classes),
in a ball so small that no image is fooled and leaves; at most 1.2 times PGD's time is wanted. CPU
time on one thread, or wall time on a GPU; every ratio is that of medians of interleaved rounds,
with that of minima in brackets.
"""

import argparse
import functools
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from normkit import attacks, models
from normkit.papers.measured import hardware

NETS = {
    "digits": ("resnet8", 8, (297, 1, 8, 8)),
    "few": ("resnet8", 8, (32, 1, 8, 8)),
    "color": ("resnet18", 16, (64, 3, 32, 32)),
}
EPSILON = 1e-6


class Counted(nn.Module):
    """A net, and how many images it has been given with gradients."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net, self.images = net, 0

    def forward(self, x: Tensor) -> Tensor:
        self.images += torch.is_grad_enabled() * len(x)
        return self.net(x)


def climbers(steps: int) -> dict[str, Callable]:
    """Attacks of model, images and labels that take so many gradients."""
    apgd = functools.partial(attacks.apgd, epsilon=EPSILON, steps=steps)
    return {
        "pgd": functools.partial(attacks.pgd, epsilon=EPSILON, step_size=EPSILON, steps=steps),
        "ce": apgd,
        "dlr": functools.partial(apgd, loss="dlr"),
        "targeted": functools.partial(apgd, loss="targeted", targets=1),
        "ce in l2": functools.partial(apgd, norm="l2"),
    }


def compare(net: str, chosen: argparse.Namespace) -> str:
    """Milliseconds of a gradient of PGD, and the others' times over it."""
    name, width, shape = NETS[net]
    torch.manual_seed(0)
    built = models.build(name, in_channels=shape[1], input_size=shape[2:], width=width)
    model = Counted(built).to(chosen.device).eval()
    images = torch.rand(shape).to(chosen.device)
    with torch.no_grad():
        labels = model(images).argmax(1)
    cuda = chosen.device == "cuda"
    clock, wait = (time.perf_counter, torch.cuda.synchronize) if cuda else (time.process_time, int)
    runs = climbers(chosen.steps)
    seconds = {attack: [] for attack in runs}
    for lap in range(chosen.rounds + 1):  # the first one warms up
        for attack, run in runs.items():
            model.images = 0
            wait()
            start = clock()
            run(model, images, labels)
            wait()
            seconds[attack] += [clock() - start] * (lap > 0)
            if model.images != chosen.steps * len(images):
                raise RuntimeError(f"{attack}: {model.images} images had gradients")
    median = {attack: statistics.median(values) for attack, values in seconds.items()}
    pgd = median.pop("pgd")
    low = min(seconds["pgd"])
    others = ", ".join(
        f"{attack} {value / pgd:.3f} ({min(seconds[attack]) / low:.3f})"
        for attack, value in median.items()
    )
    return f"pgd {pgd / chosen.steps * 1e3:.2f} ms a gradient; times that: {others}"


def main() -> None:
    """Print what the arguments ask for."""
    about = __doc__.partition("\n\nNets: ")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog=about[2])
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS), help="nets")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rounds", type=int, default=10, help="runs of each attack")
    parser.add_argument("--steps", type=int, default=50, help="gradients of a run")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    gpu = f"{torch.cuda.get_device_name()}; " if chosen.device == "cuda" else ""
    print(f"{gpu}{hardware(1)}; {chosen.rounds} runs of {chosen.steps} gradients", flush=True)
    for net in chosen.nets:
        print(f"{net}: {compare(net, chosen)}", flush=True)


if __name__ == "__main__":
    main()
