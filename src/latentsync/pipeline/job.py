"""A video and a voice => the lip-synced video, in two passes and constant memory.

The first pass finds shots and faces; its results are small and cached, and a plan is made from
them. In the second, one stream crops the faces that the network needs, the other reads the frames
again, pastes the generated mouths and encodes, so no frame waits for the network. The model
generates on its own 25 fps grid; the output has the frames and times of the source.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from math import floor

import numpy as np
import torch
from jaxtyping import Bool, Int32

from latentsync.faces.mask import ALL_ROWS, Rows, load_mask
from latentsync.media.formats import check_source
from latentsync.media.frame_reader import (
    FrameReader,
    Timeline,
    build_timeline,
)
from latentsync.media.limits import MAX_FPS
from latentsync.media.silence import shown_in_slots
from latentsync.models.lipsync import LipSyncModel
from latentsync.pipeline.analysis import (
    Speech,
    VideoAnalysis,
    analyze_video,
    encode_speech,
)
from latentsync.pipeline.checks import Inputs, Source
from latentsync.pipeline.chunks import (
    Chunk,
    Run,
    cut_chunks,
    edited_tracks,
    find_runs,
    slot_entries,
)
from latentsync.pipeline.generation import generate_chunks
from latentsync.pipeline.occlusions import Occlusions, occlusions_of
from latentsync.pipeline.plan import Choice, Plan, check_plan, make_plan, with_persons_of
from latentsync.pipeline.request import Generation, Request, Session, Timing
from latentsync.pipeline.speakers import check_speeches, who_speaks
from latentsync.runtime import peak_memory_mib

FRAMES_IN_HAND = 8  # decoded frames held by both streams and the encoder, approximately


@dataclass(frozen=True, slots=True)
class Job:
    """A fully planned run; nothing is generated yet."""

    source: Source
    analysis: VideoAnalysis
    timeline: Timeline
    voices: dict[int | str | None, Speech]
    """By person or turn ("turn3") as in `assign`; None: the voice of all others."""
    runs: list[Run]
    chunks: list[Chunk]
    skip_reasons: list[str]
    """For every slot why it is left alone, "" if it is redrawn."""
    plan: Plan
    slot_rate: Fraction
    inputs: Inputs
    deinterlace: str = "auto"
    mask_rows: Rows = ALL_ROWS
    occlusions: Occlusions = field(default_factory=Occlusions)

    def voice_of(self, run: Run) -> Speech:
        return voice_of(self.voices, run)

    def reader(self) -> FrameReader:
        """A reader of the source's frames as the first pass saw them."""
        return FrameReader(self.source.path, self.analysis.times, deinterlace=self.deinterlace)


def prepare_job(request: Request, session: Session, *, with_mel: bool = False) -> Job:
    """Analyze the inputs and plan the run. `with_mel`: keep mels for a SyncNet."""
    load_mask(session.model.format.mask, rows=request.choice.mask_rows)  # fails early if invalid
    return plan_job(request, analyze(request, session, with_mel=with_mel), session)


@dataclass(frozen=True, slots=True)
class Analysis:
    """Results for the video and the voices; `inputs` watches their files for changes."""

    video: VideoAnalysis
    voices: dict[int | str | None, Speech]
    inputs: Inputs


def analyze(request: Request, session: Session, *, with_mel: bool = False) -> Analysis:
    """Analyze the video and encode the voices."""
    source, form, stopwatch = request.source, session.model.format, session.stopwatch
    inputs = Inputs(source.path, *request.voices)
    inputs.check_still(source)
    check_source(source.info)
    with stopwatch.stage("audio"), inputs.watched():
        hear = partial(
            encode_speech,
            model=session.model,
            gate=request.generation.silence,
            overlap=request.profile.overlap_audio,
            cache=session.cache,
            with_mel=with_mel,
        )
        voices: dict[int | str | None, Speech] = {
            None: hear(request.audio),
            **{name: hear(path) for name, path in request.assign.items()},
        }
    with stopwatch.stage("faces"):
        found = analyze_video(
            source,
            session.detector,
            form.aligner,
            form.resolution,
            cache=session.cache,
            progress=session.progress,
            deinterlace=request.timing.deinterlace,
            inputs=inputs,
        )
    if not found.survey.tracks:
        raise ValueError(
            f"no face found in any of {found.survey.num_frames} frames of {source.path}"
        )
    return Analysis(found, voices, inputs)


