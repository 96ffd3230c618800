"""Validation of a choice of faces, and its rows."""

from pathlib import Path

import pytest

from latentsync.faces.mask import ALL_ROWS, Rows
from latentsync.pipeline.checks import Source
from latentsync.pipeline.plan import Choice
from latentsync.pipeline.request import OfficialProfile, Request


def test_rows_of_the_mask_are_counted_from_the_top() -> None:
    assert Choice().mask_rows == ALL_ROWS == (0, 256)
    assert Choice(mask_top=120).mask_rows == Rows(120, 256)
    assert Choice(mask_top=0, mask_bottom=200).mask_rows == Rows(0, 200)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"mask_top": -1}, "mask_top=-1 must be a row of a face of 256 pixels"),
        ({"mask_bottom": 257}, "mask_bottom=257 must be .* or null"),
        ({"mask_top": True}, "mask_top=True must be .* a whole number"),
        ({"mask_top": 200, "mask_bottom": 200}, "mask_top=200 must be less than .*bottom=200"),
    ],
)
def test_rows_that_cannot_be_are_refused(rows: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Choice(**rows)


def test_the_official_pipeline_has_no_mask_but_its_own(video: Path) -> None:
    asked = {"choice": Choice(mask_bottom=200)}
    assert Request(Source.of(video), video, **asked).choice.mask_bottom == 200
    with pytest.raises(ValueError, match="mask_bottom are not part of the official pipeline"):
        Request(Source.of(video), video, profile=OfficialProfile(), **asked)
