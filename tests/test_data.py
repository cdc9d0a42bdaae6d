"""The data sets that are here are what they should be, and bad input is one clear sentence."""

import hashlib
import os
import pickle
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torchvision import datasets

from normkit import data
from normkit.data import dataset, files, sources

CIFAR10_FINGERPRINT = "290e2e4250fdf387dda8f9ef4ddaf22c1fada605697dcfaafa8dd1c6a83db1e8"
TEN = torch.arange(10).repeat_interleave(1000)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def bytes_like(*shape, seed=0):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=seeded(seed))


def test_digits_are_scikit_learn_s_in_bytes_split_1500_to_297():
    digits, (pixels, targets) = data.load("digits"), load_digits(return_X_y=True)
    assert digits.train_images.shape == (1500, 1, 8, 8) and len(digits.test_labels) == 297
    images = torch.cat([digits.train_images, digits.test_images]).reshape(-1, 64).tolist()
    labels = torch.cat([digits.train_labels, digits.test_labels]).tolist()
    grey = [round(255 * v / 16) for v in range(17)]
    expected = Counter(
        (tuple(grey[int(v)] for v in row), int(target)) for row, target in zip(pixels, targets)
    )
    assert Counter(zip(map(tuple, images), labels)) == expected
    shares = digits.test_labels.bincount() - torch.from_numpy(np.bincount(targets)) * 297 / 1797
    assert shares.abs().max() < 1


def test_the_digits_split_does_not_depend_on_the_order_of_the_rows():
    pixels, targets = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(targets))
    shuffled = dataset.split_digits(pixels[order], targets[order])
    assert shuffled.fingerprint() == data.load("digits").fingerprint()
    assert shuffled.fingerprint().startswith("f9bc3dd2930e2d1f")


NOISY = "08bd4b1c571ce4b73c10882effc8d8109ffde2a4ce83f596630bfb2b88e1dd8a"


def test_noisy_digits_are_the_digits_at_four_places_under_noise():
    digits, found = data.load("digits"), data.load("noisy_digits")
    assert found.fingerprint() == NOISY and found.input_size == (1, 9, 9)
    assert (found.name, found.classes) == ("noisy_digits", digits.classes)
    for split in ("train", "test"):
        labels, clean = (getattr(digits, f"{split}_{part}") for part in ("labels", "images"))
        assert torch.equal(labels, getattr(found, f"{split}_labels"))
        images = getattr(found, f"{split}_images").double()
        places = [
            torch.nn.functional.pad(clean.double(), (x, 1 - x, y, 1 - y))
            for x in (0, 1)
            for y in (0, 1)
        ]
        errors = torch.stack([(images - place).square().mean((1, 2, 3)) for place in places])
        counts = errors.argmin(0).bincount() / len(images)
        assert counts.shape == (4,) and (counts - 0.25).abs().max() < 0.07, counts
        best = torch.stack(places)[errors.argmin(0), range(len(images))]
        noise = (images - best)[(best > 100) & (best < 155)] / 255  # too far in to be clipped
        assert abs(noise.std() - 0.15) < 0.005 and abs(noise.mean()) < 0.005


def test_noisy_digits_need_no_file(tmp_path):
    assert data.locate("noisy_digits", tmp_path) is None
    assert data.load("noisy_digits", tmp_path, download=False).fingerprint() == NOISY


@pytest.fixture(scope="module")
def cifar10():
    if "NORMKIT_DATA" not in os.environ or data.locate("cifar10") is None:
        pytest.skip("NORMKIT_DATA names no folder with CIFAR-10")
    return data.load("cifar10", download=False)


def test_real_cifar10_is_the_official_one(cifar10):
    assert cifar10.input_size == (3, 32, 32) and cifar10.num_classes == 10
    assert cifar10.train_labels.bincount().tolist() == [5000] * 10
    assert cifar10.test_labels.bincount().tolist() == [1000] * 10
    assert cifar10.fingerprint() == CIFAR10_FINGERPRINT


