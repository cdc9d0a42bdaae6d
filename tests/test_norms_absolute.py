"""l1, linf and Frobenius norms against the dense matrix of the layer, over random geometries."""

import random

import pytest
import torch
from dense import CONVOLUTIONS, ROUNDING, TRANSPOSED, operator_matrix
from torch import nn
from torch.nn.utils import parametrizations

from normkit.norms import frobenius_norm, l1_norm, linf_norm

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
MODES = ("zeros", "zeros", "circular", "reflect", "replicate")
NORMS = (l1_norm, linf_norm, frobenius_norm)
WIDTHS = ("in_channels", "in_features", "num_features")
SEEDS, CASES = 10, 240
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")


def geometry(rng):
    """Dimensions, channels and groups, kernel, stride and dilation, input size."""
    dims = rng.choice((1, 1, 2, 2, 2, 3))
    groups = rng.choice((1, 1, 2, 3))
    depthwise = rng.random() < 0.2
    channels = [groups * (1 if depthwise and side == 0 else rng.randint(1, 3)) for side in (0, 1)]

    def draw(low, high):
        return tuple(rng.randint(low, high) for _ in range(dims))

    shared = {"groups": groups, "stride": draw(1, 4 - dims // 2), "dilation": draw(1, 3)}
    return dims, channels, draw(1, 5 - dims), shared, draw(1, (12, 7, 4)[dims - 1]), draw(0, 5)


def convolution(rng):
    dims, channels, kernel, options, size, padding = geometry(rng)
    padding = rng.choice((padding, padding, tuple(min(p, 2) for p in padding), "valid", "same"))
    if padding == "same":
        options["stride"] = 1
    options |= {"padding": padding, "padding_mode": rng.choice(MODES)}
    return CONVOLUTIONS[dims - 1](*channels, kernel, **options), size


def transposed(rng):
    dims, channels, kernel, options, size, padding = geometry(rng)
    pairs = zip(options["stride"], options["dilation"], strict=True)
    extra = tuple(rng.randint(0, max(pair) - 1) for pair in pairs)
    options |= {"padding": tuple(min(p, 2) for p in padding), "output_padding": extra}
    size = tuple(min(n, (8, 5, 4)[dims - 1]) for n in size)
    return TRANSPOSED[dims - 1](*channels, kernel, **options), size


def linear(rng):
    return nn.Linear(rng.randint(1, 12), rng.randint(1, 12)), None


def batch_norm(rng):
    dims, channels = rng.choice((1, 2, 3)), rng.randint(1, 6)
    options = {"eps": rng.choice((1e-5, 1e-2)), "affine": rng.random() < 0.7}
    layer = BATCH_NORMS[dims - 1](channels, **options)
    layer.running_var.uniform_(0.1, 3)
    layer.running_mean.normal_()
    if layer.affine:
        nn.init.normal_(layer.weight)
    return layer, tuple(rng.randint(1, 4) for _ in range(dims))


def parametrized(rng):
    """A layer whose weight is computed, on the way to its forward, from other tensors."""
    layer, size = rng.choice((linear, convolution, transposed))(rng)
    how = rng.choice(("weight_norm", "spectral_norm", "orthogonal"))
    return getattr(parametrizations, how)(layer.double()), size


KINDS = (linear, batch_norm, *2 * (parametrized,), *4 * (transposed,), *8 * (convolution,))


def measurable(seed, count, kinds=KINDS):
    """Layers that run on their input, with its size and their matrix; the others are refused."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    while count:
        layer, size = rng.choice(kinds)(rng)
        layer.double().eval()
        channels = next(vars(layer)[k] for k in WIDTHS if k in vars(layer))
        try:
            matrix = operator_matrix(layer, (channels, *(size or ())))
        except RuntimeError:
            with pytest.raises(ValueError, match="input_size"):
                l1_norm(layer, size)
            continue
        count -= 1
        yield layer.train(rng.random() < 0.5), size, matrix


@pytest.mark.parametrize("seed", range(SEEDS))
def test_l1_linf_and_frobenius_equal_the_dense_matrix(seed):
    worst, case = 0.0, None
    for layer, size, matrix in measurable(seed, CASES):
        wanted = [matrix.abs().sum(side).max().item() for side in (0, 1)]
        wanted.append(matrix.norm().item())
        for norm, value in zip(NORMS, wanted, strict=True):
            found = norm(layer, size).item()
            error = abs(found - value) / value if value else found
            if not error <= worst:
                worst, case = error, (norm.__name__, layer, size, found, value)
    assert worst < ROUNDING, case


@pytest.mark.parametrize("kind", [linear, convolution, transposed])
def test_gradients_equal_finite_differences(kind):
    for layer, size, _ in measurable(20, 1 if kind is linear else 25, (kind,)):
        weight = torch.randn_like(layer.weight).requires_grad_()
        del layer.weight

        def norms(weight, layer=layer, size=size):
            layer.weight = weight
            return [norm(layer, size) for norm in NORMS]

        assert torch.autograd.gradcheck(norms, weight), (layer, size)


def test_parametrized_layers_are_measured_by_their_effective_weight_and_left_alone():
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 8, 3, padding=1, dtype=torch.float64)
    layer = parametrizations.spectral_norm(layer)
    before = {key: value.clone() for key, value in layer.state_dict().items()}
    linf = linf_norm(layer, (6, 5)).item()
    assert layer.training
    assert all(torch.equal(value, before[key]) for key, value in layer.state_dict().items())
    layer.eval()
    matrix = operator_matrix(layer, (3, 6, 5))
    assert linf == pytest.approx(matrix.abs().sum(1).max().item(), rel=ROUNDING)


@pytest.mark.parametrize("mode", ["zeros", "replicate"])
def test_weights_too_many_for_one_block_give_the_sums_of_their_parts(mode):
    torch.manual_seed(0)
    layer = nn.Conv1d(1100, 1000, 3, 2, 1, padding_mode=mode, dtype=torch.float64)
    part = nn.Conv1d(1100, 250, 3, 2, 1, padding_mode=mode, dtype=torch.float64)
    rows, columns = [], []
    for weight in layer.weight.detach().split(250):
        part.weight.data = weight
        rows.append(linf_norm(part, (9,)).item())
    for weight in layer.weight.detach().split(1, 1):
        thin = nn.Conv1d(1, 1000, 3, 2, 1, padding_mode=mode, dtype=torch.float64)
        thin.weight.data = weight
        columns.append(l1_norm(thin, (9,)).item())
    assert linf_norm(layer, (9,)).item() == pytest.approx(max(rows), rel=ROUNDING)
    assert l1_norm(layer, (9,)).item() == pytest.approx(max(columns), rel=ROUNDING)


def test_a_patch_layer_sends_each_pixel_through_one_tap():
    layer = nn.Conv2d(3, 4, 24, 24, dtype=torch.float64)
    wanted = layer.weight.abs().sum(0).max().item()
    assert l1_norm(layer, (48, 24)).item() == pytest.approx(wanted, rel=ROUNDING)


@pytest.mark.parametrize("mode", ["zeros", "replicate"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_refused_even_if_no_output_uses_it(value, mode):
    layer = nn.Conv1d(2, 3, 4, padding=1, stride=3, padding_mode=mode)
    layer.weight.data[1, 0, 0] = value
    for norm in NORMS:
        with pytest.raises(ValueError, match="1 non-finite values of 24"):
            norm(layer, (2,))


def test_a_norm_first_taken_in_inference_mode_can_be_differentiated_after():
    layer = nn.Conv2d(2, 3, (3, 2), (2, 1), padding=(1, 3), padding_mode="circular")
    for norm in NORMS:
        with torch.inference_mode():
            value = norm(layer, (17, 13))
        (gradient,) = torch.autograd.grad(norm(layer, (17, 13)), layer.weight)
        assert (gradient * layer.weight).sum().item() == pytest.approx(value.item(), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_norms_have_no_dimension_and_the_dtype_of_the_weights_or_float32(dtype):
    layer = nn.Conv1d(2, 3, 3, 2, dtype=dtype)
    wanted = torch.promote_types(dtype, torch.float32)
    for norm in NORMS:
        value = norm(layer, (9,))
        assert (value.shape, value.dtype) == (torch.Size(), wanted)
