"""Mouths are pasted at the right time: between two slots, fading next to unchanged frames."""

from dataclasses import replace
from fractions import Fraction

import cv2
import numpy as np
import pytest

from latentsync.faces import Placement, align, paste
from latentsync.faces.tracking.survey import Shot, Survey, Track
from latentsync.media.frame import Picture
from latentsync.media.frame_reader import Timeline
from latentsync.pipeline.analysis import Placements, aligner_for
from latentsync.pipeline.chunks import NOT_SPEAKING, Chunk, Run, find_runs, slot_entries
from latentsync.pipeline.compositing import (
    Pasting,
    RunsAt,
    face_in,
    put_back,
    shown_mouths,
    with_face,
)
from latentsync.pipeline.generation import GeneratedFaces
from latentsync.pipeline.plan import AS_PERSON, LEFT_ALONE, Choice
from pipeline.inputs import POINTS, RESOLUTION

SIZE = (112, 128)
PER_FRAME = ("points", "boxes", "openings", "yaws")


def survey_of(seen: list[bool], *, end: int | None = None) -> Survey:
    """One still face, seen in some frames of one shot."""
    n = len(seen)
    points = np.tile(np.array(POINTS, np.float32), (n, 1, 1))
    boxes = np.tile(np.array([40, 30, 90, 100], np.float32), (n, 1))
    points[~np.array(seen)] = boxes[~np.array(seen)] = np.nan
    unknown = np.full(n, np.nan, np.float32)
    return Survey(n, [Shot(0, end or n)], [Track(0, 0, points, boxes, unknown, unknown)])


def timeline_of(starts: list[int], base: Fraction, end: int) -> Timeline:
    numbers = np.arange(len(starts), dtype=np.int32)
    return Timeline(base, numbers, np.array(starts, np.int64), end)


def runs_of(seen: list[bool], **choice: float) -> tuple[list[Run], list[str]]:
    n = len(seen)
    timeline = timeline_of(list(range(n)), Fraction(1, 25), n)
    fps = Fraction(25)
    return find_runs(
        survey_of(seen),
        {0: np.full(n, AS_PERSON, np.int32)},
        timeline,
        slot_entries(timeline, fps=fps, num_slots=n),
        Choice(**choice),
        fps=fps,
        num_spoken=n,
    )


def test_a_mouth_fades_beside_a_gap_and_not_at_the_ends_of_the_shot():
    (first, second), left = runs_of([True] * 20 + [False] * 5 + [True] * 15)
    assert [(run.first, run.end) for run in (first, second)] == [(0, 20), (25, 40)]
    np.testing.assert_allclose(first.strength[:16], 1)
    np.testing.assert_allclose(first.strength[16:], [0.8, 0.6, 0.4, 0.2], rtol=1e-6)
    np.testing.assert_allclose(second.strength[:4], [0.2, 0.4, 0.6, 0.8], rtol=1e-6)
    np.testing.assert_allclose(second.strength[4:], 1)
    assert [slot for slot, reason in enumerate(left) if reason] == list(range(20, 25))


def test_a_face_that_flashes_up_is_left_alone_and_said():
    runs, left = runs_of([True] * 20 + [False] * 5 + [True] * 4 + [False] * 10)
    assert [(run.first, run.end) for run in runs] == [(0, 20)]
    assert set(left[25:29]) == {"face seen for less than faces.min_seconds=0.2 s"}


def test_small_faces_are_left_alone_and_said():
    runs, left = runs_of([True] * 20, min_size=71)
    assert not runs
    assert set(left) == {"face smaller than faces.min_size=71 pixels"}


