"""Executes the notebooks: what is stale and why, progress, failures, the closing table."""

from .command import DEVICES, command
from .folders import Folders
from .notebook import Notebook, find
from .runner import Outcome, Task, plan, run

__all__ = ["DEVICES", "Folders", "Notebook", "Outcome", "Task", "command", "find", "plan", "run"]
