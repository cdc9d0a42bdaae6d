"""What probes, norm decay, ENorm and ConvNorm add to a training step; what native layers save.

    python benchmarks/steps.py [--only PART ...] [--nets NET ...] [--device cuda] [--rounds 10]

Parts: `probes` (four measures of every layer at every step, or at one step in 20, over no
probes; at most 1.15 and 1.02 are wanted), `layers` (a step with the layers of
`layers.NORMALIZATIONS` against the same layers written out in elementary operations; 1.6 times
is wanted), `decay` (a step of norm decay on all layers of a ResNet-18, with and without its
BatchNorm layers, over the optimizer's own; at most 1 is wanted in l1 and linf), `enorm` (a step
of ENorm on 18 fully connected layers of 500, over the optimizer's own, without and with momentum
buffers that are rescaled too; at most 2.5 and 1.4 are wanted, as against norms in elementary
operations, read before the cycle and without buffers), `conv_norm` (forward and backward of a
layer of so many channels, over ``nn.Conv2d`` and ``nn.BatchNorm2d``, ours and as naively
written: convolution, FFT, product, inverse FFT; at most 1.3 is wanted from 64 channels on, 2.3
at 16, 3.3 at stride 2), `conv_norm_net` (a step of ResNet-18; at most 2.5 is wanted of `small`,
1.8 of `thin`, 1.2 of `large`, and half of naive everywhere). Nets: cfg_10 at batch 128, for
`decay` ResNet-18, `small` (width 16, 8x8 pixels, 1 channel), `medium` (width 16, 16x16 pixels, 3
channels), `thin` (width 16, 32x32 pixels) and `large` (width 64, 32x32 pixels). CPU time on one
thread, or wall time on a GPU. A line of the table is the baseline (torch's own: in `layers` ours),
and what ours and a naive form take times that: ratios of medians of interleaved blocks, with those
of minima in brackets.
"""

import argparse
import copy
import functools
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from normkit import layers, models, penalties, probes, projections
from normkit.papers.measured import hardware

LAST = torch.channels_last
FOUR = ("activation_variance", "cosine_similarity", "stable_rank", "gradient_norm")
NETS = {"small": (16, 8, 1), "medium": (16, 16, 3), "thin": (16, 32, 3), "large": (64, 32, 3)}
LAYERS = {  # input and output channels, side, stride, batch
    "64": (64, 64, 32, 1, 64),
    "128": (128, 128, 16, 1, 64),
    "256": (256, 256, 8, 1, 64),
    "512": (512, 512, 4, 1, 64),
    "16": (16, 16, 8, 1, 128),
    "16_large": (16, 16, 32, 1, 64),
    "stride_2": (16, 32, 8, 2, 128),
    "stride_2_large": (64, 128, 32, 2, 64),
}


Found = tuple[str, list[tuple[str, str, str]]]  # baseline; what, ours, naive: over the baseline
ROW = "{:<14} {:<7} {:<16} {:<21} {:>11}  {:<15} {}"


def per_channel(values: Tensor) -> Tensor:
    """(C,) to what multiplies (N, C, H, W)."""
    return values[:, None, None]


def standardized(x: Tensor, axes: tuple[int, ...], eps: float) -> Tensor:
    """Minus the mean, over the deviation."""
    mean, variance = x.mean(axes, keepdim=True), x.var(axes, correction=0, keepdim=True)
    return (x - mean) / (variance + eps).sqrt()


def deviation(layer: nn.Module, x: Tensor) -> Tensor:
    """That of each channel over the batch, which the layer's running variance follows."""
    with torch.no_grad():
        layer.running_var.lerp_(x.var((0, 2, 3)), layer.momentum)
    return (x.var((0, 2, 3), correction=0, keepdim=True) + layer.eps).sqrt()


def centered(layer: nn.Module, x: Tensor) -> Tensor:
    """Minus the mean of each channel, which the layer's running mean follows."""
    mean = x.mean((0, 2, 3), keepdim=True)
    layer.running_mean.lerp_(mean.detach().flatten(), layer.momentum)
    return x - mean


def grouped(layer: nn.Module, x: Tensor) -> Tensor:
    """Standardized over groups of channels."""
    split = x.unflatten(1, (layer.num_groups, -1))
    return standardized(split, (2, 3, 4), layer.eps).flatten(1, 2)


