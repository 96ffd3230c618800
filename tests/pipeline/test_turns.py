"""Who speaks when: the most likely course, turns and their files."""

from fractions import Fraction
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from latentsync.media.frame_reader import FrameTimes
from latentsync.pipeline.speakers import (
    CHANGE_COST,
    NOBODY,
    NOBODY_SCORE,
    Turn,
    check_turns,
    likeliest_course,
    read_rttm,
    speaking_frames,
    turns_of,
)

NO_CUTS = np.zeros(100, bool)


def worth(course: tuple[int, ...], scores: np.ndarray, cuts: np.ndarray, cost: float) -> float:
    """The sum of scores of a course minus the cost of its changes."""
    states = np.column_stack([scores, np.full(len(scores), NOBODY_SCORE)])
    total = sum(float(states[slot, state]) for slot, state in enumerate(course))
    pairs = zip(course, course[1:], cuts[1:], strict=False)
    return total - cost * sum(a != b and not is_cut for a, b, is_cut in pairs)


@pytest.mark.parametrize("seed", range(20))
def test_no_other_course_is_worth_more(seed: int) -> None:
    rng = np.random.default_rng(seed)
    num_slots, num_persons = int(rng.integers(1, 7)), int(rng.integers(0, 4))
    scores = rng.normal(0, 3, (num_slots, num_persons))
    scores[rng.random(scores.shape) < 0.25] = -np.inf
    cuts, cost = rng.random(num_slots) < 0.3, float(rng.choice([0, 1, 4, 10]))
    found = likeliest_course(scores, cuts, change_cost=cost)
    own = tuple(np.where(found == NOBODY, num_persons, found).tolist())
    best = max(
        worth(course, scores, cuts, cost)
        for course in product(range(num_persons + 1), repeat=num_slots)
    )
    assert worth(own, scores, cuts, cost) == pytest.approx(best)
    assert np.isfinite(best)


@pytest.mark.parametrize(("gain", "changes"), [(-0.01, False), (0.01, True)])
def test_a_change_must_gain_what_it_costs(gain: float, changes: bool) -> None:
    scores = np.zeros((100, 2))
    scores[:50, 0], scores[50:, 1] = 1, CHANGE_COST / 50 + gain
    expected = [0] * 50 + [int(changes)] * 50
    assert likeliest_course(scores, NO_CUTS).tolist() == expected


def test_a_cut_changes_for_nothing_and_a_person_who_left_does_not_speak() -> None:
    scores = np.array([[0.1, 0.0]] * 3 + [[0.0, 0.1]] * 3)
    cuts = np.arange(6) == 3
    assert likeliest_course(scores, cuts).tolist() == [0, 0, 0, 1, 1, 1]
    assert likeliest_course(scores, np.zeros(6, bool)).tolist() == [0] * 6
    gone = np.array([[3.0]] * 4 + [[-np.inf]] * 4 + [[3.0]] * 4)
    assert likeliest_course(gone, NO_CUTS[:12]).tolist() == [0] * 4 + [NOBODY] * 4 + [0] * 4


def test_who_scores_less_than_nobody_is_nobody() -> None:
    assert set(likeliest_course(np.full((50, 3), NOBODY_SCORE - 0.1), NO_CUTS[:50])) == {NOBODY}
    assert likeliest_course(np.zeros((0, 2)), NO_CUTS[:0]).tolist() == []


def test_turns_are_stretches_with_their_mean_probability() -> None:
    course = np.array([NOBODY, 0, 0, 1, NOBODY, 1])
    equal = np.full((6, 2), NOBODY_SCORE)
    turns = turns_of(course, equal, [4, 7], slots_per_second=25)
    assert turns == [
        Turn(0.04, 0.12, 4, 0.333), Turn(0.12, 0.16, 7, 0.333), Turn(0.2, 0.24, 7, 0.333)
    ]  # fmt: skip
    sure = np.array([[9.0, -np.inf]] * 6)
    assert turns_of(np.zeros(6, int), sure, [4, 7], slots_per_second=25) == [Turn(0, 0.24, 4, 1.0)]


def test_frames_belong_to_the_turn_that_their_middle_lies_in() -> None:
    # Uneven frames: their middles are at 0.5, 2, 4.5 and 8 s.
    times = FrameTimes(Fraction(1, 1), np.array([0, 1, 3, 6]), 10)
    turns = [Turn(0.0, 2.0, 1), Turn(4.5, 9.0, 1), Turn(0.0, 10.0, 2)]
    assert speaking_frames(turns, 1, times).tolist() == [True, False, True, True]
    assert speaking_frames(turns, 2, times).all()
    assert not speaking_frames(turns, 3, times).any()


RTTM = """;; made by hand
SPEAKER film 1 2.5 1.25 <NA> <NA> 1 <NA> <NA>

SPEAKER film 1 0.00 2.50 <NA> <NA> 0 <NA> <NA>
"""


def test_an_rttm_file_is_turns_in_order(tmp_path: Path) -> None:
    path = tmp_path / "a.rttm"
    path.write_text(RTTM)
    assert read_rttm(path) == [Turn(0.0, 2.5, 0), Turn(2.5, 3.75, 1)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no SPEAKER line"),
        ("SPEAKER film 1 2.5", r"line 1: an RTTM line is SPEAKER FILE"),
        ("LEXEME f 1 0 1 <NA> <NA> 0 <NA> <NA>", "an RTTM line is SPEAKER"),
        ("\nSPEAKER f 1 x 1 <NA> <NA> 0 <NA>", "line 2: start and duration must be seconds, got x"),
        ("SPEAKER f 1 1 -1 <NA> <NA> 0 <NA>", "start and duration must be seconds, got 1 -1"),
        ("SPEAKER f 1 nan 1 <NA> <NA> 0 <NA>", "must be seconds, got nan"),
        ("SPEAKER f 1 0 1 <NA> <NA> ann <NA>", "speaker is called 'ann'; give the number"),
    ],
)
def test_what_is_no_rttm_file_is_said_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "a.rttm"
    path.write_text(text)
    with pytest.raises(ValueError, match=said):
        read_rttm(path)


def test_binary_and_missing_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.rttm").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(ValueError, match="is no text"):
        read_rttm(tmp_path / "a.rttm")
    with pytest.raises(FileNotFoundError, match=r"b\.rttm is not a file"):
        read_rttm(tmp_path / "b.rttm")


@pytest.mark.parametrize(
    ("turn", "said"),
    [
        (Turn(0, 1, 2), r"there is no person 2, the video shows the persons \[0, 1\]"),
        (Turn(1, 1, 0), "must end after it starts"),
        (Turn(-1, 1, 0), "must end after it starts"),
        (Turn(3, 10.6, 0), r"the video ends at 10\.00 s; are these the turns of another one"),
    ],
)
def test_turns_of_another_video_are_refused(turn: Turn, said: str) -> None:
    good = [Turn(0, 10.4, 1), Turn(0, 1, None)]
    check_turns(good, [0, 1], 10.0, "a.rttm")
    with pytest.raises(ValueError, match=rf"a\.rttm, turn 2 .*{said}"):
        check_turns([*good, turn], [0, 1], 10.0, "a.rttm")