@pytest.mark.parametrize("split", ["train", "test"])
def test_real_cifar10_equals_a_second_copy_in_its_first_100_of_each_class(cifar10, split):
    if "NORMKIT_SHARED" not in os.environ:
        pytest.skip("NORMKIT_SHARED is not set: no second copy to compare with")
    images, labels = getattr(cifar10, f"{split}_images"), getattr(cifar10, f"{split}_labels")
    index = torch.cat([(labels == c).nonzero()[:100, 0] for c in range(10)]).sort().values
    path = Path(os.environ["NORMKIT_SHARED"]) / "data" / "cifar10_1000x1000.npz"
    with np.load(path) as second:
        order = second[f"{split}_index"].argsort()
        assert second[f"{split}_index"][order].tolist() == index.tolist()
        assert second[f"y_{split}"][order].tolist() == labels[index].tolist()
        pixels = second[f"x_{split}"][order].transpose(0, 3, 1, 2)
        assert np.array_equal(pixels, images[index].numpy())


def test_a_fingerprint_changes_with_any_pixel_label_or_shape():
    digits = data.load("digits")
    pixel, label = digits.test_images.clone(), digits.test_labels.clone()
    pixel[-1, 0, 7, 7] += 1
    label[0] = (label[0] + 1) % 10
    variants = [
        digits,
        replace(digits, test_images=pixel),
        replace(digits, test_labels=label),
        replace(digits, test_images=digits.test_images.reshape(-1, 1, 4, 16)),
        replace(digits, test_images=digits.train_images, test_labels=digits.train_labels),
    ]
    assert len({variant.fingerprint() for variant in variants}) == len(variants)
    strided = digits.train_images.transpose(2, 3).contiguous().transpose(2, 3)
    assert replace(digits, train_images=strided).fingerprint() == digits.fingerprint()


def test_moving_a_dataset_moves_its_tensors_and_keeps_the_rest():
    digits = data.load("digits")
    moved = digits.to("cuda" if torch.cuda.is_available() else "cpu")
    assert moved.train_images.device.type == moved.test_labels.device.type
    assert (moved.name, moved.classes) == ("digits", digits.classes)
    assert moved.fingerprint() == digits.fingerprint()


def write_idx(folder, prefix, images, labels):
    header = np.array([2051, *images.shape], ">i4").tobytes()
    (folder / f"{prefix}-images-idx3-ubyte").write_bytes(header + images.tobytes())
    header = np.array([2049, len(labels)], ">i4").tobytes()
    (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())


@pytest.mark.parametrize("name, reader", [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
def test_idx_files_are_read_as_torchvision_reads_them(tmp_path, name, reader):
    folder, rng = tmp_path / reader / "raw", np.random.default_rng(0)
    folder.mkdir(parents=True)
    for prefix, n in (("train", 5), ("t10k", 3)):
        images = rng.integers(0, 256, (n, 4, 7), dtype=np.uint8)
        write_idx(folder, prefix, images, rng.integers(0, 10, n, dtype=np.uint8))
    layout = sources.SOURCES[name].layouts[0]
    contents = {path.name: path.read_bytes() for path in folder.iterdir()}
    checksums = {file: hashlib.md5(content).hexdigest() for file, content in contents.items()}
    layout = replace(
        layout,
        train={file: checksums[file] for file in layout.train},
        test={file: checksums[file] for file in layout.test},
    )
    source = replace(sources.SOURCES[name], layouts=(layout,))
    for train, split in zip((True, False), files.read(name, source, tmp_path, download=False)):
        oracle = getattr(datasets, reader)(str(tmp_path), train=train)
        assert np.array_equal(split[0][:, 0], oracle.data) and split[1].dtype == np.int64
        assert np.array_equal(split[1], oracle.targets)
    with pytest.raises(ValueError, match="train-images-idx3-ubyte is damaged or another file"):
        data.load(name, root=tmp_path, download=False)


class Python2Type:
    def __reduce__(self):
        return np.dtype, ("u1", 0, 1), (3, "|", None, None, None, -1, -1, 0)


class Python2Array:
    def __init__(self, array):
        self.array = array

    def __reduce__(self):
        state = (1, self.array.shape, Python2Type(), False, self.array.tobytes().decode("latin1"))
        rebuild, _, _ = self.array.__reduce__()
        return rebuild, (np.ndarray, (0,), "b"), state


def test_a_pickle_written_by_python_2_is_read_without_a_warning():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 3072), dtype=np.uint8)
    content = pickle.dumps({"data": Python2Array(pixels), "labels": [1, 2, 3]}, protocol=2)
    images, labels = sources.decode_pickle([content])
    assert np.array_equal(images.reshape(-1, 3072), pixels) and labels.tolist() == [1, 2, 3]


