"""Segments => aligned faces of their runs of frames with a face."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import ceil
from pathlib import Path
from typing import ClassVar

import numpy as np

from latentsync.faces.align import ALIGNERS
from latentsync.faces.detectors.base import (
    FaceDetector,
)
from latentsync.faces.occlusion import OcclusionMasker, default_masker
from latentsync.faces.tracking.lazy_frame import AnyFrame
from latentsync.faces.tracking.shots import shots_of
from latentsync.prepare.cropping import (
    OCCLUSION_STEP,
    AlignedFace,
    OneOfSeveral,
    Places,
    aligned_faces,
    facing,
    hand_tracker,
    hidden_in,
)
from latentsync.prepare.segment import sample_of
from latentsync.prepare.stage import AlignedSegment, Dropped, Segment, UnreadableError

STRETCHES = ("all", "longest")
HANDS = "hands"
NOT_THERE = "what lies before mouths is not measured (prepare.occlusion=null does not ask for it)"
MAX_YAW = 50.0  # FaceMesh gives half the real profiles 63 degrees and less


@dataclass(kw_only=True)
class Align:
    """Tracks one face and crops it; keeps the faces of one segment in memory, never its frames.

    A stretch ends where the face is lost, and where the next frame's box overlaps the last one by
    less than `min_overlap` (intersection over union): another face was picked. 0 does not look.
    It also ends where the head turns by more than `max_yaw` degrees, by the detector's yaw; None
    does not look, and an unknown yaw is accepted.
    `stretches`: "all" that last `min_seconds` become clips, or only the "longest" of a segment.
    With `max_people` above 1, others who are in the same shot have clips of their own, the largest
    face first: as many, and as many again who come later or elsewhere. For each but the first the
    segment's frames are read once more, and the faces of all are held in memory.
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
    min_overlap: float = 0.0
    stretches: str = "longest"
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
        if self.stretches not in STRETCHES:
            raise ValueError(f"stretches={self.stretches!r} must be one of {', '.join(STRETCHES)}")
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
        people = self._people(segment)
        used = [(person, run) for person in people for run in self._used(person.runs)]
        faces = people[0].faces
        if not used:
            longest = max(map(length_of, people[0].runs), default=0)
            yield self._dropped(segment, self._reason(faces, longest), 0, len(faces))
            return
        shown = sorted(run for _, run in used)
        for start, stop in gaps_between(shown, len(faces)):
            yield self._dropped(segment, self._unused(shown), start, stop)
        for number, (person, (first, end)) in enumerate(used):
            made = self._aligned(segment, person.faces, first, end, number)
            yield made.with_measures(**self._hidden(person.hidden[first:end]))

    def _people(self, segment: Segment) -> list["Person"]:
        """The largest face first, then, as long as there are others, the largest of those."""
        people = [self._person(segment, segment.frames)]
        # One who comes back elsewhere is followed like another.
        most = 2 * self.max_people if self.max_people > 1 else 1
        while len(people) < most and people[-1].has_others:
            if segment.again is None or not segment.is_one_shot:
                break
            try:
                taken = [person.places for person in people]
                people.append(self._person(segment, segment.again(), taken))
            except UnreadableError:  # the first reading went through, so that is not lost
                break
        return people

    def _person(
        self, segment: Segment, frames: Iterator[AnyFrame], taken: Sequence[Places] = ()
    ) -> "Person":
        person = Person()
        # A clip shows one shot, as there may be another person after a cut.
        for shot in [frames] if segment.is_one_shot else shots_of(frames):
            start = len(person.faces)
            tracker = None if self.masker is None else hand_tracker(self.masker)
            follow = OneOfSeveral(self.detector, taken) if self.max_people > 1 else None
            found = aligned_faces(
                shot,
                self.detector,
                ALIGNERS[self.aligner](self.resolution),
                self.resolution,
                min_overlap=self.min_overlap,
                tracker=tracker,
                follow=follow,
            )
            person.faces += facing(list(found), self.max_yaw)
            person.hidden += hidden_in(tracker, len(person.faces) - start, step=OCCLUSION_STEP)
            here = runs_of([face is not None for face in person.faces[start:]])
            person.runs += [(start + first, start + end) for first, end in here]
            if follow is not None:
                person.places += follow.places
                person.has_others |= follow.has_others
        return person

    def _used(self, runs: list[tuple[int, int]]) -> list[tuple[int, int]]:
        long = [run for run in runs if length_of(run) >= self.min_frames]
        return long if self.stretches == "all" or not long else [max(long, key=length_of)]

    def _aligned(
        self,
        segment: Segment,
        faces: list["AlignedFace | None"],
        first: int,
        end: int,
        number: int,
    ) -> AlignedSegment:
        shown = [face for face in faces[first:end] if face is not None]
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
        ).with_measures(face_px=float(np.median([face.side for face in shown])))

    def _hidden(self, hidden: list[tuple[bool, bool]]) -> dict[str, float | None]:
        if self.masker is None:
            return {"occlusion": None, "mouth_hidden": None}
        occlusion, mouth_hidden = np.mean(hidden, axis=0).tolist()
        return {"occlusion": occlusion, "mouth_hidden": mouth_hidden}

    def _unused(self, used: list[tuple[int, int]]) -> str:
        if self.stretches == "all":
            facing = "" if self.max_yaw is None else f" turned by {self.max_yaw:g} degrees at most"
            return (
                f"outside the stretches of {self.min_frames} frames or more with one face{facing}"
            )
        frames = length_of(used[0])
        return f"outside the longest stretch of one shot with one face ({frames} frames)"

    @property
    def _or_turned(self) -> str:
        return "" if self.max_yaw is None else f", or turned by more than {self.max_yaw:g} degrees"

    def _dropped(self, segment: Segment, reason: str, first: int, end: int) -> Dropped:
        start, end = segment.start_frame + first, segment.start_frame + end
        return Dropped.part(segment.source, self.name, reason, start=start, end=end, fps=self.fps)

    def _reason(self, faces: list["AlignedFace | None"], longest: int) -> str:
        if len(faces) < self.min_frames:
            return f"only {len(faces)} frames could be read, {self.min_frames} are needed"
        missing = [index for index, face in enumerate(faces) if face is None]
        if len(missing) == len(faces):
            return f"no face in any of {len(faces)} frames"
        if not missing:
            return (
                f"the longest shot of {len(faces)} frames has {longest}, {self.min_frames} are "
                "needed"
            )
        return (
            f"no face, or suddenly another{self._or_turned}, in {len(missing)} of {len(faces)} "
            f"frames (first: {missing[0]}); the longest stretch with one has {longest} frames, "
            f"{self.min_frames} are needed"
        )


@dataclass
class Person:
    """Who was followed through a segment: the face of every frame, what hides it (see `hidden_in`),
    runs of frames with a face, its places, and whether others were seen beside."""

    faces: list[AlignedFace | None] = field(default_factory=list)
    hidden: list[tuple[bool, bool]] = field(default_factory=list)
    runs: list[tuple[int, int]] = field(default_factory=list)
    places: Places = field(default_factory=list)
    has_others: bool = False


def runs_of(present: list[bool]) -> list[tuple[int, int]]:
    """First and end index of every run of True."""
    runs = []
    first = 0
    for index, value in enumerate([*present, False]):
        if value:
            continue
        if index > first:
            runs.append((first, index))
        first = index + 1
    return runs


def length_of(run: tuple[int, int]) -> int:
    return run[1] - run[0]


def gaps_between(runs: list[tuple[int, int]], length: int) -> list[tuple[int, int]]:
    """What runs, sorted by their start, leave of 0 to `length`; they may overlap."""
    gaps, reached = [], 0
    for first, end in [*runs, (length, length)]:
        if first > reached:
            gaps.append((reached, first))
        reached = max(reached, end)
    return gaps
