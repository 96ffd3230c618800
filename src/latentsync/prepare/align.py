"""Shots => aligned faces of their runs of frames with a face, in pieces."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from math import ceil
from pathlib import Path
from typing import ClassVar

import numpy as np

from latentsync.faces.align import ALIGNERS
from latentsync.faces.detectors.base import FaceDetector
from latentsync.faces.occlusion import OcclusionMasker, default_masker
from latentsync.faces.tracking.lazy_frame import AnyFrame
from latentsync.prepare.cropping import (
    OCCLUSION_STEP,
    OneOfSeveral,
    aligned_faces,
    facing,
    hand_tracker,
    hidden_in,
)
from latentsync.prepare.following import Person, Piece, gaps_between
from latentsync.prepare.segment import Cut, sample_of
from latentsync.prepare.stage import AlignedSegment, Dropped, Segment, UnreadableError

HANDS = "hands"
NOT_THERE = "what lies before mouths is not measured (prepare.occlusion=null does not ask for it)"
MAX_YAW = 50.0  # FaceMesh gives half the real profiles 63 degrees and less


@dataclass(kw_only=True)
class Align:
    """Tracks one face and crops it, while the shot is read; keeps the faces of at most one and a
    half clips in memory, never the frames.

    A stretch ends where the face is lost, and where the next frame's box overlaps the last one by
    less than `min_overlap` (intersection over union): another face was picked. 0 does not look.
    It also ends where the head turns by more than `max_yaw` degrees, by the detector's yaw; None
    does not look, and an unknown yaw is accepted.
    Stretches of `min_seconds` or more become clips; longer ones than `max_seconds` are cut into
    clips of this length, the last two of which are equal, and half as long at least.
    With `max_people` above 1, others who are in the same shot have clips of their own, the largest
    face first: as many, and as many again who come later or elsewhere. For each but the first the
    shot's frames are read once more.
    `make_detector` is called once per process. Adds the measures `face_px`: the median side of the
    square that is cropped, in pixels of the recording; and the shares of the frames in which
    something lies before the painted part, `occlusion`, and before the mouth, `mouth_hidden`.
    `occlusion` tells by what: "hands", the networks for hands, or the path of a segmenter (see
    `SegmenterMasker`); None does not measure them.
    """

    name: ClassVar[str] = "align"
    takes: ClassVar[type] = Segment
    makes: ClassVar[type] = AlignedSegment

    make_detector: Callable[[], FaceDetector]
    aligner: str
    resolution: int
    fps: float
    min_seconds: float
    max_seconds: float
    min_overlap: float = 0.0
    max_yaw: float | None = None
    occlusion: Path | str | None = None
    max_people: int = 1

    def __post_init__(self) -> None:
        if self.aligner not in ALIGNERS:
            raise ValueError(f"no aligner is called {self.aligner!r}; there are {list(ALIGNERS)}")
        # The VAE downsamples by 8 and the UNet by another 8.
        if self.resolution < 64 or self.resolution % 64:
            raise ValueError(f"resolution={self.resolution} must be a multiple of 64")
        if not 0 <= self.min_overlap < 1:
            raise ValueError(f"min_overlap={self.min_overlap:g} must be from 0 to less than 1")
        if self.max_seconds < 2 * self.min_seconds:
            raise ValueError(
                f"max_seconds={self.max_seconds:g} must be twice min_seconds={self.min_seconds:g} "
                "or more: long stretches are cut into halves"
            )
        if self.max_yaw is not None and not 0 < self.max_yaw <= 90:
            raise ValueError(
                f"max_yaw={self.max_yaw:g} must be from 0 to 90 degrees; null does not look"
            )
        if self.occlusion not in (None, HANDS) and not Path(str(self.occlusion)).is_file():
            raise FileNotFoundError(
                f"prepare.occlusion={self.occlusion} is no file: it is {HANDS}, the path of a "
                "segmenter (ONNX), or null"
            )
        if self.max_people < 1:
            raise ValueError(f"max_people={self.max_people}: 1 or more people are followed")
        self.min_frames = ceil(self.min_seconds * self.fps)
        self.max_frames = max(int(self.max_seconds * self.fps), 2 * self.min_frames)

    @cached_property
    def detector(self) -> FaceDetector:
        return self.make_detector()

    @cached_property
    def masker(self) -> OcclusionMasker | None:
        if self.occlusion is None:
            return None
        segmenter = None if self.occlusion == HANDS else self.occlusion
        return default_masker(segmenter=segmenter, otherwise=NOT_THERE)

    def run(self, segment: Segment) -> Iterator[AlignedSegment | Dropped]:
        people: list[Person] = []
        frames, number = segment.frames, 0
        while True:
            tracker = None if self.masker is None else hand_tracker(self.masker)
            person = Person(tracker, [each.places for each in people])
            people.append(person)
            try:
                for piece in self._pieces(person, frames):
                    person.used.append((piece.first, piece.end))
                    yield self._aligned(segment, person, piece, number)
                    number += 1
            except UnreadableError:
                if len(people) == 1:
                    raise
                break  # the first reading went through, so that nothing is lost
            if not self._goes_on(people) or segment.again is None:
                break
            frames = islice(segment.again(), people[0].num_frames)
        yield from self._left_out(segment, people)

    def _goes_on(self, people: list[Person]) -> bool:
        """Whether there are others to follow. One who comes back elsewhere is one of them."""
        most = 2 * self.max_people if self.max_people > 1 else 1
        return len(people) < most and people[-1].has_others

    def _pieces(self, person: Person, frames: Iterable[AnyFrame]) -> Iterator[Piece]:
        follow = OneOfSeveral(self.detector, person.taken) if self.max_people > 1 else None
        found = aligned_faces(
            frames,
            self.detector,
            ALIGNERS[self.aligner](self.resolution),
            self.resolution,
            min_overlap=self.min_overlap,
            tracker=person.tracker,
            follow=follow,
        )
        faces = facing(found, self.max_yaw)
        yield from person.pieces(faces, min_frames=self.min_frames, max_frames=self.max_frames)
        if follow is not None:
            person.places, person.has_others = follow.places, follow.has_others

    def _aligned(
        self, segment: Segment, person: Person, piece: Piece, number: int
    ) -> AlignedSegment:
        first, end, shown = piece.first, piece.end, piece.faces
        own, at = segment.own_sound, segment.start_frame
        return AlignedSegment(
            source=segment.source,
            index=segment.index,
            start_frame=segment.start_frame + first,
            faces=[face.frame for face in shown],
            turns=np.array([face.turn for face in shown]),
            waveform=segment.waveform[sample_of(first, self.fps) : sample_of(end, self.fps)],
            stretch=number,
            looks=[face.look for face in shown if face.look is not None],
            openings=np.array([face.opening for face in shown]),
            own_sound=None if own is None else own.part(at + first, at + end, self.fps),
        ).with_measures(
            face_px=float(np.median([face.side for face in shown])),
            **self._hidden(person, range(first, end)),
        )

    def _hidden(self, person: Person, frames: range) -> dict[str, float | None]:
        if person.tracker is None:
            return {"occlusion": None, "mouth_hidden": None}
        hidden = hidden_in(person.tracker, frames, step=OCCLUSION_STEP)
        occlusion, mouth_hidden = np.mean(hidden, axis=0).tolist()
        return {"occlusion": occlusion, "mouth_hidden": mouth_hidden}

    def _left_out(self, segment: Segment, people: list[Person]) -> Iterator[Dropped]:
        """The parts of the shot that are in no clip."""
        num_frames = people[0].num_frames
        used = sorted(span for person in people for span in person.used)
        if used:
            facing = "" if self.max_yaw is None else f" turned by {self.max_yaw:g} degrees at most"
            reason = (
                f"outside the stretches of {self.min_frames} frames or more with one face{facing}"
            )
            for start, end in gaps_between(used, num_frames):
                yield self._dropped(segment, self.name, reason, start, end)
        elif 0 < num_frames < self.min_frames:
            reason = f"a shot of {num_frames} frames, {self.min_frames} are needed"
            yield self._dropped(segment, Cut.name, reason, 0, num_frames)
        elif num_frames:
            yield self._dropped(segment, self.name, self._reason(people[0]), 0, num_frames)

    def _dropped(self, segment: Segment, stage: str, reason: str, first: int, end: int) -> Dropped:
        start, end = segment.start_frame + first, segment.start_frame + end
        return Dropped.part(segment.source, stage, reason, start=start, end=end, fps=self.fps)

    def _reason(self, person: Person) -> str:
        """Why no frame of a shot is in a clip."""
        if person.num_missing == person.num_frames:
            return f"no face in any of {person.num_frames} frames"
        turned = (
            "" if self.max_yaw is None else f", or turned by more than {self.max_yaw:g} degrees"
        )
        return (
            f"no face, or suddenly another{turned}, in {person.num_missing} of "
            f"{person.num_frames} frames (first: {person.first_missing}); the longest stretch with "
            f"one has {person.longest} frames, {self.min_frames} are needed"
        )