def test_a_face_is_redrawn_in_its_turns_with_their_voices_and_fades_beside_them():
    n = 40
    timeline = timeline_of(list(range(n)), Fraction(1, 25), n)
    fps = Fraction(25)
    frames = np.full(n, LEFT_ALONE, np.int32)
    frames[5:20], frames[20:30], frames[35:37] = AS_PERSON, 7, AS_PERSON
    runs, left = find_runs(
        survey_of([True] * n),
        {0: frames},
        timeline,
        slot_entries(timeline, fps=fps, num_slots=n),
        Choice(),
        fps=fps,
        num_spoken=n,
    )
    # Turns may be brief, although faces seen briefly are left alone.
    spans = [(run.first, run.end, run.speech) for run in runs]
    assert spans == [(5, 20, 0), (20, 30, "turn7"), (35, 37, 0)]
    np.testing.assert_allclose(runs[0].strength[:4], [0.2, 0.4, 0.6, 0.8], rtol=1e-6)
    alone = [slot for slot, reason in enumerate(left) if reason == NOT_SPEAKING]
    assert alone == [*range(5), *range(30, 35), *range(37, 40)]


@pytest.mark.parametrize("gap", [0, 3])
def test_a_person_lost_and_found_in_the_next_frame_keeps_the_redrawn_mouth(gap: int):
    n = 40
    timeline = timeline_of(list(range(n)), Fraction(1, 25), n)
    fps = Fraction(25)
    one = survey_of([True] * 20).tracks[0]
    other = replace(survey_of([True] * (20 - gap)).tracks[0], first=20 + gap)
    runs, _ = find_runs(
        Survey(n, [Shot(0, n)], [one, other]),
        {0: np.full(20, AS_PERSON, np.int32), 1: np.full(20 - gap, AS_PERSON, np.int32)},
        timeline,
        slot_entries(timeline, fps=fps, num_slots=n),
        Choice(min_size=0),
        fps=fps,
        num_spoken=n,
    )
    seam = [float(runs[0].strength[-1]), float(runs[1].strength[0])]
    assert seam == pytest.approx([1, 1] if gap == 0 else [0.2, 0.2])


def test_another_face_than_the_selected_is_no_face_that_was_not_found():
    n = 20
    timeline = timeline_of(list(range(n)), Fraction(1, 25), n)
    fps = Fraction(25)
    _, left = find_runs(
        survey_of([True] * 15 + [False] * 5),
        {},
        timeline,
        slot_entries(timeline, fps=fps, num_slots=n),
        Choice(),
        fps=fps,
        num_spoken=n,
    )
    assert (
        left
        == ["only faces that faces.select, or the plan, leaves out"] * 15 + ["no face found"] * 5
    )


@pytest.mark.parametrize("offset", [0.0, 0.25, 0.5, 0.75])
def test_a_frame_between_two_slots_gets_the_mouth_between_theirs(offset: float):
    levels = {slot: np.full((RESOLUTION,) * 2 + (3,), 20.0 + 40 * slot) for slot in range(4)}
    window = Chunk(0, 0, 4, np.ones(4, np.float32), np.arange(4))
    drawn = iter([(window, np.stack([levels[slot] for slot in range(4)]))])
    starts = [0, 100 + round(100 * offset)]  # in hundredths of a slot
    timeline = timeline_of(starts, Fraction(1, 2500), 300)
    run = Run(0, 0, 0, 4, np.ones(4, np.float32))
    places = Placements(survey_of([True, True]), lambda: aligner_for("smooth", RESOLUTION, fps=25))
    black = np.zeros((*SIZE, 3), np.uint8)
    _, frame = put_back(
        [Picture.of(black)] * 2,
        range(2),
        timeline,
        fps=25.0,
        runs=[run],
        generated=GeneratedFaces(drawn),
        placements=places,
        pasting=Pasting("mask", "mask"),
    )
    assert frame.rgb().max() == pytest.approx(60 + 40 * offset, abs=1)


def test_half_the_strength_shows_half_of_the_mouth():
    window = Chunk(0, 0, 1, np.ones(1, np.float32), np.arange(1))
    shown = []
    for strength in (1.0, 0.5, 0.0):
        drawn = iter([(window, np.full((1, RESOLUTION, RESOLUTION, 3), 200.0))])
        (frame,) = put_back(
            [Picture.of(np.zeros((*SIZE, 3), np.uint8))],
            range(1),
            timeline_of([0], Fraction(1, 25), 1),
            fps=25.0,
            runs=[Run(0, 0, 0, 1, np.array([strength], np.float32))],
            generated=GeneratedFaces(drawn),
            placements=Placements(
                survey_of([True]), lambda: aligner_for("smooth", RESOLUTION, fps=25)
            ),
            pasting=Pasting("mask", "mask"),
        )
        shown.append(int(frame.rgb().max()))
    assert shown == [200, 100, 0]


