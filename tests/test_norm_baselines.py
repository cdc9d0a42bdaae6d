"""Every baseline computes what it says: against the dense matrix, on small random layers."""

import math
import random
import runpy
from pathlib import Path

import pandas as pd
import pytest
import torch
from dense import circular_matrix, operator_matrix
from torch import nn

import normkit
from normkit.norms import l1_norm, linf_norm
from normkit.papers import measured, norm_decay
from normkit.papers.norm_decay import baselines, comparison, exact, jobs, speed
from normkit.records import Store

BENCHMARK = Path(normkit.__file__).parents[1] / "benchmarks" / "norms.py"


def layers(count, *, strides=(1, 1, 2, 3), most=3):
    """Convolutions in float64, sides unequal, kernels also larger than their input."""
    draw = random.Random(0)
    torch.manual_seed(0)
    for _ in range(count):
        stride = draw.choice(strides), draw.choice(strides)
        kernel = draw.randint(1, 5), draw.randint(1, 5)
        size = tuple(s * draw.randint(1, most) for s in stride)
        channels = draw.randint(1, 4), draw.randint(1, 4)
        layer = nn.Conv2d(*channels, kernel, stride, padding=4, bias=False, dtype=torch.float64)
        yield layer, size


def test_the_symbol_has_the_singular_values_of_the_dense_torus():
    for layer, size in layers(30):
        symbol = baselines.symbol(layer.weight.detach(), size, layer.stride)
        found = torch.linalg.svdvals(symbol).flatten().sort(descending=True).values
        wanted = torch.linalg.svdvals(circular_matrix(layer, size))
        kept = min(len(found), len(wanted))
        torch.testing.assert_close(found[:kept], wanted[:kept], atol=1e-9, rtol=1e-9)
        assert found[kept:].sum() < 1e-9, (layer, size)


@pytest.mark.parametrize(
    ("method", "rtol"),
    [(baselines.fft_svd, 1e-12), (baselines.gram_iteration, 1e-5), (baselines.grid_power, 1e-3)],
)
def test_baselines_on_the_torus_equal_the_dense_matrix(method, rtol):
    for layer, size in layers(15):
        wanted = torch.linalg.matrix_norm(circular_matrix(layer, size), 2).item()
        found, _ = method(layer.weight.detach(), size, layer.stride)
        assert found == pytest.approx(wanted, rel=rtol), (layer, size)


def test_gram_iteration_is_an_upper_bound_and_the_power_methods_are_lower_ones():
    for layer, size in layers(15):
        wanted = torch.linalg.matrix_norm(circular_matrix(layer, size), 2).item()
        form = layer.weight.detach(), size, layer.stride
        assert baselines.gram_iteration(*form, rtol=0.1)[0] >= wanted * (1 - 1e-12)
        assert baselines.grid_power(*form, steps=2)[0] <= wanted * (1 + 1e-12)


