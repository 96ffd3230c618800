import weakref
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from faces.dots import DotDetector, LevelLook, draw
from latentsync.data.synthetic import Speaker
from latentsync.data.synthetic.render import Portrait, at, head_motion
from latentsync.faces import Face, FixedDetector, MeshDetector, three_points
from latentsync.faces.detectors.base import FIVE
from latentsync.faces.tracking.follower import distinct
from latentsync.faces.tracking.survey import Shot, Survey, Track, steady, survey, usable

A, B, C = 200, 150, 120  # grey levels of squares
NOBODY = draw()


def look_at(frames: Iterable[np.ndarray], detector: DotDetector | None = None) -> Survey:
    return survey(frames, detector or DotDetector(), three_points, embedder=LevelLook())


def spans(found: Survey) -> list[tuple[int, int, int]]:
    return [(track.person, track.first, track.end) for track in found.tracks]


def test_two_faces_are_followed_side_by_side() -> None:
    frames = [draw((20 + index, 30, 40, A), (150 - index, 90, 50, B)) for index in range(30)]
    found = look_at(frames)
    assert found.num_frames == 30
    assert found.shots == [Shot(0, 30)]
    assert spans(found) == [(0, 0, 30), (1, 0, 30)]
    larger, smaller = found.tracks
    for index in range(30):
        np.testing.assert_array_equal(larger.boxes[index], [150 - index, 90, 199 - index, 139])
        np.testing.assert_array_equal(smaller.points[index, 0], [20 + index, 30])
    assert np.isnan(larger.openings).all()
    assert np.isnan(larger.yaws).all()


def test_someone_who_comes_later_is_found_within_the_interval() -> None:
    frames = [draw((20, 30, 40, A))] * 5 + [draw((20, 30, 40, A), (150, 90, 40, B))] * 25
    found = look_at(frames)
    assert spans(found) == [(0, 0, 30), (1, 12, 30)]


def test_looking_gets_rarer_while_nobody_new_comes() -> None:
    detector = DotDetector()
    look_at([draw((20, 30, 40, A))] * 205, detector)
    assert detector.num_detections == 6  # frames 0, 12, 36, 84, 132, 180


def test_a_stretch_without_faces_is_looked_at_every_third_frame_and_nothing_is_missed() -> None:
    detector = DotDetector()
    frames = [NOBODY] * 50 + [draw((20 + index, 30, 40, A)) for index in range(20)]
    found = look_at(frames, detector)
    assert spans(found) == [(0, 50, 70)]
    assert np.isfinite(found.tracks[0].points).all()
    assert detector.num_detections <= 22


def test_a_face_hidden_for_a_moment_stays_one_track_with_a_gap() -> None:
    here = draw((20, 30, 40, A), (150, 90, 50, B))
    hidden = draw((150, 90, 50, B))
    found = look_at([here] * 10 + [hidden] * 4 + [here] * 10)
    assert spans(found) == [(0, 0, 24), (1, 0, 24)]
    seen = np.isfinite(found.tracks[1].boxes[:, 0])
    assert seen[:10].all()
    assert not seen[10:14].any()
    assert seen[14:].all()


def test_who_leaves_and_comes_back_elsewhere_has_the_same_number() -> None:
    both = draw((20, 30, 40, A), (150, 90, 50, B))
    one = draw((150, 90, 50, B))
    back = draw((40, 100, 40, A), (150, 90, 50, B))
    found = look_at([both] * 10 + [one] * 40 + [back] * 50)
    assert [(track.person, track.first) for track in found.tracks][:2] == [(0, 0), (1, 0)]
    again = found.tracks[2]
    assert again.person == 1
    assert 50 <= again.first <= 98
    assert len(found.tracks) == 3


def test_persons_keep_their_numbers_over_cuts_and_black() -> None:
    first = [draw((20, 30, 40, A), background=90)] * 10
    second = [draw((60, 20, 60, B))] * 10
    third = [draw((10, 90, 40, B), (150, 30, 40, A), (90, 30, 30, C), background=90)] * 10
    found = look_at([*first, *second, *[draw(background=0)] * 10, *third])
    assert found.shots == [Shot(0, 10), Shot(10, 20), Shot(20, 30), Shot(30, 40)]
    assert spans(found) == [(0, 0, 10), (1, 10, 20), (0, 30, 40), (1, 30, 40), (2, 30, 40)]
    by_person = {track.person: track for track in found.tracks if track.first == 30}
    np.testing.assert_array_equal(by_person[0].boxes[0, :2], [150, 30])
    np.testing.assert_array_equal(by_person[1].boxes[0, :2], [10, 90])


def test_a_flash_is_no_face_but_a_short_shot_is() -> None:
    frames = [NOBODY] * 9 + [draw((20, 30, 40, A))] + [NOBODY] * 20
    assert look_at(frames).tracks == []
    assert spans(look_at([draw((20, 30, 40, A))])) == [(0, 0, 1)]


