"""ConvNorm's effects on digits, on CIFAR-10 and as published, side by side."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from normkit import claims

from .published import published_robust
from .tables import first_epochs
from .verdicts import FIRST, leads

__all__ = ["beside", "effects", "known_effects"]

PLACES = {"digits": "digits", "cifar10": "CIFAR-10"}
PROFILES = {"quick": "digits", "cifar10": "CIFAR-10"}
COLUMNS = ["claim", "part", "effect", "low", "high", "n"]
COMPARED = (
    ("FGSM", "conv_norm", "batch", "ConvNorm - BN"),
    ("FGSM", "conv_norm", "spectral_norm", "ConvNorm - SN"),
    ("PGD-20", "conv_norm", "spectral_norm", "ConvNorm - SN"),
    ("PGD-20", "spectral_norm", "oni", "SN - ONI"),
)


def effects(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The differences in accuracy that the claims are about, each with its 95 % t interval.

    Columns: claim, part, effect, low, high (in [0, 1]), n.

    Arguments:
        tables: any of clean, curves, noise, scarce, accuracy and blackbox, of this package's
            functions: one data set, symmetric noise.
    """
    rows = []
    for claim, part, values in _differences(tables):
        judged = claims.above(part, values.tolist())
        if judged.n:
            rows.append((claim, part, judged.effect, judged.low, judged.high, judged.n))
    return pd.DataFrame(rows, columns=COLUMNS)


def _differences(tables: Mapping[str, pd.DataFrame]):
    pair = ("conv_norm", "batch")
    if "clean" in tables:
        yield "cn.standard", "clean accuracy", leads(tables["clean"], *pair)
    if "curves" in tables:
        means = first_epochs(tables["curves"], FIRST)
        yield "cn.curves", f"first {FIRST} epochs", leads(means, *pair)
    if "noise" in tables:
        for level, rows in tables["noise"].groupby("level"):
            yield "cn.noise", f"{level:.0%} of labels wrong", leads(rows, *pair)
    if len(tables.get("scarce", ())):
        smallest = tables["scarce"][tables["scarce"].subset == tables["scarce"].subset.min()]
        yield "cn.scarcity", "fewest images", leads(smallest, *pair)
    if "accuracy" in tables:
        for attack, one, other, name in COMPARED:
            rows = tables["accuracy"][tables["accuracy"].attack == attack]
            yield "cn.robust", f"{attack}: {name}", leads(rows, one, other)
    if "blackbox" in tables:
        rows = tables["blackbox"][tables["blackbox"].attack == "SPSA"]
        yield "cn.blackbox", "SPSA", leads(rows, *pair)


def known_effects(root: Path) -> pd.DataFrame:
    """The effects that the quick and the cifar10 profile found, as far as they have been run.

    Columns: place (digits or CIFAR-10), and those of `effects`.

    Arguments:
        root: the folder of figures, which has a folder for each profile.

    Example:
        >>> known_effects(Path("nowhere")).empty
        True
    """
    known = [pd.DataFrame(columns=["place", *COLUMNS])]
    for profile, place in PROFILES.items():
        path = root / profile / "convnorm" / "scale.csv"
        if path.is_file():
            table = pd.read_csv(path)
            known.append(table[table.place == place])
    return pd.concat(known[1:] or known, ignore_index=True)


def beside(found: pd.DataFrame, dataset: str, root: Path) -> pd.DataFrame:
    """The effects found here, those known of the other data set, and the published ones.

    Columns: place (digits, CIFAR-10 or paper), claim, part, effect, low, high, n.

    Arguments:
        found: of `effects`.
        dataset: where it was found.
        root: the folder of figures, for what the other profiles found.

    Example:
        >>> row = dict(claim="cn.standard", part="clean accuracy", effect=0.0, low=0.0, high=0.0)
        >>> found = pd.DataFrame([row | {"n": 3}])
        >>> sorted(set(beside(found, "digits", Path("nowhere")).place))
        ['digits', 'paper']
    """
    place = PLACES.get(dataset, dataset)
    known = known_effects(root)
    published = effects({"accuracy": published_robust()}).assign(place="paper")
    parts = [found.assign(place=place), known[known.place != place], published]
    return pd.concat([part for part in parts if len(part)], ignore_index=True)
