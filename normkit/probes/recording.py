"""The context manager that measures a running model and changes nothing about the run."""

import difflib
from collections.abc import Iterable

import pandas as pd
from torch import Tensor, nn

from .measures import PROBES

__all__ = ["ACTIVATIONS", "LINEAR_MAPS", "Recording", "record"]

ACTIVATIONS = (nn.CELU, nn.ELU, nn.GELU, nn.Hardswish, nn.Hardtanh, nn.LeakyReLU, nn.Mish,
               nn.PReLU, nn.ReLU, nn.RReLU, nn.SELU, nn.SiLU, nn.Softplus, nn.Tanh)
LINEAR_MAPS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d,
               nn.ConvTranspose3d, nn.Linear)


def record(model: nn.Module, probes: str | Iterable[str], *,
           layers: str | Iterable[str] | None = None) -> "Recording":
    """Measure layers of a model while it runs, inside a `with` block.

    In plain words: every forward pass of the model is a step, and each layer that runs in it
    adds one row for each measure. Measures of activations are taken at the outputs of the
    activation modules (`ACTIVATIONS`), `gradient_norm` when a backward pass reaches the outputs of
    the convolutions and linear layers (`LINEAR_MAPS`), hence never without one. Outputs, gradients
    and random numbers stay what they are without probes, bit for bit; the hooks leave with the
    block, also after an error.

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
        rows = [row for row in self._rows if row[2] is not None]
        table = pd.DataFrame(rows, columns=["layer", "measure", "value", "step"])
        return table.astype({"value": float, "step": int})

    def _hook(self, name, measures):
        def hook(module, inputs, output):
            if not isinstance(output, Tensor):
                raise TypeError(f"layer {name!r} returns a {type(output).__name__}, and probes "
                                f"measure tensors; leave it out of layers=")
            self._ran.add(name)
            for measure in measures:
                if measure != "gradient_norm":
                    self._rows.append([name, measure, PROBES[measure](output), self.step])
                elif output.requires_grad:
                    self._await_gradient(name, output)
        return hook

    def _await_gradient(self, name, output):
        row = [name, "gradient_norm", None, self.step]
        self._rows.append(row)

        def fill(gradient):
            row[2] = PROBES["gradient_norm"](gradient)

        # A hook on the tensor, not on the module: it stands before an in-place ReLU.
        self._handles.append(output.register_hook(fill))

    def _count(self, module, inputs, output):
        self.step += 1


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
