"""The official files of each data set, their published checksums, and how they are decoded."""

import pickle
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from .files import Arrays, Layout, Source

__all__ = ["CLASSES", "SOURCES", "decode_binary", "decode_idx", "decode_pickle"]


def decode_binary(contents: Sequence[bytes], label_bytes: int = 1) -> Arrays:
    """CIFAR's binary records: label bytes, then 3,072 bytes of channel-first RGB.

    Source: https://www.cs.toronto.edu/~kriz/cifar.html; the last label byte is the fine label.

    Arguments:
        contents: of the files.
        label_bytes: 1 for CIFAR-10, 2 for CIFAR-100 (coarse, fine).

    Shape: files of n records -> (N, 3, 32, 32) uint8, (N,) int64.

    Example:
        >>> images, labels = decode_binary([bytes([4, 7]) + bytes(3072)], label_bytes=2)
        >>> images.shape, labels
        ((1, 3, 32, 32), array([7]))
    """
    records = [np.frombuffer(c, np.uint8).reshape(-1, label_bytes + 3072) for c in contents]
    images = np.concatenate([record[:, label_bytes:] for record in records])
    labels = np.concatenate([record[:, label_bytes - 1] for record in records])
    return images.reshape(-1, 3, 32, 32), labels.astype(np.int64)


def decode_pickle(contents: Sequence[bytes]) -> Arrays:
    """CIFAR's python version; only for contents whose published checksum has matched.

    Source: https://www.cs.toronto.edu/~kriz/cifar.html, read as torchvision.datasets.CIFAR10 does.

    Arguments:
        contents: of the files, each a pickled dictionary.

    Shape: files of n images -> (N, 3, 32, 32) uint8, (N,) int64.

    Example:
        >>> entry = {"data": np.zeros((1, 3072), np.uint8), "fine_labels": [7]}
        >>> images, labels = decode_pickle([pickle.dumps(entry)])
        >>> images.shape, labels
        ((1, 3, 32, 32), array([7]))
    """
    entries = [pickle.loads(content, encoding="latin1") for content in contents]
    images = np.concatenate([entry["data"] for entry in entries]).reshape(-1, 3, 32, 32)
    key = "labels" if "labels" in entries[0] else "fine_labels"
    return images, np.concatenate([entry[key] for entry in entries]).astype(np.int64)


def decode_idx(contents: Sequence[bytes]) -> Arrays:
    """MNIST's IDX files: a big-endian header, then bytes.

    Source: http://yann.lecun.com/exdb/mnist/

    Arguments:
        contents: of the image file and of the label file.

    Shape: two files -> (N, 1, H, W) uint8, (N,) int64.

    Example:
        >>> header = np.array([2051, 1, 2, 3], ">i4").tobytes()
        >>> images, labels = decode_idx([header + bytes(6), bytes(8) + bytes([5])])
        >>> images.shape, labels
        ((1, 1, 2, 3), array([5]))
    """
    images, labels = contents
    n, height, width = np.frombuffer(images, ">i4", 3, offset=4).tolist()
    pixels = np.frombuffer(images, np.uint8, offset=16).reshape(n, 1, height, width)
    return pixels.copy(), np.frombuffer(labels, np.uint8, offset=8).astype(np.int64)


def _fetch_archive(scratch: Path, url: str, md5: str) -> None:
    # torchvision takes a second to import, which only a download is worth.
    from torchvision.datasets.utils import download_and_extract_archive

    download_and_extract_archive(url, str(scratch), md5=md5)


def _fetch_idx(scratch: Path, dataset: str) -> None:
    from torchvision import datasets

    {"MNIST": datasets.MNIST, "FashionMNIST": datasets.FashionMNIST}[dataset](
        str(scratch), download=True
    )


def _cifar(binary: Layout, python: Layout, size: int) -> Source:
    site = "https://www.cs.toronto.edu/~kriz/"
    fetch = partial(_fetch_archive, url=site + binary.archive, md5=binary.archive_md5)
    return Source((binary, python), site + "cifar.html", size, fetch)


