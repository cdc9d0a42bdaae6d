"""Every official layout gives the same arrays, and no unverified byte is decoded."""

import hashlib
import io
import pickle
import tarfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torchvision import datasets

from normkit import data
from normkit.data import files, sources

LAYOUTS = [(name, i) for name in ("cifar10", "cifar100") for i in (0, 1)]


def digest(content, like):
    return hashlib.new({32: "md5", 40: "sha1"}[len(like)], content).hexdigest()


def small_cifar(name):
    """Arrays per file, by (split, position): the same for both versions."""
    rng, per_file = np.random.default_rng(0), 3
    count = {"cifar10": 6, "cifar100": 2}[name]
    images = rng.integers(0, 256, (count, per_file, 3, 32, 32), dtype=np.uint8)
    labels = rng.integers(0, len(sources.CLASSES[name]), (count, per_file))
    return images, labels


def encode(name, layout_index, images, labels):
    pixels = images.reshape(-1, 3072)
    if layout_index == 0:
        coarse = [labels[:, None] // 5] if name == "cifar100" else []
        return np.concatenate([*coarse, labels[:, None], pixels], 1).astype(np.uint8).tobytes()
    key = "fine_labels" if name == "cifar100" else "labels"
    return pickle.dumps({"data": pixels, key: labels.tolist(), "coarse_labels": None}, protocol=2)


def write(root, name, layout_index):
    """Write the small data set as a folder; returns its source, expecting what was written."""
    layout = sources.SOURCES[name].layouts[layout_index]
    (root / layout.folder).mkdir(parents=True)
    checksums = {}
    for file, images, labels in zip([*layout.train, *layout.test], *small_cifar(name)):
        content = encode(name, layout_index, images, labels)
        (root / layout.folder / file).write_bytes(content)
        checksums[file] = digest(content, {**layout.train, **layout.test}[file])
    layout = replace(
        layout,
        train={file: checksums[file] for file in layout.train},
        test={file: checksums[file] for file in layout.test},
    )
    return replace(sources.SOURCES[name], layouts=(layout,))


def pack(root, source, extra=()):
    """Replace the folder by its tar.gz, to which further members may be added."""
    layout = source.layouts[0]
    with tarfile.open(root / layout.archive, "w:gz") as tar:
        for member, content in extra:
            tar.addfile(member, io.BytesIO(content))
        for path in sorted((root / layout.folder).iterdir()):
            tar.add(path, f"{layout.folder}/{path.name}")
            path.unlink()
    (root / layout.folder).rmdir()
    md5 = digest((root / layout.archive).read_bytes(), "0" * 32)
    return replace(source, layouts=(replace(layout, archive_md5=md5),))


def as_dataset(name, splits):
    tensors = [torch.from_numpy(array) for split in splits for array in split]
    return data.Dataset(*tensors, classes=sources.CLASSES[name], name=name)


@pytest.mark.parametrize("name, layout_index", LAYOUTS)
@pytest.mark.parametrize("archived", [False, True])
def test_every_layout_gives_the_written_arrays_and_one_fingerprint(
    tmp_path, name, layout_index, archived
):
    source = write(tmp_path, name, layout_index)
    source = pack(tmp_path, source) if archived else source
    found = as_dataset(name, files.read(name, source, tmp_path, download=False))
    images, labels = map(torch.from_numpy, small_cifar(name))
    truth = data.Dataset(
        images[:-1].flatten(0, 1), labels[:-1].flatten(), images[-1], labels[-1], found.classes
    )
    for tensor in ("train_images", "train_labels", "test_images", "test_labels"):
        assert torch.equal(getattr(found, tensor), getattr(truth, tensor)), tensor
    assert found.fingerprint() == truth.fingerprint()


@pytest.mark.parametrize("name, reader", [("cifar10", "CIFAR10"), ("cifar100", "CIFAR100")])
def test_the_python_layout_is_read_as_torchvision_reads_it(tmp_path, name, reader):
    source = write(tmp_path, name, 1)
    official = getattr(datasets, reader)
    names = pickle.dumps({official.meta["key"]: list(sources.CLASSES[name])})
    (tmp_path / official.base_folder / official.meta["filename"]).write_bytes(names)

    class Small(official):
        train_list = list(source.layouts[0].train.items())
        test_list = list(source.layouts[0].test.items())
        meta = {**official.meta, "md5": digest(names, "0" * 32)}

    splits = files.read(name, source, tmp_path, download=False)
    for train, (images, labels) in zip((True, False), splits):
        oracle = Small(str(tmp_path), train=train)
        assert np.array_equal(images.transpose(0, 2, 3, 1), oracle.data)
        assert labels.tolist() == oracle.targets


@pytest.mark.parametrize("name, layout_index", LAYOUTS)
@pytest.mark.parametrize("damage", [lambda c: c[:-1], lambda c: c[::-1], lambda c: b""])
def test_a_damaged_file_is_named_with_what_was_found_and_expected(
    tmp_path, name, layout_index, damage
):
    source = write(tmp_path, name, layout_index)
    (file, expected), *_ = source.layouts[0].test.items()
    path = tmp_path / source.layouts[0].folder / file
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError) as caught:
        files.read(name, source, tmp_path, download=False)
    found = digest(path.read_bytes(), expected)
    for part in (str(path), found, expected, f"{path.stat().st_size:,} bytes", "delete it"):
        assert part in str(caught.value), part


