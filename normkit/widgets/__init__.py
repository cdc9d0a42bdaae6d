"""Controls around norms, probes, attacks and runs: what a notebook shows and a person moves."""

from normkit.networks import Network

from .panel import Panel, Shown
from .picture import Mark, PictureWidget
from .session import Session

__all__ = ["Mark", "Network", "Panel", "PictureWidget", "Session", "Shown"]
