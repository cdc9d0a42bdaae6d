"""Equi-normalization keeps the function, lowers the energy and ends where the theorem says."""

import copy
import itertools

import numpy as np
import pytest
import torch
from torch import nn

from normkit import models
from normkit.projections import ENorm

from random_nets import RandomNet

TORCHVISION = (
    *("resnet18", "resnet50", "vgg11", "vgg11_bn", "alexnet", "squeezenet1_1", "densenet121"),
    *("mobilenet_v2", "shufflenet_v2_x0_5", "googlenet", "regnet_y_400mf", "efficientnet_b0"),
)


def _relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return ((found - wanted).norm() / wanted.norm()).item()


@torch.no_grad()
def _outputs(net: nn.Module, images: torch.Tensor) -> torch.Tensor:
    torch.manual_seed(1)  # dropout
    out = net(images)
    return out if isinstance(out, torch.Tensor) else torch.cat([o for o in out if o is not None])


def _balanced(enorm: ENorm, cycles: int) -> list[float]:
    energies = [enorm.energy()]
    for _ in range(cycles):
        enorm.step()
        energies.append(enorm.energy())
    return energies


def _never_rises(energies: list[float]) -> bool:
    return all(b <= a * (1 + 1e-13) for a, b in itertools.pairwise(energies))


def _stirred(net: nn.Module) -> nn.Module:
    """Weights of BatchNorm that are not all alike."""
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d) and layer.affine:
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, 0, 0.1)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
    return net


@pytest.mark.parametrize("name", TORCHVISION)
def test_enorm_preserves_the_function_of_torchvisions_networks(name):
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    options = {"init_weights": False} if name == "googlenet" else {}
    net = getattr(torchvision.models, name)(num_classes=10, **options)
    if name.startswith(("vgg", "alexnet")):  # the same graph with a dense part that is small
        wide = net.classifier[0 if name.startswith("vgg") else 1].in_features
        small = nn.Sequential(nn.Linear(wide, 64), nn.ReLU(), nn.Dropout(), nn.Linear(64, 10))
        net.classifier = small
    net = _stirred(net.double()).eval()
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    before, enorm = _outputs(net, images), ENorm(net)
    energies = _balanced(enorm, 5)
    assert _relative(_outputs(net, images), before) < 1e-9
    assert _never_rises(energies) and energies[-1] < energies[0], energies
    if not any(isinstance(m, nn.BatchNorm2d) for m in net.modules()):
        net.train()
        before = _outputs(net, images)
        _balanced(enorm, 5)
        assert _relative(_outputs(net, images), before) < 1e-9


@pytest.mark.parametrize("decade", range(10))
@pytest.mark.parametrize("smooth, normalize", [(False, False), (True, False), (True, True)])
def test_enorm_preserves_the_function_of_random_graphs(decade, smooth, normalize):
    for seed in range(10 * decade, 10 * decade + 10):
        net = RandomNet(seed, smooth=smooth, normalize=normalize).double()
        images = torch.randn(3, 3, 5, 5, dtype=torch.float64)
        for training in (False,) if normalize else (False, True):
            net.train(training)
            try:
                enorm = ENorm(net)
            except ValueError as error:
                assert "no hidden unit" in str(error), (seed, error)
                continue
            enorm.rescale_randomly(torch.Generator().manual_seed(seed))
            before = _outputs(net, images)
            energies = _balanced(enorm, 5)
            assert _relative(_outputs(net, images), before) < 1e-9, (seed, net.program)
            assert _never_rises(energies), (seed, energies, net.program)


def _chain(widths: tuple[int, ...], bias: bool = True) -> nn.Sequential:
    layers = [
        layer
        for pair in itertools.pairwise(widths)
        for layer in (nn.Linear(*pair, bias=bias), nn.ReLU())
    ]
    return nn.Sequential(*layers[:-1]).double()


CLOSED = {
    "chain": lambda: _chain((5, 7, 6, 8, 3)),
    "convolutions": lambda: models.build(
        "vgg11", width=2, input_size=(8, 8), normalization=nn.Identity
    ).double(),
    "residual": lambda: models.build(
        "resnet8", width=3, input_size=(8, 8), normalization=nn.Identity
    ).double(),
    "options A": lambda: models.build(
        "resnet8", width=3, input_size=(8, 8), normalization=nn.Identity, shortcut="pad"
    ).double(),
    "batch norm": lambda: _stirred(models.build("resnet8", width=3, input_size=(8, 8)).double()),
    "linked": lambda: RandomNet(6).double(),
}


@pytest.mark.parametrize("name", CLOSED)
def test_all_rescalings_of_a_network_reach_one_energy_and_units_balance(name):
    torch.manual_seed(3)
    net, energies = CLOSED[name](), []
    for start in range(5):
        other = copy.deepcopy(net)
        enorm = ENorm(other, cycles=3000)
        enorm.rescale_randomly(torch.Generator().manual_seed(start))
        enorm.step()
        energies.append(enorm.energy())
        assert enorm.imbalance().imbalance.max() < 1e-6, (start, enorm.imbalance())
    assert np.ptp(energies) / min(energies) < 1e-9, energies


