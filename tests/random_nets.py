"""Random networks of residual sums, concatenations, shared weights, groups and odd layers."""

import random

import torch
from torch import nn

__all__ = ["RandomNet"]

KEEPING = (nn.ReLU, nn.LeakyReLU, nn.Identity, lambda: nn.PReLU(), lambda: nn.Dropout(0.2))
POOLS = (lambda: nn.MaxPool2d(3, 1, 1), lambda: nn.AvgPool2d(3, 1, 1))
BENDING = (nn.GELU, nn.Sigmoid, nn.ReLU6, nn.Tanh)


class RandomNet(nn.Module):
    """A network of images (N, 3, 5, 5) to (N, 4), drawn from a seed.

    Every step reads one or two of the signals so far, which all have maps of one size, and the
    last ones are read by a linear layer.

    Arguments:
        seed: of everything.
        smooth: steps may bend the signal, so that a part of the network cannot be rescaled.
        normalize: steps may be batch normalizations.
    """

    def __init__(self, seed: int, *, smooth: bool = False, normalize: bool = False):
        super().__init__()
        draw = random.Random(seed)
        torch.manual_seed(seed)
        self.layers, self.program, sizes = nn.ModuleList(), [], [3]
        kinds = ["conv"] * 4 + ["keep"] * 3 + ["pool", "sum", "sum", "cat", "again", "part", "scaled"]
        kinds += ["single"] + ["bend"] * smooth + ["norm"] * 2 * normalize
        for _ in range(draw.randint(4, 14)):
            self._step(draw, draw.choice(kinds), sizes)
        last = draw.sample(range(len(sizes)), min(2, len(sizes)))
        self.last = sorted({len(sizes) - 1, *last})
        self.whole = draw.random() < 0.5
        self.head = nn.Linear(sum(sizes[i] for i in self.last) * (25 if self.whole else 1), 4)

    def _step(self, draw: random.Random, kind: str, sizes: list[int]) -> None:
        source = draw.randrange(max(0, len(sizes) - 4), len(sizes))
        size, other = sizes[source], None
        if kind == "sum":
            same = [i for i in range(len(sizes)) if sizes[i] == size and i != source]
            kind, other = ("sum", draw.choice(same)) if same else ("conv", None)
        if kind == "again":
            fit = [i for i, l in enumerate(self.layers) if getattr(l, "in_channels", 0) == size]
            kind, other = ("again", draw.choice(fit)) if fit else ("conv", None)
        made = {"keep": KEEPING, "pool": POOLS, "bend": BENDING}.get(kind)
        if kind == "cat":
            other = draw.randrange(len(sizes))
            size += sizes[other]
        elif kind == "part" and size > 2:
            other = draw.randrange(1, size - 1)
            size = other
        elif kind == "again":
            size = self.layers[other].out_channels
        elif kind in ("conv", "single"):
            size = size if kind == "single" else draw.choice([4, 6, 8])
            groups = draw.choice([g for g in (1, 1, 1, 2, size) if size % g == 0 and sizes[source] % g == 0])
            kernel = draw.choice([1, 3])
            layer = nn.Conv2d(
                sizes[source], size, kernel, padding=kernel // 2, groups=groups,
                bias=draw.random() < 0.5,
            )  # fmt: skip
            other = self._add(layer)
        elif kind == "norm":
            layer = nn.BatchNorm2d(size, affine=draw.random() < 0.8)
            if layer.affine:
                nn.init.uniform_(layer.weight, 0.5, 2.0)
                nn.init.normal_(layer.bias)
            other = self._add(layer)
        elif made:
            other = self._add(draw.choice(made)())
        self.program.append((kind, source, other))
        sizes.append(size)

    def _add(self, layer: nn.Module) -> int:
        self.layers.append(layer)
        return len(self.layers) - 1

    def forward(self, images):
        seen = [images]
        for kind, source, other in self.program:
            x = seen[source]
            if kind == "sum":
                x = x + seen[other]
            elif kind == "cat":
                x = torch.cat([x, seen[other]], 1)
            elif kind == "part":
                x = x[:, :other] if other else x
            elif kind == "scaled":
                x = 0.7 * x
            elif other is not None:
                x = self.layers[other](x)
            seen.append(x)
        x = torch.cat([seen[i] for i in self.last], 1)
        x = torch.flatten(x, 1) if self.whole else x.mean((2, 3))
        return self.head(x)