class Blind(DotDetector):
    """Finds no landmarks after the first frames; heads are turned by these degrees."""

    def __init__(self, degrees: float | None, num_with_landmarks: int) -> None:
        super().__init__()
        self.degrees, self.num_left = degrees, num_with_landmarks

    def at(self, frame: np.ndarray, level: int) -> Face | None:
        face = super().at(frame, level)
        self.num_left -= 1
        if face is None or self.num_left >= 0:
            return face
        return replace(face, points=face.points[[0, 1, 2, 0, 1]], scheme=FIVE)

    def yaw(self, face: Face) -> float | None:
        return self.degrees


@pytest.mark.parametrize(
    ("degrees", "num_with_landmarks", "is_face"),
    [(5.0, 1, False), (-20.0, 0, False), (5.0, 4, True), (-70.0, 0, True), (None, 0, True)],
)
def test_a_face_that_looks_here_without_landmarks_is_none(
    degrees: float | None, num_with_landmarks: int, is_face: bool
) -> None:
    frames = [draw((20 + index, 30, 40, A)) for index in range(30)]
    found = look_at(frames, Blind(degrees, num_with_landmarks))
    assert spans(found) == ([(0, 0, 30)] if is_face else [])


def test_no_frames_are_an_empty_survey() -> None:
    assert look_at([]) == Survey(0, [], [])


def test_six_frames_are_held_at_most() -> None:
    alive: list[weakref.ref] = []
    most = 0

    def watched() -> Iterator[np.ndarray]:
        nonlocal most
        for index in range(60):
            frame = draw((20, 30, 40, A)) if 20 <= index < 40 else draw()
            alive.append(weakref.ref(frame))
            yield frame
            del frame
            most = max(most, sum(ref() is not None for ref in alive))

    look_at(watched())
    assert most <= 6


def test_given_points_are_asked_for_once_a_frame() -> None:
    moving = np.array([[10, 10], [30, 10], [20, 20]]) + np.arange(40)[:, None, None]
    found = survey([np.zeros((80, 80, 3), np.uint8)] * 40, FixedDetector(moving), three_points)
    (track,) = found.tracks
    np.testing.assert_array_equal(track.points, moving)


def test_two_tracks_on_one_face_become_one() -> None:
    def face(x: float) -> Face:
        return Face(np.array([x, 0, x + 40, 40.0]), np.zeros((3, 2)), 1.0, "three")

    before = [face(0), face(60)]
    assert [kept is None for kept in distinct(before, [face(55), face(58)])] == [True, False]
    assert [kept is None for kept in distinct(before, [face(2), face(10)])] == [False, True]
    assert None not in distinct(before, [face(20), face(50)])
    assert distinct(before, [None, None]) == [None, None]


def test_a_survey_is_saved_and_loaded_whole(tmp_path: Path) -> None:
    here, hidden = draw((20, 30, 40, A), (150, 90, 50, B)), draw((150, 90, 50, B))
    found = look_at([here] * 10 + [hidden] * 4 + [here] * 10)
    path = tmp_path / "faces.safetensors"
    found.save(path)
    again = Survey.load(path)
    assert (again.num_frames, again.shots, spans(again)) == (24, found.shots, spans(found))
    for track, copy in zip(found.tracks, again.tracks, strict=True):
        for name in ("points", "boxes", "openings", "yaws"):
            np.testing.assert_array_equal(getattr(copy, name), getattr(track, name))
            assert getattr(copy, name).dtype == np.float32
    empty = Survey(5, [Shot(0, 5)], [])
    empty.save(path)
    assert Survey.load(path) == empty
    assert [item.name for item in tmp_path.iterdir()] == ["faces.safetensors"]