def _idx(dataset: str, origin: str, size: int, digests: Sequence[str]) -> Source:
    kinds = ("images-idx3-ubyte", "labels-idx1-ubyte")
    train = {f"train-{kind}": digest for kind, digest in zip(kinds, digests[:2])}
    test = {f"t10k-{kind}": digest for kind, digest in zip(kinds, digests[2:])}
    layout = Layout(f"{dataset}/raw", train, test, decode_idx)
    return Source((layout,), origin, size, partial(_fetch_idx, dataset=dataset))


# CIFAR's archives: the checksums on its page; its files: as in torchvision (python version) and
# in Apache MXNet (binary version). IDX files: unpacked, as several independent loaders pin them.
SOURCES: dict[str, Source] = {
    "mnist": _idx(
        "MNIST",
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        11_594_722,
        (
            "6bbc9ace898e44ae57da46a324031adb",
            "a25bea736e30d166cdddb491f175f624",
            "2646ac647ad5339dbf082846283269ea",
            "27ae3e4e09519cfbb04c329615203637",
        ),
    ),
    "fashion_mnist": _idx(
        "FashionMNIST",
        "https://github.com/zalandoresearch/fashion-mnist",
        30_878_645,
        (
            "f4a8712d7a061bf5bd6d2ca38dc4d50a",
            "9018921c3c673c538a1fc5bad174d6f9",
            "8181f5470baa50b63fa0f6fddb340f0a",
            "15d484375f8d13e6eb1aabb0c3f46965",
        ),
    ),
    "cifar10": _cifar(
        Layout(
            "cifar-10-batches-bin",
            {
                "data_batch_1.bin": "aadd24acce27caa71bf4b10992e9e7b2d74c2540",
                "data_batch_2.bin": "c0ba65cce70568cd57b4e03e9ac8d2a5367c1795",
                "data_batch_3.bin": "1dd00a74ab1d17a6e7d73e185b69dbf31242f295",
                "data_batch_4.bin": "aab85764eb3584312d3c7f65fd2fd016e36a258e",
                "data_batch_5.bin": "26e2849e66a845b7f1e4614ae70f4889ae604628",
            },
            {"test_batch.bin": "67eb016db431130d61cd03c7ad570b013799c88c"},
            decode_binary,
            "cifar-10-binary.tar.gz",
            "c32a1d4ab5d03f1284b67883e8d87530",
        ),
        Layout(
            "cifar-10-batches-py",
            {
                "data_batch_1": "c99cafc152244af753f735de768cd75f",
                "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
                "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
                "data_batch_4": "634d18415352ddfa80567beed471001a",
                "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
            },
            {"test_batch": "40351d587109b95175f43aff81a1287e"},
            decode_pickle,
            "cifar-10-python.tar.gz",
            "c58f30108f718f92721af3b95e74349a",
        ),
        170_052_171,
    ),
    "cifar100": _cifar(
        Layout(
            "cifar-100-binary",
            {"train.bin": "e207cd2e05b73b1393c74c7f5e7bea451d63e08e"},
            {"test.bin": "8fb6623e830365ff53cf14adec797474f5478006"},
            partial(decode_binary, label_bytes=2),
            "cifar-100-binary.tar.gz",
            "03b5dce01913d631647c71ecec9e9cb8",
        ),
        Layout(
            "cifar-100-python",
            {"train": "16019d7e3df5f24257cddd939b257f8d"},
            {"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
            decode_pickle,
            "cifar-100-python.tar.gz",
            "eb9058c3a382ffc7106e4002c42a8d85",
        ),
        168_513_733,
    ),
}

#: The classes' names, in the order of the labels.
CLASSES: dict[str, tuple[str, ...]] = {
    "digits": tuple("0123456789"),
    "noisy_digits": tuple("0123456789"),
    "mnist": tuple("0123456789"),
    "fashion_mnist": (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
    "cifar10": tuple("airplane automobile bird cat deer dog frog horse ship truck".split()),
    "cifar100": tuple(
        """
        apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus
        butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach
        couch crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster
        house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree
        motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear
        pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket
        rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
        sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip
        turtle wardrobe whale willow_tree wolf woman worm
        """.split()
    ),
}
