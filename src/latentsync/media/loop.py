"""A video played to and fro until there are frames enough."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from latentsync.media.video import probe, read_frames

Frame = UInt8[np.ndarray, "h w 3"]

# What one segment of a video played backwards may hold: it is decoded forwards, then reversed.
REVERSED_SEGMENT_BYTES = 128 * 2**20


def read_looped(path: Path, *, fps: float, num_frames: int) -> Iterator[tuple[int, Frame]]:
    """Exactly `num_frames` frames: the video to its end, backwards, forwards again and so on.

    Each comes with its number in the video. The frame at each turn is given twice, as the official
    pipeline does.
    """
    length = 0
    for frame in read_frames(path, fps=fps, num_frames=num_frames):
        yield length, frame
        length += 1
    if length == 0:
        raise ValueError(f"{path} holds no frame that can be decoded")
    backwards, remaining = True, num_frames - length
    while remaining > 0:
        if backwards:
            numbers = range(length - 1, -1, -1)
            again = read_backwards(path, fps=fps, length=length)
        else:
            numbers = range(length)
            again = read_frames(path, fps=fps)
        # The numbers end both: a reader that would go on is closed.
        yield from islice(zip(numbers, again, strict=False), remaining)
        backwards, remaining = not backwards, remaining - length


def read_backwards(path: Path, *, fps: float, length: int) -> Iterator[Frame]:
    """The first `length` frames, last one first; holds one segment of bounded size at a time."""
    info = probe(path)
    size = max(1, min(int(REVERSED_SEGMENT_BYTES / (info.width * info.height * 3)), int(10 * fps)))
    for end in range(length, 0, -size):
        start = max(0, end - size)
        segment = list(
            read_frames(path, fps=fps, start_seconds=start / fps, num_frames=end - start)
        )
        while segment:
            yield segment.pop()
