"""Path-SGD against every path counted by hand, and against its theorem."""

import copy
import itertools
import math

import pytest
import torch
from dense import CONVOLUTIONS
from torch import nn
from torch.nn.utils import parametrizations

from normkit import layers, models
from normkit.penalties import PathSGD
from normkit.penalties.path_sgd import path_factors


def mlp(widths, bias, seed=0):
    torch.manual_seed(seed)
    parts = []
    for inputs, outputs in itertools.pairwise(widths):
        parts += [nn.Linear(inputs, outputs, bias=bias), nn.ReLU()]
    return nn.Sequential(*parts[:-1]).double()


def by_hand(net, widths):
    """The squared path norm and every kappa: each path in turn, from an input or a bias."""
    linear = [part for part in net if isinstance(part, nn.Linear)]
    kappas = {p: torch.zeros_like(p) for p in net.parameters()}
    total = 0.0
    for first in range(len(linear)):
        # Paths from the inputs start at layer 0, those from the bias of a layer behind it.
        starts = [("input", 0)] if first == 0 else []
        starts += [("bias", first)] if linear[first].bias is not None else []
        for kind, layer in starts:
            behind = layer if kind == "input" else layer + 1
            for units in itertools.product(*(range(n) for n in widths[behind:])):
                edges = [(linear[layer].bias, (units[0],))] if kind == "bias" else []
                for step, (i, o) in enumerate(itertools.pairwise(units)):
                    edges.append((linear[behind + step].weight, (o, i)))
                total += math.prod(p[place].item() ** 2 for p, place in edges)
                for chosen, (parameter, place) in enumerate(edges):
                    others = edges[:chosen] + edges[chosen + 1 :]
                    worth = math.prod(p[at].item() ** 2 for p, at in others)
                    kappas[parameter][place] += worth
    return total, kappas


def backward(net, *shape, seed=1):
    x = torch.rand(4, *shape, generator=torch.Generator().manual_seed(seed))
    net.zero_grad()
    net(x.to(next(net.parameters()))).square().mean().backward()


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("widths", [(3, 2), (2, 3, 1), (3, 4, 2, 3), (2, 2, 3, 2, 2)])
def test_kappa_is_the_sum_over_all_paths_counted_one_by_one(widths, bias):
    net = mlp(widths, bias)
    total, factors = path_factors(net, net, widths[:1])
    wanted, kappas = by_hand(net, widths)
    assert math.isclose(total, wanted, rel_tol=1e-12)
    for name, parameter in net.named_parameters():
        torch.testing.assert_close(factors[name], kappas[parameter], rtol=1e-12, atol=0)


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_a_step_divides_gradient_and_weight_decay_by_kappa(decay):
    widths = (3, 4, 2)
    net = mlp(widths, True)
    backward(net, 3)
    _, kappas = by_hand(net, widths)
    wanted = {p: (p.grad + decay * p.detach()) / kappas[p] for p in net.parameters()}
    assert PathSGD(net, input_size=(3,), weight_decay=decay).step() is None
    for parameter, gradient in wanted.items():
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-12, atol=0)


def unrolled(net, size):
    """A convolutional chain without biases as matrices, one for each layer."""
    matrices = []
    for part in net:
        if isinstance(part, nn.Conv2d):
            units = torch.eye(math.prod(size)).double().view(-1, *size)
            twin = copy.deepcopy(part)
            twin.weight.data.square_()
            out = twin(units)
            matrices.append(out.flatten(1).T)
            size = out.shape[1:]
        elif isinstance(part, nn.Linear):
            matrices.append(part.weight.square())
    return matrices


@pytest.mark.parametrize("relative", [False, True])
def test_kappa_of_a_convolution_sums_over_every_place_where_it_is_used(relative):
    torch.manual_seed(0)
    kinds = {"bias": False, "padding": 1}
    net = nn.Sequential(
        nn.Conv2d(2, 3, 3, stride=2, **kinds), nn.ReLU(), nn.Conv2d(3, 2, 3, groups=1, **kinds),
        nn.ReLU(), nn.Flatten(), nn.Linear(2 * 3 * 2, 3, bias=False),
    ).double()  # fmt: skip
    size, h = (2, 5, 4), 1e-6
    total, factors = path_factors(net, net, size)
    first, second, third = unrolled(net, size)
    assert math.isclose(total, (third @ second @ first).sum().item(), rel_tol=1e-12)
    weight = net[2].weight
    for place in [(0, 0, 1, 1), (1, 2, 0, 0), (1, 0, 2, 1)]:
        moved = copy.deepcopy(net)
        moved[2].weight.data[place] = (weight[place] ** 2 + h).sqrt()
        slope = (path_factors(moved, moved, size)[0] - total) / h
        assert math.isclose(factors["2.weight"][place].item(), slope, rel_tol=1e-5)
    backward(net, *size)
    before = {name: p.grad.clone() for name, p in net.named_parameters()}
    PathSGD(net, input_size=size, relative=relative).step()
    mean = torch.cat([f.flatten() for f in factors.values()]).mean() if relative else 1.0
    for name, parameter in net.named_parameters():
        torch.testing.assert_close(parameter.grad, before[name] / (factors[name] / mean))