def test_faces_that_are_past_are_not_kept_though_they_are_drawn_later():
    window = Chunk(0, 0, 16, np.ones(16, np.float32), np.arange(16))
    patches = GeneratedFaces(iter([(window, np.zeros((16, 2, 2, 3)))]))
    patches.forget(before=12)
    patches.at(0, 12)
    assert {slot for _, slot in patches.done} == {12, 13, 14, 15}


def placed(scale: float, degrees: float, x: float, y: float) -> Placement:
    """A square face: its scale in face pixels per frame pixel, rotation, and centre."""
    turn = np.deg2rad(degrees)
    linear = scale * np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    middle = np.full(2, (RESOLUTION - 1) / 2)
    return Placement(np.column_stack([linear, middle - linear @ [x, y]]), (RESOLUTION, RESOLUTION))


PLACES = {
    "as it is": placed(1.0, 0, 200, 150),
    "larger in the frame": placed(0.5, 8, 180, 140),
    "much larger": placed(0.11, -20, 230, 160),
    "smaller": placed(2.3, 15, 201, 99),
    "over the corner": placed(0.4, 5, 6, 8),
    "over the other corner": placed(0.3, -5, 395, 296),
    "outside": placed(1.0, 0, 900, 150),
}


def blurred_noise() -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 1.5)


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_a_face_cut_from_its_part_of_the_picture_is_the_one_cut_from_the_whole(place: Placement):
    frame = blurred_noise()
    whole = align(frame, place, RESOLUTION).astype(int)
    part = face_in(Picture.of(frame), place, RESOLUTION)
    # OpenCV rounds positions to 1/32 of a pixel, from different sums.
    assert np.abs(part - whole).max() <= 3
    assert (part != whole).mean() < 0.02


@pytest.mark.parametrize("region", ["mask", "crop"])
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_a_face_put_into_its_part_of_the_picture_is_the_one_put_into_the_whole(
    place: Placement, region: str
):
    frame = blurred_noise()
    face = 255 - blurred_noise()[:RESOLUTION, :RESOLUTION]
    whole = paste(frame, face, place, region=region).astype(int)
    part = with_face(Picture.of(frame), face, place, Pasting(region, "mask"), strength=1.0).rgb()
    assert np.abs(part - whole).max() <= 3
    assert (part != whole).mean() < 0.02
    assert (part == frame).all() == (place is PLACES["outside"])


@pytest.mark.parametrize("rate", [24, 30, 50, 60])
@pytest.mark.parametrize("cut", [28, 35, 36, 37])
def test_every_frame_up_to_a_cut_and_to_the_end_gets_a_mouth(rate: int, cut: int):
    """Slots of 1/25 s are longer than the frames: a cut and the end come in the middle of one."""
    length = 3 * rate + 1
    timeline = timeline_of(list(range(length)), Fraction(1, rate), length)
    whole = survey_of([True] * length)
    (track,) = whole.tracks
    tracks = [
        replace(
            track,
            first=first,
            **{name: getattr(track, name)[first:end] for name in PER_FRAME},
        )
        for first, end in ((0, cut), (cut, length))
    ]
    seen = Survey(length, [Shot(0, cut), Shot(cut, length)], tracks)
    num_slots = round(25 * length / rate)
    runs, _ = find_runs(
        seen,
        {index: np.full(len(each.boxes), AS_PERSON, np.int32) for index, each in enumerate(tracks)},
        timeline,
        slot_entries(timeline, fps=Fraction(25), num_slots=num_slots),
        Choice(),
        fps=Fraction(25),
        num_spoken=num_slots,
    )
    places = Placements(seen, lambda: aligner_for("smooth", RESOLUTION, fps=rate))
    runs_at = RunsAt(runs)
    for entry in range(length):
        (mouth,) = shown_mouths(entry, timeline, fps=25.0, runs_at=runs_at, placements=places)
        assert runs[mouth.run].track == (0 if entry < cut else 1)
        assert runs[mouth.run].first <= mouth.lower < runs[mouth.run].end
