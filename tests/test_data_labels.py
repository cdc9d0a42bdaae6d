"""Subsets, splits, noise and batches keep the counts that their equations state."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from normkit import data
from normkit.training import TrainConfig

TEN = torch.arange(10).repeat_interleave(1000)
label_lists = st.lists(st.integers(0, 6), min_size=1, max_size=60).map(torch.tensor)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@settings(max_examples=60, deadline=None)
@given(label_lists, st.data())
def test_a_subset_is_distinct_and_within_one_image_of_proportional(labels, draw):
    n = draw.draw(st.integers(1, len(labels)))
    index = data.subset(labels, n, seeded(n))
    assert len(index.unique()) == n == len(index)
    exact = labels.bincount() * n / len(labels)
    assert (labels[index].bincount(minlength=len(exact)) - exact).abs().max() < 1


@settings(max_examples=60, deadline=None)
@given(label_lists, st.floats(0, 1, exclude_max=True))
def test_a_split_is_a_stratified_partition(labels, fraction):
    train, validation = data.split_validation(labels, fraction, seeded())
    assert torch.cat([train, validation]).sort().values.equal(torch.arange(len(labels)))
    assert len(validation) == round(fraction * len(labels))
    exact = labels.bincount() * len(validation) / len(labels)
    assert (labels[validation].bincount(minlength=len(exact)) - exact).abs().max() < 1


def test_a_subset_is_a_uniform_draw_within_each_class():
    labels = torch.arange(3).repeat(8)
    hits = sum(data.subset(labels, 6, seeded(s)).bincount(minlength=24) for s in range(400))
    assert hits.min() > 60 and hits.max() < 140  # mean 100, standard deviation 8.7


def test_fewer_images_than_classes_leave_whole_classes_out_and_one_each_of_the_others():
    index = data.subset(TEN, 7, seeded())
    assert TEN[index].bincount(minlength=10).sort().values.tolist() == [0] * 3 + [1] * 7
    assert (TEN[data.subset(TEN, 10, seeded())].bincount(minlength=10) == 1).all()


def test_a_rare_class_keeps_an_image_only_where_its_share_is_one():
    labels = torch.tensor([0] * 90 + [1] * 10)
    found = {n: data.subset(labels, n, seeded()).ge(90).sum().item() for n in (4, 10, 20)}
    assert found == {4: 0, 10: 1, 20: 2}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: data.subset(TEN, 0.1, seeded()), "n must be a number of images.*found 0.1"),
        (lambda: data.subset(TEN, -1, seeded()), "from 1 to 10000, found -1"),
        (lambda: data.split_validation(TEN, -0.1, seeded()), r"fraction must.*\[0, 1\).*-0.1"),
        (
            lambda: data.noisy_labels(TEN, 1.0, num_classes=10, generator=seeded()),
            r"fraction must.*\[0, 1\).*1.0",
        ),
        (lambda: TrainConfig(label_noise=1.2), r"label_noise is 1.2; it must be in \[0, 1\)"),
        (lambda: TrainConfig(label_noise=-0.1), r"label_noise is -0.1; it must be in \[0, 1\)"),
        (lambda: TrainConfig(subset=0), "subset is 0; it must be above 0"),
    ],
)
def test_counts_and_fractions_out_of_range_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_subset_of_a_configuration_is_a_count():
    with pytest.raises(TypeError, match="TrainConfig.subset is 0.1; it must be int"):
        TrainConfig(subset=0.1)


def test_symmetric_noise_changes_exactly_its_fraction_each_wrong_class_alike():
    noisy = data.noisy_labels(TEN, 0.4, num_classes=10, generator=seeded())
    changed = noisy != TEN
    assert changed.sum() == 4000
    step = ((noisy - TEN) % 10)[changed].bincount(minlength=10)
    assert step[0] == 0 and (step[1:] - 4000 / 9).abs().max() < 100  # 5 standard deviations


def test_released_symmetric_noise_keeps_a_tenth_of_the_redrawn_labels():
    noisy = data.noisy_labels(TEN, 0.2, num_classes=10, variant="released", generator=seeded())
    assert abs((noisy != TEN).float().mean() - 0.18) < 0.007  # 5 standard deviations


def confusion(noisy):
    return (TEN * 10 + noisy).bincount(minlength=100).reshape(10, 10)


@pytest.mark.parametrize("flips", [None, data.LABEL_FLIPS["cifar10"]])
def test_asymmetric_noise_moves_its_fraction_of_each_class_to_one_other(flips):
    noisy = data.noisy_labels(
        TEN, 0.3, kind="asymmetric", num_classes=10, generator=seeded(), flips=flips
    )
    expected = 1000 * torch.eye(10, dtype=torch.int64)
    for true, wrong in (flips or {c: (c + 1) % 10 for c in range(10)}).items():
        expected[true, true], expected[true, wrong] = 700, 300
    assert confusion(noisy).equal(expected)


def test_released_asymmetric_noise_turns_some_cats_back():
    noisy = data.noisy_labels(
        *(TEN, 0.4),
        kind="asymmetric",
        num_classes=10,
        variant="released",
        generator=seeded(),
        flips=data.LABEL_FLIPS["cifar10"],
    )
    table = confusion(noisy)
    assert table[[2, 4, 9], [0, 7, 1]].tolist() == [400] * 3
    # 400 of 1,000 cats become dogs, then 560 of these 1,400 dogs become cats.
    assert table[3, 3] + table[5, 3] == 1160 and table[3, 5] + table[5, 5] == 840
    assert abs(table[3, 5] - 240) < 60, "of the 400, three in five stay dogs"


@pytest.mark.parametrize("kind", ["symmetric", "asymmetric"])
def test_noise_leaves_its_input_and_no_noise_is_no_change(kind):
    labels = TEN.clone()
    for fraction in (0.5, 0.0):
        noisy = data.noisy_labels(labels, fraction, kind=kind, num_classes=10, generator=seeded())
        assert labels.equal(TEN) and noisy.equal(TEN) == (fraction == 0)


@pytest.mark.parametrize("n, batch_size", [(23, 10), (20, 10), (21, 10), (5, 1), (3, 10), (1, 4)])
def test_batches_are_a_shuffled_partition_without_a_lone_last_image(n, batch_size):
    parts = data.batches(n, batch_size, seeded())
    dropped = int(n % batch_size == 1 and batch_size > 1)
    index = torch.cat([*parts, torch.empty(0, dtype=torch.int64)])
    assert len(index) == len(index.unique()) == n - dropped
    assert all(len(part) == batch_size for part in parts[:-1])
    assert all(len(part) > 1 for part in parts) or batch_size == 1


def test_two_epochs_of_one_generator_differ_and_repeat_with_the_seed():
    generator, again = seeded(), seeded()
    first, second = (torch.cat(data.batches(50, 7, generator)) for _ in range(2))
    assert not first.equal(second)
    assert first.equal(torch.cat(data.batches(50, 7, again)))
