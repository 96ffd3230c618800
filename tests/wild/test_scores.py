"""The arithmetic of the bench on labelled clips, without clips."""

import numpy as np
import pytest
from wild_scores import (
    Seen,
    auc,
    cut_rates,
    identities,
    jitter,
    lags,
    match_cuts,
    name_tracks,
    presence,
    turn_accuracy,
)


def test_cuts_are_matched_within_a_frame_and_doubtful_ones_count_for_nothing() -> None:
    cuts = [
        {"at": [10, 10]},
        {"at": [20, 22], "note": "blend"},
        {"at": [40, 40]},
        {"at": [50, 50], "doubtful": True},
        {"at": [60, 60], "doubtful": True},
    ]
    counts = match_cuts([9, 21, 23, 30, 50], cuts)
    assert counts == {"found": 2, "missed": 1, "false": 1, "double": 1}
    assert cut_rates(counts) == {"P": 0.5, "R": round(2 / 3, 4)}
    assert match_cuts([], []) == {"found": 0, "missed": 0, "false": 0, "double": 0}
    assert cut_rates(match_cuts([], [])) == {"P": None, "R": None}


def test_faces_are_counted_against_who_is_there() -> None:
    people = [
        {"id": "A", "spans": [[0, 9]]},
        {"id": "B", "spans": [[5, 9]]},
        {"id": "C", "spans": [[8, 9]], "doubtful": True},
    ]
    found = [1, 0, 2, 1, 1, 2, 1, 2, 3, 4]
    assert presence(found, people) == {
        "expected": 15,
        "found": 13,
        "unlabelled": 2,
        "unlabelled_frames": 2,
    }


TWO = [{"id": "A", "spans": [[0, 29]]}, {"id": "B", "spans": [[10, 29]]}]


def test_persons_are_right_whatever_their_numbers() -> None:
    tracks = [Seen(7, 0, 0, 10), Seen(3, 1, 10, 20), Seen(7, 1, 10, 20), Seen(3, 2, 20, 30)]
    score = identities(tracks, TWO)
    assert score["right"]
    assert (score["persons"], score["people"]) == (2, 2)
    assert score["merged_pairs"] == score["split_pairs"] == 0


def test_hints_tell_who_is_who_of_two_that_are_always_there() -> None:
    people = [{"id": "A", "spans": [[0, 9]]}, {"id": "B", "spans": [[0, 9]]}]
    tracks = [Seen(0, 0, 0, 10), Seen(1, 0, 0, 10)]
    for first, second in (("A", "B"), ("B", "A")):
        assert name_tracks(tracks, people, {(0, first): 0.9, (1, first): 0.2}) == [first, second]


def test_splits_and_merges_are_told_apart() -> None:
    people = [
        {"id": "A", "spans": [[0, 9], [20, 29]]},
        {"id": "B", "spans": [[10, 19], [30, 39]]},
    ]
    shots = [(0, 10), (10, 20), (20, 30), (30, 40)]

    def score(numbers: list[int]) -> dict:
        seen = [
            Seen(number, shot, *span)
            for shot, (number, span) in enumerate(zip(numbers, shots, strict=True))
        ]
        return identities(seen, people)

    split = score([0, 1, 2, 1])
    assert not split["right"]
    assert (split["split_pairs"], split["merged_pairs"]) == (1, 0)
    assert (split["splits"], split["merges"]) == (1, 0)
    merged = score([0, 0, 0, 0])
    assert (merged["split_pairs"], merged["merged_pairs"]) == (0, 4)
    assert (merged["splits"], merged["merges"]) == (0, 1)


def test_one_face_twice_in_a_picture_is_two_and_one_actress_in_two_parts_is_one() -> None:
    twice = [
        {"id": "A1", "spans": [[0, 9]]},
        {"id": "A2", "spans": [[0, 9]], "same_as": "A1 (same face twice)"},
    ]
    assert identities([Seen(0, 0, 0, 10), Seen(1, 0, 0, 10)], twice)["right"]
    parts = [
        {"id": "A", "spans": [[0, 9]]},
        {"id": "B", "spans": [[10, 19]], "same_as": "A (one actress)"},
    ]
    assert identities([Seen(0, 0, 0, 10), Seen(0, 1, 10, 20)], parts)["right"]
    assert not identities([Seen(0, 0, 0, 10), Seen(1, 1, 10, 20)], parts)["right"]


def test_area_under_the_curve() -> None:
    assert auc([3, 4], [1, 2]) == 1
    assert auc([1, 2], [1, 2]) == 0.5
    assert auc([2], [1, 3, 3, 3]) == 0.25
    assert auc([], [1]) is None


def test_lag_is_a_distance_and_steady_motion_has_no_jitter() -> None:
    own = np.zeros((5, 3, 2))
    assert lags(own + np.array([3, 4]), own).tolist() == [5] * 5
    steady = np.arange(30.0)[:, None, None] * np.ones((30, 3, 2))
    np.testing.assert_allclose(jitter(steady), 0)
    shaken = np.zeros((5, 3, 2))
    shaken[2, 1] = 1, 0
    assert jitter(shaken).tolist() == [0.5, 1, 0.5]


@pytest.mark.parametrize(("chosen", "right"), [("A", 1), ("B", 0), (None, 0)])
def test_turns_count_where_two_are_seen(chosen: str | None, right: int) -> None:
    counts = turn_accuracy([chosen, chosen, None], ["A", "A", None], [2, 1, 0])
    assert counts["right"] == right
    assert counts["right"] + counts["wrong"] + counts["nobody"] == 1
    assert counts["off_screen_nobody"] == counts["off_screen"] == 1
