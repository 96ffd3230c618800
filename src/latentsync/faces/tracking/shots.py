"""Shot boundaries, from small pictures of neighbouring frames.

A change is only known to be a cut afterwards: motion continues, a flash reverts. So a frame is
classified once the next three are known, and returned with that delay.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import groupby, islice
from operator import itemgetter
from typing import TypeVar

import cv2
import numpy as np
from jaxtyping import Float

from latentsync.faces.tracking.lazy_frame import AnyFrame, sampled

SHOT_RULE = 2  # version of the rule below; results of older ones are recomputed
NUM_LATER_FRAMES = 3  # look-ahead in frames
SHORTEST = 3  # frames; shorter shots are merged with their neighbour
# Mean change in levels, 0 to 255, below which nothing is a cut.
MIN_CHANGE = 4
# Minimum ratio of a cut's change, weighted by how much of it is new, to the changes around it. On
# labelled real clips cuts reach 2.1 or more, motion 1.5 or less.
STANDS_OUT = 1.8
NEW_OFFSET, MAX_NEW = 0.3, 2
# A cut changes this share of the picture by this many levels; a person entering changes less.
MIN_SHARE, CHANGED = 0.2, 3
# The mean of this many earlier changes counts. Changes below a share of the current one are
# repeated frames (25 fps shown as 30, animation on threes), which say nothing about motion.
NUM_BEFORE, MEMORY, REPEATED = 4, 12, 0.02
# A blend of both shots, or a single foreign frame, splits a cut into two changes. Each has at least
# this share of the whole; as motion does the same, changes around it count twice.
SHARE_OF_BLEND, MOTION_OF_BLEND = 0.25, 2
# The new shot begins after the last change of at least this share of the largest.
STILL_CHANGING = 0.5
SIDE = 32  # approximate side of a small picture

F = TypeVar("F", bound=AnyFrame)
Small = Float[np.ndarray, "rows columns 3"]


def shots_of(frames: Iterable[F], stands_out: float = STANDS_OUT) -> Iterator[Iterator[F]]:
    """The shots of a video; each must be consumed before the next. `stands_out`: as for
    `ShotDetector`."""
    numbered = _with_shot_numbers(frames, ShotDetector(stands_out))
    for _, shot in groupby(numbered, key=itemgetter(0)):
        yield map(itemgetter(1), shot)


def _with_shot_numbers(frames: Iterable[F], detector: "ShotDetector") -> Iterator[tuple[int, F]]:
    """Every frame with the index of its shot; the last three wait for look-ahead."""
    waiting, number = deque[F](), -1
    for frame in frames:
        waiting.append(frame)
        del frame  # it must not be kept alive
        for begins in detector(waiting[-1]):
            number += begins
            yield number, waiting.popleft()
    for begins in detector.finish():
        number += begins
        yield number, waiting.popleft()


class ShotDetector:
    """Call it with one frame after the other, then `finish` it.

    Both return the answers known by then, one per frame in order: whether a shot begins with it.
    True for the very first frame and when the size of frames changes. `stands_out`: how far a cut
    stands out from the motion around it, at least.
    """

    def __init__(self, stands_out: float = STANDS_OUT) -> None:
        self.least = stands_out
        self.pictures: deque[Small] = deque(maxlen=NUM_LATER_FRAMES + 1 + SHORTEST)
        self.changes: deque[float] = deque(maxlen=MEMORY + 1 + NUM_LATER_FRAMES)
        self.restart()

    def restart(self) -> None:
        self.pictures.clear()
        self.changes.clear()
        self.num_waiting = 0
        self.age = 0  # frames since the shot began, for the frame last classified
        self.begins_in: int | None = None  # frames until the start of a detected shot

    def __call__(self, frame: AnyFrame) -> list[bool]:
        small = shrink(frame)
        if not self.pictures or small.shape != self.pictures[-1].shape:
            answers = self.finish()
            self.pictures.append(small)
            return [*answers, True]
        self.changes.append(change(self.pictures[-1], small))
        self.pictures.append(small)
        if self.num_waiting < NUM_LATER_FRAMES:
            self.num_waiting += 1
            return []
        return [self.begins_shot(NUM_LATER_FRAMES)]

    def finish(self) -> list[bool]:
        """The answers for the remaining frames; the next frame is a first one."""
        answers = [
            self.begins_shot(num_later) and num_later >= SHORTEST - 1
            for num_later in reversed(range(self.num_waiting))
        ]
        self.restart()
        return answers

    def begins_shot(self, num_later: int) -> bool:
        """Whether a shot begins with the frame before the last `num_later` ones."""
        self.age += 1
        if self.begins_in is None and self.age >= SHORTEST and self.is_cut(num_later):
            self.begins_in = self.settles_in(num_later)
        if self.begins_in is None:
            return False
        self.begins_in -= 1
        if self.begins_in >= 0:
            return False
        self.age, self.begins_in = 0, None
        return True

    def is_cut(self, num_later: int) -> bool:
        """Whether this frame, or this one and the next, lead to another shot."""
        own = [self.changes[-1 - num_later + index] for index in range(min(2, num_later + 1))]
        if sum(own) < MIN_CHANGE:
            return False
        return any(
            self.stands_out(num_later, num_changes) for num_changes in range(1, len(own) + 1)
        )

    def stands_out(self, num_later: int, num_changes: int) -> bool:
        """Whether these changes, from this frame on, exceed the motion around them."""
        place = len(self.pictures) - 1 - num_later
        before, after = place - 1, place + num_changes - 1
        changes = list(self.changes)
        past, own = changes[: len(changes) - 1 - num_later], changes[len(changes) - 1 - num_later :]
        whole = own[0]
        if num_changes > 1:
            whole = change(self.pictures[before], self.pictures[after])
        if whole < MIN_CHANGE or min(own[:num_changes]) < SHARE_OF_BLEND * whole:
            return False
        recent = past[max(len(past) - self.age + 1, 0) :][-MEMORY:]
        motion = [size for size in recent if size >= REPEATED * whole][-NUM_BEFORE:]
        around = max([*own[num_changes:], sum(motion) / max(len(motion), 1)])
        limit = self.least * (1 + (1 if num_changes == 1 else MOTION_OF_BLEND) * around)
        if whole * (MAX_NEW + NEW_OFFSET) < limit:
            return False
        if changed_share(self.pictures[before], self.pictures[after]) < MIN_SHARE:
            return False
        new = unexplained(self.pictures[before], self.pictures[after])
        return whole * (new + NEW_OFFSET) >= limit and not self.is_flash(before, after, whole)

    def is_flash(self, before: int, after: int, whole: float) -> bool:
        """Whether the picture reverts to what it was, or had been, within two frames."""
        pictures = list(self.pictures)
        goes = [(pictures[before], later) for later in pictures[after + 1 : after + SHORTEST]]
        earlier = pictures[max(before - SHORTEST + 1, 0) : before][-self.age + 1 :]
        comes = [(one, pictures[after]) for one in earlier]
        return any(change(one, other) < whole / 2 for one, other in [*goes, *comes])

    def settles_in(self, num_later: int) -> int:
        """Frames from this one to the first that shows only the new shot."""
        changes = list(islice(self.changes, len(self.changes) - 1 - num_later, None))[:SHORTEST]
        return max(
            index for index, size in enumerate(changes) if size >= STILL_CHANGING * max(changes)
        )


def shrink(frame: AnyFrame) -> Small:
    """A small picture: subsampled, with 2x2 averaging against noise."""
    step = max(min(frame.shape[:2]) // (2 * SIDE), 1)
    height, width = frame.shape[:2]
    columns, rows = -(-width // step), -(-height // step)
    samples, size = sampled(frame, (columns, rows)), ((columns + 1) // 2, (rows + 1) // 2)
    return cv2.resize(samples, size, interpolation=cv2.INTER_AREA).astype(np.float32)


def change(before: Small, after: Small) -> float:
    """Mean absolute difference in levels."""
    return cv2.norm(before, after, cv2.NORM_L1) / before.size


def changed_share(before: Small, after: Small) -> float:
    """The share of the picture that visibly changed."""
    return float((np.abs(after - before).mean(axis=-1) >= CHANGED).mean())


def unexplained(before: Small, after: Small) -> float:
    """The change not explained by brightness and contrast, relative to contrast; 0 for a fade."""
    before, after = before - before.mean(), after - after.mean()
    gain = (before * after).sum() / max((before * before).sum(), 1e-6)
    contrast = (np.abs(before).mean() + np.abs(after).mean()) / 2
    return float(np.abs(after - gain * before).mean() / max(contrast, 1e-6))
