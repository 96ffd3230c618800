"""Briefly missing landmarks are interpolated from neighbouring frames, following eyes and mouth."""

import numpy as np

from latentsync.faces.tracking.tracklet import LONGEST_GAP, bridged

FIVE = np.array([[30.0, 40], [70, 40], [50, 60], [35, 80], [65, 80]])
BROWS_AND_NOSE = np.array([[30.0, 30], [70, 30], [50, 58]])


def moving(points: np.ndarray, num_frames: int) -> np.ndarray:
    """Points rotated, scaled and shifted a little more in every frame."""
    steps = np.arange(num_frames)
    factor = (1 + 0.01 * steps) * np.exp(0.02j * steps)
    moved = (points @ [1, 1j])[None] * factor[:, None] + (3 + 2j) * steps[:, None]
    return np.stack([moved.real, moved.imag], axis=-1)


def test_a_short_gap_is_where_the_head_was() -> None:
    true, fives = moving(BROWS_AND_NOSE, 20), moving(FIVE, 20)
    seen = true.copy()
    seen[0], seen[7:11], seen[-2:] = np.nan, np.nan, np.nan
    np.testing.assert_allclose(bridged(seen, fives), true, atol=1e-6)


def test_nothing_is_made_up_for_long_or_where_nobody_was_seen() -> None:
    true, fives = moving(BROWS_AND_NOSE, 30), moving(FIVE, 30)
    long = true.copy()
    long[5 : 5 + 2 * LONGEST_GAP + 1] = np.nan
    np.testing.assert_array_equal(bridged(long, fives), long)
    seen, unseen = true.copy(), fives.copy()
    seen[5:8], unseen[6] = np.nan, np.nan
    np.testing.assert_array_equal(bridged(seen, unseen), seen)
    nothing = np.full_like(true, np.nan)
    np.testing.assert_array_equal(bridged(nothing, fives), nothing)
