"""Norm decay against its definition, written out with the dense matrix of every layer."""

import copy

import pytest
import torch
from dense import CONVOLUTIONS, TRANSPOSED
from test_norms_absolute import convolution, linear, measurable, transposed
from torch import nn
from torch.func import functional_call
from torch.nn.utils import parametrizations

from normkit.norms import LinearMap, l1_norm, linear_map, linf_norm
from normkit.penalties import NormDecay

BETA, STEPS, EXACT = 0.25, 64, 1e-10
NORMS = {"l1": l1_norm, "linf": linf_norm}
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")


class Doubled(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return 2 * self.inner(x)


@linear_map.register
def _(layer: Doubled, input_size, boundary="zero"):
    inner = linear_map(layer.inner, input_size, boundary)
    return LinearMap(inner.kind, 2 * inner.weight, inner.axes, inner.transposed)


class Side(nn.Module):
    """Layers side by side, each with an input of its own."""

    def __init__(self, cases):
        super().__init__()
        self.layers = nn.ModuleList(layer for layer, *_ in cases)
        self.shapes = [shape for *_, shape in cases]

    def forward(self, scale=1.0):
        pairs = zip(self.layers, self.shapes, strict=True)
        return [layer(scale * torch.randn(3, *shape).double()) for layer, shape in pairs]


class Definition:
    """`G <- m G; G[argmax set] <- sub-gradient; beta G` for one layer, G and matrix dense."""

    def __init__(self, twin, shape, norm, memory):
        self.twin, self.axis, self.memory = twin, 1 if norm == "linf" else 0, memory
        self.units = torch.eye(torch.Size(shape).numel()).double().view(-1, *shape)
        self.decayed, self.members = 0.0, {}

    def matrix(self, weight):
        plain = {"weight": weight}
        if self.twin.bias is not None:
            plain["bias"] = torch.zeros_like(self.twin.bias)
        return functional_call(self.twin, plain, (self.units,)).flatten(1).T

    def sums(self, weight):
        if isinstance(self.twin, nn.modules.batchnorm._BatchNorm):
            return weight.abs()
        return self.matrix(weight).abs().sum(self.axis)

    def slope(self, weight, place=None):
        """The largest sum, its place, and its gradient; or those of the sum at a place."""
        weight = weight.detach().requires_grad_()
        sums = self.sums(weight)
        place = sums.argmax().item() if place is None else place
        return sums[place].item(), place, torch.autograd.grad(sums[place], weight)[0]

    def step(self, weight):
        """The norm, and G after this step."""
        value, place, slope = self.slope(weight)
        if place not in self.members:
            self.members[place] = self.slope(torch.ones_like(weight), place)[2] > 0
        faded = self.memory * self.decayed + torch.zeros_like(weight)
        self.decayed = torch.where(self.members[place], slope, faded)
        return value, self.decayed


def effective(layer):
    """The effective weight as evaluated, with its graph."""
    training, layer = layer.training, layer.eval()
    if isinstance(layer, nn.modules.batchnorm._BatchNorm):
        weight = layer.weight / (layer.running_var + layer.eps).sqrt()
    else:
        weight = 2 * layer.inner.weight if isinstance(layer, Doubled) else 1 * layer.weight
    layer.train(training)
    return weight


def alike(layer, shape, wrap=None):
    """The layer as used, one that takes any weight, and the shape of its input."""
    layer = layer.double()
    twin = copy.deepcopy(layer)
    return (wrap(layer) if wrap else layer), twin, shape


def cases():
    """Layers of every kind on tiny maps, two of them with one parameter."""
    conv, plain = nn.Conv2d, CONVOLUTIONS[0]
    first, second = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(2, 3, 3, stride=2, dilation=2)
    second.weight = first.weight
    nhwc = conv(3, 4, 3, padding=1).to(memory_format=torch.channels_last)
    batch = nn.BatchNorm2d(5)
    nn.init.normal_(batch.weight)
    made = [
        (nn.Linear(5, 4), (5,)),
        (nn.Linear(3, 1, bias=False), (3,)),
        (conv(2, 3, 3, padding=1), (2, 5, 4)),
        (conv(4, 6, 3, stride=2, padding=1, groups=2), (4, 5, 6)),
        (conv(2, 3, 3, dilation=2, padding=2), (2, 3, 5)),
        (conv(3, 4, 3, padding=1), (3, 1, 1)),
        (conv(2, 3, 3, padding=1), (2, 2, 1)),
        (conv(3, 2, 2, stride=2), (3, 4, 4)),
        (conv(3, 2, 1, stride=2), (3, 5, 4)),
        (conv(2, 3, (3, 5), padding=(1, 2), padding_mode="circular"), (2, 2, 3)),
        (conv(1, 2, 3, padding=1, stride=2, padding_mode="reflect"), (1, 2, 4)),
        (conv(2, 2, 3, padding=2, stride=2, padding_mode="replicate"), (2, 3, 2)),
        (plain(2, 2, 4, padding="same"), (2, 6)),
        (CONVOLUTIONS[2](1, 2, 2, padding=1, stride=(1, 2, 1)), (1, 2, 2, 3)),
        (TRANSPOSED[0](2, 3, 3, stride=2, padding=1, output_padding=1), (2, 3)),
        (TRANSPOSED[1](4, 2, 3, stride=2, groups=2), (4, 2, 3)),
        (nhwc, (3, 4, 3)),
        (first, (2, 4, 4)),
        (second, (2, 6, 5)),
        (batch, (5, 2, 2)),
        (nn.BatchNorm1d(3, eps=0.1), (3,)),
    ]
    wrapped = [
        (conv(2, 3, 3, padding=1), (2, 3, 4), parametrizations.weight_norm),
        (conv(2, 3, 3, stride=2), (2, 5, 4), parametrizations.spectral_norm),
        (nn.Linear(4, 3), (4,), parametrizations.orthogonal),
        (conv(2, 3, 3, padding=1), (2, 3, 3), Doubled),
        (TRANSPOSED[1](2, 3, 3), (2, 2, 2), Doubled),
    ]
    first.double()
    shared = [alike(*pair) for pair in made]
    return shared + [alike(*triple) for triple in wrapped]


def zero_gradients(model):
    sum(y.sum() for y in model()).backward()
    for parameter in model.parameters():
        parameter.grad.zero_()


@pytest.mark.parametrize(
    ("norm", "memory", "steps"),
    [("l1", 0.5, STEPS), ("linf", 0.5, 16), ("l1", 0.0, 8), ("linf", 0.9, 16)],
)
def test_steps_equal_the_definition_with_dense_matrices(norm, memory, steps):
    torch.manual_seed(0)
    made = cases()
    model = Side(made)
    kinds = ("linear", "conv", "batch_norm")
    decay = NormDecay(model, norm=norm, beta=BETA, memory=memory, include=kinds)
    definitions = [Definition(twin, shape, norm, memory) for _, twin, shape in made]
    for step in range(steps):
        zero_gradients(model)
        wanted = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
        values = []
        for layer, definition in zip(model.layers, definitions, strict=True):
            weight = effective(layer)
            value, term = definition.step(weight)
            values.append(value)
            parameters = list(model.parameters())
            found = torch.autograd.grad(weight, parameters, BETA * term, allow_unused=True)
            for name, gradient in zip(wanted, found, strict=True):
                wanted[name] += 0 if gradient is None else gradient
        table = decay.step()
        assert table.value.tolist() == pytest.approx(values, rel=EXACT), step
        for name, parameter in model.named_parameters():
            error = (parameter.grad - wanted[name]).abs().max().item()
            assert error < EXACT, (name, step, model)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.05 * parameter.grad + 0.1 * torch.randn_like(parameter)
    many = [len(definition.members) > 1 for definition in definitions]
    assert steps < STEPS or sum(many) >= len(many) - 2, "the largest sum hardly ever moved"
    assert not decay.skipped


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("seed", range(4))
def test_random_geometries_equal_the_definition(norm, seed):
    kinds = (linear, *4 * (transposed,), *8 * (convolution,))
    for layer, size, _ in measurable(100 + seed, 40, kinds):
        layer.train()
        for parameter in layer.parameters():
            parameter.grad = torch.zeros_like(parameter)
        weight, inputs = layer.weight, getattr(layer, "in_channels", None) or layer.in_features
        shape = (inputs, *(size or ()))
        decay = NormDecay(layer, norm=norm, beta=BETA, input_size=shape)
        definition = Definition(layer, shape, norm, 0.5)
        for _ in range(5):
            wanted = BETA * definition.step(weight)[1]
            weight.grad.zero_()
            assert decay.step().value.item() == pytest.approx(NORMS[norm](layer, size).item())
            assert (weight.grad - wanted).abs().max() < EXACT, (layer, size)
            weight.data += 0.5 * torch.randn_like(weight)


def test_the_spectral_term_is_the_gradient_of_the_largest_singular_value():
    torch.manual_seed(0)
    made = [case for case in cases() if not isinstance(case[0], nn.modules.batchnorm._BatchNorm)]
    model = Side(made)
    decay = NormDecay(model, norm="spectral", beta=BETA)
    zero_gradients(model)
    sigmas = [
        torch.linalg.matrix_norm(Definition(twin, shape, "l1", 0.5).matrix(effective(layer)), 2)
        for layer, twin, shape in made
    ]
    names, parameters = zip(*model.named_parameters(), strict=True)
    found = torch.autograd.grad(sum(sigmas), parameters, allow_unused=True)
    wanted = {n: 0 if g is None else BETA * g for n, g in zip(names, found, strict=True)}
    before = torch.zeros(len(made))
    for _ in range(300):
        for parameter in parameters:
            parameter.grad.zero_()
        values = torch.tensor(decay.step().value)
        assert (values >= before - 1e-12).all()
        before = values
    assert torch.allclose(before, torch.stack(sigmas).detach(), rtol=1e-9)
    for name, parameter in zip(names, parameters, strict=True):
        assert (parameter.grad - wanted[name]).abs().max() < 1e-4, name


def test_the_spectral_norm_is_followed_while_weights_move():
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 4, 3, padding=1).double()
    decay = NormDecay(layer, norm="spectral", beta=0.1, input_size=(3, 5, 4))
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.05)
    units, ratios = torch.eye(60).double().view(-1, 3, 5, 4), []
    for _ in range(60):
        optimizer.zero_grad()
        layer(torch.randn(2, 3, 5, 4).double()).square().mean().backward()
        matrix = nn.functional.conv2d(units, layer.weight, padding=1).flatten(1)
        ratios.append(decay.step().value.item() / torch.linalg.matrix_norm(matrix, 2).item())
        optimizer.step()
    assert max(ratios) <= 1 + 1e-12
    assert min(ratios) > 0.9
    assert sum(ratios) / len(ratios) > 0.95


def test_a_batch_norm_is_decayed_alike_in_every_norm():
    found = []
    for norm in ("l1", "linf", "spectral"):
        torch.manual_seed(0)
        layer = nn.BatchNorm2d(6).double()
        nn.init.normal_(layer.weight)
        decay = NormDecay(layer, norm=norm, beta=BETA, include="batch_norm")
        for _ in range(4):
            layer.zero_grad()
            layer(torch.randn(4, 6, 3, 3).double()).sum().backward()
            decay.step()
            layer.weight.data -= layer.weight.grad
        found.append(layer.weight.detach())
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_the_norms_of_a_trained_net_fall_with_beta():
    sums = []
    for beta in (0.0, 1e-2, 1e-1):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(128, 4)
        )
        decay, generator = NormDecay(model, beta=beta), torch.Generator().manual_seed(1)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        for _ in range(80):
            images = torch.rand(32, 1, 4, 4, generator=generator)
            labels = images.flatten(1).unflatten(1, (4, 4)).sum(2).argmax(1)
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            table = decay.step()
            optimizer.step()
        sums.append(table.value.sum())
    assert sums[0] > sums[1] > sums[2], sums
