"""What the workbook and the scoreboard read, and what they may answer when it lies."""

import contextlib
import json
import shutil

from lying import Kind

from normkit import claims
from normkit.claims import Claim
from normkit.workbook import datasets, notebook, state

__all__ = ["Cache", "Executed", "Notebooks", "Scoreboard"]

CLAIMS = [Claim("a.b", "paper", "It is so."), Claim("a.c", "paper", "It is not so.")]


class Notebooks(Kind):
    """A notebook, as the workbook reads it."""

    exact = False

    def make(self, root):
        cells = [
            ("# A claim", "markdown", []),
            ('profile = "quick"\nseeds = [0, 1]\nn: int | None = None\nr = 8 / 255', "code",
             ["parameters"]),
            ("from normkit import data\nimages = data.load('digits')", "code", []),
        ]  # fmt: skip
        made = [
            {"id": f"cell-{i}x", "cell_type": kind, "metadata": {"tags": tags}, "outputs": [],
             "execution_count": None, "source": text.splitlines(True)}
            for i, (text, kind, tags) in enumerate(cells)
        ]  # fmt: skip
        content = {"cells": made, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
        (root / "notebooks").mkdir()
        (root / "notebooks" / "01_one.ipynb").write_text(json.dumps(content, indent=1))

    def read(self, root, rng):
        [book] = notebook.find(root)
        with contextlib.suppress(ValueError):  # says which parameter takes what
            notebook.settings([book], ["one.n=3", "one.seeds=[2]", "one.r=1/2"])
        return state.inputs(book, {}), datasets.used(book, {"profile": "smoke"})


class Executed(Notebooks):
    """What an executed notebook depended on: a lie must not make a stale one up to date."""

    exact = True

    def make(self, root):
        super().make(root)
        [book] = notebook.find(root)
        self.now = state.inputs(book, {}) | {"data": {"digits": "a"}, "figures": {"x.png": "b"}}
        state.write(root / "one.json", {"state": "done", **self.now})
        shutil.rmtree(root / "notebooks")

    def read(self, root, rng):
        saved = state.read(root / "one.json")
        found = state.reasons(saved, self.now)
        assert all(isinstance(line, str) for line in found)
        if found:
            raise ValueError(f"one.json: {found[0]}")
        return {name: saved[name] for name in self.now if name != "figures"}  # may be fewer


class Cache(Kind):
    """The fingerprints of data sets: a lie must not pass for another's data."""

    exact = False

    def make(self, root):
        datasets.fingerprints(["digits", "mnist"], root / "data.json")

    def read(self, root, rng):
        found = datasets.fingerprints(["digits", "eigits", "mnist"], root / "data.json")
        assert list(found) == ["digits", "eigits", "mnist"]
        assert all(isinstance(value, str | None) for value in found.values())
        return found


class Scoreboard(Kind):
    """The tables of verdicts."""

    exact = False

    def make(self, root):
        parts = [claims.above("one", [1, 2, 3]), claims.flat("two", [0.1, 0.2, 0.15], 1.0)]
        given = {"profile": "quick", "evidence": "x.csv"}
        found = [claims.combine(claim, parts, **given) for claim in CLAIMS]
        claims.write(found, root / "quick", CLAIMS)

    def read(self, root, rng):
        table = claims.compare(root, [claim.id for claim in CLAIMS])
        found = [claims.combine(CLAIMS[0], [claims.Part("x", "not run")], profile="quick")]
        claims.write(found if rng.random() < 0.5 else (), root / "quick", CLAIMS)
        again = claims.compare(root, [claim.id for claim in CLAIMS])
        assert list(table.index) == list(again.index)
        return table.to_csv()
