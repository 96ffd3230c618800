"""Whether a head is turned too far is known some frames later, and the same for all roads."""

import numpy as np
import pytest

from latentsync.faces.tracking.turned import SHORT_RETURN, STEADY_FRAMES, TurnGate, turned_away


def spans(turned: np.ndarray) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(turned.astype(int), prepend=0, append=0))
    return [(int(first), int(end)) for first, end in edges.reshape(-1, 2)]


@pytest.mark.parametrize(
    ("yaws", "refused"),
    [
        ([0] * 30 + [70] * 30 + [0] * 30, [(30, 60)]),
        ([0] * 30 + [46] * 30 + [0] * 30, []),  # never beyond the limit
        ([0] * 30 + [55] * 20 + [46] * 20 + [0] * 20, [(30, 70)]),  # not yet far enough back
        ([70] * 30 + [0] * 4 + [70] * 30, [(0, 64)]),  # the median of nine does not see it
        ([-70] * 40, [(0, 40)]),
    ],
)
def test_what_is_refused_of_a_head_that_turns(
    yaws: list[float], refused: list[tuple[int, int]]
) -> None:
    assert spans(turned_away(np.array(yaws, dtype=float), 50.0)) == refused


def test_unknown_yaws_are_accepted_and_change_nothing() -> None:
    yaws = np.array([0.0] * 20 + [70.0] * 20 + [0.0] * 20)
    known = turned_away(yaws, 50.0)
    holes = np.insert(yaws, [30, 30, 30], np.nan)
    found = turned_away(holes, 50.0)
    assert not found[30:33].any()
    np.testing.assert_array_equal(np.delete(found, [30, 31, 32]), known)


def test_answers_come_in_order_and_a_bounded_number_of_frames_late() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        yaws = np.cumsum(rng.normal(0, 12, 200)) + 40
        yaws[rng.random(200) < 0.2] = np.nan
        gate, answers = TurnGate(50.0), list[bool]()
        for number, yaw in enumerate(yaws.tolist(), start=1):
            answers += gate(yaw)
            late = number - len(answers)
            held = int(np.isnan(yaws[len(answers) : number]).sum())
            assert late <= STEADY_FRAMES // 2 + SHORT_RETURN + held
        answers += gate.finish()
        np.testing.assert_array_equal(answers, turned_away(yaws, 50.0))
