"""What changes the weights after a step: projections on bounds of the layers' norms."""

from .batch_norms import project_batch_norm_
from .clipping import clip_singular_values_
from .norm_balls import project_norms_

__all__ = ["clip_singular_values_", "project_batch_norm_", "project_norms_"]