def evonorm_b0(layer: nn.Module, x: Tensor) -> Tensor:
    """Over the greater of two deviations."""
    within = (x.var((2, 3), correction=0, keepdim=True) + layer.eps).sqrt()
    return x / torch.maximum(deviation(layer, x), per_channel(layer.v) * x + within)


def evonorm_s0(layer: nn.Module, x: Tensor) -> Tensor:
    """A swish over the deviation of a group."""
    split = x.unflatten(1, (layer.num_groups, -1))
    within = (split.var((2, 3, 4), correction=0, keepdim=True) + layer.eps).sqrt()
    swish = x * torch.sigmoid(per_channel(layer.v) * x)
    return (swish.unflatten(1, (layer.num_groups, -1)) / within).flatten(1, 2)


FORMULAS = {
    "batch": lambda m, x: centered(m, x) / deviation(m, x),
    "layer": grouped,
    "instance": lambda m, x: standardized(x, (2, 3), m.eps),
    "group": grouped,
    "filter_response": lambda m, x: x / (x.square().mean((2, 3), keepdim=True) + m.eps).sqrt(),
    "variance": lambda m, x: x / deviation(m, x),
    "mean_centering": centered,
    "evonorm_b0": evonorm_b0,
    "evonorm_s0": evonorm_s0,
}


class Elementary(nn.Module):
    """A layer of the registry, written out: one tensor for each operation."""

    def __init__(self, key: str, num_features: int):
        super().__init__()
        self.native, self.formula = layers.NORMALIZATIONS[key](num_features), FORMULAS[key]

    def forward(self, x: Tensor) -> Tensor:
        y = self.formula(self.native, x)
        return y * per_channel(self.native.weight) + per_channel(self.native.bias)


def stepper(net: str, key: str, device: str, *, native: bool = True) -> tuple[nn.Module, Callable]:
    """A net, and what makes one step of training with it."""
    width, size, channels = NETS[net]
    between = dict(zip(("normalization", "activation"), layers.pair(key), strict=True))
    if not native:
        slot = "activation" if key.startswith("evonorm") else "normalization"
        between[slot] = lambda num_features: Elementary(key, num_features)
    torch.manual_seed(0)
    how = {"in_channels": channels, "input_size": (size, size), "width": width}
    model = models.build("cfg_10", **how, **between).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    images = torch.rand(128, channels, size, size).to(device)
    labels = torch.randint(10, (128,)).to(device)

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return model, step


def ratios(
    blocks: dict[str, Callable], chosen: argparse.Namespace, before: Callable = id
) -> dict[str, str]:
    """Each block's time over that of the first: of medians, and of minima.

    What is called `before` each block, with its name, is not timed.
    """
    cuda = chosen.device == "cuda"
    clock, wait = (time.perf_counter, torch.cuda.synchronize) if cuda else (time.process_time, int)
    seconds = {name: [] for name in blocks}
    for lap in range(chosen.rounds + 1):  # the first one warms up
        for name, block in blocks.items():
            before(name)
            wait()
            start = clock()
            block()
            wait()
            seconds[name] += [clock() - start] * (lap > 0)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    base = next(iter(blocks))
    return {
        name: f"{median[name] / median[base]:.3f} ({min(values) / min(seconds[base]):.3f})"
        for name, values in seconds.items()
    } | {"ms": f"{median[base] / chosen.steps * 1e3:.2f} ms"}


def one_by_one(chosen: argparse.Namespace, rounds: int) -> argparse.Namespace:
    """The arguments, for blocks of a single step."""
    return argparse.Namespace(**{**vars(chosen), "rounds": rounds, "steps": 1})


def probe(net: str, key: str, chosen: argparse.Namespace) -> Found:
    """What probes cost."""
    model, step = stepper(net, key, chosen.device)

    def block(probed: int) -> None:
        with probes.record(model, FOUR) if probed else torch.enable_grad() as recording:
            for _ in range(probed or chosen.steps):
                step()
        if probed:
            recording.table()
            for _ in range(chosen.steps - probed):
                step()

    every, once = chosen.steps, chosen.steps // 20
    blocks = {"none": lambda: block(0), "all": lambda: block(every), "one": lambda: block(once)}
    found = ratios(blocks, chosen)
    rows = [("probed at every step", found["all"], ""), ("at 1 step in 20", found["one"], "")]
    return found["ms"], rows


