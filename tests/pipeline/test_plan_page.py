"""The page of a plan: what it shows of persons, and files it never replaces."""

from pathlib import Path

import numpy as np
import pytest

from latentsync.faces.tracking.survey import Track
from latentsync.pipeline.plan import PlannedFace
from latentsync.pipeline.reporting.plan_page import (
    best_frame,
    check_plan_page,
    plan_page_path,
    redrawn_spans,
)
from latentsync.pipeline.speakers import Turn


def face(*, edit: bool = True, person: int = 1) -> PlannedFace:
    return PlannedFace(person, edit, "", 2.0, 6.0, 100.0, 5.0, 1.0)


def track(heights: list[float], yaws: list[float], *, person: int = 0, first: int = 0) -> Track:
    boxes = np.array([[0, 0, height, height] for height in heights], dtype=np.float32)
    return Track(
        person=person,
        first=first,
        points=np.zeros((len(heights), 3, 2), dtype=np.float32),
        boxes=boxes,
        openings=np.zeros(len(heights), dtype=np.float32),
        yaws=np.array(yaws, dtype=np.float32),
    )


def test_a_face_is_redrawn_in_the_turns_of_its_person_that_it_is_seen_in():
    turns = [
        Turn(0.0, 3.0, 1), Turn(3.0, 4.0, 0), Turn(4.5, 5.0, 1), Turn(5.0, 5.5, None),
        Turn(5.5, 9.0, 1), Turn(9.0, 10.0, 1),
    ]  # fmt: skip
    assert redrawn_spans(face(), turns) == [(2.0, 3.0), (4.5, 5.0), (5.5, 6.0)]
    assert redrawn_spans(face(edit=False), turns) == []
    assert redrawn_spans(face(), None) == [(2.0, 6.0)]
    assert redrawn_spans(face(person=7), turns) == []


def test_a_person_is_shown_large_and_from_the_front():
    # cos(60 degrees) halves 100 to 50, less than the frontal face's 60.
    small, turned = track([40, 60], [0, 0], first=10), track([100, 100], [60, 70], first=30)
    other = track([500], [0], person=1, first=0)
    assert best_frame([other, small, turned], 0) == (small, 11)
    unseen = track([np.nan, np.nan], [np.nan, np.nan])
    assert best_frame([unseen], 0) is None


def test_a_page_replaces_a_page_and_no_other_file(tmp_path: Path):
    path = plan_page_path(tmp_path / "film of.mine.mp4")
    assert path == tmp_path / "film of.mine.plan.html"
    check_plan_page(path)
    path.write_text("<html>somebody's notes</html>")
    with pytest.raises(FileExistsError, match=r"film of\.mine\.plan\.html exists"):
        check_plan_page(path)
    path.write_text('<html><head><meta name="generator" content="latentsync plan">')
    check_plan_page(path)