def test_the_python_version_s_checksums_are_torchvision_s():
    for name, official in (("cifar10", datasets.CIFAR10), ("cifar100", datasets.CIFAR100)):
        layout = sources.SOURCES[name].layouts[1]
        assert dict(official.train_list) == layout.train
        assert dict(official.test_list) == layout.test
        assert (official.base_folder, official.filename) == (layout.folder, layout.archive)
        assert official.tgz_md5 == layout.archive_md5


def test_classes_are_as_many_as_the_labels_and_torchvision_s_where_it_names_them():
    counts = {name: len(set(classes)) for name, classes in sources.CLASSES.items()}
    assert counts == {name: 100 if name == "cifar100" else 10 for name in data.NAMES}
    assert list(sources.CLASSES["fashion_mnist"]) == datasets.FashionMNIST.classes
    assert list(sources.CLASSES["cifar100"]) == sorted(sources.CLASSES["cifar100"])
    assert all(0 <= c < 10 for pair in data.LABEL_FLIPS["cifar10"].items() for c in pair)


def test_the_root_is_the_argument_then_the_variable_then_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NORMKIT_DATA", str(tmp_path))
    assert data.default_root() == tmp_path
    (tmp_path / "cifar-10-batches-bin").mkdir()
    assert data.locate("cifar10") == tmp_path / "cifar-10-batches-bin"
    assert data.locate("cifar10", tmp_path / "other") is None
    monkeypatch.delenv("NORMKIT_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    expected = [tmp_path / "cache/normkit/data", Path.home() / "Library/Caches/normkit/data"]
    assert data.default_root() in expected


noise = partial(data.noisy_labels, TEN, num_classes=10, generator=seeded())


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: data.load("cifar-10"), "found 'cifar-10', nearest 'cifar10'"),
        (lambda: data.locate("fashion"), "nearest 'fashion_mnist'"),
        (lambda: data.subset(TEN, 10_001, seeded()), "from 1 to 10000, found 10001"),
        (lambda: data.subset(TEN, 0, seeded()), "from 1 to 10000, found 0"),
        (lambda: data.split_validation(TEN, 1.0, seeded()), r"in \[0, 1\), found 1.0"),
        (lambda: noise(-0.1), r"in \[0, 1\), found -0.1"),
        (lambda: noise(float("nan")), r"in \[0, 1\), found nan"),
        (lambda: noise(0.1, kind="symetric"), "nearest 'symmetric'"),
        (lambda: noise(0.1, variant="release"), "nearest 'released'"),
        (lambda: noise(0.1, num_classes=9), "found 9 where the largest is 9"),
        (lambda: noise(0.1, kind="asymmetric", flips={3: 12}), "found 10 where the largest is 12"),
        (lambda: data.to_float(torch.zeros(1, 1, 2, 2)), "found float32 of shape"),
        (lambda: data.flip(bytes_like(3, 4, 5), seeded()), r"found uint8 of shape \(3, 4, 5\)"),
        (lambda: data.crop(bytes_like(1, 1, 4, 4), -1, seeded()), "padding must be .* found -1"),
        (lambda: data.shift(bytes_like(1, 1, 4, 4), 1.5, seeded()), "pixels must be .* found 1.5"),
        (lambda: data.resize(bytes_like(1, 1, 8, 8), 3), r"\(8, 8\) or be a multiple .* found 3"),
        (lambda: data.resize(bytes_like(1, 1, 8, 8), (4, 0)), r"found \(4, 0\)"),
        (lambda: data.batches(0, 4, seeded()), "n must be .* found 0"),
        (lambda: data.batches(4, 0, seeded()), "batch_size must be .* found 0"),
        (
            lambda: data.Dataset(*[bytes_like(2, 1, 2, 2), torch.tensor([0, 3])] * 2, ("a", "b")),
            r"train_labels must be in 0 \.\.\. 1, found 0 \.\.\. 3",
        ),
        (
            lambda: data.Dataset(*[bytes_like(2, 1, 2, 2), torch.zeros(3).long()] * 2, ("a",)),
            r"train_labels must be int64 of shape \(2,\)",
        ),
    ],
)
def test_bad_input_is_one_sentence_with_the_value_found(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
