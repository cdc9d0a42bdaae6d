"""All methods of the four papers under all of their measurements, on one network and schedule.

The papers measure different things on different methods; nothing here is a claim of theirs. What
they ask of their own methods is asked of every method: does a norm tell how robust a network is?
"""

from .cost import StepCost, step_cost
from .measured import MEASURES, Measured, measured
from .released import departures
from .runs import Plan, borrowed_runs, choosing_runs, datasets, grid_runs, planned, variant_runs
from .settings import METHODS, SETTINGS, Grid, changed
from .tables import COLUMNS, contrasts, correlations, ranks, scores, wide

__all__ = [
    "COLUMNS",
    "MEASURES",
    "METHODS",
    "SETTINGS",
    "Grid",
    "Measured",
    "Plan",
    "StepCost",
    "borrowed_runs",
    "changed",
    "choosing_runs",
    "contrasts",
    "correlations",
    "datasets",
    "departures",
    "grid_runs",
    "measured",
    "planned",
    "ranks",
    "scores",
    "step_cost",
    "variant_runs",
    "wide",
]