def test_what_kappas_are_relative_to_stays_that_of_the_first_step():
    net = mlp((3, 5, 2), True)
    path = PathSGD(net, input_size=(3,), relative=True)
    _, first = path_factors(net, net, (3,))
    mean = torch.cat([f.flatten() for f in first.values()]).mean()
    for scale in (1.0, 3.0):
        net[0].weight.data *= scale
        backward(net, 3)
        before, (_, factors) = net[0].weight.grad.clone(), path_factors(net, net, (3,))
        path.step()
        torch.testing.assert_close(net[0].weight.grad, before * mean / factors["0.weight"])


def rescaled(net, seed=5):
    """The same function, every hidden unit of a chain rescaled at random by up to 20."""
    net, generator = copy.deepcopy(net), torch.Generator().manual_seed(seed)
    weighted = [part for part in net.modules() if isinstance(part, nn.Linear | nn.Conv2d)]
    for first, second in itertools.pairwise(weighted):
        scale = 20 ** (2 * torch.rand(len(first.weight), generator=generator).double() - 1)
        first.weight.data *= scale.view(-1, *[1] * (first.weight.dim() - 1))
        if first.bias is not None:
            first.bias.data *= scale
        repeat = second.weight.shape[1] // len(scale)
        scale = scale.repeat_interleave(repeat)
        second.weight.data /= scale.view(1, -1, *[1] * (second.weight.dim() - 2))
    return net


def chain(kind):
    torch.manual_seed(0)
    if kind == "mlp":
        return mlp((3 * 4 * 4, 9, 7, 5), True)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 5, 3, padding=1),
        nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(5, 5),
    ).double()  # fmt: skip


@pytest.mark.parametrize("kind", ["mlp", "conv"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_rescaled_networks_stay_one_function_over_many_steps(kind, momentum):
    plain = chain(kind)
    nets, images = [plain, rescaled(plain)], torch.rand(8, 3, 4, 4).double()
    images = images.flatten(1) if kind == "mlp" else images
    labels, moves = torch.arange(8) % 5, []
    torch.testing.assert_close(nets[0](images), nets[1](images))
    for path in (True, False):
        outputs = []
        for net in map(copy.deepcopy, nets):
            optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=momentum)
            acting = PathSGD(net)
            for _ in range(8):
                optimizer.zero_grad()
                nn.functional.cross_entropy(net(images), labels).backward()
                if path:
                    acting.step()
                optimizer.step()
            outputs.append(net(images).detach())
        moves.append((outputs[0] - outputs[1]).abs().max().item())
    assert moves[0] < 1e-9 and moves[1] > 1e-2, moves
    assert not torch.allclose(outputs[0], plain(images))


def test_weights_without_paths_are_given_no_gradient():
    net = mlp((2, 3, 2), False)
    net[2].weight.data[:, 1] = 0.0
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    PathSGD(net, input_size=(2,)).step()
    assert not net[0].weight.grad[1].any()
    assert net[0].weight.grad[[0, 2]].all() and net[2].weight.grad.all()


def test_the_input_size_is_seen_at_the_first_pass_and_the_hook_leaves():
    found = []
    for given in (None, (3, 4, 4)):
        net = chain("conv")
        path = PathSGD(net, input_size=given)
        assert len(net._forward_pre_hooks) == (given is None)
        backward(net, 3, 4, 4)
        assert not net._forward_pre_hooks
        path.step()
        found.append([p.grad for p in net.parameters()])
    assert all(map(torch.equal, *found))


def test_a_step_changes_gradients_alone_and_draws_no_number():
    torch.manual_seed(0)
    net = nn.Sequential(models.Normalize([0.4], [0.2]), nn.Conv2d(1, 4, 3), nn.ReLU(),
                        nn.Dropout(), nn.Flatten(), nn.Linear(36, 2))  # fmt: skip
    net[5].bias.requires_grad_(False)
    seen, path = [], PathSGD(net, input_size=(1, 5, 5))
    backward(net, 1, 5, 5)
    net[1].register_forward_hook(lambda *_: seen.append(1))
    buffers = {name: b.clone() for name, b in net.named_buffers()}
    state, random = copy.deepcopy(net.state_dict()), torch.random.get_rng_state()
    modes = [part.training for part in net.modules()]
    path.step()
    assert torch.equal(random, torch.random.get_rng_state())
    assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())
    assert all(torch.equal(value, buffers[key]) for key, value in net.named_buffers())
    assert modes == [part.training for part in net.modules()] and net[5].bias.grad is None
    assert not seen, "what watches the model saw the pass"


def test_neither_dropout_nor_the_normalization_of_the_input_counts():
    torch.manual_seed(0)
    bare = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 2))
    net = nn.Sequential(models.Normalize([0.4], [0.2]), bare[0], nn.Dropout(0.9), *bare[1:])
    found = []
    for model in (bare, net):
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        PathSGD(model, input_size=(1, 5, 5)).step()
        found.append([p.grad.clone() for p in bare.parameters()])
    assert all(map(torch.equal, *found))


