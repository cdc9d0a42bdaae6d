"""The context manager that measures a running model and changes nothing about the run."""

import difflib
from collections import defaultdict
from collections.abc import Iterable

import pandas as pd
import torch
from torch import Tensor, nn

from normkit.models import Activation, Convolution

from .measures import PROBES, measured

__all__ = ["ACTIVATIONS", "LINEAR_MAPS", "Recording", "record"]

ACTIVATIONS = (Activation, nn.CELU, nn.ELU, nn.GELU, nn.Hardswish, nn.Hardtanh, nn.LeakyReLU,
               nn.Mish, nn.PReLU, nn.ReLU, nn.RReLU, nn.SELU, nn.SiLU, nn.Softplus, nn.Tanh)
LINEAR_MAPS = (Convolution, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d,
               nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear)
SMALL, AT_ONCE = 2**18, 64  # entries of an output that is copied, and how many such are held


def record(model: nn.Module, probes: str | Iterable[str], *,
           layers: str | Iterable[str] | None = None) -> "Recording":
    """Measure layers of a model while it runs, inside a `with` block.

    In plain words: every forward pass of the model is a step, and each layer that runs in it
    adds one row for each measure. Measures of activations are taken at the outputs of the
    activation modules (`ACTIVATIONS`), `gradient_norm` when a backward pass reaches the outputs of
    the convolutions and linear layers (`LINEAR_MAPS`), hence never without one. Outputs, gradients
    and random numbers stay what they are without probes, bit for bit; the hooks leave with the
    block, also after an error. On a CPU small outputs (up to 2^18 numbers) are copied, and
    measured when the pass ends: one after the other they cost less.

    Source: the measures are those of Lubana et al., 2021, https://arxiv.org/abs/2106.05956

    Arguments:
        model: any module.
        probes: names out of `PROBES`.
        layers: qualified names of modules, to be measured by all probes instead.

    Shape: outputs are (N, ...), channels in the second axis.

    Raises:
        ValueError: if a probe or a layer is unknown, or if a probe finds no layer.

    Example:
        A step of training, and what it looked like at each layer.

        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> with record(model, ["stable_rank", "gradient_norm"]) as recording:
        ...     model(torch.randn(16, 4)).square().sum().backward()
        >>> recording.table()[["layer", "measure", "step"]].values.tolist()
        [['0', 'gradient_norm', 0], ['1', 'stable_rank', 0], ['2', 'gradient_norm', 0]]
    """
    return Recording(model, _targets(model, _names(probes), layers))


class Recording:
    """What `record` returns: enter it to measure, ask `table()` for what was measured.

    `step` is the number of the next forward pass; it starts at 0, counts by itself and may be
    set, for instance to the step of a training run.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.ReLU())
        >>> with record(model, "activation_variance") as recording:
        ...     for recording.step in (0, 100):
        ...         _ = model(torch.tensor([[1.0], [3.0]]))
        >>> recording.table()
          layer              measure  value  step
        0     0  activation_variance    1.0     0
        1     0  activation_variance    1.0   100
    """

    def __init__(self, model: nn.Module, targets: dict[str, tuple[str, ...]]):
        self.step = 0
        self._model, self._targets = model, targets
        self._ran, self._rows, self._handles = set(), [], []
        self._copies, self._spare = [], defaultdict(list)  # of small outputs

    def __enter__(self) -> "Recording":
        for name, measures in self._targets.items():
            hook = self._hook(name, measures)
            self._handles.append(self._model.get_submodule(name).register_forward_hook(hook))
        self._handles.append(self._model.register_forward_hook(self._count))
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._spare.clear()

    def table(self) -> pd.DataFrame:
        """Return the rows so far, in the order in which the layers ran.

        In plain words: a layer that ran twice in a step has two rows; a gradient that a second
        backward pass reached again counts as the second pass left it.

        Returns:
            columns layer (qualified name), measure, value, step.

        Raises:
            RuntimeError: if a layer that was to be measured never ran.
        """
        silent = [name for name in self._targets if name not in self._ran]
        if silent:
            raise RuntimeError(f"these layers never ran while they were recorded: "
                               f"{', '.join(silent)}; run the model inside the with block, or "
                               f"name only layers that run in layers=")
        self._settle()
        rows = [row for row in self._rows if row[2] is not None]
        table = pd.DataFrame(rows, columns=["layer", "measure", "value", "step"])
        return table.astype({"value": float, "step": int})

    def _hook(self, name, measures):
        forward = set(measures) - {"gradient_norm"}

        def hook(module, inputs, output):
            if not isinstance(output, Tensor):
                raise TypeError(f"layer {name!r} returns a {type(output).__name__}, and probes "
                                f"measure tensors; leave it out of layers=")
            self._ran.add(name)
            rows = [[name, measure, None, self.step] for measure in measures]
            self._rows += rows
            if forward:
                self._take(output, [row for row in rows if row[1] != "gradient_norm"])
            if output.requires_grad and "gradient_norm" in measures:
                self._await_gradient(rows[measures.index("gradient_norm")], output)
        return hook

    def _await_gradient(self, row, output):
        def fill(gradient):
            row[2] = PROBES["gradient_norm"](gradient)

        # A hook on the tensor, not on the module: it stands before an in-place ReLU.
        self._handles.append(output.register_hook(fill))

    def _take(self, output, rows):
        if output.device.type == "cpu" and output.numel() <= SMALL:
            self._copies.append((self._copy(output), rows))
            if len(self._copies) == AT_ONCE:
                self._settle()
        else:
            _fill(output, rows)

    def _copy(self, output):
        """Copies into memory of an earlier step: pages fresh from the system cost more."""
        spare = self._spare[output.shape, output.dtype]
        if not spare:
            with torch.inference_mode(False):
                spare.append(torch.empty_like(output.detach()))
        return spare.pop().copy_(output.detach())

    def _count(self, module, inputs, output):
        self.step += 1
        self._settle()

    def _settle(self):
        copies, self._copies = self._copies, []
        for copy, rows in copies:
            _fill(copy, rows)
            self._spare[copy.shape, copy.dtype].append(copy)


def _fill(output, rows):
    for row, value in zip(rows, measured(output, [row[1] for row in rows]), strict=True):
        row[2] = value


def _names(names):
    return (names,) if isinstance(names, str) else tuple(dict.fromkeys(names))


def _known(argument, names, known):
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1, cutoff=0)[0]
            raise ValueError(f"{argument} must be among {', '.join(known)}; found {name!r}, "
                             f"nearest is {near!r}")


def _targets(model, measures, layers):
    """Return the measures to take at each layer, by name."""
    _known("probes", measures, tuple(PROBES))
    modules = dict(model.named_modules())
    if layers is not None:
        _known("layers", _names(layers), tuple(modules))
        return dict.fromkeys(_names(layers), measures)
    kinds = {m: LINEAR_MAPS if m == "gradient_norm" else ACTIVATIONS for m in measures}
    targets = {name: tuple(m for m in measures if isinstance(module, kinds[m]))
               for name, module in modules.items()}
    for measure in measures:
        if not any(measure in chosen for chosen in targets.values()):
            raise ValueError(f"probes: {measure} finds no layer in this model by itself; name "
                             f"modules in layers=")
    return {name: chosen for name, chosen in targets.items() if chosen}
