"""What is worn tells who is who where faces hardly do; it parts nobody."""

import numpy as np
import pytest

from latentsync.faces.tracking.clothes import Colours, torso_colours
from latentsync.faces.tracking.clothes import likeness as likenesses
from latentsync.faces.tracking.identity import Appearance, number_people

BOX = np.array([60.0, 20, 80, 40])  # torsos from row 52 to 84, columns 56 to 84
RED, BLUE = (170, 30, 40), (30, 40, 150)


def wearing(color: tuple[int, int, int], *, grey: int = 90) -> np.ndarray:
    frame = np.full((120, 160, 3), grey, np.uint8)
    frame[46:, 52:90] = color
    return frame


def likeness(one: Colours | None, other: Colours | None) -> float:
    of_pairs = likenesses([one, other])
    assert of_pairs[0, 1] == of_pairs[1, 0]
    return float(of_pairs[0, 1])


def test_colours_are_those_below_the_face_only():
    red = torso_colours(wearing(RED), BOX)
    assert red is not None
    assert red.sum() == pytest.approx(1)
    assert likeness(red, torso_colours(wearing(RED, grey=200), BOX)) == pytest.approx(1)
    assert likeness(red, torso_colours(wearing(BLUE), BOX)) == 0
    with_a_strap = wearing(RED)
    with_a_strap[:, 60] = BLUE
    assert 0 < likeness(red, torso_colours(with_a_strap, BOX)) < 1


def test_colours_do_not_depend_on_the_size_of_the_picture():
    small, frame = torso_colours(wearing(RED), BOX), wearing(RED).repeat(3, axis=0)
    assert likeness(small, torso_colours(frame.repeat(3, axis=1), BOX * 3)) > 0.9


def test_a_torso_outside_the_picture_is_unknown():
    frame = wearing(RED)
    assert torso_colours(frame[:55], BOX) is None
    assert torso_colours(frame, BOX + np.array([0, 90, 0, 90])) is None
    assert torso_colours(frame[:, :50], BOX) is None
    part = torso_colours(frame[:68], BOX)
    assert likeness(part, torso_colours(frame, BOX)) == pytest.approx(1)
    assert likeness(None, part) == likeness(part, None) == 0


def seen(first: int, look: float, color: tuple[int, int, int] | None) -> Appearance:
    clothes = None if color is None else torso_colours(wearing(color), BOX)
    return Appearance(first, first + 5, BOX, BOX, np.array([float(look)]), clothes)


def test_like_clothes_join_faces_just_beyond_the_limit_and_no_others():
    def persons(*shown: Appearance) -> list[int]:
        return number_people(shown, limit=1.0, same_clothes=0.2)

    assert persons(seen(0, 0, RED), seen(5, 1.1, RED)) == [0, 0]
    assert persons(seen(0, 0, RED), seen(5, 1.1, BLUE)) == [0, 1]
    assert persons(seen(0, 0, RED), seen(5, 1.1, None)) == [0, 1]
    assert persons(seen(0, 0, RED), seen(5, 1.3, RED)) == [0, 1]
    # Others do not part who is one by the face, nor does a face occur twice in a frame.
    assert persons(seen(0, 0, RED), seen(5, 0.9, BLUE)) == [0, 0]
    assert persons(seen(0, 0, RED), seen(4, 0, RED)) == [0, 1]
    assert number_people([seen(0, 0, RED), seen(5, 1.1, RED)], limit=1.0) == [0, 1]
