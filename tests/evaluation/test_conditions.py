"""Means over the clips of each condition, of which pairs without one are no part."""

import math

import pytest

from latentsync.evaluation.clip_values import ClipTable, by_condition
from latentsync.metrics.masked import MaskedPSNR


def test_each_condition_has_the_mean_of_its_own_clips() -> None:
    (figure,) = MaskedPSNR(region="inside").figures
    table = ClipTable()
    for clip, value in (("a", 10.0), ("b", 20.0), ("c", 60.0), ("d", math.nan), ("e", 1000.0)):
        table.add(clip, clip, {figure.key: value})
    conditions = {"a": "clean", "b": "clean", "c": "noise", "d": "noise", "e": ""}
    found = by_condition({"pred": table}, [figure], conditions)
    assert found == {
        "pred": {
            "clean": {"num_clips": 2, figure.key: pytest.approx(15)},
            "noise": {"num_clips": 2, figure.key: pytest.approx(60)},
        }
    }
    assert by_condition({"pred": table}, [figure], {}) == {}
