"""The tensors in a file, and what a store noted with them; nothing in the file is run."""

import io
import json
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

__all__ = ["CHECKPOINT", "read_tensors"]

CHECKPOINT = "give a .safetensors file or a state dict of torch.save"
NONE = "it is no checkpoint or damaged"
READER = "torch.load(weights_only=True)"
NOTED = ("config", "meta")  # in the metadata of a file that a store has written
ARCHIVED, PICKLED = b"PK", b"\x80"  # how what torch.save writes begins


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """The tensors of a .safetensors file or of a state dict of torch.save, by name.

    *In plain words:* what a file says is not believed. torch.save compresses nothing, so neither
    an archive nor its tensors may be larger than the file, and every member has a checksum.

    Arguments:
        path: of the file; another ending than .safetensors is read as torch.save's.

    Returns:
        the tensors, and the configuration and the rest that a store noted with them, or None.

    Raises:
        ValueError: no checkpoint, damaged, or not safe to read.
        OSError: a file that cannot be read.
    """
    if path.suffix == ".safetensors":
        weights, note = _safe(path)
    else:
        weights, note = _state_dict(path, _pickled(path)), None
    _check_size(path, weights)
    return weights, note


def _safe(path: Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    try:
        with safe_open(path, framework="pt") as file:
            weights = {name: file.get_tensor(name) for name in file.keys()}
            texts = file.metadata() or {}
        noted = {name: json.loads(texts[name]) for name in NOTED if name in texts}
    except Exception as error:  # the bytes may be anything, and so may the error
        says = f"safetensors does not read it ({type(error).__name__})"
        raise ValueError(f"{path} is refused: {says}, {NONE}; {CHECKPOINT}") from error
    return weights, noted if len(noted) == len(NOTED) else None


def _pickled(path: Path) -> Any:
    with path.open("rb") as file:
        start = file.read(2)
    if not start.startswith((ARCHIVED, PICKLED)):
        raise ValueError(f"{path} is refused: {READER} does not read it, {NONE}; {CHECKPOINT}")
    if start == ARCHIVED:
        _check_archive(path)
    # A bare pickle may ask for any number of bytes; memory gives no more than the file has.
    source = path if start == ARCHIVED else io.BytesIO(path.read_bytes())
    try:
        with warnings.catch_warnings(action="ignore"):
            return torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:  # as above
        says = f"{READER} does not read it ({type(error).__name__})"
        raise ValueError(
            f"{path} is refused: {says}, and anything else could run code from it; save its "
            "state dict with safetensors.torch.save_file"
        ) from error


def _state_dict(path: Path, loaded: Any) -> dict[str, Any]:
    """What lies in it, or in the usual places of it, under the names of the bare network."""
    for name in ("state_dict", "model_state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(name), dict):
            loaded = loaded[name]
    if not isinstance(loaded, dict) or not loaded:
        found = "nothing" if loaded == {} else f"a {type(loaded).__name__}"
        raise ValueError(f"{path} holds {found}, not a state dict")
    return {str(name).removeprefix("module."): value for name, value in loaded.items()}


def _check_archive(path: Path) -> None:
    """Whether it is what torch.save writes: not compressed, every member with its checksum."""
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
            larger = unpacked > path.stat().st_size
            damaged = None if larger else archive.testzip()
    except Exception as error:  # as above
        found = f"{type(error).__name__}: {error}"
        raise ValueError(f"{path} is refused: it is no sound archive ({found})") from error
    if larger:
        raise ValueError(f"{path} is refused: it unpacks to {unpacked:,} bytes, more than it has")
    if damaged is not None:
        raise ValueError(f"{path} is damaged: {damaged!r} in it differs from its checksum")


def _check_size(path: Path, weights: dict[str, Any]) -> None:
    """Shapes cost nothing to claim; a network of these shapes would have to be made."""
    tensors = {name: value for name, value in weights.items() if isinstance(value, Tensor)}
    for name, value in tensors.items():
        if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized:
            raise ValueError(f"{path} is refused: {name!r} is no plain tensor")
    claimed, size = sum(value.nbytes for value in tensors.values()), path.stat().st_size
    if claimed > size:
        raise ValueError(
            f"{path} is refused: its tensors would take {claimed:,} bytes, it has {size:,}"
        )
