"""The plan of a video, made before anything is generated: which faces are redrawn, where, why
not."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from latentsync.faces.mask import SPANS_SIZE, Rows
from latentsync.faces.tracking.survey import Survey, Track, usable
from latentsync.files import publish
from latentsync.media.frame_reader import FrameTimes
from latentsync.pipeline.speakers import DOUBTFUL, Turn, check_turns, persons_of, speaking_frames

PLAN_VERSION = 1
# Reason of a planned face that appears in no turn.
NO_TURN = "in no turn"
# Edit of a track's frame according to the turns: none, or spoken with the voice of its person;
# values from 0 on are numbers of turns with their own voice.
LEFT_ALONE, AS_PERSON = -2, -1
HIDDEN = -4  # the mouth is hidden, and such frames are to be left alone
OCCLUSION = ("auto", "off", "skip")

Select = Literal["largest", "all", "speaker"] | int | tuple[float, float]


@dataclass(frozen=True, slots=True)
class Choice:
    """Which faces are redrawn, and what makes a face unusable.

    `select`: "largest" (of each shot), "all", "speaker" (whoever speaks), a person's number, or the
    person at x, y (pixels). `min_size`: height of the face's box in pixels. `max_yaw`: maximum turn
    of the head in degrees. `min_seconds`: faces seen for less are left alone. `fade_slots`: slots
    over which the mouth fades in and out next to unchanged frames. `mask_top`, `mask_bottom`: first
    painted row, and first row below them, in a face of 256 pixels; None: the mask's own edge.
    `occlusion`: what hides the mouth is kept ("auto") or painted over ("off"), or "skip" the frame.
    """

    select: Select = "largest"
    min_size: float = 32.0
    max_yaw: float = 60.0
    min_seconds: float = 0.2
    fade_slots: int = 4
    mask_top: int | None = None
    mask_bottom: int | None = None
    occlusion: str = "auto"

    def __post_init__(self) -> None:
        if self.occlusion not in OCCLUSION:
            words = ", ".join(OCCLUSION)
            raise ValueError(f"faces.occlusion={self.occlusion} must be one of {words}")
        for name, row in (("mask_top", self.mask_top), ("mask_bottom", self.mask_bottom)):
            if row is not None and (type(row) is not int or not 0 <= row <= SPANS_SIZE):
                raise ValueError(
                    f"faces.{name}={row} must be a row of a face of {SPANS_SIZE} pixels, a whole "
                    f"number from 0 to {SPANS_SIZE}, or null for the mask's own edge"
                )
        if self.mask_rows.top >= self.mask_rows.bottom:
            raise ValueError(
                f"faces.mask_top={self.mask_top} must be less than "
                f"faces.mask_bottom={self.mask_bottom}: rows are counted from the top"
            )

    @property
    def mask_rows(self) -> Rows:
        top, bottom = self.mask_top, self.mask_bottom
        return Rows(top or 0, SPANS_SIZE if bottom is None else bottom)


@dataclass(frozen=True, slots=True)
class PlannedFace:
    """A person in a shot. `edit` may be changed by hand, and so may `person`: a new number makes
    this face a person of its own, an existing one assigns it to that person."""

    person: int
    edit: bool
    reason: str
    start_seconds: float
    end_seconds: float
    size: float
    yaw: float | None
    usable_share: float
    track: int | None = None


@dataclass(frozen=True, slots=True)
class PlannedPerson:
    """`merge`: numbers, set by hand, of persons who are the same as this one."""

    id: int
    merge: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class PlannedShot:
    """Frames of one camera between two cuts; times in seconds of the source."""

    number: int
    start_seconds: float
    end_seconds: float
    faces: list[PlannedFace]


@dataclass(frozen=True, slots=True)
class Plan:
    """A video's shots and persons, and who is redrawn where.

    `turns`, if present: faces are redrawn only in the turns of their persons.
    """

    video: str
    num_frames: int
    shots: list[PlannedShot]
    turns: list[Turn] | None = None
    expected: dict[str, float] = field(default_factory=dict)
    persons: list[PlannedPerson] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def save(self, path: Path) -> None:
        with publish(path) as partial:
            partial.write_text(self.to_json(), encoding="utf-8")

    def to_json(self) -> str:
        return json.dumps({"format_version": PLAN_VERSION, **asdict(self)}, indent=2) + "\n"

    @classmethod
    def load(cls, path: Path) -> "Plan":
        """Load a plan written by `save` and possibly edited by hand."""
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            if data.pop("format_version") != PLAN_VERSION:
                raise ValueError(f"its format_version is not {PLAN_VERSION}")
            shots = [
                PlannedShot(**{**shot, "faces": [PlannedFace(**face) for face in shot["faces"]]})
                for shot in data.pop("shots")
            ]
            turns = data.pop("turns", None)
            if turns is not None:
                turns = [Turn.read(turn) for turn in turns]
            persons = [PlannedPerson(**person) for person in data.pop("persons", [])]
            return cls(**data, shots=shots, turns=turns, persons=persons)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(
                f"plan={path} is not a plan of this program ({error}): make one with plan=true"
            ) from error


def make_plan(
    video: Path,
    survey: Survey,
    times: FrameTimes,
    choice: Choice,
    *,
    turns: list[Turn] | None = None,
    notes: Sequence[str] = (),
) -> Plan:
    """Who is redrawn in which shot; `turns` are required for `select=speaker`."""
    chosen = chosen_tracks(survey, choice, times, turns)
    shots = []
    for number, shot in enumerate(survey.shots):
        faces = [
            _planned_face(
                track,
                times,
                choice,
                index=index,
                why_not="" if index in chosen else NO_TURN if turns else "not selected",
            )
            for index, track in enumerate(survey.tracks)
            if shot.first <= track.first < shot.end
        ]
        shots.append(
            PlannedShot(number, _seconds(times, shot.first), _seconds(times, shot.end), faces)
        )
    persons = [
        PlannedPerson(person) for person in sorted({track.person for track in survey.tracks})
    ]
    return Plan(str(video), survey.num_frames, shots, turns, persons=persons, notes=list(notes))


def chosen_tracks(
    survey: Survey, choice: Choice, times: FrameTimes, turns: Sequence[Turn] | None
) -> set[int]:
    """Indices of the tracks selected by `choice.select`."""
    tracks, select = survey.tracks, choice.select
    if select == "all":
        return set(range(len(tracks)))
    if select == "largest":
        return set(_largest_of_each_shot(survey))
    if select == "speaker":
        assert turns is not None, "who speaks is found before the plan is made"
        return {
            index
            for index, track in enumerate(tracks)
            if speaking_frames(turns, track.person, times)[track.first : track.end].any()
        }
    if isinstance(select, int):
        persons = sorted({track.person for track in tracks})
        if select not in persons:
            raise ValueError(f"faces.select={select}: the video shows the persons {persons}")
        return _of_person(tracks, select)
    return _of_person(tracks, _person_at(survey, select))


def _of_person(tracks: Sequence[Track], person: int) -> set[int]:
    return {index for index, track in enumerate(tracks) if track.person == person}


def _largest_of_each_shot(survey: Survey) -> list[int]:
    def weight(index: int) -> float:
        track = survey.tracks[index]
        sides = track.boxes[:, 2:] - track.boxes[:, :2]
        # Faces without landmarks, such as profiles, cannot be redrawn.
        return float(np.nansum(sides.prod(axis=1)[np.isfinite(track.points).all(axis=(1, 2))]))

    best = []
    for shot in survey.shots:
        inside = [
            index
            for index, track in enumerate(survey.tracks)
            if shot.first <= track.first < shot.end
        ]
        if inside:
            person = survey.tracks[max(inside, key=weight)].person
            # A person who leaves and returns within a shot has two tracks there.
            best += [index for index in inside if survey.tracks[index].person == person]
    return best


def _person_at(survey: Survey, point: tuple[float, float]) -> int:
    x, y = point
    for track in survey.tracks:
        x0, y0, x1, y1 = track.boxes.T
        if np.any((x0 <= x) & (x <= x1) & (y0 <= y) & (y <= y1)):
            return track.person
    raise ValueError(f"faces.select=[{x:g},{y:g}]: no face is ever there; see plan=true")


def _planned_face(
    track: Track, times: FrameTimes, choice: Choice, *, index: int, why_not: str
) -> PlannedFace:
    fine, reasons = usable(track, min_size=choice.min_size, max_yaw=choice.max_yaw)
    reason = why_not
    if not why_not and not fine.any():
        reason = next((reason for reason in reasons if reason), "never seen")
    heights = track.boxes[:, 3] - track.boxes[:, 1]
    yaws = track.yaws[np.isfinite(track.yaws)]
    return PlannedFace(
        person=track.person,
        edit=not why_not and bool(fine.any()),
        reason=reason,
        start_seconds=_seconds(times, track.first),
        end_seconds=_seconds(times, track.first + len(track.boxes)),
        size=round(float(np.nanmedian(heights)), 1),
        yaw=round(float(np.abs(yaws).mean()), 1) if len(yaws) else None,
        usable_share=round(float(fine.mean()), 4),
        track=index,
    )


def _seconds(times: FrameTimes, number: int) -> float:
    ticks = times.end if number >= len(times.starts) else int(times.starts[number])
    return round(float(ticks * times.time_base), 4)


def planned_faces(plan: Plan, survey: Survey, times: FrameTimes) -> dict[int, PlannedFace]:
    """The plan's face of every track in it, by index of the track."""
    if plan.num_frames != survey.num_frames or len(plan.shots) != len(survey.shots):
        raise ValueError(
            f"the plan is of a video with {plan.num_frames} frames in {len(plan.shots)} shots, "
            f"this one has {survey.num_frames} in {len(survey.shots)}: make it again with plan=true"
        )
    faces = {}
    for shot, planned in zip(survey.shots, plan.shots, strict=True):
        for face in planned.faces:
            for index, track in enumerate(survey.tracks):
                # Plans of earlier versions have no track numbers, and no edited persons.
                named = track.person == face.person if face.track is None else index == face.track
                begins = _seconds(times, track.first) == face.start_seconds
                if named and begins and shot.first <= track.first < shot.end:
                    faces[index] = face
    return faces


