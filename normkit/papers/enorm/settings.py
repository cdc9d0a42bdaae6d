"""The five comparisons of training runs, at each profile's size."""

import dataclasses

from normkit import data
from normkit.training import TrainConfig

__all__ = ["SETTINGS", "Comparison", "Experiments", "with_mnist"]

DEPTH_METHODS = (
    *("none", "batch", "group", "weight_norm_batch", "path_sgd", "enorm", "enorm_batch"),
)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Methods x values of one field x seeds, the learning rate of each chosen beforehand.

    A learning rate is chosen for each method and value by accuracy (or loss) on images held out
    of the training images, in one run with another seed; the judged runs train on all images.

    Arguments:
        base: what all runs share.
        methods: none, batch, group, weight_norm_batch, path_sgd, enorm or enorm_batch.
        field: what varies: p (depth = p + 1), batch_size, c or initialization.
        values: of that field.
        lrs: the choice of learning rates, at batch 128 where the batch size varies; it is then
            scaled in proportion.
        c: of ENorm.
        groups: of GroupNorm.
        validation: fraction of the training images that is held out to choose.
        choosing: seed of the runs that choose.
    """

    base: TrainConfig
    methods: tuple[str, ...]
    field: str
    values: tuple
    lrs: tuple[float, ...]
    c: float = 1.05
    groups: int = 8
    validation: float = 0.2
    choosing: int = 100


@dataclasses.dataclass(frozen=True)
class Experiments:
    """All comparisons of a profile; `seeds` are the repetitions of each."""

    depth: Comparison
    conv: Comparison
    batch: Comparison
    asymmetry: Comparison
    autoencoder: Comparison
    seeds: tuple[int, ...] = (3, 4, 5)

    def comparisons(self) -> dict[str, Comparison]:
        """The comparisons by name."""
        names = (field.name for field in dataclasses.fields(self) if field.name != "seeds")
        return {name: getattr(self, name) for name in names}


PLAIN = TrainConfig(
    dataset="noisy_digits",
    model="mlp",
    width=128,
    depth=8,
    normalization="none",
    initialization="he_all",
    standardize=True,
    momentum=0.0,
    nesterov=False,
    weight_decay=1e-3,
    batch_size=64,
    epochs=10,
    schedule="linear",
    augment="none",
    norms=(),
    final_norms=(),
)
REBUILT = dataclasses.replace(
    PLAIN,
    dataset="digits",
    objective="reconstruction",
    model="autoencoder",
    depth=None,
    standardize=False,
    epochs=20,
    norms=("frobenius",),
)
BOTH = ("none", "batch", "enorm", "enorm_batch")
STARTS = ("he_all", "he")


def _smaller(setting: Comparison, **fields: object) -> Comparison:
    """The same with other fields of the base."""
    return dataclasses.replace(setting, base=dataclasses.replace(setting.base, **fields))


QUICK = Experiments(
    depth=Comparison(PLAIN, DEPTH_METHODS, "p", (1, 10, 19), (0.05, 0.1, 0.2)),
    conv=Comparison(
        dataclasses.replace(
            PLAIN, model="fully_conv", width=16, depth=None, momentum=0.9, batch_size=32, epochs=6
        ),
        BOTH,
        "initialization",
        STARTS[:1],
        (0.01, 0.03),
        c=1.1,
    ),
    batch=Comparison(
        dataclasses.replace(PLAIN, dataset="digits", width=64, depth=4, epochs=3),
        ("batch", "group", "enorm"),
        "batch_size",
        (2, 16, 128),
        (0.1, 0.4),
        groups=4,
    ),
    asymmetry=Comparison(PLAIN, ("enorm",), "c", (0.9, 1.0, 1.1, 1.2, 1.4), (0.1, 0.2)),
    autoencoder=Comparison(
        REBUILT, ("none", "enorm"), "initialization", STARTS, (0.1, 0.3), c=1.0
    ),
)
SMOKE = Experiments(
    *(
        dataclasses.replace(
            _smaller(setting, epochs=1, subset=100, width=16, batch_size=64),
            values=setting.values[:1] if setting.field == "initialization" else setting.values[:3],
            lrs=setting.lrs[:1],
        )
        for setting in QUICK.comparisons().values()
    ),
    seeds=(0,),
)
IMAGES = {"dataset": "cifar10", "image_size": 16, "subset": 10_000, "batch_size": 128}
CIFAR10 = Experiments(
    depth=dataclasses.replace(
        _smaller(QUICK.depth, **IMAGES, width=200, epochs=12),
        values=(1, 7, 13, 19),
        lrs=(0.05, 0.1),
    ),
    conv=dataclasses.replace(
        _smaller(QUICK.conv, **IMAGES, width=16, epochs=10, augment="flip"), lrs=(0.03, 0.1)
    ),
    batch=dataclasses.replace(
        _smaller(QUICK.batch, **IMAGES | {"subset": 4000}, width=128, epochs=5),
        values=(2, 4, 16, 128),
    ),
    asymmetry=dataclasses.replace(
        _smaller(QUICK.asymmetry, **IMAGES, width=200, epochs=12), lrs=(0.05, 0.1)
    ),
    autoencoder=_smaller(QUICK.autoencoder, **IMAGES, width=256, epochs=12),
)


MNIST = {"dataset": "mnist", "width": 1000, "epochs": 500, "batch_size": 256}


def _paper() -> Experiments:
    whole = {"dataset": "cifar10", "image_size": None, "subset": None, "batch_size": 256}
    depth = _smaller(QUICK.depth, **whole, width=500, epochs=60)
    lrs = (0.0005, 0.001, 0.005, 0.01, 0.05, 0.1)
    common = {"lrs": lrs, "validation": 0.1}
    return Experiments(
        depth=dataclasses.replace(
            depth, values=tuple(range(1, 20, 2)), c=1.2, groups=20, **common
        ),
        conv=dataclasses.replace(
            _smaller(QUICK.conv, **whole, width=128, epochs=128, augment="crop_flip"),
            methods=DEPTH_METHODS,
            lrs=(0.05,),
            validation=0.1,
        ),
        batch=dataclasses.replace(
            _smaller(QUICK.batch, **whole, width=500, epochs=60), values=(4, 16, 64, 256), c=1.2,
            groups=20, **common,
        ),
        asymmetry=dataclasses.replace(
            _smaller(QUICK.asymmetry, **whole, width=500, depth=14, epochs=60),
            values=(0.8, 1.0, 1.1, 1.2, 1.5, 2.0),
            **common,
        ),
        autoencoder=dataclasses.replace(_smaller(QUICK.autoencoder, **MNIST), **common),
        seeds=(0, 1, 2, 3, 4),
    )  # fmt: skip


def with_mnist(experiments: Experiments) -> Experiments:
    """MNIST in the place of other images, where it is there."""
    if data.locate("mnist") is None:
        return experiments
    whole = {"dataset": "mnist", "image_size": None}
    return dataclasses.replace(experiments, autoencoder=_smaller(experiments.autoencoder, **whole))


SETTINGS = {
    "smoke": SMOKE,
    "quick": QUICK,
    "cifar10": CIFAR10,
    "paper": _paper(),
}
