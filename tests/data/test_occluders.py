"""What is drawn before a synthetic face: exact alpha, motion, and the same face behind it."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from latentsync.data.synthetic import draw_world, read_truth, render_clip
from latentsync.data.synthetic.occluders import OCCLUDERS, Layer, draw_occluder, raised
from latentsync.data.synthetic.render import FACE_SHARE, Portrait, at, head_motion, render
from latentsync.data.synthetic.speaker import MOUTH_Y, Speaker
from latentsync.data.synthetic.speech import truth_of, viseme_track
from latentsync.media.video import read_frames

SIZE, SECONDS = 96, 3.0
JAW = np.array([0.48, 0.66])  # from the nose to the jaw beside the chin, in face coordinates
KINDS = sorted(OCCLUDERS)
Drawn = tuple[Portrait, dict[str, np.ndarray], dict[str, np.ndarray]]


@pytest.fixture(scope="module")
def drawn() -> Drawn:
    rng = np.random.default_rng(4)
    portrait = Portrait(Speaker.random(rng), SIZE)
    mouth = truth_of(viseme_track(SECONDS, rng))
    return portrait, mouth, head_motion(len(mouth["open"]), 25.0, rng)


@pytest.fixture(scope="module")
def layers_of(drawn: Drawn) -> Callable[[str], list[Layer]]:
    return lambda kind: list(draw_occluder(kind, *drawn, np.random.default_rng(1)))


def mouth_box(drawn: Drawn, index: int) -> tuple[slice, slice]:
    """Rows and columns of the lips of a face that hardly turns."""
    portrait, _, motion = drawn
    nose = portrait.points(at(motion, index))[2]
    per_unit = FACE_SHARE * SIZE
    top = round(float(nose[1]) + (MOUTH_Y - 0.16) * per_unit)
    left = round(float(nose[0]) - 0.25 * per_unit)
    return slice(top, top + round(0.2 * per_unit)), slice(left, left + round(0.5 * per_unit))


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_over_a_frame_is_the_blend_by_its_alpha(
    kind: str, drawn: Drawn, layers_of: Callable[[str], list[Layer]]
) -> None:
    for bare, layer in zip(render(*drawn), layers_of(kind), strict=True):
        frame = layer.over(bare)
        alpha = layer.alpha[..., None] / 255.0
        exact = (1 - alpha) * bare + alpha * layer.rgb
        assert np.abs(frame - exact).max() <= 0.5001
        np.testing.assert_array_equal(frame[layer.alpha == 0], bare[layer.alpha == 0])
        np.testing.assert_array_equal(frame[layer.alpha == 255], layer.rgb[layer.alpha == 255])


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_numbers_draw_the_same_layers(
    kind: str, drawn: Drawn, layers_of: Callable[[str], list[Layer]]
) -> None:
    again = list(draw_occluder(kind, *drawn, np.random.default_rng(1)))
    other = list(draw_occluder(kind, *drawn, np.random.default_rng(2)))
    first = layers_of(kind)
    for one, same in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.alpha, same.alpha)
        np.testing.assert_array_equal(one.rgb, same.rgb)
    assert any((one.alpha != new.alpha).any() for one, new in zip(first, other, strict=True))


@pytest.mark.parametrize(("kind", "least"), [("hand", 0.95), ("microphone", 0.1)])
def test_hand_and_microphone_come_before_the_mouth_and_go(
    kind: str, least: float, drawn: Drawn, layers_of: Callable[[str], list[Layer]]
) -> None:
    alphas = [layer.alpha for layer in layers_of(kind)]
    hidden = [
        float(alpha[mouth_box(drawn, index)].mean()) / 255 for index, alpha in enumerate(alphas)
    ]
    assert max(hidden) > least
    assert hidden[0] == 0
    assert 0.2 < np.mean([alpha.any() for alpha in alphas]) < 0.9
    for now, after in pairwise(alphas):
        assert not now.any() or (now != after).any()


def test_a_beard_covers_the_jaw_in_every_frame_and_leaves_the_lips_free(
    drawn: Drawn, layers_of: Callable[[str], list[Layer]]
) -> None:
    portrait, _, motion = drawn
    per_unit = FACE_SHARE * SIZE
    for index, layer in enumerate(layers_of("beard")):
        nose = portrait.points(at(motion, index))[2]
        assert layer.alpha[mouth_box(drawn, index)].mean() < 0.35 * 255
        column, row = (round(float(place)) for place in nose + per_unit * JAW)
        assert layer.alpha[row, column] > 0.7 * 255
        assert not layer.alpha[: round(float(nose[1]))].any()


def test_a_hand_starts_and_rests_out_of_sight_and_moves_smoothly(rng: np.random.Generator) -> None:
    height = raised(250, rng)
    assert height[0] == 0
    assert (height.min(), height.max()) == (0, 1)
    assert 0.2 < (height > 0.5).mean() < 0.7
    # A smoothstep over 0.3 s or more rises by at most 1.5 / 0.3 per second.
    assert np.abs(np.diff(height)).max() <= 1.5 / 0.3 / 25 + 1e-9


def test_a_clip_with_an_occluder_is_the_clip_without_it_behind(tmp_path: Path) -> None:
    bare = render_clip(tmp_path / "bare", seed=7, seconds=2.4, size=SIZE)
    hand = render_clip(tmp_path / "hand", seed=7, seconds=2.4, size=SIZE, occluder="hand")
    without, truth = read_truth(bare), read_truth(hand)
    assert truth.keys() - without.keys() == {"alpha"}
    for name, values in without.items():
        np.testing.assert_array_equal(values, truth[name])
    assert bare.with_suffix(".wav").read_bytes() == hand.with_suffix(".wav").read_bytes()
    assert truth["alpha"].shape == (60, SIZE, SIZE)
    assert truth["alpha"].dtype == np.uint8
    for plain, covered, alpha in zip(
        read_frames(bare), read_frames(hand), truth["alpha"], strict=True
    ):
        # What the codec does to the hand shows up to a block around it.
        far = np.ones_like(alpha, dtype=bool)
        rows, columns = np.nonzero(alpha)
        if len(rows):
            far[max(rows.min() - 16, 0) :, max(columns.min() - 16, 0) : columns.max() + 17] = False
        assert np.abs(plain.astype(int) - covered)[far].mean() < 2
        if (alpha > 250).sum() > 400:
            assert np.abs(plain.astype(int) - covered)[alpha > 250].mean() > 4


def test_a_world_notes_its_occluder_and_unknown_ones_are_refused(tmp_path: Path) -> None:
    def draw(occluder: str | None) -> list[Path]:
        return draw_world(
            tmp_path, num_speakers=1, seconds=0.4, size=64, occluder=occluder, progress=False
        )

    (path,) = draw("beard")
    assert read_truth(path)["alpha"].any()
    with pytest.raises(ValueError, match="'occluder': 'beard'"):
        draw(None)
    unknown = tmp_path / "unknown"
    with pytest.raises(ValueError, match="occluder=hat must be one of"):
        draw_world(unknown, num_speakers=1, seconds=0.4, size=64, occluder="hat", progress=False)
    assert not unknown.exists()
    with pytest.raises(ValueError, match="occluder=hat must be one of hand, microphone, beard"):
        render_clip(tmp_path / "hat", seed=1, seconds=0.4, size=64, occluder="hat")