def test_what_is_no_survey_is_refused(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    with pytest.raises(FileNotFoundError, match="none"):
        Survey.load(tmp_path / "none")
    path = tmp_path / "bad"
    path.write_bytes(b"no tensors at all")
    with pytest.raises(ValueError, match="bad is no survey"):
        Survey.load(path)
    save_file({"other": np.zeros(3)}, path)
    with pytest.raises(ValueError, match="version None"):
        Survey.load(path)


class SeesHalf(DotDetector):
    """Does not provide landmarks for squares of some levels."""

    def at(self, frame: np.ndarray, level: int) -> Face | None:
        face = super().at(frame, level)
        if face is None or level >= 200:
            return face
        return replace(face, scheme=FIVE, points=np.zeros((5, 2)))

    def refine(self, frame: np.ndarray, face: Face) -> Face | None:
        return next(iter(self(frame)), None)


def test_a_face_without_landmarks_for_a_while_stays_one_track_that_says_so() -> None:
    levels = [150] * 4 + [220] * 6 + [150] * 3
    frames = [draw((50, 50, 40, level)) for level in levels]
    (track,) = survey(frames, SeesHalf(), three_points, embedder=None).tracks
    assert np.isfinite(track.boxes).all()
    has_landmarks = np.isfinite(track.points).all(axis=(1, 2))
    assert has_landmarks.tolist() == [level == 220 for level in levels]
    fine, reasons = usable(track, min_size=20, max_yaw=60)
    assert fine.tolist() == has_landmarks.tolist()
    assert "no landmarks" in reasons[0]


def made_track(heights: list[float], yaws: list[float]) -> Track:
    boxes = np.array(
        [[0 * height, 0, 0.8 * height, height] for height in heights], dtype=np.float32
    )
    points = np.repeat(boxes[:, None, :2], 3, axis=1)
    return Track(0, 7, points, boxes, np.zeros(len(boxes), np.float32), np.float32(yaws))


def test_faces_too_small_or_turned_away_or_unseen_are_unusable() -> None:
    nan = float("nan")
    track = made_track([100] * 10 + [20] * 10 + [nan] * 5 + [100] * 10, [10] * 35)
    fine, reasons = usable(track, min_size=32, max_yaw=60)
    assert fine.tolist() == [True] * 10 + [False] * 15 + [True] * 10
    assert {"32" in reason for reason in reasons[10:20]} == {True}
    assert set(reasons[20:25]) == {"no face found"}
    assert set(reasons[:10] + reasons[25:]) == {""}
    turned = made_track([100] * 30, [-70] * 10 + [0] * 10 + [nan] * 10)
    fine, reasons = usable(turned, min_size=32, max_yaw=60)
    assert fine.tolist() == [False] * 10 + [True] * 20
    assert "60 degrees" in reasons[0]


def test_one_jump_over_the_limit_does_not_switch_a_face_off() -> None:
    track = made_track([33, 33, 31, 33, 33, 33, 31, 33], [0, 0, 0, 80, 0, 0, 0, 0])
    assert usable(track, min_size=32, max_yaw=60)[0].all()


def redrawn(yaws: list[float], max_yaw: float = 60) -> np.ndarray:
    return usable(made_track([100] * len(yaws), yaws), min_size=32, max_yaw=max_yaw)[0]


@pytest.mark.parametrize("sign", [1, -1])
def test_a_head_that_wobbles_about_the_limit_switches_at_most_once(sign: int) -> None:
    yaws = [sign * (60 + 4 * np.sin(index / 5)) for index in range(200)]
    beyond = np.abs(steady(np.float32(yaws))) > 60
    assert np.count_nonzero(np.diff(beyond)) > 8
    assert np.count_nonzero(np.diff(redrawn(yaws))) <= 1
    assert not redrawn(yaws)[beyond].any()


def test_a_refused_head_comes_back_only_well_below_the_limit() -> None:
    assert redrawn([55] * 20).all()
    assert not redrawn([70] * 20).any()
    assert redrawn([70] * 20 + [55] * 20 + [40] * 20).tolist() == [False] * 40 + [True] * 20
    assert redrawn([9] * 20 + [1] * 20, 8).tolist() == [False] * 20 + [True] * 20


def test_a_return_of_a_few_frames_stays_refused() -> None:
    nan = float("nan")
    # Unknown neighbours keep the median from hiding the return.
    gap = [nan] * 4
    yaws = [70] * 10 + gap + [40] * 4 + gap + [70] * 10
    assert redrawn(yaws).tolist() == np.isnan(yaws).tolist()
    assert redrawn([70] * 10 + gap + [40] * 5 + gap + [70] * 10)[14:19].all()


@pytest.fixture(scope="module")
def drawn_film() -> list[np.ndarray]:
    """Two people side by side, then the second alone and larger, black, the first alone."""
    portraits, motions = [], []
    for seed in (900011, 900016):
        rng = np.random.default_rng(seed)
        portraits.append(Portrait(Speaker.random(rng), 192))
        motions.append(head_motion(30, 25.0, rng))

    def person(index: int, time: int, opening: float = 0.3) -> np.ndarray:
        shape = {"open": opening, "width": 0.5, "round": 0.2, "teeth": 0.3, "tongue": 0.2}
        return portraits[index].frame(shape, at(motions[index], time))

    both = [np.hstack([person(0, time), person(1, time)]) for time in range(8)]
    second = [np.pad(person(1, time), ((0, 0), (150, 42), (0, 0))) for time in range(8, 16)]
    black = [np.zeros((192, 384, 3), np.uint8)] * 4
    openings = [0.0, 0.9] * 4
    first = [
        np.pad(person(0, 20 + index, opening), ((0, 0), (10, 182), (0, 0)))
        for index, opening in enumerate(openings)
    ]
    return [*both, *second, *black, *first]


def test_drawn_people_are_told_apart_over_cuts_and_black(
    detector: MeshDetector, drawn_film: list[np.ndarray]
) -> None:
    found = survey(drawn_film, detector, three_points)
    assert found.shots == [Shot(0, 8), Shot(8, 16), Shot(16, 20), Shot(20, 28)]
    assert [(track.first, track.end) for track in found.tracks] == [
        (0, 8),
        (0, 8),
        (8, 16),
        (20, 28),
    ]
    side_by_side = {track.person: track.boxes[0, 0] for track in found.tracks[:2]}
    assert set(side_by_side) == {0, 1}
    left, right = sorted(side_by_side, key=lambda person: side_by_side[person])
    assert found.tracks[2].person == right
    assert found.tracks[3].person == left
    openings = found.tracks[3].openings
    assert openings[1::2].min() > openings[::2].max() + 0.1
    assert np.abs(found.tracks[3].yaws).max() < 30