@pytest.mark.parametrize("c", [0.8, 1.2])
@pytest.mark.parametrize("p", [1, 2, 3.5])
def test_on_a_chain_outgoing_norms_end_c_times_as_large_and_the_weighted_energy_is_one(c, p):
    torch.manual_seed(3)
    net, energies = _chain((5, 7, 6, 8, 3)), []
    for start in range(5):
        enorm = ENorm(copy.deepcopy(net), c=c, p=p)
        enorm.rescale_randomly(torch.Generator().manual_seed(start))
        path = _balanced(enorm, 400)
        assert _never_rises(path)
        energies.append(path[-1])
        units = enorm.units()
        assert (units.outgoing / (c * units.incoming) - 1).abs().max() < 1e-6
    assert np.ptp(energies) / min(energies) < 1e-9, energies


def test_the_energy_is_weighted_by_depth_on_a_chain_and_plain_where_paths_differ_in_length():
    net = _chain((3, 4, 4, 2), bias=False)
    squares = [layer.weight.square().sum().item() for layer in net if isinstance(layer, nn.Linear)]
    weighted = sum(s * 1.5 ** (-2 * k) for k, s in enumerate(squares))
    assert ENorm(net, c=1.5).energy() == pytest.approx(weighted, rel=1e-12)
    assert ENorm(net).energy() == pytest.approx(sum(squares), rel=1e-12)
    residual = models.build("resnet8", width=2, normalization=nn.Identity).double()
    plain = ENorm(residual).energy()
    assert ENorm(residual, c=1.5).energy() == pytest.approx(plain, rel=1e-12)


def test_one_step_is_the_papers_update_written_out():
    torch.manual_seed(0)
    net, c = _chain((4, 6, 5, 3)), 1.3
    weights = [layer.weight.detach().clone() for layer in net if isinstance(layer, nn.Linear)]
    biases = [layer.bias.detach().clone() for layer in net if isinstance(layer, nn.Linear)]
    for k in range(2):
        d = (weights[k + 1].norm(dim=0) / (c * weights[k].norm(dim=1))).sqrt()
        weights[k] *= d[:, None]
        biases[k] *= d
        weights[k + 1] /= d
    ENorm(net, c=c).step()
    linear = [layer for layer in net if isinstance(layer, nn.Linear)]
    for layer, weight, bias in zip(linear, weights, biases, strict=True):
        torch.testing.assert_close(layer.weight, weight, rtol=1e-12, atol=0)
        torch.testing.assert_close(layer.bias, bias, rtol=1e-12, atol=0)


def test_the_released_variant_reads_stale_norms_and_leaves_the_last_pair_alone():
    torch.manual_seed(0)
    net = _chain((4, 6, 5, 3), bias=False)
    old = [layer.weight.detach().clone() for layer in net if isinstance(layer, nn.Linear)]
    d = (old[1].norm(dim=0) / old[0].norm(dim=1)).sqrt()
    ENorm(net, variant="released").step()
    new = [layer.weight for layer in net if isinstance(layer, nn.Linear)]
    for found, wanted in zip(new, (old[0] * d[:, None], old[1] / d, old[2]), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=0)


def test_stale_norms_reach_the_same_limit_more_slowly():
    torch.manual_seed(0)
    net = _chain((6, 8, 8, 8, 8, 4), bias=False)
    paths = {}
    for variant in ("paper", "released"):
        enorm = ENorm(copy.deepcopy(net), variant=variant)
        enorm.rescale_randomly(torch.Generator().manual_seed(1))
        paths[variant] = _balanced(enorm, 8)
    assert all(a < b for a, b in zip(paths["paper"][2:], paths["released"][2:], strict=True))


