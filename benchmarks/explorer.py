"""How long a control of the explorer takes to a redrawn picture, and whether memory grows.

    python benchmarks/explorer.py [--interactions 200]

Wall seconds from setting a control to the new picture's bytes, in this process, without a browser
(which adds about a tenth of a second): medians per panel and control, each value once new and
once cached, on a ResNet-18 for 32x32 images with random weights. Under 0.3 s is wanted where the
numbers are cached, under 1 s for a new layer. Memory: the process after 20 interactions and at
the end; growth under 5 % is wanted.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator

import ipywidgets
import psutil
import torch
from torch import nn
from torchvision.models import resnet18

from normkit import widgets
from normkit.papers.measured import hardware

PANELS = ("network", "layer", "activations", "equivalence", "robustness")


def seconds(panel: widgets.Panel, act: Callable[[], None]) -> float:
    """From a control's change to the picture that it asked for."""
    started = time.perf_counter()
    act()
    panel.wait()
    return time.perf_counter() - started


def values(control: ipywidgets.Widget, most: int = 6) -> list:
    """Some values of a control: its options, its next steps, or both states."""
    if isinstance(control, ipywidgets.Checkbox):
        return [True, False]
    if isinstance(control, ipywidgets.IntSlider):
        return list(range(control.min, control.max + 1, control.step))[:most]
    options = control.options if "options" in control.traits() else ()
    options = options.values() if isinstance(options, dict) else options
    return [one[1] if isinstance(one, tuple) else one for one in options][:most]


def turned(panel: widgets.Panel, rounds: int) -> Iterator[tuple[str, int, float]]:
    """Control, round and seconds of every value of every control that is not disabled."""
    for name, control in panel.controls.items():
        usual = control.value if "value" in control.traits() else None
        for number in range(rounds):
            for value in values(control):
                if not control.disabled and control.value != value:
                    yield name, number, seconds(panel, lambda: setattr(control, "value", value))
        if usual is not None and values(control):
            seconds(panel, lambda: setattr(control, "value", usual))


def layers(panel: widgets.Panel, model: nn.Module) -> None:
    """Every view of every convolution, new and cached."""
    names = [name for name, part in model.named_modules() if isinstance(part, nn.Conv2d)]
    control = panel.controls["layer"]
    for view in values(panel.controls["view"]):
        seconds(panel, lambda: setattr(panel.controls["view"], "value", view))
        new, cached = (
            [seconds(panel, lambda: setattr(control, "value", name)) for name in names]
            for _ in range(2)
        )
        middle = [statistics.median(times) for times in (new, cached)]
        print(f"layer, {view}: new {middle[0]:.2f} s, worst {max(new):.2f}; cached {middle[1]:.2f}")


def main() -> None:
    """Print the medians, then the memory."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--interactions", type=int, default=200, help="for the memory")
    chosen = parser.parse_args()
    print(hardware(1))
    torch.manual_seed(0)
    model = resnet18(num_classes=10).eval()
    started = time.perf_counter()
    explorer = widgets.explore(model, input_size=(3, 32, 32), panels=PANELS)
    explorer.panel.wait()
    print(f"explore(resnet18()) to the first picture: {time.perf_counter() - started:.2f} s")
    for name in PANELS:
        panel = explorer.panels[name]
        explorer.tabs.selected_index = PANELS.index(name)
        panel.wait()
        if name == "layer":
            layers(panel, model)
            continue
        times: dict[tuple[str, int], list[float]] = {}
        for control, number, took in turned(panel, 2):
            times.setdefault((control, number), []).append(took)
        for (control, number), took in times.items():
            again = ("new", "again")[number]
            print(f"{name}, {control} {again}: {statistics.median(took):.2f} s of {len(took)}")
    memory(explorer, chosen.interactions)


def memory(explorer: widgets.Explorer, interactions: int) -> None:
    """Turn one control of each panel again and again."""
    process, sizes = psutil.Process(), []
    names = {"network": "norm", "layer": "side", "robustness": "image", "equivalence": "cycles"}
    for number in range(interactions):
        name = list(names)[number % len(names)]
        explorer.tabs.selected_index = PANELS.index(name)
        panel = explorer.panels[name]
        control = panel.controls[names[name]]
        some = [value for value in values(control) if value != control.value]
        panel.wait()
        seconds(panel, lambda: setattr(control, "value", some[number % len(some)]))
        sizes.append(process.memory_info().rss / 2**20)
    first, last = sizes[min(20, len(sizes) - 1)], sizes[-1]
    print(f"memory: {first:.0f} MiB after 20, {last:.0f} after {interactions} interactions "
          f"({last / first - 1:+.1%})")  # fmt: skip


if __name__ == "__main__":
    main()