@pytest.mark.parametrize("scale", [1e-18, 1e18])
def test_gram_iteration_stays_in_the_range_of_floats(scale):
    weight = torch.randn(3, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    wanted, _ = baselines.fft_svd(weight.double(), (6, 5))
    assert baselines.gram_iteration(weight * scale, (6, 5))[0] == pytest.approx(
        wanted * scale, rel=1e-5
    )


def test_the_power_method_reaches_the_dense_matrix_as_executed():
    for layer, size in layers(15, most=4):
        layer.padding = (1, 2)
        if any(n + 2 * p < k for n, p, k in zip(size, layer.padding, layer.kernel_size)):
            continue
        wanted = torch.linalg.matrix_norm(
            operator_matrix(layer, (layer.in_channels, *size)), 2
        ).item()
        found, _ = baselines.power_method(layer, size)
        assert found == pytest.approx(wanted, rel=1e-3), (layer, size)


def test_gathers_equal_the_dense_matrix_where_the_authors_code_runs_and_swapped_ones_do_not():
    wrong = 0
    for layer, size in exact.random_layers(600, seed=1):
        if exact._accepted(layer, size):
            wanted = exact.dense_matrix(layer, size).abs().sum(0).max().item()
            form = layer.weight.detach(), size, layer.stride, layer.padding
            assert baselines.gathered(*form) == pytest.approx(wanted, rel=1e-12), (layer, size)
            wrong += baselines.gathered(*form, swapped=True) != pytest.approx(wanted, rel=1e-6)
    assert wrong > 0


def test_the_published_example_of_a_wrong_l1_norm_is_off_by_a_few_thousandths():
    torch.manual_seed(0)
    layer = nn.Conv2d(16, 16, (3, 5), 2, (1, 2), bias=False, dtype=torch.float64)
    form = layer.weight.detach(), (16, 16), layer.stride, layer.padding
    right, swapped = baselines.gathered(*form), baselines.gathered(*form, swapped=True)
    assert right == pytest.approx(l1_norm(layer, (16, 16)).item())
    assert 0 < abs(swapped / right - 1) < 0.2


@pytest.mark.parametrize("groups", [1, 2])
def test_the_formula_without_borders_holds_where_every_tap_meets_a_pixel(groups):
    torch.manual_seed(0)
    for stride, spread in [(1, 1), (2, 1), (2, 2), (3, 2), (1, 2)]:
        for make in (nn.Conv2d, nn.ConvTranspose2d):
            options = {"stride": stride, "dilation": spread, "groups": groups}
            layer = make(4, 6, (3, 2), dtype=torch.float64, **options)
            for norm, ours in (("l1", l1_norm), ("linf", linf_norm)):
                found = baselines.border_free(layer, norm)
                assert found == pytest.approx(ours(layer, (24, 24)).item(), rel=1e-12), layer


def test_plain_sums_are_the_norms_of_an_unstrided_convolution():
    layer = nn.Conv2d(3, 5, 3, padding=1, bias=False)
    for norm, ours in (("l1", l1_norm), ("linf", linf_norm)):
        found = baselines.plain_sums(layer.weight.detach(), norm)
        assert found == pytest.approx(ours(layer, (8, 8)).item(), rel=1e-6)


def test_random_layers_are_of_every_kind_run_and_come_again():
    found = exact.random_layers(64, seed=3)
    assert {type(layer).__name__ for layer, _ in found} == set(exact.KINDS)
    again = exact.random_layers(64, seed=3)
    for (layer, size), (other, same) in zip(found, again, strict=True):
        assert size == same and all(map(torch.equal, layer.parameters(), other.parameters()))
        torch.testing.assert_close(
            exact.dense_matrix(layer, size),
            operator_matrix(layer, (exact._channels(layer), *size)),
        )


def test_a_wrong_norm_is_seen_by_its_relative_error():
    assert exact.relative_error(3.0, 2.0) == 0.5
    assert exact.relative_error(0.0, 0.0) == 0.0 and exact.relative_error(0.1, 0.0) == 0.1


def test_a_measurement_is_made_once_and_kept_apart_from_runs(tmp_path):
    store, config = Store(tmp_path), speed.Speed(4, 16, 1, 0.0)
    first = measured.kept(config, store)
    again = measured.kept(config, store)
    pd.testing.assert_frame_equal(first.table("times"), again.table("times"))
    assert first.meta["hardware"] == measured.hardware(1) and store.keys() == []
    times = first.table("times")
    assert set(times.layer) == {job.name for job in jobs.shapes(4, 16)}
    assert (times.seconds > 0).all()
    values = times[times.method.isin(["bracket", "fft_svd", "gram_iteration"])]
    spread = values.groupby("layer").value.agg(lambda v: v.max() / v.min() - 1)
    assert spread.max() < 1e-4, spread


def test_measuring_depends_on_what_is_timed_and_not_on_verdicts():
    for config in (speed.Speed(), exact.Exactness()):
        names = set(config.dependencies())
        assert {"normkit.norms.spectral", baselines.__name__} <= names
        assert not [n for n in names if "verdicts" in n or "training" in n or "runs" in n]


def test_a_measurement_uses_one_thread_and_gives_the_others_back():
    before = torch.get_num_threads()
    with measured.one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


def test_a_long_power_method_is_timed_by_a_few_of_its_steps():
    asked = []

    def power(steps):
        asked.append(steps)
        return 1.0, steps

    value, seconds = speed._whole_power(power, limit=-1)
    assert math.isnan(value) and seconds >= 0 and max(asked) < baselines.STEPS
    assert speed._whole_power(power, limit=10)[0] == 1.0 and asked[-1] == baselines.STEPS


def test_the_network_has_the_convolutions_of_a_cifar_resnet18():
    found = jobs.resnet(32)
    shapes = [tuple(job.layer.weight.shape) for job in found]
    assert len(found) == 20 and shapes[0] == (64, 3, 3, 3) and shapes[-1] == (512, 512, 3, 3)
    assert [job.size[0] for job in found if job.layer.stride == (2, 2)] == [32, 32, 16, 16, 8, 8]
    assert sum(job.layer.weight.numel() for job in found) == 11_159_232


def test_the_reference_is_the_dense_answer_and_a_bracket_where_that_is_too_much():
    job = jobs.shapes(8, 16)[1]
    low, high, how = comparison.reference(job)
    wanted = torch.linalg.matrix_norm(circular_matrix(job.layer, job.size), 2).item()
    assert how == "float64 SVD" and low == high == pytest.approx(wanted, rel=1e-10)
    low, high, how = comparison.reference(job, most=0)
    assert how == "rigorous bracket" and low <= wanted <= high <= low * (1 + 1e-7)


def test_totals_compare_all_layers_and_the_strided_ones():
    table = comparison.absolute_totals(jobs.resnet(8, 16), 0.0)
    assert table["layers"].tolist() == [20, 20, 6]
    assert (table["theirs / ours"] > 0).all()


def test_the_benchmark_prints_every_part(capsys):
    main = runpy.run_path(str(BENCHMARK))["main"]
    main(["--quick", "--limit", "0.01", "--patience", "0"])
    printed = capsys.readouterr().out
    for part in ("circular: six shapes", "circular: ResNet-18", "zero", "absolute", "trained"):
        assert f"## {part}" in printed
    assert "205 rows, 0 failed" in printed and "geometric mean" in printed
    assert measured.hardware(1) in printed
