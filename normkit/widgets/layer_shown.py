"""What the panel of a layer shows in each of its views: table, picture, words and code."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from torch import nn

from normkit.layers import ConvNorm2d
from normkit.plots import explorer_layer, explorer_taps

from . import layer_views as views
from .cache import Cache
from .layer_norms import kind_of, measured, shape_of
from .panel import Shown
from .work import Ticket

__all__ = ["NORM_TITLES", "SHOW", "VIEWS", "Asked", "refusal"]

VIEWS = (
    "singular values by frequency", "singular values sorted", "channels", "kernels", "input size"
)  # fmt: skip
FREQUENCY, SORTED, CHANNELS, KERNELS, GROWTH = VIEWS
CACHE = Cache(size=256)
NORM_TITLES = {"l1": "l1 norm", "linf": "linf norm", "spectral": "spectral norm",
               "frobenius": "Frobenius norm", "stable_rank": "stable rank"}  # fmt: skip


class Asked(NamedTuple):
    """A layer, what it is called, its own input shape, the one asked for, and for what."""

    name: str
    layer: nn.Module
    key: tuple
    own: tuple[int, ...]
    size: tuple[int, ...]
    side: int
    norm: str
    ticket: Ticket

    @property
    def title(self) -> str:
        """Name, class, shape and map, for over a picture."""
        where = f" on {'x'.join(map(str, self.size))}" if self.size else ""
        return f"{self.name or 'the network'}: {shape_of(self.layer)}{where}"

    def kept(self, what: str, make: Any) -> Any:
        """What was made for these weights and this size before, else made now."""
        return CACHE.get((what, self.key, self.size), make)


def refusal(view: str, layer: nn.Module, own: tuple[int, ...]) -> str:
    """Why a view does not apply to a layer; empty if it does.

    Example:
        >>> refusal("kernels", nn.BatchNorm1d(2), ()), refusal("channels", nn.Linear(2, 2), ())
        ('a BatchNorm1d has one number per channel and no kernels', '')
    """
    kind, name = kind_of(layer), type(layer).__name__
    if view == KERNELS and kind == "batch_norm":
        return f"a {name} has one number per channel and no kernels"
    if view == KERNELS and kind == "other":
        return f"the kernels of a {name} are not known"
    if view == FREQUENCY and kind in ("linear", "batch_norm"):
        return f"a {name} treats no frequency unlike another"
    if view == FREQUENCY and len(own) not in (1, 2):
        return f"the frequencies of a {name} have {len(own)} axes and not 1 or 2"
    if view == GROWTH and kind in ("linear", "batch_norm"):
        return f"the matrix of a {name} does not change with the size of a map"
    return ""


def _get(asked: Asked) -> str:
    return f"model.get_submodule({asked.name!r})"


def _own(call: str) -> str:
    return f"from normkit.widgets import layer_views; layer_views.{call}"


def _frequencies(asked: Asked) -> Shown:
    table = asked.kept(
        "frequencies", lambda: views.frequencies(asked.layer, asked.size, asked.ticket.each)
    )
    top = table.loc[table["value"].idxmax()]
    place = ", ".join(f"{top[name]:+.3g}" for name in table.columns[:-1])
    few = " A map this small has one frequency only; a larger input size has more."
    words = (
        f"{asked.title}: of {len(table)} frequencies the wave at ({place}) cycles per output "
        f"pixel is amplified most, by {top['value']:.4g}; the least amplified by at most "
        f"{table['value'].min():.4g}." + few * (len(table) == 1)
    )
    code = f"from normkit import norms; norms.singular_values({_get(asked)}, {asked.size})[:, 0]"
    figure = explorer_layer.frequencies(table, title=asked.title)
    return Shown(figure, table, words, code)


def _values(asked: Asked) -> Shown:
    layer, size = asked.layer, asked.size
    table = asked.kept("values", lambda: views.values(layer, size, asked.ticket.each))
    asked.ticket.check()
    value, low, high, status = measured(asked.key, layer, size, "spectral", "zero")
    known, root = math.isfinite(value), isinstance(layer, ConvNorm2d)
    mine = table[table["curve"] == "layer"]["value"]
    torus = " on the torus" if size else ""
    executed = f"as executed between {low:.4g} and {high:.4g}"
    executed = executed if known else f"no bracket: {status}"
    words = (
        f"{asked.title}: singular values{torus} from {mine.max():.4g} down to "
        f"{mine.min():.4g} ({table['which'].iloc[0]}); the spectral norm {executed}."
    )
    if root:
        core = table.loc[table["curve"] == "core", "value"].max()
        bound = layer.out_channels**0.5
        words += f" Before filter and BatchNorm the largest is {core:.4g}, at most {bound:.4g}."
    part = ".flatten()" if table["which"].iloc[0] == "all" else "[:, 0]"
    code = f"from normkit import norms; norms.singular_values({_get(asked)}, {size}){part}"
    figure = explorer_layer.values(
        table, title=asked.title, root=layer.out_channels if root else 0,
        bracket=(low, high) if known else None,
    )  # fmt: skip
    return Shown(figure, table, words, code + ".sort(descending=True).values")


def _channels(asked: Asked) -> Shown:
    layer, size = asked.layer, asked.size
    table = asked.kept("channels", lambda: views.channels(layer, size))
    parts = {state: part for state, part in table.groupby("state")}
    before, after = parts["before"], parts.get("after")
    blind = int((before["condition"] == math.inf).sum())
    words = (
        f"{asked.title}: the {len(before)} output channels, each alone, have norms from "
        f"{before['norm'].min():.4g} to {before['norm'].max():.4g} and condition numbers of "
        f"{before['condition'].median():.4g} in the median"
    )
    words += f", {blind} of them infinite" * (blind > 0)
    if after is None:
        words += "; ConvNorm is made of 2-D convolutions only, so there is no after."
    else:
        off = (after["condition"] - 1).abs().max()
        how = "after" if isinstance(layer, ConvNorm2d) else "as a ConvNorm"
        words += f"; {how} all condition numbers are 1 to within {off:.1e}."
    note = "" if after is None else "Stride 1, on the torus of side H + k - 1 that is ConvNorm's."
    figure = explorer_taps.channels(table, title=asked.title, note=note)
    return Shown(figure, table, words, _own(f"channels({_get(asked)}, {size})"))


def _kernels(asked: Asked) -> Shown:
    layer = asked.layer
    table = asked.kept("kernels", lambda: views.kernels(layer))
    rows, columns = (int(table[name].max()) + 1 for name in ("output", "input"))
    outputs, inputs = views.kernels_of(layer)
    matrix = kind_of(layer) == "linear"
    words = (
        f"{asked.name or 'the network'}: {shape_of(layer)}: "
        f"{'the entries' if matrix else 'the kernels'} of the first {rows} of {outputs} output "
        f"channels and the first {columns} of {inputs} inputs; weights from "
        f"{table['value'].min():.3g} to {table['value'].max():.3g}."
    )
    title = f"{asked.name or 'the network'}: {shape_of(layer)}"
    note = f"First {rows} of {outputs} outputs, first {columns} of {inputs} inputs."
    figure = explorer_taps.kernels(table, title=title, note=note)
    return Shown(figure, table, words, _own(f"kernels({_get(asked)})"))


def _growth(asked: Asked) -> Shown:
    layer, norm = asked.layer, asked.norm

    kept = partial(measured, asked.key)
    table = views.growth(layer, asked.own, norm, asked.side, kept, asked.ticket.each)
    known = table[table["value"].notna()]
    if known.empty:
        raise ValueError(table["status"].iloc[-1])
    first, last = known.iloc[0], known.iloc[-1]
    border = "on its own torus" if isinstance(layer, ConvNorm2d) else "as executed"
    title = f"{asked.name or 'the network'}: {shape_of(layer)}"
    words = (
        f"{title}, {border}: its {NORM_TITLES[norm]} "
        f"goes from {first['value']:.4g} on {first['size']} "
        f"to {last['value']:.4g} on {last['size']}"
    )
    here = table[table["chosen"]].iloc[0]
    words += f"; on {here['size']} " + (
        f"it is {here['value']:.4g}." if here["status"] == "ok" else f"{here['status']}."
    )
    lost = table[(table["status"] != "ok") & ~table["chosen"]]
    if len(lost):
        words += f" On {lost['size'].iloc[0]}: {lost['status'].iloc[0]}."
    figure = explorer_layer.growth(table, norm, title=title)
    code = _own(f"growth({_get(asked)}, {asked.own}, {norm!r}, {asked.side})")
    return Shown(figure, table, words, code)


SHOW: dict[str, Callable[[Asked], Shown]] = {
    FREQUENCY: _frequencies,
    SORTED: _values,
    CHANNELS: _channels,
    KERNELS: _kernels,
    GROWTH: _growth,
}
