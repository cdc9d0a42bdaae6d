"""Where runs and figures lie."""

import os
from pathlib import Path

__all__ = ["default_root", "figures_root", "project_root"]


def project_root() -> Path:
    """The nearest folder at or above the working directory that holds `run_all.sh`, else it."""
    here = Path.cwd()
    return next((p for p in (here, *here.parents) if (p / "run_all.sh").is_file()), here)


def default_root() -> Path:
    """Where runs are kept: `$NORMKIT_RUNS`, else `runs` in the project's folder."""
    return Path(os.environ.get("NORMKIT_RUNS") or project_root() / "runs").absolute()


def figures_root() -> Path:
    """Where figures go: `$NORMKIT_FIGURES`, else `figures` in the project's folder."""
    return Path(os.environ.get("NORMKIT_FIGURES") or project_root() / "figures").absolute()