def compare(net: str, key: str, chosen: argparse.Namespace) -> Found:
    """What native layers save."""
    (_, native), (_, written) = (stepper(net, key, chosen.device, native=n) for n in (True, False))
    torch.testing.assert_close(native(), written(), rtol=1e-4, atol=1e-4)

    def block(step: Callable) -> None:
        for _ in range(chosen.steps):
            step()

    found = ratios({"native": lambda: block(native), "written": lambda: block(written)}, chosen)
    return found["ms"], [("native layer", "1", found["written"])]


def decay(net: str, key: str, chosen: argparse.Namespace) -> Found:
    """What norm decay costs: weights move by the optimizer's steps on random gradients."""
    width, size, channels = NETS[net]
    torch.manual_seed(0)
    how = {"in_channels": channels, "input_size": (size, size), "width": width}
    model = models.build("resnet18", **how).to(chosen.device)
    parameters = list(model.parameters())
    optimizer = torch.optim.SGD(parameters, lr=0.01, momentum=0.9)
    kinds, whole = ("linear", "conv"), (channels, size, size)
    common = {"norm": key, "beta": 1e-3, "input_size": whole}
    few = penalties.NormDecay(model, include=kinds, **common)
    every = penalties.NormDecay(model, include=(*kinds, "batch_norm"), **common)
    noise = 0.01 * torch.randn(2**22, device=chosen.device)

    def before(name: str) -> None:
        for parameter in parameters if name != "sgd" else ():
            start = int(torch.randint(len(noise) - parameter.numel(), ()))
            parameter.grad = noise[start : start + parameter.numel()].view_as(parameter).clone()

    before("start")
    single = one_by_one(chosen, chosen.rounds * chosen.steps)
    blocks = {"sgd": optimizer.step, "every": every.step, "few": few.step}
    found = ratios(blocks, single, before)
    rows = few.step().kind.tolist()
    few_layers = (f"{len(rows)} layers", found["few"], "")
    return found["ms"], [few_layers, ("with BatchNorm's", found["every"], "")]


def balance(net: str, key: str, chosen: argparse.Namespace) -> Found:
    """What ENorm costs: after every step of the optimizer, which is what it is compared with."""
    torch.manual_seed(0)
    parts = [part for _ in range(18) for part in (nn.Linear(500, 500, bias=False), nn.ReLU())]
    model = nn.Sequential(*parts).to(chosen.device)
    momentum = 0.9 if key == "momentum" else 0.0
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6, momentum=momentum)
    weights = list(model.parameters())
    for weight in weights:
        weight.grad = 0.01 * torch.randn_like(weight)
    optimizer.step()
    enorm = projections.ENorm(model, optimizer)

    @torch.no_grad()
    def written() -> None:
        rows, columns = ([w.norm(dim=dim) for w in weights] for dim in (1, 0))
        for k, (left, right) in enumerate(zip(rows, columns[1:-1], strict=False)):
            d = (right / left).sqrt()
            weights[k].mul_(d[:, None])
            weights[k + 1].div_(d)

    single = one_by_one(chosen, chosen.rounds * chosen.steps)
    blocks = {"sgd": optimizer.step, "enorm": enorm.step, "written": written}
    found = ratios(blocks, single, lambda name: name == "enorm" and optimizer.step())
    return found["ms"], [("step of ENorm", found["enorm"], found["written"])]


class Naive(nn.Module):
    """ConvNorm by its definition, a convolution and two FFTs; then r and BatchNorm."""

    def __init__(self, *shape: int, stride: int = 1, padding: int = 0, bias: bool = False):
        super().__init__()
        how = {"stride": stride, "padding": padding, "bias": bias}
        self.native = layers.ConvNorm2d(*shape, **how)

    def forward(self, x: Tensor) -> Tensor:
        layer = self.native
        reach, taps = layer.kernel_size[0] - 1, layer.weight.detach()
        z = F.conv2d(x, layer.weight, padding=reach)
        spectrum = torch.fft.rfft2(taps, s=z.shape[2:]).abs().square().sum(1)
        spectrum += layer.eps * taps.square().sum((1, 2, 3))[:, None, None]
        z = torch.fft.irfft2(torch.fft.rfft2(z) * spectrum.rsqrt(), s=z.shape[2:])
        crop, step = reach - layer.padding[0], layer.stride[0]
        z = z[:, :, crop : z.shape[2] - crop : step, crop : z.shape[3] - crop : step]
        return layer.batch_norm(layer.filtered(z))


