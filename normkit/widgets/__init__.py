"""Controls around norms, probes, attacks and runs: what a notebook shows and a person moves."""

from normkit.networks import Network

from .explorer import PANELS, Explorer, explore
from .live import network_of
from .panel import Panel, Shown
from .picture import Mark, PictureWidget
from .session import Session

__all__ = [
    "PANELS",
    "Explorer",
    "Mark",
    "Network",
    "Panel",
    "PictureWidget",
    "Session",
    "Shown",
    "explore",
    "network_of",
]
