"""Measures the output's frames on their way to the encoder, so that the file is not read again."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from latentsync.faces import Face, FaceDetector
from latentsync.media.frame import Picture, RgbReader
from latentsync.media.frame_reader import FrameReader, FrameTimes, Timeline
from latentsync.media.video import probe
from latentsync.pipeline.job import Job
from latentsync.pipeline.reporting.report import ContactSheet, close_up
from latentsync.pipeline.reporting.sync_scorer import SyncScorer

LOOK_AROUND = 1.25  # times the face's larger side, from its centre in each direction
MIN_AROUND = 64  # pixels


class OutputMonitor:
    """Collects frames for the contact sheet; with a detector also the opening of the first
    generated mouth in every frame, with a scorer also the sync of sound and picture.

    Frames are measured as they go to the encoder, and are not stored.
    """

    def __init__(
        self, job: Job, *, detector: FaceDetector | None = None, scorer: SyncScorer | None = None
    ) -> None:
        self.job, self.scorer = job, scorer
        self.mouths = None if detector is None else Mouths(job, detector)
        self.sheet = ContactSheet(len(job.timeline))
        self.begun: int | None = None
        self.quick: RgbReader | None = None

    @property
    def measures(self) -> bool:
        return self.mouths is not None or self.scorer is not None

    def see(self, entry: int, picture: Picture) -> None:
        """Measure a frame of the output; frames come in order, from some entry on."""
        if self.begun is None:
            self.begun = entry
        # Mouths are tracked from the start: after a resume, `catch_up` measures all of them.
        if self.begun == 0 or not self.measures:
            self._look(entry, Picture(picture.source, picture.reader), picture)

    def catch_up(self, out: Path) -> None:
        """Measure frames that an earlier run wrote, from the finished file; all frames if there was
        such a run and mouths or sync are measured."""
        total = len(self.job.timeline)
        begun = total if self.begun is None else self.begun
        if begun == 0:
            return
        entries: Iterable[int] = range(total)
        if not self.measures:
            entries = sorted(entry for entry in self.sheet.indices if entry < begun)
        numbers = self.job.timeline.numbers[list(entries)].tolist()
        sources = self.job.reader().pictures(numbers)
        results = FrameReader(out, times_in(out, self.job.timeline)).pictures(entries)
        for entry, source, result in zip(entries, sources, results, strict=True):
            self._look(entry, source, result)

    def _look(self, entry: int, source: Picture, result: Picture) -> None:
        number = int(self.job.timeline.numbers[entry])
        if entry in self.sheet.indices:
            # In the source's size: the output's may have been rounded to even numbers.
            square = close_up(source.shape[:2], box_in(self.job, number))
            at = self.job.timeline.seconds(entry)
            self.sheet.add(entry, source.rgb(square), result.rgb(square), seconds=at)
        if not self.measures:
            return
        if self.quick is None or self.quick.size != source.reader.size:
            self.quick = RgbReader(source.reader.size, quick=True)
        # A difference of one level does not affect the measurements.
        source, result = (
            Picture(picture.source, self.quick, picture.parts) for picture in (source, result)
        )
        if self.mouths is not None:
            self.mouths.look(entry, number, result)
        if self.scorer is not None:
            self.scorer.look(entry, number, source, result)


class Mouths:
    """Tracks the first generated face in every frame, looking only at its surroundings."""

    def __init__(self, job: Job, detector: FaceDetector) -> None:
        self.job, self.detector = job, detector
        self.openings = np.full(len(job.timeline), np.nan)
        self.face: Face | None = None

    def look(self, entry: int, number: int, picture: Picture) -> None:
        box = box_in(self.job, number)
        if box is None:
            self.face = None
            return
        x0, y0, x1, y1 = around = _around(box, picture.shape[:2])
        if x1 <= x0 or y1 <= y0:
            return
        part = picture.rgb(around)
        face = None
        if self.face is not None:
            face = self.detector.refine(part, moved(self.face, -x0, -y0))
        face = face or _nearest(self.detector(part), box - [x0, y0, x0, y0])
        self.face = None if face is None else moved(face, x0, y0)
        opening = None if face is None else self.detector.opening(face)
        if opening is not None:
            self.openings[entry] = opening


def moved(face: Face, x: float, y: float) -> Face:
    shift = np.array([x, y])
    five = None if face.five is None else face.five + shift
    return replace(face, box=face.box + np.tile(shift, 2), points=face.points + shift, five=five)


def _around(box: Float[np.ndarray, "4"], size: tuple[int, int]) -> tuple[int, int, int, int]:
    middle = (box[:2] + box[2:]) / 2
    reach = max(LOOK_AROUND * float((box[2:] - box[:2]).max()), MIN_AROUND)
    x0, y0 = np.maximum(middle - reach, 0).astype(int).tolist()
    x1, y1 = np.minimum(middle + reach, size[::-1]).astype(int).tolist()
    return x0, y0, x1, y1


def _nearest(faces: list[Face], box: Float[np.ndarray, "4"]) -> Face | None:
    return min(faces, key=lambda face: float(np.abs(face.box - box).sum()), default=None)


def box_in(job: Job, number: int) -> Float[np.ndarray, "4"] | None:
    """Box of the first generated face in a stored frame."""
    for index in sorted({run.track for run in job.runs}):
        track = job.analysis.survey.tracks[index]
        if track.first <= number < track.first + len(track.boxes):
            box = track.boxes[number - track.first]
            if np.isfinite(box).all():
                return box.astype(np.float64)
    return None


def times_in(out: Path, timeline: Timeline) -> FrameTimes:
    """Frame times of the file written from a timeline, in the file's ticks, computed without
    reading it."""
    base = probe(out).time_base
    ratio = timeline.time_base / base
    ticks = np.append(timeline.starts, timeline.end).astype(np.int64)
    own = (2 * ticks * ratio.numerator + ratio.denominator) // (2 * ratio.denominator)
    return FrameTimes(base, own[:-1], int(own[-1]))
