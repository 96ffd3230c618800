"""Which frames of a clip one item shows, and which frames its reference comes from."""

import numpy as np


def span(num_frames: int, stride: int) -> int:
    """How many frames of a clip a window of `num_frames` at `stride` stretches over."""
    return (num_frames - 1) * stride + 1


def choose_starts(
    num_available: int, length: int, *, count: int, with_reference: bool, rng: np.random.Generator
) -> list[int]:
    """`count` first frames of windows of `length`, distinct as long as the clip has enough."""
    starts = np.arange(num_available - length + 1)
    if with_reference:
        starts = starts[(starts >= length) | (starts + 2 * length <= num_available)]
    if not len(starts):
        needed = 2 * length if with_reference else length
        raise ValueError(f"a clip needs {needed} frames or more, got {num_available}")
    return rng.choice(starts, size=count, replace=len(starts) < count).tolist()


def choose_reference_start(
    num_available: int, length: int, *, start: int, rng: np.random.Generator
) -> int:
    """The first frame of a window of `length` that shares no frame with the one at `start`."""
    starts = np.arange(num_available - length + 1)
    return int(rng.choice(starts[np.abs(starts - start) >= length]))
