"""Which frames of a clip one item shows, and which frames its reference comes from."""

import numpy as np


def span(num_frames: int, stride: int) -> int:
    """How many frames of a clip a window of `num_frames` at `stride` stretches over."""
    return (num_frames - 1) * stride + 1


Gap = tuple[int, int]  # the least and the most frames between a window and its reference


def choose_starts(
    num_available: int,
    length: int,
    *,
    count: int,
    with_reference: bool,
    rng: np.random.Generator,
    gap: Gap | None = None,
) -> list[int]:
    """`count` first frames of windows of `length`, distinct as long as the clip has enough.

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
) -> int:
    """The first frame of a window of `length` that shares no frame with the one at `start`.

    With a `gap` it begins that many frames before or behind `start`: (0, 0) is the window itself,
    as the official pipeline has it when it draws, (1, length - 1) overlaps it.
    """
    least, most = (length, num_available) if gap is None else gap
    starts = np.arange(num_available - length + 1)
    away = np.abs(starts - start)
    return int(rng.choice(starts[(away >= least) & (away <= most)]))
