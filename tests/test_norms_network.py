"""Products of spectral norms, and lower bounds on the Lipschitz constant of whole networks."""

import itertools
import math
import random

import pytest
import torch
from dense import operator_matrix
from torch import nn

from normkit.norms import layer_table
from normkit.norms.network import lipschitz_lower_bound, spectral_product

ROUNDING = 1e-9  # of a quotient over a length of 1e-4 in float64


def norm2(matrix):
    return torch.linalg.matrix_norm(matrix, 2).item()


def jacobian_norm(model, x):
    """The spectral norm of a model's Jacobian at one input."""
    jacobian = torch.func.jacrev(lambda x: model(x[None])[0])(x)
    return norm2(jacobian.flatten(1))


def random_chain(seed, activation=nn.ReLU):
    """A small convolutional chain with BatchNorm in evaluation, in float64."""
    torch.manual_seed(seed)
    rng = random.Random(seed)
    body = nn.Sequential(
        nn.Conv2d(2, 4, rng.choice((1, 3)), rng.choice((1, 2)), 1, bias=False),
        nn.BatchNorm2d(4),
        activation(),
        nn.Conv2d(4, 6, 3, padding=rng.choice((1, 2)), groups=2),
        activation(),
        nn.Flatten(),
    )
    features = body(3 * torch.randn(9, 2, 7, 6)).shape[1]
    head = nn.Sequential(nn.Linear(features, 11), activation(), nn.Linear(11, 3))
    return nn.Sequential(*body, *head).double().eval()


def test_the_product_is_that_of_the_dense_matrices():
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(24, 5)
    ).double()
    nn.init.uniform_(model[1].weight)
    table = layer_table(model, (2, 6, 4))
    shapes = {0: (2, 6, 4), 1: (3, 4, 2), 3: (24,)}
    model.eval()
    wanted = math.prod(norm2(operator_matrix(model[n], shape)) for n, shape in shapes.items())
    lower, upper = spectral_product(table)
    assert lower == pytest.approx(wanted, rel=1e-12) == upper


@pytest.mark.parametrize("norms", [("l1",), ("spectral", "l1")])
def test_a_product_without_all_its_factors_is_refused_with_their_names(norms):
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(16, 2))
    table = layer_table(model, (2, 4, 4), norms=norms)
    message = "no spectral norms; measure" if norms == ("l1",) else r"1 of 3 layers \('1'\)"
    with pytest.raises(ValueError, match=message):
        spectral_product(table)


def test_the_bound_of_a_linear_net_is_its_spectral_norm():
    for seed in range(3):
        model = random_chain(seed, nn.Identity)
        sigma = norm2(operator_matrix(model, (2, 7, 6)))
        bound = lipschitz_lower_bound(model, torch.rand(2, 2, 7, 6), steps=20)
        assert sigma * (1 - 1e-6) <= bound.value <= sigma * (1 + ROUNDING), seed


def slopes(first, second, mask):
    """The spectral norm of a ReLU net with one hidden layer where these units are on."""
    return norm2(second.weight.detach() * mask @ first.weight.detach())


@pytest.mark.parametrize("seed", range(4))
def test_the_bound_of_a_relu_net_is_the_steepest_of_its_linear_pieces(seed):
    torch.manual_seed(seed)
    first, second = nn.Linear(2, 7).double(), nn.Linear(7, 3).double()
    points = torch.rand(2000, 2, dtype=torch.float64)
    nn.init.normal_(first.weight)
    first.bias.data = -(first.weight.data * points[:7]).sum(1)  # every unit bends inside
    masks = (first(points) > 0).double().unique(dim=0)
    steepest = max(slopes(first, second, mask) for mask in masks)
    every = itertools.product((0.0, 1.0), repeat=7)
    most = max(slopes(first, second, torch.tensor(mask).double()) for mask in every)
    model = nn.Sequential(first, nn.ReLU(), second)
    bound = lipschitz_lower_bound(model, points[:30], steps=100, step_size=0.03)
    assert bound.value <= most * (1 + ROUNDING)
    assert bound.value >= steepest * (1 - 1e-6)
    assert bound.value <= spectral_product(layer_table(model, (2,))).upper


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
def test_the_bound_lies_between_the_jacobians_at_the_images_and_the_product(activation):
    for seed in range(3):
        model, images = random_chain(seed, activation), torch.rand(4, 2, 7, 6).double()
        table = layer_table(model, (2, 7, 6), norms=("spectral",))
        steepest = max(jacobian_norm(model, x) for x in images)
        still = lipschitz_lower_bound(model, images, steps=0, step_size=1e-3).value
        moved = lipschitz_lower_bound(model, images).value
        assert still >= steepest * (1 - 1e-2), seed
        assert moved >= still * (1 - 1e-6), seed
        assert moved <= spectral_product(table).upper * (1 + ROUNDING), seed


def test_two_inputs_prove_the_bound():
    model = random_chain(0).float()
    value, first, second = lipschitz_lower_bound(model, torch.rand(3, 2, 7, 6))
    images = torch.stack([first, second])
    assert -1e-4 <= images.min() <= images.max() <= 1 + 1e-4
    far, near = model.double()(images)
    assert ((far - near).norm() / (first - second).norm()).item() == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize("guard", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_the_model_and_the_generator_are_left_as_they_were(guard):
    model, images = random_chain(1).train(), torch.rand(2, 2, 7, 6)
    model[1].eval()
    model[3].requires_grad_(False)
    nn.utils.parametrizations.weight_norm(model[8])
    before = {key: value.clone() for key, value in model.state_dict().items()}
    seen = [(part.training, part) for part in model.modules()]
    state = torch.get_rng_state()
    with guard():
        bounds = [lipschitz_lower_bound(model, images, steps=3) for _ in range(2)]
    assert bounds[0].value == bounds[1].value > 0
    assert torch.equal(torch.get_rng_state(), state)
    assert all(part.training == training for training, part in seen)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert [p.requires_grad for p in model[3].parameters()] == [False, False]
    other = lipschitz_lower_bound(
        model, images, steps=0, generator=torch.Generator().manual_seed(1)
    )
    assert not torch.equal(other.second, bounds[0].second)


def test_a_constant_net_stretches_nothing():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    nn.init.zeros_(model[1].weight)
    assert lipschitz_lower_bound(model, torch.rand(2, 1, 2, 2)).value == 0


BROKEN = nn.Linear(3, 2)
BROKEN.weight.data[0, 0] = math.nan


@pytest.mark.parametrize(
    ("message", "options"),
    [
        ("images of torch.uint8", {"images": torch.zeros(2, 3, dtype=torch.uint8)}),
        (r"shape \(3,\) are no", {"images": torch.rand(3)}),
        ("at least one", {"images": torch.rand(0, 3)}),
        ("reach from 0.5 to 1.5", {"images": torch.tensor([[0.5, 1.0, 1.5]])}),
        ("reach from nan", {"images": torch.tensor([[0.5, 1.0, math.nan]])}),
        ("steps -1", {"steps": -1}),
        ("step_size 0", {"step_size": 0}),
        ("not finite", {"model": BROKEN}),
    ],
)
def test_bad_input_gets_one_clear_sentence(message, options):
    given = {"model": nn.Linear(3, 2), "images": torch.rand(2, 3)} | options
    with pytest.raises(ValueError, match=message) as error:
        lipschitz_lower_bound(given.pop("model"), given.pop("images"), **given)
    assert "\n" not in str(error.value)
