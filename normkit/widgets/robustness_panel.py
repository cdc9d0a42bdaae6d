"""The explorer's panel of robustness: an image under attack, and what networks take it for."""

from collections.abc import Hashable
from typing import Any

import ipywidgets
import numpy as np
from torch import Tensor

from normkit.networks import Network
from normkit.plots.explorer_robustness import robustness

from .attacked import ATTACKS, COUNT, Seen, predictions
from .cache import Cache, weights_key
from .panel import Panel, Shown
from .session import Session
from .work import Ticket

__all__ = ["RobustnessPanel"]

TITLES = {key: title for title, key in ATTACKS.items()}


class RobustnessPanel(Panel):
    """An attack on one image, and the probabilities of its classes in one network or two.

    Arguments:
        session: whose first network is attacked; the second one is shown beside it.
    """

    def __init__(self, session: Session) -> None:
        self.session, self._cache = session, Cache(128)
        wide = {"width": "26em"}
        controls = {
            "attack": ipywidgets.Dropdown(
                options=ATTACKS, value="pgd", description="Attack",
                tooltip="FGSM is one step, PGD twenty, APGD twenty with steps of its own length",
            ),
            "epsilon": ipywidgets.SelectionSlider(
                options=_radii(session.first)[0], value=_radii(session.first)[1],
                description="epsilon", layout=wide, continuous_update=True,
                tooltip="The largest change of a pixel, images in [0, 1]",
            ),
            "image": ipywidgets.IntSlider(
                0, 0, COUNT - 1, description="Image", layout=wide, continuous_update=True,
                tooltip="Which test image",
            ),
            "own": ipywidgets.Checkbox(
                False, description="attack each network with its own weights", indent=False,
                tooltip="Else what fools the first network is shown to the second",
            ),
        }  # fmt: skip
        rows = [["attack", "epsilon"], ["image", "own"]]
        super().__init__("robustness", controls, rows)
        session.observe(self._other, ["first", "second"])

    def _other(self, change: Any) -> None:
        radii, usual = _radii(self.session.first)
        slider = self.controls["epsilon"]
        if tuple(slider.options) != tuple(radii):
            slider.options, slider.value = radii, usual
        self._changed()

    def request(self) -> dict[str, Any]:
        """The controls' values and the session's networks."""
        session = self.session
        return {**super().request(), "first": session.first, "second": session.second}

    def compute(
        self, ticket: Ticket, *, attack: str, epsilon: float, image: int, own: bool,
        first: Network, second: Network | None,
    ) -> Shown:  # fmt: skip
        """The picture of an image under attack."""
        key: Hashable = (
            *(part and (weights_key(part.model), part._replace(model=None))
              for part in (first, second)),
            attack, epsilon, image, own,
        )  # fmt: skip
        seen = self._cache.get(
            key,
            lambda: predictions(
                first, second, image=image, attack=attack, epsilon=epsilon, own=own,
                check=lambda: ticket.check(f"{TITLES[attack]} at work"),
            ),
        )  # fmt: skip
        figure = robustness(
            seen.table, _pixels(seen.clean),
            {name: _pixels(found) for name, found in seen.attacked.items()},
            right=seen.label if seen.known else None,
            note=f"{TITLES[attack]} in the largest change of a pixel, seed 0; {seen.words}.",
        )  # fmt: skip
        radius = f"{epsilon * 255:g} / 255"
        code = _code(first, second, f"{image=}, {attack=}, epsilon={radius}, {own=}")
        return Shown(figure, seen.table, _words(seen, attack, epsilon, own), code)


def _radii(network: Network) -> tuple[list[tuple[str, float]], float]:
    """The radii that make sense for a network's images, by text, and a usual one."""
    coarse = network.input_size[0] == 1
    steps = range(65) if coarse else [step / 2 for step in range(33)]
    return [(f"{step:g}/255", step / 255) for step in steps], (32 if coarse else 2) / 255


def _code(first: Network, second: Network | None, values: str) -> str:
    """Python that attacks `model`, and shows `other` what is found."""
    made = [f"Network({first.name!r}, model, *{tuple(first[2:])!r})"]
    if second is not None:
        made.append(f"Network({second.name!r}, other, *{tuple(second[2:])!r})")
    return (
        "from normkit.widgets import Network; "
        "from normkit.widgets.attacked import predictions; "
        f"table = predictions({', '.join(made)}, {values}).table"
    )


def _pixels(image: Tensor) -> np.ndarray:
    return image[0].permute(1, 2, 0).numpy()


def _words(seen: Seen, attack: str, epsilon: float, own: bool) -> str:
    """What each network takes the attacked image for."""
    parts = []
    for index, (name, rows) in enumerate(seen.table.groupby("network", sort=False)):
        best = rows.loc[rows.groupby("state")["probability"].idxmax()].set_index("state")
        now, before = (best.loc[state] for state in ("attacked", "clean"))
        who = ("the first network", "the second")[index] + f" ({name})"
        parts.append(
            f"{who} takes it for {now['class']:.0f} ({now.probability:.2g}), "
            f"clean for {before['class']:.0f} ({before.probability:.2g})"
        )
    whose = "each network's own" if own else "the first network's"
    right = f"right class {seen.label}" if seen.known else (
        f"the right class is not known, the attack leads away from {seen.label}"
    )  # fmt: skip
    said = "; ".join(parts)
    said = said[0].upper() + said[1:]
    return f"{said}; {right}; {TITLES[attack]} of {whose} weights within {epsilon * 255:g}/255."