def with_persons_of(plan: Plan, survey: Survey, times: FrameTimes) -> tuple[Survey, Plan]:
    """Survey and plan with persons split (`person` of a face), then merged (`persons`), as the plan
    says; ValueError if it names a person that does not exist."""
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
    """Merged persons => the person each of them becomes."""
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
    """The end of a chain of merges."""
    seen: set[int] = set()
    while person in into:
        if person in seen:
            raise ValueError(f"the plan merges the persons {sorted(seen)} in a circle")
        seen.add(person)
        person = into[person]
    return person


def check_plan(plan: Plan, survey: Survey, times: FrameTimes) -> None:
    """ValueError if the turns of a plan, possibly edited by hand, are invalid."""
    check_turns(plan.turns or [], persons_of(survey), times.seconds, where="the plan")


def doubts_of(plan: Plan) -> list[str]:
    """A warning about turns of doubtful speakers."""
    doubtful = [turn for turn in plan.turns or [] if turn.confidence < DOUBTFUL]
    if not doubtful:
        return []
    worst = min(doubtful, key=lambda turn: turn.confidence)
    return [
        f"who speaks is doubtful in {len(doubtful)} of {len(plan.turns or [])} turns, most from "
        f"{worst.start:g} to {worst.end:g} s (person {worst.person}, confidence "
        f"{worst.confidence:.2f}): look at the turns with plan=true"
    ]