def normalized(net: str, key: str, chosen: argparse.Namespace) -> Found:
    """What ConvNorm costs as a layer: forward and backward, over convolution and BatchNorm."""
    torch.manual_seed(0)
    inputs, outputs, side, stride, batch = LAYERS[key]
    shape, how = (inputs, outputs, 3), {"stride": stride, "padding": 1}
    x = torch.randn(batch, inputs, side, side, device=chosen.device).requires_grad_()
    plain = nn.Sequential(nn.Conv2d(*shape, **how, bias=False), nn.BatchNorm2d(outputs))
    parts = {"plain": plain, "ours": layers.ConvNorm2d(*shape, **how, bias=False)}
    parts["naive"] = Naive(*shape, **how)
    parts["naive"].native.load_state_dict(parts["ours"].state_dict())
    parts = {name: part.to(chosen.device) for name, part in parts.items()}
    torch.testing.assert_close(parts["ours"](x), parts["naive"](x), rtol=1e-3, atol=1e-3)
    seen = dict.fromkeys(("ours", "channels_last"), x.detach().to(memory_format=LAST))
    seen |= {"plain": x, "naive": x}
    parts["channels_last"] = copy.deepcopy(plain).to(memory_format=LAST)

    def block(name: str) -> None:
        y = parts[name](seen[name].requires_grad_())
        y.backward(torch.ones_like(y))

    blocks = {name: functools.partial(block, name) for name in parts}
    found = ratios(blocks, one_by_one(chosen, chosen.rounds))
    last = ("plain, channels_last", found["channels_last"], "")
    return found["ms"], [("ConvNorm", found["ours"], found["naive"]), last]


def normalized_net(net: str, key: str, chosen: argparse.Namespace) -> Found:
    """What ConvNorm costs in a ResNet-18, as a step of SGD."""
    width, size, channels = NETS[net]
    how = {"in_channels": channels, "input_size": (size, size), "width": width}
    batch = 64 if net == "thin" else 128
    images = torch.rand(batch, channels, size, size, device=chosen.device)
    labels = torch.randint(10, (batch,), device=chosen.device)
    bare = {"normalization": nn.Identity}
    kinds = {"plain": {}, "ours": bare | {"convolution": layers.conv_norm}}
    kinds["naive"] = bare | {"convolution": Naive}
    blocks = {}
    for name, kind in kinds.items():
        torch.manual_seed(0)
        model = models.build("resnet18", **how, **kind).to(chosen.device)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

        def block(model=model, optimizer=optimizer) -> None:
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()

        blocks[name] = block
    found = ratios(blocks, one_by_one(chosen, chosen.rounds))
    return found["ms"], [("ConvNorm", found["ours"], found["naive"])]


def main() -> None:
    """Print what the arguments ask for."""
    about = __doc__.partition("\n\nParts: ")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog=about[2])
    parts = {
        "probes": (probe, ("batch", "group"), ("small",)),
        "layers": (compare, tuple(FORMULAS), ("small",)),
        "decay": (decay, ("l1", "linf", "spectral"), ("large",)),
        "enorm": (balance, ("plain", "momentum"), ("dense",)),
        "conv_norm": (normalized, tuple(LAYERS), ("layer",)),
        "conv_norm_net": (normalized_net, ("resnet18",), ("small", "thin", "large")),
    }
    parser.add_argument("--only", nargs="+", choices=parts, default=list(parts), help="parts")
    parser.add_argument("--nets", nargs="+", choices=NETS, help="nets, not the part's own")
    parser.add_argument("--layers", nargs="+", choices=FORMULAS, help="layers, not the part's own")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rounds", type=int, default=10, help="blocks of each alternative")
    parser.add_argument("--steps", type=int, default=20, help="steps of a block, a multiple of 20")
    chosen = parser.parse_args()
    if chosen.steps < 20 or chosen.steps % 20:
        parser.error(f"--steps must be a multiple of 20, not {chosen.steps}")
    torch.set_num_threads(1)
    gpu = f"{torch.cuda.get_device_name()}; " if chosen.device == "cuda" else ""
    print(f"{gpu}{hardware(1)}; {chosen.rounds} blocks of {chosen.steps} steps", flush=True)
    print(ROW.format("part", "net", "case", "what", "baseline", "ours", "naive").rstrip())
    for part in chosen.only:
        measure, keys, nets = parts[part]
        for net in chosen.nets or nets:
            for key in (part in ("probes", "layers") and chosen.layers) or keys:
                baseline, rows = measure(net, key, chosen)
                for what, ours, naive in rows:
                    print(ROW.format(part, net, key, what, baseline, ours, naive), flush=True)


if __name__ == "__main__":
    main()
