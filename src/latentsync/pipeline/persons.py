"""Persons as a hand corrected them in a plan: split by new numbers, merged by lists."""

from collections.abc import Sequence
from dataclasses import replace

from latentsync.faces.tracking.survey import Survey
from latentsync.media.frame_reader import FrameTimes
from latentsync.pipeline.plan import Plan, PlannedPerson, planned_faces


def with_persons_of(plan: Plan, survey: Survey, times: FrameTimes) -> tuple[Survey, Plan]:
    """Survey and plan with persons split (a face's `person`), then merged (`persons`) as the plan
    says; ValueError where it names somebody who is not there."""
    planned = planned_faces(plan, survey, times)
    persons = [
        planned[index].person if index in planned else track.person
        for index, track in enumerate(survey.tracks)
    ]
    merged = merged_persons(plan.persons, {*persons, *(track.person for track in survey.tracks)})
    tracks = [
        replace(track, person=merged.get(person, person))
        for track, person in zip(survey.tracks, persons, strict=True)
    ]
    turns = plan.turns and [
        turn if turn.person is None else replace(turn, person=merged.get(turn.person, turn.person))
        for turn in plan.turns
    ]
    return replace(survey, tracks=tracks), replace(plan, turns=turns)


def merged_persons(persons: Sequence[PlannedPerson], there: set[int]) -> dict[int, int]:
    """Who becomes whom."""
    into: dict[int, int] = {}
    for person in persons:
        for other in person.merge:
            if missing := {person.id, other} - there:
                raise ValueError(
                    f"the plan merges person {other} into {person.id}, but nobody has the number "
                    f"{min(missing)}: the video shows {sorted(there)}"
                )
            if other in into or other == person.id:
                raise ValueError(f"the plan merges person {other} twice, or into itself")
            into[other] = person.id
    return {other: _end_of(other, into) for other in into}


def _end_of(person: int, into: dict[int, int]) -> int:
    """Where a chain of merges ends."""
    seen: set[int] = set()
    while person in into:
        if person in seen:
            raise ValueError(f"the plan merges the persons {sorted(seen)} in a circle")
        seen.add(person)
        person = into[person]
    return person
