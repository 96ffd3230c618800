"""What hides a face over time: examined at intervals until something does, then in every frame."""

import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from statistics import median

import numpy as np
from jaxtyping import Bool, UInt8

from latentsync.faces.occlusion import HELD, SIDE, SURE, Covered, Occluder, OcclusionMasker
from latentsync.faces.placement import Placement

Frame = UInt8[np.ndarray, "h w 3"]

# A smaller fraction of the painted part is skin or the edge of a finger, and does not hide the
# mouth.
MIN_SHARE = 0.02
# The ellipse in which a mouth opens in an aligned face, as shares of its side: centre (x, y), half
# axes. A hand on the cheek covers less of it than a finger before the lips.
MOUTH_CENTRE, MOUTH_AXES = (0.5, 0.65), (0.2, 0.15)
MIN_MOUTH_SHARE = 0.1


def mouth_ellipse(size: int) -> Bool[np.ndarray, "s s"]:
    """Where the mouth is in an aligned face of `size` pixels."""
    places = (np.arange(size) + 0.5) / size
    x, y = ((places - at) / half for at, half in zip(MOUTH_CENTRE, MOUTH_AXES, strict=True))
    return x[None] ** 2 + y[:, None] ** 2 <= 1


MOUTH = mouth_ellipse(SIDE)


class CoveredFrames(Mapping[int, Covered]):
    """Alpha masks of what hides a face, by number of the stored frame, compressed to some hundred
    bytes each."""

    def __init__(self) -> None:
        self.packed: dict[int, bytes] = {}
        self.shares: dict[int, float] = {}

    def add(self, number: int, covered: Covered, painted: Bool[np.ndarray, "s s"]) -> None:
        levels = np.rint(covered * 255).astype(np.uint8)
        self.packed[number] = zlib.compress(levels.tobytes(), 1)
        self.shares[number] = float(covered[painted].mean())

    def remove(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            del self.packed[number], self.shares[number]

    def __getitem__(self, number: int) -> Covered:
        levels = np.frombuffer(zlib.decompress(self.packed[number]), dtype=np.uint8)
        return levels.reshape(SIDE, SIDE).astype(np.float32) / 255

    def __contains__(self, number: object) -> bool:
        return number in self.packed

    def __iter__(self) -> Iterator[int]:
        return iter(self.packed)

    def __len__(self) -> int:
        return len(self.packed)


class OcclusionTracker:
    """Examines one face at intervals until something hides it, then in every frame, going back to
    the frames it skipped. Frames are read when they are needed; `every`: the interval, None for the
    masker's."""

    def __init__(
        self,
        masker: OcclusionMasker,
        painted: Bool[np.ndarray, "s s"],
        *,
        every: int | None = None,
    ) -> None:
        self.masker, self.painted = masker, painted
        self.every = masker.every if every is None else every
        self.seen = CoveredFrames()
        self.confidences: dict[int, float] = {}
        self.before: Occluder | None = None
        self.last, self.wait = -1, 0
        self.passed: deque[tuple[int, Callable[[], Frame], Placement]] = deque(
            maxlen=max(self.every - 1, 1)
        )

    def __call__(self, number: int, read: Callable[[], Frame], placement: Placement) -> None:
        if number != self.last + 1:
            self.before, self.wait = None, 0
            self.passed.clear()
        self.last = number
        if self.before is None and self.wait > 0:
            self.wait -= 1
            self.passed.append((number, read, placement))
            return
        was_hidden = self.before is not None
        self.before = self.look(number, read(), placement, self.before)
        if self.before is None:
            recent = was_hidden or any(number - step in self.seen for step in range(1, HELD + 1))
            self.wait = 0 if recent else self.every - 1
        else:
            self.look_back(self.before)
        self.passed.clear()

    def look(
        self,
        number: int,
        frame: Frame,
        placement: Placement,
        neighbour: Occluder | None,
    ) -> Occluder | None:
        found = self.masker(frame, placement, neighbour)
        if found is not None:
            self.seen.add(number, found.covered, self.painted)
            self.confidences[number] = found.confidence
        return found

    def look_back(self, found: Occluder) -> None:
        known: Occluder | None = found
        for number, read, placement in reversed(self.passed):
            known = self.look(number, read(), placement, known)
            if known is None:
                return

    def finish(self) -> CoveredFrames:
        """The masks by frame, without what was not believable."""
        self.seen.remove(self.doubtful() & self.seen.keys())
        return self.seen

    def doubtful(self) -> set[int]:
        """Frames, of those so far, in what was not believable for most of the time that it was
        followed: false hands, which blurred frames of real ones are like."""
        return {
            number
            for frames in stretches_of(sorted(self.confidences))
            if median(self.confidences[number] for number in frames) < SURE
            for number in frames
        }


def stretches_of(numbers: Iterable[int]) -> list[list[int]]:
    """Ascending frames in stretches, whose gaps are so short that they are filled."""
    stretches: list[list[int]] = []
    for number in numbers:
        if not stretches or number - stretches[-1][-1] > HELD + 1:
            stretches.append([])
        stretches[-1].append(number)
    return stretches
