"""Augmentations and resizing against their equations, one pixel at a time."""

from collections import Counter

import pytest
import torch
import torch.nn.functional as F

from normkit import data


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def bytes_like(*shape, seed=0):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=seeded(seed))


def moved_by(image, top, left):
    """y[i, j] = x[i + top, j + left], zero outside, one pixel at a time."""
    result = torch.zeros_like(image)
    for i in range(image.shape[1]):
        for j in range(image.shape[2]):
            if 0 <= i + top < image.shape[1] and 0 <= j + left < image.shape[2]:
                result[:, i, j] = image[:, i + top, j + left]
    return result


def test_crop_moves_each_image_by_its_own_uniform_offset():
    p, images = 2, bytes_like(1, 3, 5, 7).repeat(400, 1, 1, 1)
    places = [(a, b) for a in range(-p, p + 1) for b in range(-p, p + 1)]
    possible = {moved_by(images[0], *place).numpy().tobytes(): place for place in places}
    assert len(possible) == 25
    counts = Counter(possible[x.numpy().tobytes()] for x in data.crop(images, p, seeded()))
    assert len(counts) == 25 and max(counts.values()) < 40  # mean 16, 6 standard deviations


def test_shift_is_crop_with_that_padding():
    images = bytes_like(20, 1, 8, 6)
    assert data.shift(images, 3, seeded(1)).equal(data.crop(images, 3, seeded(1)))


def test_flip_mirrors_about_half_of_the_images_and_leaves_the_others():
    images = bytes_like(400, 2, 3, 5)
    result = data.flip(images, seeded())
    same = (result == images).flatten(1).all(1)
    mirrored = (result == images.flip(3)).flatten(1).all(1)
    assert (same ^ mirrored).all() and 160 < mirrored.sum() < 240  # 4 standard deviations


@pytest.mark.parametrize("size", [6, (2, 4), (3, 12), (1, 2), (24, 4), 12])
def test_resize_averages_down_and_repeats_up(size):
    images = bytes_like(5, 3, 6, 12)
    height, width = size if isinstance(size, tuple) else (size, size)
    small = F.adaptive_avg_pool2d(images.double(), (min(height, 6), min(width, 12)))
    oracle = F.interpolate((small + 0.5).floor(), (height, width), mode="nearest")
    assert data.resize(images, size).equal(oracle.to(torch.uint8)), size


def test_to_float_inverts_to_the_same_bytes():
    images = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    floats = data.to_float(images)
    assert floats.dtype == torch.float32 and floats.min() == 0 and floats.max() == 1
    assert floats.mul(255).round().to(torch.uint8).equal(images)


def test_gaussian_noise_is_its_equation_clipped_and_rounded_to_bytes():
    images = bytes_like(50, 3, 9, 7)
    noise = torch.randn(images.shape, generator=seeded(3)).double()
    for std in (0.0, 0.02, 0.3, 1.0):
        found = data.gaussian_noise(images, std, seeded(3))
        exact = (images / 255.0 + std * noise).clamp(0, 1)
        assert found.dtype == torch.uint8 and data.to_float(found).max() <= 1
        assert (found / 255.0 - exact).abs().max() <= 0.5 / 255 + 1e-6, std
    assert data.gaussian_noise(images, 0.0, seeded()).equal(images)


def test_gaussian_noise_has_its_deviation_where_it_is_not_clipped():
    gray = torch.full((100, 1, 20, 20), 128, dtype=torch.uint8)
    for std in (0.01, 0.05, 0.1):
        found = data.gaussian_noise(gray, std, seeded())
        spread = (data.to_float(found) - 128 / 255).double().square().mean().sqrt()
        # Rounding adds a variance of (1 / 255)^2 / 12; 40,000 draws know a deviation to 0.35 %.
        assert spread == pytest.approx((std**2 + 1 / 12 / 255**2) ** 0.5, rel=0.014)


def test_gaussian_noise_follows_the_seed_and_leaves_its_input():
    images = bytes_like(5, 1, 8, 8)
    before = images.clone()
    first, again, other = (data.gaussian_noise(images, 0.1, seeded(s)) for s in (1, 1, 2))
    assert first.equal(again) and not first.equal(other) and images.equal(before)
    assert data.gaussian_noise(images.to("meta"), 0.1, seeded()).shape == images.shape


@pytest.mark.parametrize(
    ("images", "std", "message"),
    [
        (bytes_like(1, 1, 2, 2), -0.1, r"std must be in \[0, 1\].*found -0.1"),
        (bytes_like(1, 1, 2, 2), 25, r"std must be in \[0, 1\].*found 25"),
        (bytes_like(1, 1, 2, 2), float("nan"), "found nan"),
        (torch.rand(1, 1, 2, 2), 0.1, "images must be uint8.*found float32"),
    ],
)
def test_bad_noise_is_named(images, std, message):
    with pytest.raises(ValueError, match=message):
        data.gaussian_noise(images, std, seeded())


@pytest.mark.parametrize("name", data.AUGMENTATIONS)
def test_augmentations_keep_form_follow_the_seed_and_leave_their_input(name):
    augment, images = data.AUGMENTATIONS[name], bytes_like(31, 2, 16, 9)
    before = images.clone()
    first, again, other = (augment(images, seeded(seed)) for seed in (1, 1, 2))
    assert first.dtype == torch.uint8 and first.shape == images.shape
    assert first.equal(again) and images.equal(before)
    assert first.equal(other) == (name == "none")
    assert augment(images.to("meta"), seeded()).shape == images.shape, "mixes devices"
    if torch.cuda.is_available():
        assert augment(images.to("cuda"), seeded(1)).cpu().equal(first)


def test_crop_flip_crops_by_an_eighth_of_the_height():
    images = bytes_like(50, 3, 32, 32)
    generator = seeded()
    oracle = data.flip(data.crop(images, 4, generator), generator)
    assert data.AUGMENTATIONS["crop_flip"](images, seeded()).equal(oracle)
