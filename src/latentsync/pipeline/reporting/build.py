"""Build the report of a job: shots, skipped spans, mouth curves."""

import time
from collections import Counter
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int32

from latentsync.faces.tracking.occlusion import MIN_SHARE
from latentsync.files import printable
from latentsync.media.container import CLIPPED
from latentsync.models.adapted import recording_of
from latentsync.models.model_config import ModelFormat
from latentsync.pipeline.chunks import slot_entries, slot_of
from latentsync.pipeline.compositing import RunsAt, shown_mouths
from latentsync.pipeline.job import Job
from latentsync.pipeline.render import placements_of
from latentsync.pipeline.reporting.curves import Curves, loudness, sync_of
from latentsync.pipeline.reporting.report import Report, ShotReport, SkippedSpan, skipped_spans
from latentsync.pipeline.reporting.sync_scorer import SyncScorer
from latentsync.pipeline.request import OfficialProfile, Request, Session
from latentsync.runtime import peak_memory_mib

NOT_LOOKED_FOR = (
    "nothing was looked for before the mouths, and hands are painted over: there is no masker "
    "(the networks that see hands come with python -m latentsync.faces.fetch)"
)
SILENT = "the voice is silent there (silence=source)"


@dataclass(frozen=True, slots=True)
class Measured:
    """Measurements of a finished job: per shot, and for every frame why it was left alone ("" if it
    was redrawn); `sync_measure` names the measure of sync."""

    shots: list[ShotReport]
    reasons: list[str]
    sync_measure: str


def report_of(
    job: Job,
    request: Request,
    session: Session,
    out: Path,
    *,
    measured: Measured,
    num_missed: int,
    preset: str | None,
    notes: list[str],
) -> Report:
    """The report of a finished job."""
    timeline, generation, reasons = job.timeline, request.generation, measured.reasons
    model, seconds = session.model, timeline.seconds(len(timeline))
    return Report(
        video=printable(job.source.path),
        audio=printable(request.audio),
        out=printable(out),
        model=session.model_name,
        model_format=asdict(model.format),
        # `parity` is what reports have always called the official profile.
        sampler={
            **asdict(generation.sampler),
            "parity": isinstance(request.profile, OfficialProfile),
        },
        seed=generation.seed,
        reference=generation.reference,
        crf=request.encoding.crf,
        source_fps=float(job.source.info.fps),
        fps=round(len(timeline) / seconds, 6),
        num_frames=len(timeline),
        num_frames_with_face=reasons.count(""),
        video_seconds=job.analysis.times.seconds,
        audio_seconds=job.voices[None].seconds,
        skipped=left_alone(job, reasons),
        frames_left=dict(Counter(reason for reason in reasons if reason)),
        stage_seconds=session.stopwatch.seconds,
        total_seconds=time.perf_counter() - session.started,
        peak_memory_mib=peak_memory_mib(),
        preset=preset,
        device=str(model.device),
        dtype=str(model.unet.dtype).removeprefix("torch."),
        shots=measured.shots,
        sync_measure=measured.sync_measure,
        occlusion=occlusion_of(job, reasons),
        damage=[*missed_again(num_missed), *damage_of(job)],
        notes=notes,
        adapted_to=recording_of(model),
    )


def occlusion_of(job: Job, reasons: list[str]) -> dict[str, float]:
    """In how many redrawn frames something hid a mouth, as a number and a fraction, and the mean
    fraction of the mouth that stayed the source's there."""
    numbers, runs_at = job.timeline.numbers, RunsAt(job.runs)
    shares = []
    for entry, slot in enumerate(slots_of_entries(job).tolist()):
        here = [job.occlusions.share(r.track, int(numbers[entry])) for _, r in runs_at(slot)]
        if not reasons[entry] and max(here, default=0.0) > MIN_SHARE:
            shares.append(max(here))
    if not shares:
        return {}
    return {
        "frames": len(shares),
        "share_of_frames": round(len(shares) / reasons.count(""), 4),
        "share_of_mouth": round(float(np.mean(shares)), 4),
    }


def occlusion_notes(
    job: Job, reasons: list[str], *, request: Request, session: Session
) -> list[str]:
    """Note for the user about hidden mouths, or that none could be seen."""
    if session.masker is None and request.choice.occlusion != "off":
        return [NOT_LOOKED_FOR] if "" in reasons else []
    found = occlusion_of(job, reasons)
    if not found:
        return []
    return [
        f"something lay before the mouth in {found['frames']:g} frames "
        f"({found['share_of_frames']:.0%} of those redrawn): {found['share_of_mouth']:.0%} of what "
        "is painted stayed the source's there"
    ]