def test_an_incomplete_folder_is_an_error_that_names_the_missing_file(tmp_path):
    source = write(tmp_path, "cifar10", 0)
    (tmp_path / "cifar-10-batches-bin" / "data_batch_3.bin").unlink()
    with pytest.raises(FileNotFoundError, match="incomplete: it has no data_batch_3.bin"):
        files.read("cifar10", source, tmp_path, download=False)


class Malice:
    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("where", ["folder", "archive", "member"])
def test_a_pickle_with_the_wrong_checksum_is_never_unpickled(tmp_path, where):
    trace = tmp_path / "executed"
    source = write(tmp_path, "cifar10", 1)
    malicious = pickle.dumps(Malice(trace))
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(malicious)
    if where != "folder":
        packed = pack(tmp_path, source)
        source = packed if where == "member" else source
    with pytest.raises(ValueError, match="is damaged or another file"):
        files.read("cifar10", source, tmp_path, download=False)
    assert not trace.exists()
    pickle.loads(malicious)
    assert trace.exists(), "the pickle was harmless, so the test shows nothing"


def test_an_archive_writes_nothing_wherever_its_members_point(tmp_path):
    root = tmp_path / "root"
    source = write(root, "cifar10", 0)
    extra = []
    for name in ("../evil", str(tmp_path / "evil"), "cifar-10-batches-bin/../../evil"):
        member = tarfile.TarInfo(name)
        member.size = 4
        extra.append((member, b"evil"))
    source = pack(root, source, extra)
    files.read("cifar10", source, root, download=False)
    assert [path.name for path in tmp_path.rglob("*")] == ["root", "cifar-10-binary.tar.gz"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_a_link_in_an_archive_is_not_followed(tmp_path, kind):
    root = tmp_path / "root"
    source = write(root, "cifar10", 0)
    target = root / "cifar-10-batches-bin" / "test_batch.bin"
    target.rename(tmp_path / "outside")
    link = tarfile.TarInfo("cifar-10-batches-bin/test_batch.bin")
    link.type, link.linkname = kind, "../../outside"
    source = pack(root, source, [(link, b"")])
    with pytest.raises(ValueError, match="holds no file cifar-10-batches-bin/test_batch.bin"):
        files.read("cifar10", source, root, download=False)


@pytest.mark.parametrize("name", sources.SOURCES)
def test_offline_one_sentence_says_which_file_goes_where(tmp_path, name):
    with pytest.raises(FileNotFoundError) as caught:
        data.load(name, root=tmp_path, download=False)
    layout = sources.SOURCES[name].layouts[0]
    asked = layout.archive or next(iter(layout.train))
    for part in (name, asked, str(tmp_path), "NORMKIT_DATA", '"digits" needs no file'):
        assert part in str(caught.value), part
    assert "\n" not in str(caught.value) and list(tmp_path.iterdir()) == []


def torchvision_finds_nothing(tmp_path):
    url = (tmp_path / "no such archive.tar.gz").as_uri()
    return partial(sources._fetch_archive, url=url, md5="0" * 32)


def breaks_halfway(scratch):
    (scratch / "cifar-10-batches-bin").mkdir()
    (scratch / "cifar-10-batches-bin" / "data_batch_1.bin").write_bytes(b"half")
    raise ConnectionResetError("connection\nreset")


@pytest.mark.parametrize(
    "fetch, cause",
    [(torchvision_finds_nothing, URLError), (lambda _: breaks_halfway, ConnectionResetError)],
)
def test_a_failed_download_is_the_same_sentence_chained_and_leaves_nothing(tmp_path, fetch, cause):
    source = replace(sources.SOURCES["cifar10"], fetch=fetch(tmp_path))
    with pytest.raises(FileNotFoundError, match="could not be downloaded .*digits") as caught:
        files.read("cifar10", source, tmp_path / "root", download=True)
    assert isinstance(caught.value.__cause__, cause) and "\n" not in str(caught.value)
    assert list((tmp_path / "root").iterdir()) == []


def test_a_download_is_announced_arrives_whole_and_is_not_repeated(tmp_path, capsys):
    calls = []

    def fetch(scratch):
        calls.append(write(scratch, "cifar10", 0))

    source = replace(write(tmp_path / "elsewhere", "cifar10", 0), fetch=fetch)
    for _ in range(2):
        (images, _), _ = files.read("cifar10", source, tmp_path / "root", download=True)
        assert np.array_equal(images, np.concatenate(small_cifar("cifar10")[0][:-1]))
    captured = capsys.readouterr()
    assert len(calls) == 1 and captured.out == ""
    assert "downloading cifar10 (170 MB, from https://" in captured.err
    assert [path.name for path in (tmp_path / "root").iterdir()] == ["cifar-10-batches-bin"]
