"""Bytes that lie: what can become of a sound file, from a seed."""

import io
import json
import os
import pickle
import random
import re
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

__all__ = ["BOMB", "SPARSE", "mutate"]

BOMB = 1 << 31  # bytes that a bomb unpacks to, or says that it does
SPARSE = 320 << 20  # bytes of a file that is all hole
NUMBERS = (0, 1, 255, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63 - 1, 2**64 - 1)
ODD = (None, True, -1, 0, 1e308, 10**30, "", "../../x", "/etc/passwd", "\0", "\ud800", [], {})
ODD += ([[]], {"a": {}}, "x" * 5000, ["x"] * 50, float("nan"))


class Malice:
    """Unpickled, it leaves a trace."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (Path(self.trace),)


def flip(content, rng):
    changed = bytearray(content or b"\0")
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
        changed[_place(changed, rng)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def truncate(content, rng):
    return content[: rng.randrange(len(content) + 1)]


def append(content, rng):
    return content + rng.choice((rng.randbytes(rng.randrange(1, 99)), content, b"\0" * 512, b"}"))


def zero(content, rng):
    start, length = _place(content, rng), rng.choice((1, 4, 16, 64, 512))
    return content[:start] + b"\0" * length + content[start + length :]


def cut(content, rng):
    start = _place(content, rng)
    return content[:start] + content[start + rng.choice((1, 2, 8, 64)) :]


def repeat(content, rng):
    start, length = _place(content, rng), rng.choice((1, 8, 64, 512))
    return content[: start + length] + content[start:]


def length(content, rng):
    """Another number where a header may have one."""
    form = rng.choice("<>") + rng.choice("BHIQ")
    number = rng.choice(NUMBERS) % (1 << 8 * struct.calcsize(form))
    start = _place(content, rng)
    return content[:start] + struct.pack(form, number) + content[start + struct.calcsize(form) :]


def digits(content, rng):
    """Another number where there is one in words."""
    found = list(re.finditer(rb"-?\d+", content[:100_000]))
    if not found:
        return length(content, rng)
    start, end = rng.choice(found).span()
    number = rng.choice((*NUMBERS, -1, -(2**40), "1e999", "NaN", "9" * 5000))
    return content[:start] + str(number).encode() + content[end:]


def value(content, rng):
    """JSON, or a safetensors header, with something else in one place."""
    tail = b""
    try:
        if content[8:9] == b"{":
            end = 8 + int.from_bytes(content[:8], "little")
            tree, tail = json.loads(content[8:end]), content[end:]
        else:
            tree = json.loads(content)
    except ValueError:
        return flip(content, rng)
    tree = _replaced(tree, rng)
    text = json.dumps(tree).encode()
    return struct.pack("<Q", len(text)) + text + tail if content[8:9] == b"{" else text


def _replaced(tree, rng):
    if not isinstance(tree, dict | list) or not tree or rng.random() < 0.15:
        return rng.choice(ODD)
    place = rng.choice(list(tree) if isinstance(tree, dict) else range(len(tree)))
    if rng.random() < 0.15:
        del tree[place]
    elif isinstance(tree, dict) and rng.random() < 0.1:
        tree[rng.choice(("../x", "", "\0", "a.b"))] = tree.pop(place)
    else:
        tree[place] = _replaced(tree[place], rng)
    return tree


def _place(content, rng):
    """Anywhere, but oftener where headers and directories stand."""
    near = min(len(content), rng.choice((16, 300, len(content) or 1)))
    start = rng.randrange(near or 1)
    return start if rng.random() < 0.8 else max(0, len(content) - 1 - start)


def nested(content, rng):
    depth = rng.choice((200, 990, 5_000, 100_000))
    return rng.choice((b"[" * depth, b"[" * depth + b"]" * depth, b'{"a":' * depth))


def noise(content, rng):
    start = rng.choice((b"", b"PK\3\4", b"\x80\2", b"\x1f\x8b", b"{", b"PAR1", b"ustar"))
    return start + rng.randbytes(rng.choice((0, 3, 100, 5000)))


def malice(trace):
    def pickled(content, rng):
        """A pickle with a side effect, bare, or as torch.save keeps one."""
        bare = pickle.dumps({"w": Malice(trace)}, protocol=rng.choice((0, 2, 4)))
        if rng.random() < 0.5:
            return bare
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr("archive/data.pkl", bare)
            archive.writestr("archive/version", "3")
            archive.writestr("archive/byteorder", "little")
        return packed.getvalue()

    return pickled


def bomb(content, rng):
    """A gzip or zip that unpacks to 2 GiB, or a tar whose members are that large, or elsewhere."""
    kind = rng.choice(("gzip", "zip", "tar"))
    if kind == "gzip":
        return b"\x1f\x8b\x08" + bytes(7) + _zeros() + bytes(8)
    packed = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(packed, "w") as archive:
            for name in ("archive/data.pkl", "archive/data/0", "../../x"):
                archive.writestr(name, b"")
        return _claiming(packed.getvalue(), _zeros())
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name in ("../../x", "/tmp/x", "cifar-10-batches-bin/test_batch.bin"):
            member = tarfile.TarInfo(name)
            member.type = rng.choice((tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.GNUTYPE_SPARSE))
            member.linkname, member.size = "/etc/passwd", rng.choice((0, BOMB, 1 << 62))
            tar.fileobj.write(member.tobuf(tarfile.GNU_FORMAT))
    return packed.getvalue()


def _zeros():
    """Zeros, deflated: one block, which a full flush makes independent, many times."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(1 << 24)) + packer.flush(zlib.Z_FULL_FLUSH)
    return block * (BOMB >> 24) + packer.flush()


def _claiming(archive, packed):
    """The archive's one large member, as a directory says it is there three times."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as target:
        for info in zipfile.ZipFile(io.BytesIO(archive)).infolist():
            info.compress_type, info.file_size = zipfile.ZIP_DEFLATED, BOMB - 1
            info.compress_size, info.header_offset = len(packed), made.tell()
            info.CRC = 0
            made.write(info.FileHeader(zip64=False) + packed)
            target.filelist.append(info)
        target.start_dir, target._didModify = made.tell(), True
    return made.getvalue()


BYTES = (flip, flip, truncate, append, zero, cut, repeat, length, length, digits, digits, value)
BYTES += (value, value, value, nested, noise)


def mutate(path: Path, rng: random.Random, others: list[Path], trace: Path) -> str:
    """Make a file lie; the name of the way in which it does."""
    if rng.random() < 0.02:
        return _special(path, rng)
    changes = (*BYTES, malice(trace)) if rng.random() < 0.97 else (bomb,)
    change = rng.choice(changes)
    content = path.read_bytes()
    if rng.random() < 0.04:
        path.write_bytes(rng.choice(others).read_bytes())
        return "swap"
    path.write_bytes(change(content, rng))
    return change.__name__


def _special(path, rng):
    kind = rng.choice(("folder", "pipe", "link", "hole", "gone", "forbidden"))
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to(rng.choice(("/etc/passwd", "/dev/zero", str(path), "nowhere")))
    elif kind != "gone":
        with path.open("wb") as file:
            file.truncate(SPARSE if kind == "hole" else 9)
        path.chmod(0 if kind == "forbidden" else 0o600)
    return kind
