"""What changes the weights after a step: rescaling, and projections on bounds of layers' norms."""

from .batch_norms import project_batch_norm_
from .clipping import clip_singular_values_
from .enorm import ENorm
from .norm_balls import project_norms_

__all__ = ["ENorm", "clip_singular_values_", "project_batch_norm_", "project_norms_"]
