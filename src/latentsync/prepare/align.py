"""Segments => aligned faces of their runs of frames with a face."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
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
from latentsync.faces.tracking.shots import shots_of
from latentsync.prepare.cropping import (
    OCCLUSION_STEP,
    AlignedFace,
    aligned_faces,
    facing,
    hand_tracker,
    hidden_in,
)
from latentsync.prepare.segment import sample_of
from latentsync.prepare.stage import AlignedSegment, Dropped, Segment

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
        faces: list[AlignedFace | None] = []
        hidden: list[tuple[bool, bool]] = []
        runs: list[tuple[int, int]] = []
        # A clip shows one shot, as there may be another person after a cut.
        shots = [segment.frames] if segment.is_one_shot else shots_of(segment.frames)
        for shot in shots:
            start = len(faces)
            aligner = ALIGNERS[self.aligner](self.resolution)
            tracker = None if self.masker is None else hand_tracker(self.masker)
            found = aligned_faces(
                shot,
                self.detector,
                aligner,
                self.resolution,
                min_overlap=self.min_overlap,
                tracker=tracker,
            )
            faces += facing(list(found), self.max_yaw)
            hidden += hidden_in(tracker, len(faces) - start, step=OCCLUSION_STEP)
            here = runs_of([face is not None for face in faces[start:]])
            runs += [(start + first, start + end) for first, end in here]
        longest = max(runs, key=length_of, default=(0, 0))
        if length_of(longest) < self.min_frames:
            reason = self._reason(faces, length_of(longest))
            yield self._dropped(segment, reason, 0, len(faces))
            return
        long = [run for run in runs if length_of(run) >= self.min_frames]
        used = long if self.stretches == "all" else [longest]
        for start, stop in gaps_between(used, len(faces)):
            yield self._dropped(segment, self._unused(used), start, stop)
        for number, (first, end) in enumerate(used):
            made = self._aligned(segment, faces, first, end, number)
            yield made.with_measures(**self._hidden(hidden[first:end]))

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
    """What sorted runs leave of 0 to `length`."""
    starts = [0, *(end for _, end in runs)]
    ends = [*(first for first, _ in runs), length]
    return [(start, end) for start, end in zip(starts, ends, strict=True) if end > start]
