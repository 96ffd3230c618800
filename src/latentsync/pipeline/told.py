"""What a job did, told: shots, spans left alone, the sheet of pictures, the curves of mouths."""

from itertools import groupby
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int32

from latentsync.faces import Face, FaceDetector, mouth_shape
from latentsync.media.audio import read_waveform
from latentsync.media.timed import FrameReader, read_times, stored_frames
from latentsync.pipeline.curves import Curves, loudness, sync_of
from latentsync.pipeline.engine import Job
from latentsync.pipeline.first_pass import SAMPLE_RATE
from latentsync.pipeline.plan import slot_entries, slot_of
from latentsync.report import SHEET_COLUMNS, ContactSheet, ShotReport, SkippedSpan, skipped_spans


def drawn_slots(job: Job) -> Bool[np.ndarray, " k"]:
    """The slots in which any mouth was drawn."""
    drawn = np.zeros(len(job.left), dtype=bool)
    for run in job.runs:
        drawn[run.first : run.end] |= run.strength > 0
    return drawn


def slots_of_entries(job: Job) -> Int32[np.ndarray, " m"]:
    """The slot of every frame of the output."""
    return slot_of(job.timeline, fps=job.slot_rate).clip(0, len(job.left) - 1)


def left_alone(job: Job) -> list[SkippedSpan]:
    """Where the output is the source, and why."""
    slots = slots_of_entries(job)
    timeline = job.timeline
    starts = timeline.starts * float(timeline.time_base)
    reasons = [job.left[slot] for slot in slots.tolist()]
    return skipped_spans(reasons, starts, timeline.seconds(len(timeline)))


def curves_of(job: Job, audio: Path, out: Path, detector: FaceDetector, *, measure: bool) -> Curves:
    """Loudness and openings in every slot; `after` only if it shall be measured."""
    num_slots = len(job.left)
    entries = slot_entries(job.timeline, fps=job.slot_rate, num_slots=num_slots)
    openings = np.full(len(job.sighting.times), np.nan)
    for index in sorted({run.track for run in job.runs}, reverse=True):
        track = job.sighting.survey.tracks[index]
        openings[track.first : track.first + len(track.openings)] = track.openings
    after = np.full(num_slots, np.nan)
    if measure:
        after = _openings_in(out, job, detector)[entries]
    fps = float(job.slot_rate)
    heard = loudness(read_waveform(audio, SAMPLE_RATE), SAMPLE_RATE, fps=fps, num_slots=num_slots)
    return Curves(fps, heard, openings[job.timeline.numbers[entries]], after)


def _openings_in(out: Path, job: Job, detector: FaceDetector) -> Float[np.ndarray, " m"]:
    """The opening of the first drawn mouth in every frame of the finished file."""
    openings = np.full(len(job.timeline), np.nan)
    boxes = [box_in(job, int(number)) for number in job.timeline.numbers]
    face: Face | None = None
    for entry, (_, _, frame) in enumerate(stored_frames(out)):
        box = boxes[entry] if entry < len(boxes) else None
        if box is None:
            face = None
            continue
        face = detector.refine(frame, face) if face is not None else None
        face = face or _nearest(detector(frame), box)
        if face is not None and face.scheme == "mesh":
            openings[entry] = mouth_shape(face).opening
    return openings


def _nearest(faces: list[Face], box: Float[np.ndarray, "4"]) -> Face | None:
    return min(faces, key=lambda face: float(np.abs(face.box - box).sum()), default=None)


def shots_of(job: Job, curves: Curves) -> list[ShotReport]:
    """What was done in every shot that the output shows; a loop shows a shot several times."""
    firsts = np.array([shot.first for shot in job.sighting.survey.shots])
    shots = np.searchsorted(firsts, job.timeline.numbers, side="right") - 1
    slots, drawn = slots_of_entries(job), drawn_slots(job)
    told, first = [], 0
    for number, group in groupby(shots.tolist()):
        end = first + len(list(group))
        a, b = int(slots[first]), int(slots[end - 1]) + 1
        told.append(
            ShotReport(
                number=number,
                start_seconds=job.timeline.seconds(first),
                end_seconds=job.timeline.seconds(end),
                persons=sorted({r.person for r in job.runs if r.first < b and r.end > a}),
                num_frames=end - first,
                num_frames_drawn=int(drawn[slots[first:end]].sum()),
                sync_before=sync_of(curves.before[a:b], curves.loudness[a:b], fps=curves.fps),
                sync_after=sync_of(curves.after[a:b], curves.loudness[a:b], fps=curves.fps),
            )
        )
        first = end
    return told


def sheet_of(job: Job, out: Path) -> ContactSheet:
    """A few frames of the source above those of the finished file, cut around the face."""
    last = len(job.timeline) - 1
    entries = np.unique(np.linspace(0, last, SHEET_COLUMNS).round().astype(int)).tolist()
    sheet = ContactSheet(len(job.timeline), columns=entries)
    numbers = job.timeline.numbers[entries].tolist()
    before = FrameReader(job.source.path, job.sighting.times).read(numbers)
    after = FrameReader(out, read_times(out)).read(entries)
    for entry, number, source, result in zip(entries, numbers, before, after, strict=True):
        height, width = source.shape[:2]
        shown = result[:height, :width]  # an odd size was made even
        at = job.timeline.seconds(entry)
        sheet.add(entry, source, shown, box_in(job, number), seconds=at)
    return sheet


def box_in(job: Job, number: int) -> Float[np.ndarray, "4"] | None:
    """Where the first of the drawn faces is in a stored frame."""
    for index in sorted({run.track for run in job.runs}):
        track = job.sighting.survey.tracks[index]
        if track.first <= number < track.first + len(track.boxes):
            box = track.boxes[number - track.first]
            if np.isfinite(box).all():
                return box.astype(np.float64)
    return None
