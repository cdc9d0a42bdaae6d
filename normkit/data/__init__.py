"""Image data sets as uint8 tensors, and the seeded batch operations on them.

`load` reads a data set whole; everything after that is tensor code which works wherever the
tensors are. Randomness comes from a `torch.Generator` on the CPU, so that moving the images to
another device changes no draw.
"""

from .dataset import NAMES, Dataset, default_root, load, locate
from .images import AUGMENTATIONS, crop, flip, gaussian_noise, resize, shift, to_float
from .labels import LABEL_FLIPS, batches, noisy_labels, split_validation, subset

__all__ = [
    "AUGMENTATIONS",
    "LABEL_FLIPS",
    "NAMES",
    "Dataset",
    "batches",
    "crop",
    "default_root",
    "flip",
    "gaussian_noise",
    "load",
    "locate",
    "noisy_labels",
    "resize",
    "shift",
    "split_validation",
    "subset",
    "to_float",
]
