"""Finds, verifies and downloads the files of a data set; nothing unverified is decoded."""

import hashlib
import http.client
import io
import os
import sys
import tarfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

import numpy as np

__all__ = ["Layout", "Source", "find", "read"]

#: A decoder takes the contents of a split's files and returns images (N, C, H, W) and labels (N,).
Arrays = tuple[np.ndarray, np.ndarray]
Decoder = Callable[[Sequence[bytes]], Arrays]

LIMIT = 1 << 28  # bytes; the largest official file has 170 million


@dataclass(frozen=True)
class Layout:
    """One official form of a data set: a folder of files, and perhaps the archive of that folder.

    Arguments:
        folder: the folder's path below the root.
        train: the training files' names and published checksums, hexadecimal MD5 or SHA-1.
        test: the same of the test files.
        decode: what turns the contents of one split's files into images and labels.
        archive: the tar.gz's name, "" where there is none.
        archive_md5: its published MD5.

    Example:
        >>> Layout("d", {"train.bin": "0" * 32}, {"test.bin": "1" * 32}, decode=None).archive
        ''
    """

    folder: str
    train: Mapping[str, str]
    test: Mapping[str, str]
    decode: Decoder
    archive: str = ""
    archive_md5: str = ""


@dataclass(frozen=True)
class Source:
    """Where a data set comes from.

    Arguments:
        layouts: its official forms, the one to prefer (and the one downloaded) first.
        origin: the page a person gets it from.
        size: of the download, in bytes.
        fetch: puts the first layout's folder into the folder it is given.

    Example:
        >>> Source((), "https://example.org", 1_000_000, fetch=print).size
        1000000
    """

    layouts: tuple[Layout, ...]
    origin: str
    size: int
    fetch: Callable[[Path], None]

    def advice(self, root: Path) -> str:
        """Which file goes where, as half a sentence."""
        layout = self.layouts[0]
        if layout.archive:
            what = f"{layout.archive} (or its unpacked folder {layout.folder}) into {root}"
        else:
            files = ", ".join([*layout.train, *layout.test])
            what = f"{files} (unpacked) into {root / layout.folder}"
        return (
            f"get it from {self.origin} and put {what}, or set NORMKIT_DATA to the folder "
            'that has it; the data set "digits" needs no file'
        )


def find(source: Source, root: Path) -> tuple[Layout, Path] | None:
    """The first layout of which the root holds the folder or the archive, and that path.

    Arguments:
        source: the data set.
        root: the folder to look in.

    Example:
        >>> find(Source((Layout("d", {}, {}, None, "d.tar.gz"),), "", 0, print), Path("nowhere"))
    """
    for layout in source.layouts:
        if (root / layout.folder).is_dir():
            return layout, root / layout.folder
    for layout in source.layouts:
        if layout.archive and (root / layout.archive).is_file():
            return layout, root / layout.archive
    return None


def read(name: str, source: Source, root: Path, *, download: bool) -> tuple[Arrays, Arrays]:
    """The training and the test arrays, from files whose checksums matched.

    In plain words: every file is read once, its checksum is compared with the published one, and
    the very bytes that were compared are decoded. An archive is read in memory, never unpacked.

    Arguments:
        name: of the data set, for messages.
        source: its layouts, with the checksums to expect.
        root: the folder to look in, and to download into.
        download: whether to, when nothing is found.

    Raises:
        FileNotFoundError: nothing is there and nothing could be downloaded, or a file is missing.
        ValueError: a file is not the official one.
    """
    found = find(source, root)
    if found is None:
        if not download:
            raise FileNotFoundError(f"{name} is not in {root}: {source.advice(root)}")
        _download(name, source, root)
        found = source.layouts[0], root / source.layouts[0].folder
    layout, path = found
    contents = (_from_folder if path.is_dir() else _from_archive)(layout, path, source.origin)
    splits = ([contents.pop(file) for file in files] for files in (layout.train, layout.test))
    try:
        return tuple(layout.decode(split) for split in splits)
    except ValueError as error:
        raise ValueError(f"{path} cannot be decoded ({error})") from error


def _download(name: str, source: Source, root: Path) -> None:
    """Fetch into a scratch folder beside the target, so that the target appears whole or not."""
    size = f"{source.size / 1e6:.0f} MB"
    print(f"downloading {name} ({size}, from {source.origin}) into {root}", file=sys.stderr)
    target = root / source.layouts[0].folder
    try:
        root.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=root, prefix=".download-") as scratch:
            source.fetch(Path(scratch))
            target.parent.mkdir(exist_ok=True)
            try:
                os.replace(Path(scratch) / source.layouts[0].folder, target)
            except OSError:
                if not target.is_dir():  # else another process was faster
                    raise
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        failure = f"could not be downloaded ({' '.join(str(error).split())})"
        raise FileNotFoundError(
            f"{name} is not in {root} and {failure}: {source.advice(root)}"
        ) from error


def _verified(file: BinaryIO, size: int, digest: str, where: str, origin: str) -> bytes:
    """The content of a file, if its checksum is the published one."""
    if size > LIMIT:
        raise ValueError(
            f"{where} is another file: it has {size:,} bytes, the official ones at most "
            f"{LIMIT:,}; delete it, then load again or get it from {origin}"
        )
    content = file.read(size)
    algorithm = {32: "md5", 40: "sha1"}[len(digest)]
    found = hashlib.new(algorithm, content, usedforsecurity=False).hexdigest()
    if found != digest:
        raise ValueError(
            f"{where} is damaged or another file: {algorithm.upper()} {found} in {len(content):,} "
            f"bytes, expected {digest}; delete it, then load again or get it from {origin}"
        )
    return content


def _from_folder(layout: Layout, folder: Path, origin: str) -> dict[str, bytes]:
    """The verified contents of a folder's files."""
    digests = {**layout.train, **layout.test}
    for file in digests:
        if not (folder / file).is_file():
            raise FileNotFoundError(
                f"{folder} is incomplete: it has no {file}; "
                f"delete the folder, then load again or get it from {origin}"
            )
    return {file: _whole(folder / file, digest, origin) for file, digest in digests.items()}


def _whole(path: Path, digest: str, origin: str) -> bytes:
    with path.open("rb") as file:
        return _verified(file, path.stat().st_size, digest, str(path), origin)


def _from_archive(layout: Layout, path: Path, origin: str) -> dict[str, bytes]:
    """The verified contents of an archive's regular files of the expected names, in one pass."""
    archive = _whole(path, layout.archive_md5, origin)
    digests = {f"{layout.folder}/{k}": (k, v) for k, v in {**layout.train, **layout.test}.items()}
    contents = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r|gz") as tar:
            for member in tar:
                if not 0 <= member.size <= LIMIT:
                    raise tarfile.TarError(f"{member.name} claims {member.size:,} bytes")
                if member.isreg() and member.name in digests:
                    file, digest = digests[member.name]
                    where, unpacked = f"{path}: {member.name}", tar.extractfile(member)
                    contents[file] = _verified(unpacked, member.size, digest, where, origin)
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is no sound archive ({error}): get it from {origin}") from error
    for member_name, (file, _) in digests.items():
        if file not in contents:
            raise ValueError(f"{path} holds no file {member_name}: get it from {origin}")
    return contents
