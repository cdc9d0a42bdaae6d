"""The paper's accuracies against depth, read off its figure."""

import pandas as pd

__all__ = ["published_depths"]

METHODS = (
    *("none", "batch", "group", "path_sgd", "weight_norm_batch", "enorm", "enorm_batch"),
)
PERCENT = {
    1: (53.82, 53.14, 53.52, 53.41, 54.83, 53.44, 53.38),
    3: (53.14, 52.95, 53.43, 53.04, 54.87, 53.48, 53.93),
    5: (52.83, 52.73, 53.55, 52.53, 54.67, 53.61, 53.98),
    7: (52.42, 52.57, 53.57, 52.31, 54.45, 53.54, 53.94),
    9: (51.97, 52.47, 53.49, 52.17, 54.41, 53.74, 54.03),
    11: (51.76, 52.10, 53.46, 51.96, 53.92, 53.62, 54.28),
    13: (51.52, 52.02, 53.40, 51.72, 53.75, 53.65, 54.38),
    15: (51.40, 51.78, 53.12, 51.66, 53.50, 53.57, 54.67),
    17: (51.24, 51.71, 52.71, 51.54, 52.99, 53.61, 54.58),
    19: (50.49, 51.69, 52.58, 51.50, 52.50, 53.43, 54.59),
}


def published_depths() -> pd.DataFrame:
    """Test accuracy of fully connected nets on CIFAR-10: method, p, accuracy (in [0, 1]).

    *In plain words:* means of five runs, read off the figure to about .0005; p counts the square
    hidden layers of 500 units.

    Source: Stock et al., ICLR 2019, https://arxiv.org/abs/1902.10416, the figure of accuracy
    against depth.

    Example:
        >>> table = published_depths().set_index(["method", "p"]).accuracy
        >>> bool(table["enorm_batch", 19] > table["enorm", 19] > table["none", 19])
        True
    """
    rows = [
        (method, p, value / 100)
        for p, values in PERCENT.items()
        for method, value in zip(METHODS, values, strict=True)
    ]
    return pd.DataFrame(rows, columns=["method", "p", "accuracy"])