def test_half_precision_and_frozen_weights_are_counted_in_full():
    net = mlp((3, 4, 2), True)
    wanted = path_factors(net, net, (3,))[1]
    net[0].weight.requires_grad_(False)
    backward(net, 3)
    before = net[2].weight.grad.clone()
    PathSGD(net, input_size=(3,)).step()
    torch.testing.assert_close(net[2].weight.grad, before / wanted["2.weight"])
    half = copy.deepcopy(net).bfloat16()
    half[2].weight.grad = torch.ones_like(half[2].weight)
    PathSGD(half, input_size=(3,)).step()
    assert half[2].weight.grad.dtype == torch.bfloat16
    torch.testing.assert_close(half[2].weight.grad.double(), 1 / wanted["2.weight"], rtol=0.1, atol=0)  # fmt: skip


PATHS = ("vgg11", "cfg_10", "uniform", "resnet8", "resnet18", "regnetx_200mf", "small_cnn")
PATHS += ("fully_conv", "fully_conv_released", "mlp", "autoencoder")


@pytest.mark.parametrize("name", PATHS)
def test_every_net_without_a_normalization_has_paths_through_every_weight(name):
    torch.manual_seed(0)
    options = {"width": 8, "input_size": (9, 8), "normalization": nn.Identity, "bias": True}
    net = models.build(name, **options, mean=(0.5,) * 3, std=(0.2,) * 3)
    backward(net, 3, 9, 8)
    path = PathSGD(net, input_size=(3, 9, 8), relative=True)
    path.step()
    _, factors = path_factors(net.eval(), net, (3, 9, 8))
    assert all((factor > 0).all() for factor in factors.values())
    assert all(parameter.grad.isfinite().all() for parameter in net.parameters())


@pytest.mark.parametrize("key", [key for key in layers.NORMALIZATIONS if key != "none"])
def test_a_normalization_that_depends_on_its_input_is_refused(key):
    pair = layers.pair(key)
    for name in ("fully_conv", "resnet8"):
        net = models.build(name, width=16, input_size=(8, 8), skip_init=name == "resnet8",
                           normalization=pair.normalization, activation=pair.activation)  # fmt: skip
        with pytest.raises(ValueError, match="Path-SGD has no meaning for this model"):
            PathSGD(net, input_size=(3, 8, 8))


@pytest.mark.parametrize("layer", [nn.Sigmoid(), nn.Softmax(1), nn.BatchNorm1d(4), layers.ScaledReLU()])
def test_without_an_input_size_it_refuses_at_its_first_step(layer):
    net = nn.Sequential(nn.Linear(3, 4), layer, nn.Linear(4, 2))
    path = PathSGD(net)
    backward(net, 3)
    with pytest.raises(ValueError, match="twice the input does not give twice the output"):
        path.step()


def stepped(net, *, call=True, gradient=True, training=True, **options):
    path = PathSGD(net, **options)
    if call:
        backward(net, 3)
    if not gradient:
        net.zero_grad()
    elif not call:
        for parameter in net.parameters():
            parameter.grad = torch.ones_like(parameter)
    net.train(training)
    path.step()


def large():
    net = mlp((3, 4, 2), False)
    for parameter in net.parameters():
        parameter.data.fill_(1e100)
    return net


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda n: stepped(n, training=False), RuntimeError, "in evaluation mode; call model.tra"),
        (lambda n: stepped(n, gradient=False), RuntimeError, "no parameter has a gradient; call"),
        (lambda n: stepped(n, call=False), RuntimeError, "no forward pass called the model"),
        (lambda n: PathSGD(n, weight_decay=-1.0), ValueError, "weight_decay -1.0 is not a finite"),
        (lambda n: PathSGD(n, weight_decay=math.nan), ValueError, "weight_decay nan is not"),
        (lambda n: PathSGD(n, input_size=(0,)), ValueError, r"input_size \(0,\) is not \(C, H"),
        (lambda n: PathSGD(n, input_size=3), ValueError, "input_size 3 is not"),
        (lambda n: PathSGD(n, input_size=(5,)), ValueError, r"input_size \(5,\) does not fit"),
        (lambda n: PathSGD(nn.ReLU()), ValueError, "model has no parameters"),
        (lambda n: PathSGD("net"), TypeError, "model is a str"),
        (lambda n: stepped(large()), OverflowError, "squared path norm is inf: weights are too la"),
        (
            lambda n: PathSGD(nn.Sequential(n, layers.weight_norm_linear(2, 2))),
            ValueError,
            r"layer '1' \(ParametrizedLinear\) computes its weight from other tensors",
        ),
        (
            lambda n: PathSGD(parametrizations.spectral_norm(CONVOLUTIONS[0](1, 1, 1))),
            ValueError,
            "remove the parametrization",
        ),
    ],
)
def test_what_it_cannot_do_is_refused_in_one_sentence(call, error, message):
    with pytest.raises(error, match=message) as caught:
        call(mlp((3, 4, 2), False))
    assert "\n" not in str(caught.value)
