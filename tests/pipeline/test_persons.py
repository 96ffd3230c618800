"""Persons split and merged by hand in a plan."""

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from latentsync.faces.tracking.survey import Shot, Survey, Track
from latentsync.media.frame_reader import FrameTimes
from latentsync.pipeline.chunks import edited_tracks
from latentsync.pipeline.plan import Choice, Plan, PlannedPerson, make_plan, with_persons_of
from latentsync.pipeline.speakers import Turn

NUM_FRAMES = 40
TIMES = FrameTimes(Fraction(1, 25), np.arange(NUM_FRAMES), NUM_FRAMES)


def track(person: int, first: int, *, side: float = 50, with_landmarks: bool = True) -> Track:
    boxes = np.tile(np.float32([0, 0, side, side]), (10, 1))
    points = np.zeros((10, 3, 2), np.float32) if with_landmarks else np.full((10, 3, 2), np.nan)
    return Track(person, first, np.float32(points), boxes, *np.zeros((2, 10), np.float32))


SURVEY = Survey(
    NUM_FRAMES,
    [Shot(0, 20), Shot(20, 40)],
    [track(0, 0), track(1, 0), track(2, 20), track(0, 25)],
)


def plan_of(survey: Survey = SURVEY, **choice: object) -> Plan:
    return make_plan(Path("in.mp4"), survey, TIMES, Choice(**{"select": "all", **choice}))


def persons(plan: Plan) -> list[int]:
    return [track.person for track in with_persons_of(plan, SURVEY, TIMES)[0].tracks]


def test_a_plan_that_nobody_edited_changes_nobody() -> None:
    plan = plan_of()
    assert plan.persons == [PlannedPerson(0), PlannedPerson(1), PlannedPerson(2)]
    assert persons(plan) == [0, 1, 2, 0]
    assert set(edited_tracks(plan, SURVEY, TIMES)) == {0, 1, 2, 3}


def edited(tmp_path: Path, edit) -> Plan:
    path = tmp_path / "plan.json"
    plan_of().save(path)
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))
    return Plan.load(path)


def test_a_hand_merges_and_splits(tmp_path: Path) -> None:
    def merge(content: dict) -> None:
        content["persons"][0]["merge"] = [2]

    assert persons(edited(tmp_path, merge)) == [0, 1, 0, 0]

    def split(content: dict) -> None:
        content["shots"][1]["faces"][1]["person"] = 7
        content["persons"].append({"id": 7, "merge": [2]})

    plan = edited(tmp_path, split)
    assert persons(plan) == [0, 1, 7, 7]
    assert set(edited_tracks(plan, SURVEY, TIMES)) == {0, 1, 2, 3}


def test_the_turns_of_who_is_merged_are_the_other_ones() -> None:
    turns = [Turn(0, 0.4, 2), Turn(0.4, 0.8, None)]
    plan = replace(plan_of(), turns=turns, persons=[PlannedPerson(1, [2])])
    assert [turn.person for turn in with_persons_of(plan, SURVEY, TIMES)[1].turns] == [1, None]


@pytest.mark.parametrize(
    ("merges", "said"),
    [
        ([PlannedPerson(0, [9])], r"merges person 9 into 0, but nobody has the number 9.*0, 1, 2"),
        ([PlannedPerson(9, [0])], "number 9"),
        ([PlannedPerson(0, [2]), PlannedPerson(1, [2])], "person 2 twice"),
        ([PlannedPerson(0, [0])], "into itself"),
        ([PlannedPerson(0, [1]), PlannedPerson(1, [0])], "circle"),
    ],
)
def test_merges_that_cannot_be_are_refused(merges: list[PlannedPerson], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        persons(replace(plan_of(), persons=merges))


def test_merges_may_form_a_chain() -> None:
    chain = [PlannedPerson(0, [1]), PlannedPerson(1, [2])]
    assert persons(replace(plan_of(), persons=chain)) == [0, 0, 0, 0]


def test_plans_of_earlier_versions_know_their_faces(tmp_path: Path) -> None:
    def age(content: dict) -> None:
        for name in ("persons", "notes", "turns"):
            del content[name]
        for shot in content["shots"]:
            for face in shot["faces"]:
                del face["track"]
        content["shots"][0]["faces"][1]["edit"] = False

    plan = edited(tmp_path, age)
    assert persons(plan) == [0, 1, 2, 0]
    assert set(edited_tracks(plan, SURVEY, TIMES)) == {0, 2, 3}


def test_the_largest_is_the_largest_that_can_be_redrawn() -> None:
    survey = Survey(
        NUM_FRAMES,
        [Shot(0, NUM_FRAMES)],
        [track(0, 0, side=50), track(1, 0, side=90, with_landmarks=False)],
    )
    plan = plan_of(survey, select="largest")
    first, second = plan.shots[0].faces
    assert (first.person, first.edit) == (0, True)
    assert (second.person, second.edit) == (1, False)