def _two_layers(factor: float) -> nn.Sequential:
    net = _chain((4, 6, 3))
    with torch.no_grad():
        net[0].weight.mul_(factor)
        net[0].bias.mul_(factor)
        net[2].weight.div_(factor)
    return net


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9),
    "nesterov": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True),
    "plain sgd": lambda p: torch.optim.SGD(p, 0.1),
    "adam": lambda p: torch.optim.Adam(p, 0.01, eps=0.0),
    "amsgrad": lambda p: torch.optim.AdamW(p, 0.01, eps=0.0, amsgrad=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 0.01, eps=0.0, centered=False, momentum=0.5),
    "adagrad": lambda p: torch.optim.Adagrad(p, 0.01, eps=0.0),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizers_buffers_are_those_of_the_network_that_was_always_balanced(name):
    """Buffers are sums of (squares of) gradients, and a gradient goes as 1 / weight: so after
    rescaling they must be those that gradients of the rescaled network would have given."""
    torch.manual_seed(0)
    net = _two_layers(3.0)
    optimizer = OPTIMIZERS[name](net.parameters())
    images, labels = torch.randn(8, 4).double(), torch.randint(3, (8,))
    nn.functional.cross_entropy(net(images), labels).backward()
    gradients = [parameter.grad.clone() for parameter in net.parameters()]
    optimizer.step()
    before = [parameter.detach().clone() for parameter in net.parameters()]
    ENorm(net, optimizer).step()
    for old, parameter, gradient in zip(before, net.parameters(), gradients, strict=True):
        scale = parameter.detach() / old
        for key, buffer in optimizer.state[parameter].items():
            if not torch.is_tensor(buffer) or buffer.shape != parameter.shape:
                continue
            if name == "rmsprop" and key == "momentum_buffer":
                continue  # a sum of gradients over their own size: no scale changes it
            squared = key in ("exp_avg_sq", "max_exp_avg_sq", "square_avg", "sum")
            fresh = gradient / scale
            wanted = fresh.square() if squared else fresh
            ratio = buffer / wanted
            assert ratio.std() / ratio.mean() < 1e-9, (key, ratio)


def test_without_an_optimizer_gradients_are_those_of_the_rescaled_network():
    torch.manual_seed(0)
    net, images, labels = _two_layers(2.0), torch.randn(8, 4).double(), torch.randint(3, (8,))
    nn.functional.cross_entropy(net(images), labels).backward()
    ENorm(net).step()
    kept = [parameter.grad.clone() for parameter in net.parameters()]
    net.zero_grad()
    nn.functional.cross_entropy(net(images), labels).backward()
    for old, parameter in zip(kept, net.parameters(), strict=True):
        torch.testing.assert_close(old, parameter.grad, rtol=1e-10, atol=1e-12)


def test_training_goes_on_in_function_space_where_no_limit_is_reached_twice():
    """Steps between which nothing is left to balance change nothing more."""
    net = _two_layers(1.0)
    enorm = ENorm(net)
    enorm.step()
    enorm.step()
    kept = copy.deepcopy(net.state_dict())
    enorm.step()
    for name, value in net.state_dict().items():
        torch.testing.assert_close(value, kept[name], rtol=1e-13, atol=0)


def test_every_and_cycles_count_calls_and_cycles():
    net = _chain((4, 5, 5, 3))
    twin, start = copy.deepcopy(net), copy.deepcopy(net)
    single, double = ENorm(net), ENorm(twin, cycles=2, every=3)
    for _ in range(2):
        single.step()
        double.step()
    assert torch.equal(twin[0].weight, start[0].weight)
    double.step()
    assert torch.equal(twin[0].weight, net[0].weight)


def test_dead_units_are_left_alone_and_counted():
    net = _chain((4, 5, 3))
    with torch.no_grad():
        net[0].weight[1] = 0
        net[2].weight[:, 3] = 0
    kept = net[0].weight.detach()[[1, 3]].clone()
    enorm = ENorm(net)
    assert enorm.imbalance().dead.tolist() == [2]
    for _ in range(3):
        enorm.step()
    assert torch.equal(net[0].weight[[1, 3]], kept)
    assert enorm.imbalance().imbalance.max() < 1e-12
    assert all(p.isfinite().all() for p in net.parameters())


def test_ignoring_batch_norm_changes_the_function_and_rescaling_it_does_not():
    torch.manual_seed(0)
    net = models.build("mlp", width=20, depth=4, input_size=(6, 6)).double()
    images = torch.rand(32, 3, 6, 6, dtype=torch.float64)
    before, changes = _outputs(net.train(), images), {}
    for mode in ("rescale", "ignore"):
        twin = copy.deepcopy(net)
        ENorm(twin, batch_norm=mode).step()
        changes[mode] = _relative(_outputs(twin.train(), images), before)
    assert changes["rescale"] < 1e-12 and changes["ignore"] > 0.01, changes


def test_ignoring_biases_leaves_them_as_they_are():
    net = _two_layers(5.0)
    kept = net[0].bias.detach().clone()
    ENorm(net, biases="ignore").step()
    assert torch.equal(net[0].bias, kept)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_lower_precision_and_channels_last_keep_the_function_to_rounding(dtype):
    torch.manual_seed(0)
    net = models.build("vgg11", width=4, input_size=(8, 8), normalization=nn.Identity)
    net = net.to(dtype=dtype, memory_format=torch.channels_last)
    twin = copy.deepcopy(net).double()
    images = torch.rand(4, 3, 8, 8)
    ENorm(net).step()
    ENorm(twin).step()
    before = [p.detach().double() for p in net.parameters()]
    for found, wanted in zip(before, twin.parameters(), strict=True):
        torch.testing.assert_close(found, wanted, rtol=16 * torch.finfo(dtype).eps, atol=1e-6)
    assert net.float()(images).isfinite().all()
