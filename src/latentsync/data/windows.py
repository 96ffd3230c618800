"""Choose the frames of a clip that an item shows, and those of its reference."""

import numpy as np
from jaxtyping import Float, Int
from numpy.lib.stride_tricks import sliding_window_view


def span(num_frames: int, stride: int) -> int:
    """Number of clip frames spanned by a window of `num_frames` at `stride`."""
    return (num_frames - 1) * stride + 1


Gap = tuple[int, int]  # minimum and maximum distance in frames between a window and its reference


def choose_starts(
    num_available: int,
    length: int,
    *,
    count: int,
    with_reference: bool,
    rng: np.random.Generator,
    gap: Gap | None = None,
) -> list[int]:
    """First frames of `count` windows of `length`, distinct if the clip is long enough.

    `gap`: see `choose_reference_start`.
    """
    starts = np.arange(num_available - length + 1)
    least = 0 if not with_reference else length if gap is None else gap[0]
    if with_reference:
        starts = starts[(starts >= least) | (starts + least + length <= num_available)]
    if not len(starts):
        needed = length + least
        raise ValueError(f"a clip needs {needed} frames or more, got {num_available}")
    return rng.choice(starts, size=count, replace=len(starts) < count).tolist()


def choose_reference_start(
    num_available: int,
    length: int,
    *,
    start: int,
    rng: np.random.Generator,
    gap: Gap | None = None,
    turns: Float[np.ndarray, " f"] | None = None,
) -> int:
    """First frame of a reference window of `length` that shares no frame with the one at `start`.

    With a `gap` its distance from `start` is in that range: (0, 0) is the window itself, as in the
    official inference pipeline; (1, length - 1) overlaps it.

    With `turns`, the head's turn in every frame of the clip, it is sampled from the quarter of
    these windows whose mean turn is closest to the window's: the network copies a person's
    appearance from the reference, and a cheek that is turned away shows nothing to copy. Unknown
    turns are ignored.
    """
    least, most = (length, num_available) if gap is None else gap
    starts = np.arange(num_available - length + 1)
    away = np.abs(starts - start)
    allowed = starts[(away >= least) & (away <= most)]
    if turns is not None:
        allowed = _alike(allowed, start, sliding_window_view(turns, length).mean(axis=-1))
    return int(rng.choice(allowed))


def _alike(
    allowed: Int[np.ndarray, " a"], start: int, means: Float[np.ndarray, " s"]
) -> Int[np.ndarray, " b"]:
    """The quarter of the allowed starts whose windows' mean turn is closest to that at `start`."""
    difference = np.abs(means[allowed] - means[start])
    known = np.isfinite(difference)
    if not known.any():
        return allowed
    difference, allowed = difference[known], allowed[known]
    limit = np.sort(difference)[(len(difference) - 1) // 4]
    return allowed[difference <= limit]