def plan_job(request: Request, analysis: Analysis, session: Session) -> Job:
    """Decide who is redrawn in which frames, on the model's grid, and split that into chunks."""
    found, voices, generation = analysis.video, analysis.voices, request.generation
    form, profile = session.model.format, request.profile
    seconds = profile.seconds_spoken(
        voices[None].tokens, max(voice.seconds for voice in voices.values())
    )
    timeline, fps = timeline_of(
        request.timing,
        found,
        seconds=seconds,
        model_fps=form.fps,
        source_fps=request.source.info.fps,
    )
    if request.plan is None:
        plan = _make_plan(request, analysis, session)
    else:
        seen, plan = with_persons_of(request.plan, found.survey, found.times)
        found = replace(found, survey=seen)
    check_plan(plan, found.survey, found.times)
    voiced = check_speeches(list(request.assign), plan.turns, found.survey)
    edited = edited_tracks(plan, found.survey, found.times, voiced_turns=voiced)
    occlusions = occlusions_of(request, analysis.inputs, found, edited, timeline, session)
    if request.choice.occlusion == "skip":
        firsts = {index: found.survey.tracks[index].first for index in edited}
        edited = occlusions.leave_out(edited, firsts)
    runs, skip_reasons = _find_runs(
        found, edited, timeline, request.choice, fps=fps, seconds_spoken=seconds
    )
    runs = [_silenced(run, voice_of(voices, run), generation, form.fps) for run in runs]
    chunks = cut_chunks(
        runs,
        length=form.num_frames,
        overlap=min(generation.overlap, form.num_frames // 2),
        reference=generation.reference,
        short_last=profile.short_last_chunk,
        hidden=_hidden_slots(runs, occlusions, timeline, fps),
    )
    return Job(
        source=request.source,
        analysis=found,
        timeline=timeline,
        voices=voices,
        runs=runs,
        chunks=chunks,
        skip_reasons=skip_reasons,
        plan=plan,
        slot_rate=fps,
        inputs=analysis.inputs,
        deinterlace=request.timing.deinterlace,
        mask_rows=request.choice.mask_rows,
        occlusions=occlusions,
    )


def timeline_of(
    timing: Timing,
    found: VideoAnalysis,
    *,
    seconds: float,
    model_fps: float,
    source_fps: Fraction | None = None,
) -> tuple[Timeline, Fraction]:
    """The output's frame times, and the rate of the model's grid."""
    rate = Fraction(model_fps).limit_denominator(1001)
    timeline = build_timeline(
        found.times,
        seconds=seconds,
        loop=timing.loop,
        tail=timing.tail,
        fps=rate if timing.fps == "model" else _own_rate(timing.fps),
        source_fps=source_fps,
    )
    return timeline, rate


def _make_plan(request: Request, analysis: Analysis, session: Session) -> Plan:
    found, source, turns = analysis.video, request.source, None
    if request.choice.select == "speaker":
        with session.stopwatch.stage("speakers"), analysis.inputs.watched():
            turns = who_speaks(
                source.info,
                found.survey,
                found.times,
                request.speakers,
                deinterlace=request.timing.deinterlace,
                progress=session.progress,
            )
    return make_plan(
        source.path,
        found.survey,
        found.times,
        request.choice,
        turns=turns,
        notes=session.detector.notes,
    )


def _find_runs(
    found: VideoAnalysis,
    edited: Mapping[int, Int32[np.ndarray, " _"]],
    timeline: Timeline,
    choice: Choice,
    *,
    fps: Fraction,
    seconds_spoken: float,
) -> tuple[list[Run], list[str]]:
    """Runs of the edited faces on the model's grid, and why the other slots are left alone."""
    num_slots = max(1, _nearest(timeline.seconds(len(timeline)) * float(fps)))
    return find_runs(
        found.survey,
        edited,
        timeline,
        slot_entries(timeline, fps=fps, num_slots=num_slots),
        choice,
        fps=fps,
        num_spoken=min(num_slots, max(1, _nearest(seconds_spoken * float(fps)))),
    )


def _hidden_slots(
    runs: Sequence[Run], occlusions: Occlusions, timeline: Timeline, fps: Fraction
) -> list[Bool[np.ndarray, " _"]]:
    """For each run, in which of its slots something hides the mouth."""
    last = max((run.end for run in runs), default=0)
    numbers = timeline.numbers[slot_entries(timeline, fps=fps, num_slots=last)]
    return [occlusions.hides(run.track, numbers[run.first : run.end]) for run in runs]


def _nearest(value: float) -> int:
    """Round half up, as on the timeline, with a tolerance for floating-point errors."""
    return floor(value + 0.5 + 1e-6)


def _own_rate(fps: str | float) -> Fraction | None:
    if fps == "source":
        return None
    if isinstance(fps, str) or not 0 < fps <= MAX_FPS:
        raise ValueError(
            f"timing.fps={fps} must be source, model or a number above 0, {MAX_FPS} at most"
        )
    return Fraction(fps).limit_denominator(1001)


def _silenced(run: Run, voice: Speech, generation: Generation, fps: float) -> Run:
    """The run showing the source's mouth in silences of the voice, if the gate says so."""
    if generation.silence.mode != "source":
        return run
    shown = shown_in_slots(voice.silent, fps=fps, num_slots=run.end, fade_slots=4)
    strength = (run.strength * shown[run.first :]).astype(np.float32)
    return replace(run, strength=strength)


def voice_of(voices: Mapping[int | str | None, Speech], run: Run) -> Speech:
    """A turn's own voice, else its person's, else the common one."""
    return voices.get(run.speech) or voices.get(run.person) or voices[None]


def with_estimate(job: Job, model: LipSyncModel, generation: Generation) -> Plan:
    """The job's plan with estimated seconds and memory: one chunk is generated with one step and
    with two, which gives the time per step; decoding and encoding are not included."""
    if not job.chunks:
        return job.plan
    form = model.format
    size = form.resolution
    slots = np.arange(form.num_frames)
    chunk = Chunk(0, 0, len(slots), np.ones(len(slots), dtype=np.float32), slots)
    faces = np.zeros((len(slots), size, size, 3), dtype=np.uint8)
    tokens = job.voices[None].tokens

    def seconds(num_steps: int) -> float:
        sampler = replace(
            generation.sampler, num_steps=num_steps, guidance_scale=1.0, deepcache_interval=1
        )
        started = time.perf_counter()
        list(
            generate_chunks(
                [chunk],
                lambda _, wanted: faces[wanted],
                lambda _, wanted: tokens.tokens(torch.from_numpy(wanted)),
                model=model,
                sampler=sampler,
                seed=generation.seed,
            )
        )
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter() - started

    seconds(1)  # the first call of a network is slower
    one, two = seconds(1), seconds(2)
    step = max(two - one, 0.0)
    sampler = generation.sampler
    passes = sum(2 if sampler.is_guided(place) else 1 for place in range(sampler.num_steps))
    per_window = (one - step) + passes * step
    frame_mib = job.source.info.width * job.source.info.height * 3 / 2**20
    expected = {
        "windows": float(len(job.chunks)),
        "network_seconds": round(len(job.chunks) * per_window, 1),
        "memory_mib": round(peak_memory_mib() + FRAMES_IN_HAND * frame_mib),
    }
    return replace(job.plan, expected=expected)
