"""Which channels must share one scale, and which must keep theirs."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

__all__ = ["ENDS", "Shape", "Units", "Use"]

ENDS = ("is the network's input", "is the network's output")


@dataclass(frozen=True)
class Shape:
    """How a tensor's first axes are channels.

    Arguments:
        kind: "matrix" (an axis of outputs and one of inputs), "diagonal" (one entry a channel,
            counted as a weight) or "bias" (one entry a channel, which follows the others).
        groups: of a grouped convolution.
        transposed: inputs come first.
    """

    kind: str
    groups: int = 1
    transposed: bool = False


@dataclass
class Use:
    """A parameter, its qualified names, and the channels along its two sides."""

    parameter: Tensor
    shape: Shape
    rows: np.ndarray
    columns: np.ndarray | None
    names: list[str] = field(default_factory=list)


class Units:
    """Numbers one scale for each channel of each signal, and keeps which must be equal.

    *In plain words:* every layer that writes a signal gets fresh numbers for its output channels;
    a sum joins the numbers of its terms, a weight that is used twice those of both places, and
    whatever does not commute with positive scales fixes the numbers that it reads.

    Example:
        >>> units = Units()
        >>> first, second = units.new(2), units.new(2)
        >>> units.join(first, second)
        >>> units.fix(second[1:], "feeds a GELU")
        >>> classes, reasons = units.classes()
        >>> classes.tolist(), reasons
        ([0, 1, 0, 1], {1: 'feeds a GELU'})
    """

    def __init__(self) -> None:
        self._count = 0
        self._joined: list[tuple[np.ndarray, np.ndarray]] = []
        self._fixed: list[tuple[np.ndarray, str]] = []
        self.uses: dict[int, Use] = {}

    def new(self, count: int) -> np.ndarray:
        """Fresh numbers."""
        self._count += count
        return np.arange(self._count - count, self._count)

    def join(self, first: np.ndarray, second: np.ndarray) -> None:
        """Let channels share a scale, pair by pair."""
        self._joined.append((first, second))

    def fix(self, numbers: np.ndarray, reason: str) -> None:
        """Let channels keep their scale; of several reasons the first one is told."""
        self._fixed.append((numbers, reason))

    def use(
        self,
        name: str,
        parameter: Tensor,
        shape: Shape,
        rows: np.ndarray,
        columns: np.ndarray | None = None,
    ) -> None:
        """Note that a parameter has these channels; a second use must scale it alike."""
        known = self.uses.setdefault(id(parameter), Use(parameter, shape, rows, columns))
        if name not in known.names:
            known.names.append(name)
        if known.rows is rows:
            return
        sides = [(known.rows, rows), (known.columns, columns)]
        pairs = [pair for pair in sides if pair[0] is not None and pair[1] is not None]
        if known.shape == shape and all(len(a) == len(b) for a, b in pairs):
            for pair in pairs:
                self.join(*pair)
            return
        reason = f"shared by {' and '.join(map(repr, known.names))}, whose scales conflict"
        for pair in pairs:
            for side in pair:
                self.fix(side, reason)

    def fix_parameter(self, parameter: Tensor, reason: str) -> None:
        """Let a parameter keep its scale along both sides, where it has any."""
        use = self.uses.get(id(parameter))
        for side in (use.rows, use.columns) if use else ():
            if side is not None:
                self.fix(side, reason)

    def classes(self) -> tuple[np.ndarray, dict[int, str]]:
        """The class of each number, and why a class is fixed, for those that are."""
        pairs: Sequence[np.ndarray] = [np.concatenate(side) for side in zip(*self._joined)] or (
            np.zeros(0, dtype=int),
            np.zeros(0, dtype=int),
        )
        edges = coo_array((np.ones(len(pairs[0]), bool), tuple(pairs)), shape=(self._count,) * 2)
        classes = connected_components(edges, directed=False)[1]
        reasons: dict[int, str] = {}
        for numbers, reason in self._fixed:
            for found in np.unique(classes[numbers]).tolist():
                if reasons.get(found) in (None, *ENDS):
                    reasons[found] = reason
        return classes, reasons
