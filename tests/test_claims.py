"""Verdicts follow the rule, whatever the numbers are."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from normkit import claims
from normkit.papers import CLAIMS

FIRST, SECOND = CLAIMS[0], CLAIMS[1]


def test_interval_is_the_t_interval():
    values = np.random.default_rng(0).normal(1.0, 2.0, 7)
    part = claims.above("x", values)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    np.testing.assert_allclose([part.low, part.high], expected, rtol=1e-12)
    assert part.n == 7


def test_interval_covers_the_mean_as_often_as_it_says():
    draws = np.random.default_rng(1).normal(0.3, 1.0, (2000, 4))
    parts = [claims.above("x", row) for row in draws]
    covered = np.mean([part.low < 0.3 < part.high for part in parts])
    assert abs(covered - 0.95) < 0.02, covered


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([0.3, 0.31, 0.29], "reproduced"),
        ([0.3, -0.31, 0.29], "not separable"),
        ([-0.3, -0.31, -0.29], "contradicted"),
        ([0.3, 0.31], "not run"),
        ([0.3, 0.31, math.nan], "not run"),
        ([], "not run"),
        ([1.0, 1.0, 1.0], "reproduced"),
    ],
)
def test_verdict_is_the_side_of_the_interval(values, verdict):
    assert claims.above("x", values).verdict == verdict
    mirrored = claims.below("x", [-value for value in values])
    assert mirrored.verdict == verdict


def test_margin_moves_the_line():
    assert claims.above("gap", [0.3, 0.31, 0.29], margin=0.2).verdict == "reproduced"
    assert claims.above("gap", [0.3, 0.31, 0.29], margin=0.4).verdict == "contradicted"


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([0.01, -0.01, 0.0], "reproduced"),
        ([0.5, 0.51, 0.49], "contradicted"),
        ([0.1, -0.3, 0.2], "not separable"),
    ],
)
def test_flat_needs_the_whole_interval_inside_the_margin(values, verdict):
    assert claims.flat("x", values, margin=0.1).verdict == verdict


def test_an_identity_counts_cases_and_names_the_worst():
    part = claims.exact("equal", [1e-14, -3e-13], tolerance=1e-12)
    assert (part.verdict, part.effect, part.n) == ("reproduced", 3e-13, 2)
    assert claims.exact("equal", [1e-14, 1.0], tolerance=1e-12).verdict == "contradicted"


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (["reproduced", "reproduced"], "reproduced"),
        (["reproduced", "not separable"], "not separable"),
        (["reproduced", "not run"], "not run"),
        (["contradicted", "not run", "reproduced"], "contradicted"),
        ([], "not run"),
    ],
)
def test_a_claim_is_as_strong_as_its_weakest_part(found, verdict):
    parts = [claims.Part(str(i), name, 1.0, 0.5, 1.5, 3) for i, name in enumerate(found)]
    assert claims.combine(FIRST, parts, profile="quick").verdict == verdict


def test_the_deciding_part_is_the_weakest_of_its_verdict():
    strong = claims.above("strong", [1.0, 1.1, 0.9])
    weak = claims.above("weak", [0.2, 0.3, 0.1])
    verdict = claims.combine(FIRST, [strong, weak], profile="quick")
    assert verdict.deciding.name == "weak"


def test_catalogue_lists_every_claim_once():
    names = [claim.id for claim in CLAIMS]
    assert len(names) == len(set(names)) == 33
    assert {claim.paper for claim in CLAIMS} == {
        "convnorm",
        "enorm",
        "norm_decay",
        "beyond_batchnorm",
    }


def test_scoreboard_lists_all_claims_and_keeps_earlier_verdicts(tmp_path):
    folder = tmp_path / "quick"
    first = claims.combine(
        FIRST, [claims.above("a", [1, 2, 3])], profile="quick", evidence="a.csv"
    )
    claims.write([first], folder, CLAIMS)
    second = claims.combine(SECOND, [claims.above("b", [-1, -1.1, -0.9])], profile="quick")
    path = claims.write([second], folder, CLAIMS)
    table = pd.read_csv(path)
    columns = "id paper statement verdict effect low high n profile evidence"
    assert list(table.columns) == columns.split()
    assert list(table.id) == [claim.id for claim in CLAIMS]
    verdicts = dict(zip(table.id, table.verdict, strict=True))
    assert verdicts.pop(FIRST.id) == first.verdict
    assert verdicts.pop(SECOND.id) == "contradicted"
    assert set(verdicts.values()) == {"not run"}
    assert table.effect[0] == pytest.approx(2.0)
    assert f"## {FIRST.id}" in (folder / "claims.md").read_text()


def test_writing_the_same_verdicts_again_changes_no_byte(tmp_path):
    verdict = claims.combine(FIRST, [claims.above("a", [1, 2, 3])], profile="quick")
    claims.write([verdict], tmp_path, CLAIMS)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    claims.write([verdict], tmp_path, CLAIMS)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*.*")}


def test_a_part_that_is_barely_flat_decides_over_one_that_is_far_above():
    far = claims.above("far", [1.0, 1.1, 0.9])
    flat = claims.flat("well inside", [0.001, -0.001, 0.0], margin=1.0)
    barely = claims.flat("barely", [0.85, 0.9, 0.8], margin=1.0)
    assert {part.verdict for part in (far, flat, barely)} == {"reproduced"}
    deciding = claims.combine(FIRST, [far, flat, barely], profile="quick").deciding
    assert deciding.name == "barely"


def test_an_error_that_is_no_number_is_never_an_identity():
    assert claims.exact("equal", [0.0, math.nan, 1e-9], tolerance=1e-6).verdict == "contradicted"


def test_a_claim_that_is_no_longer_listed_does_not_stop_the_scoreboard(tmp_path):
    verdict = claims.combine(FIRST, [claims.above("a", [1, 2, 3])], profile="quick")
    claims.write([verdict], tmp_path, CLAIMS)
    table = pd.read_csv(claims.write([], tmp_path, CLAIMS[1:]))
    assert FIRST.id not in set(table.id)


def test_profiles_stand_side_by_side(tmp_path):
    for profile, values in (("quick", [1, 2, 3]), ("cifar10", [-1, -1.2, -1.1])):
        verdict = claims.combine(FIRST, [claims.above("a", values)], profile=profile)
        claims.write([verdict], tmp_path / profile, CLAIMS)
    table = claims.compare(tmp_path, [FIRST.id, SECOND.id])
    assert table.loc[FIRST.id, "quick"].startswith("not separable, 2 [")
    assert table.loc[FIRST.id, "cifar10"].startswith("contradicted, -1.1 [")
    assert (table.loc[SECOND.id] == "not run").all()