def missed_again(num_missed: int) -> list[str]:
    """Note about frames that the second pass could not decode although the first one could."""
    again = f"the video: {num_missed} frames could not be decoded a second time, the one before "
    return [again + "stands in the place of each"] if num_missed else []


def damage_of(job: Job) -> list[str]:
    """Where the video and the voices could not be decoded."""
    return [
        *(f"the video: {damage}" for damage in job.analysis.damages),
        *(
            f"a voice: {damage}"
            for voice in job.voices.values()
            for damage in voice.damages
            if damage.effect != CLIPPED
        ),
    ]


def clipped_in(job: Job) -> list[str]:
    """Where the voices were clipped."""
    damages = [damage for voice in job.voices.values() for damage in voice.damages]
    return [f"a voice: {damage}" for damage in damages if damage.effect == CLIPPED]


def reasons_of(job: Job, form: ModelFormat) -> list[str]:
    """For every frame of the output why it is the source's, "" if a mouth was generated."""
    placements, runs_at = placements_of(job, form), RunsAt(job.runs)
    slots = slots_of_entries(job)
    reasons = []
    for entry, slot in enumerate(slots.tolist()):
        if shown_mouths(entry, job.timeline, fps=form.fps, runs_at=runs_at, placements=placements):
            reasons.append("")
            continue
        number = int(job.timeline.numbers[entry])
        seen = any(placements.at(run.track, number) is not None for _, run in runs_at(slot))
        # The frame of the slot may show a face that this one does not.
        reasons.append(job.skip_reasons[slot] or (SILENT if seen else "no face found"))
    return reasons


def slots_of_entries(job: Job) -> Int32[np.ndarray, " m"]:
    """The slot of every frame of the output."""
    return slot_of(job.timeline, fps=job.slot_rate).clip(0, len(job.skip_reasons) - 1)


def left_alone(job: Job, reasons: list[str]) -> list[SkippedSpan]:
    """Where the output is the source, and why."""
    timeline = job.timeline
    starts = timeline.starts * float(timeline.time_base)
    return skipped_spans(reasons, starts, timeline.seconds(len(timeline)))


def curves_of(job: Job, openings: Float[np.ndarray, " m"] | None) -> Curves:
    """Loudness and openings in every slot; `openings` are those of the output's frames, if
    measured."""
    num_slots = len(job.skip_reasons)
    entries = slot_entries(job.timeline, fps=job.slot_rate, num_slots=num_slots)
    before = np.full(len(job.analysis.times), np.nan)
    for index in sorted({run.track for run in job.runs}, reverse=True):
        track = job.analysis.survey.tracks[index]
        before[track.first : track.first + len(track.openings)] = track.openings
    after = np.full(num_slots, np.nan) if openings is None else openings[entries]
    fps = float(job.slot_rate)
    heard = loudness(job.voices[None].levels, fps=fps, num_slots=num_slots)
    return Curves(fps, heard, before[job.timeline.numbers[entries]], after)


def shots_of(
    job: Job, curves: Curves, reasons: list[str], scorer: SyncScorer | None = None
) -> list[ShotReport]:
    """What was done in every shot of the output; with a loop the same shot may appear several
    times.

    `reasons` is the result of `reasons_of`. Sync is given by the scorer, else by how well mouth and
    loudness correlate.
    """
    firsts = np.array([shot.first for shot in job.analysis.survey.shots])
    shots = np.searchsorted(firsts, job.timeline.numbers, side="right") - 1
    slots = slots_of_entries(job)
    reports, first = [], 0
    for number, group in groupby(shots.tolist()):
        end = first + len(list(group))
        a, b = int(slots[first]), int(slots[end - 1]) + 1
        before, after = _sync_in(a, b, curves, scorer)
        reports.append(
            ShotReport(
                number=number,
                start_seconds=job.timeline.seconds(first),
                end_seconds=job.timeline.seconds(end),
                persons=sorted({r.person for r in job.runs if r.first < b and r.end > a}),
                num_frames=end - first,
                num_frames_drawn=reasons[first:end].count(""),
                sync_before=before,
                sync_after=after,
            )
        )
        first = end
    return reports


def _sync_in(
    first: int, end: int, curves: Curves, scorer: SyncScorer | None
) -> tuple[float | None, float | None]:
    """Sync of the source and of the result in these slots; None if it cannot be measured."""
    if scorer is not None:
        scores = scorer.score(first, end)
        return (None, None) if scores is None else (scores[0].score, scores[1].score)
    loud = curves.loudness[first:end]
    return (
        sync_of(curves.before[first:end], loud, fps=curves.fps),
        sync_of(curves.after[first:end], loud, fps=curves.fps),
    )
