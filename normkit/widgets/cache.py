"""What was computed once is kept: by weights, layer and input size, up to a number of results."""

import zlib
from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Any

import torch
from torch import nn

__all__ = ["Cache", "weights_key"]


class Cache:
    """The newest results, found by key; the one not asked for longest goes first.

    Example:
        >>> cache = Cache(size=1)
        >>> [cache.get("a", lambda: 1), cache.get("a", lambda: 2), cache.get("b", lambda: 3)]
        [1, 1, 3]
        >>> cache.get("a", lambda: 4)
        4
    """

    def __init__(self, size: int) -> None:
        self._size, self._lock = size, Lock()
        self._kept: OrderedDict[Hashable, Any] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """The result kept under the key, else what `make` gives, which is kept."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        made = make()
        with self._lock:
            self._kept[key] = made
            while len(self._kept) > self._size:
                self._kept.popitem(last=False)
        return made


def weights_key(module: nn.Module) -> Hashable:
    """A short key of a module's classes, parameters and buffers, which changes when one does.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> before = weights_key(layer)
        >>> layer.weight.data.mul_(2) is not None and weights_key(layer) != before
        True
    """
    parts = [repr(module), *(type(part) for part in module.modules())]
    for name, value in (*module.named_parameters(), *module.named_buffers()):
        data = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        parts.append((name, tuple(value.shape), zlib.crc32(data)))
    return tuple(parts)
