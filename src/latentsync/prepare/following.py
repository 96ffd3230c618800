"""One face through a shot, frame by frame, cut into the pieces that become clips."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from latentsync.faces.tracking.occlusion import OcclusionTracker
from latentsync.prepare.cropping import OCCLUSION_EVERY, OCCLUSION_STEP, AlignedFace, Places

# Frames after which no look back at what hid a face reaches a piece any more.
SETTLED = 2 * OCCLUSION_STEP * OCCLUSION_EVERY


@dataclass(frozen=True, slots=True)
class Piece:
    """Consecutive frames of a shot, from `first` on, with a face each."""

    first: int
    faces: list[AlignedFace]

    @property
    def end(self) -> int:
        return self.first + len(self.faces)


class Pieces:
    """Call it with the face of every frame of a shot, None without one, then `finish` it; both
    return the pieces that are whole by then.

    Runs of `min_frames` or more become pieces of at most `max_frames`, and half as many at least if
    the run is longer: at most one and a half pieces are held, however long the run is.
    """

    def __init__(self, min_frames: int, max_frames: int) -> None:
        assert max_frames >= 2 * min_frames
        self.min_frames, self.max_frames = min_frames, max_frames
        self.run: list[AlignedFace] = []
        self.num_frames = 0
        self.longest = 0  # run of those too short for a piece

    def __call__(self, face: AlignedFace | None) -> list[Piece]:
        if face is None:
            pieces = self.finish()
            self.num_frames += 1
            return pieces
        self.run.append(face)
        self.num_frames += 1
        if len(self.run) < self.max_frames + self.max_frames // 2:
            return []
        return [self._take(self.max_frames)]

    def finish(self) -> list[Piece]:
        if len(self.run) < self.min_frames:
            self.longest = max(self.longest, len(self.run))
            self.run = []
            return []
        pieces = [self._take(len(self.run) // 2)] if len(self.run) > self.max_frames else []
        return [*pieces, self._take(len(self.run))]

    def _take(self, length: int) -> Piece:
        piece = Piece(self.num_frames - len(self.run), self.run[:length])
        self.run = self.run[length:]
        return piece


class Person:
    """Who is followed through a shot: which frames became pieces, how many have no face, and, if
    several are followed, their `places` and whether others were seen beside."""

    def __init__(self, tracker: OcclusionTracker | None, taken: Sequence[Places] = ()) -> None:
        self.tracker, self.taken = tracker, taken
        self.num_frames = self.num_missing = self.longest = 0
        self.first_missing: int | None = None
        self.used: list[tuple[int, int]] = []
        self.places: Places = []
        self.has_others = False

    def pieces(
        self, faces: Iterable[AlignedFace | None], *, min_frames: int, max_frames: int
    ) -> Iterator[Piece]:
        """The pieces, in order, once it is known what hides them."""
        cut, ready = Pieces(min_frames, max_frames), deque[Piece]()
        for face in faces:
            self._note(face)
            ready += cut(face)
            del face  # it must not be kept alive
            while ready and self.num_frames - ready[0].end >= SETTLED:
                yield ready.popleft()
        ready += cut.finish()
        self.longest = cut.longest
        while ready:
            yield ready.popleft()

    def _note(self, face: AlignedFace | None) -> None:
        if face is None:
            self.num_missing += 1
            if self.first_missing is None:
                self.first_missing = self.num_frames
        self.num_frames += 1


def gaps_between(runs: list[tuple[int, int]], length: int) -> list[tuple[int, int]]:
    """What runs, sorted by their start, leave of 0 to `length`; they may overlap."""
    gaps, reached = [], 0
    for first, end in [*runs, (length, length)]:
        if first > reached:
            gaps.append((reached, first))
        reached = max(reached, end)
    return gaps
