"""A video and a voice => the video speaking it, in two passes and constant memory.

The first pass finds shots and faces and is small and cached; a plan is made of it. In the second,
one stream cuts the faces that the network needs, the other reads the frames again, puts the drawn
mouths back and encodes, so no frame waits for the network. The model draws on its own 25 fps grid;
the output has the frames and times of the source.
"""

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from math import floor
from pathlib import Path

import numpy as np
import torch

from latentsync.diffusion import Sampler
from latentsync.faces import FaceDetector
from latentsync.media.deinterlace import MODES
from latentsync.media.formats import CODECS, check_source
from latentsync.media.frame_reader import (
    FrameReader,
    Timeline,
    build_timeline,
)
from latentsync.media.limits import MAX_FPS
from latentsync.media.soundtrack import CopyAudio
from latentsync.media.video import VideoInfo, probe
from latentsync.models.audio.encoders import num_parity_frames
from latentsync.models.lipsync import LipSyncModel
from latentsync.pipeline.analysis import (
    Speech,
    VideoAnalysis,
    analyze_video,
    encode_speech,
)
from latentsync.pipeline.cache import Cache
from latentsync.pipeline.chunks import Chunk, Run, cut_chunks
from latentsync.pipeline.generation import generate_chunks
from latentsync.pipeline.inputs import Inputs
from latentsync.pipeline.persons import with_persons_of
from latentsync.pipeline.plan import (
    Choice,
    Plan,
    edited_tracks,
    make_plan,
    slot_entries,
)
from latentsync.pipeline.runs import find_runs
from latentsync.pipeline.silence import SilenceGate, shown_in_slots
from latentsync.pipeline.speakers import SpeakerChoice, check_plan, check_speeches, who_speaks
from latentsync.runtime import Progress, Stopwatch, peak_memory_mib

FRAMES_IN_HAND = 8  # decoded frames of both streams and of the encoder, about


@dataclass(frozen=True, slots=True)
class Timing:
    """`fps`: "source" keeps the frames and times of the video, "model" the model's grid, a number
    any grid. `loop`: what a video shorter than the voice does; `tail`: whether the rest of a longer
    one passes through ("keep") or is cut. `deinterlace`: "auto" makes frames that are marked as
    interlaced progressive, "off" leaves their lines as they are."""

    fps: str | float = "source"
    loop: str = "to_and_fro"
    tail: str = "keep"
    deinterlace: str = "auto"

    def __post_init__(self) -> None:
        if self.deinterlace not in MODES:
            raise ValueError(
                f"timing.deinterlace={self.deinterlace} must be one of {', '.join(MODES)}"
            )


@dataclass(frozen=True, slots=True)
class Encoding:
    """How the output is written: quality (0 is lossless), x264 or x265 ("auto": x265 for sources of
    more than 8 bits), and whether the voice's stream is copied where the file can hold it."""

    crf: float = 18
    codec: str = "auto"
    preset: str = "medium"
    copy_audio: CopyAudio = "auto"

    def __post_init__(self) -> None:
        if self.codec not in CODECS:
            raise ValueError(f"encoding.codec={self.codec} must be one of {', '.join(CODECS)}")


@dataclass(frozen=True, slots=True)
class Generation:
    """How windows are cut and drawn: slots that neighbours share, windows per pass of the network,
    what the mouth does in silence, and what is shown beside (see `lipsync`)."""

    sampler: Sampler = field(default_factory=Sampler)
    seed: int = 1247
    overlap: int = 4
    batch: int = 1
    silence: SilenceGate = field(default_factory=SilenceGate)
    own_reference: bool = False


@dataclass(frozen=True, slots=True)
class Job:
    """Everything decided, nothing drawn."""

    source: VideoInfo
    analysis: VideoAnalysis
    timeline: Timeline
    voices: dict[int | str | None, Speech]
    """By person or turn ("turn3") as `assign` names them; None: of everybody else."""
    runs: list[Run]
    chunks: list[Chunk]
    left: list[str]
    """For every slot why it is left alone, "" where it is drawn."""
    plan: Plan
    slot_rate: Fraction
    inputs: Inputs
    deinterlace: str = "auto"

    def voice_of(self, run: Run) -> Speech:
        return voice_of(self.voices, run)

    def reader(self) -> FrameReader:
        """Reads the source's frames, as the first pass saw them."""
        return FrameReader(self.source.path, self.analysis.times, deinterlace=self.deinterlace)


def prepare_job(  # noqa: PLR0913 - the first half of the one public door
    video: Path,
    audio: Path,
    *,
    model: LipSyncModel,
    detector: FaceDetector,
    generation: Generation,
    choice: Choice,
    timing: Timing,
    assign: Mapping[int | str, Path] | None = None,
    plan: Plan | None = None,
    speakers: SpeakerChoice | None = None,
    cache: Cache | None = None,
    progress: Progress = False,
    stopwatch: Stopwatch | None = None,
    with_mel: bool = False,
) -> Job:
    """Look at the video, listen to the voices (`with_mel`: for a SyncNet too), decide what is
    drawn where."""
    stopwatch = stopwatch or Stopwatch()
    form, parity = model.format, generation.sampler.parity
    if parity:
        generation, choice = _as_official(generation, choice)
    fps = Fraction(form.fps).limit_denominator(1001)
    inputs = Inputs(video, audio, *(assign or {}).values())
    source = probe(video)
    check_source(source)
    with stopwatch.stage("audio"), inputs.watched():
        hear = partial(
            encode_speech,
            model=model,
            gate=generation.silence,
            parity=parity,
            cache=cache,
            with_mel=with_mel,
        )
        voices: dict[int | str | None, Speech] = {
            None: hear(audio),
            **{name: hear(path) for name, path in (assign or {}).items()},
        }
    with stopwatch.stage("faces"):
        found = analyze_video(
            video,
            detector,
            form.aligner,
            form.resolution,
            cache=cache,
            progress=progress,
            deinterlace=timing.deinterlace,
            inputs=inputs,
        )
    if not found.survey.tracks:
        raise ValueError(f"no face found in any of {found.survey.num_frames} frames of {video}")
    if parity:
        heard = voices[None].tokens
        seconds = num_parity_frames(len(heard.states), fps=form.fps, rate=heard.rate) / form.fps
        timing = replace(timing, fps="model", tail="cut")
    else:
        seconds = max(voice.seconds for voice in voices.values())
    timeline = build_timeline(
        found.times,
        seconds=seconds,
        loop=timing.loop,
        tail=timing.tail,
        fps=fps if timing.fps == "model" else _own_rate(timing.fps),
    )
    if plan is None:
        turns = None
        if choice.select == "speaker":
            with stopwatch.stage("speakers"), inputs.watched():
                turns = who_speaks(
                    source,
                    found.survey,
                    found.times,
                    speakers or SpeakerChoice(),
                    deinterlace=timing.deinterlace,
                    progress=progress,
                )
        plan = make_plan(
            video, found.survey, found.times, choice, turns=turns, notes=detector.notes
        )
    else:
        seen, plan = with_persons_of(plan, found.survey, found.times)
        found = replace(found, survey=seen)
    check_plan(plan, found.survey, found.times)
    voiced = check_speeches(list(assign or {}), plan.turns, found.survey)
    runs, left = _find_runs(
        found, plan, timeline, choice, fps=fps, seconds_spoken=seconds, voiced_turns=voiced
    )
    runs = [_silenced(run, voice_of(voices, run), generation, form.fps) for run in runs]
    chunks = cut_chunks(
        runs,
        length=form.num_frames,
        overlap=0 if parity else min(generation.overlap, form.num_frames // 2),
        own_reference=generation.own_reference,
        short_last=parity,
    )
    return Job(
        source,
        found,
        timeline,
        voices,
        runs,
        chunks,
        left,
        plan,
        fps,
        inputs,
        timing.deinterlace,
    )


def _as_official(generation: Generation, choice: Choice) -> tuple[Generation, Choice]:
    """The official pipeline knows no silences, and no face that is better left alone."""
    return (
        replace(generation, silence=SilenceGate("off")),
        replace(choice, min_size=0, max_yaw=360, min_seconds=0, fade_slots=0),
    )


def _find_runs(
    found: VideoAnalysis,
    plan: Plan,
    timeline: Timeline,
    choice: Choice,
    *,
    fps: Fraction,
    seconds_spoken: float,
    voiced_turns: Collection[int],
) -> tuple[list[Run], list[str]]:
    """What the plan edits, on the model's grid, and why the other slots are left alone."""
    num_slots = max(1, _nearest(timeline.seconds(len(timeline)) * float(fps)))
    return find_runs(
        found.survey,
        edited_tracks(plan, found.survey, found.times, voiced_turns=voiced_turns),
        timeline,
        slot_entries(timeline, fps=fps, num_slots=num_slots),
        choice,
        fps=fps,
        num_spoken=min(num_slots, max(1, _nearest(seconds_spoken * float(fps)))),
    )


def _nearest(value: float) -> int:
    """Halves go up, as on the timeline; a product of floats may lie a hair below its half."""
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
    """The run with the source's own mouth in the voice's silences, if the gate says so."""
    if generation.silence.mode != "source":
        return run
    shown = shown_in_slots(voice.silent, fps=fps, num_slots=run.end, fade_slots=4)
    strength = (run.strength * shown[run.first :]).astype(np.float32)
    return replace(run, strength=strength)


def voice_of(voices: Mapping[int | str | None, Speech], run: Run) -> Speech:
    """A turn's own voice, else its person's, else the one of all."""
    return voices.get(run.speech) or voices.get(run.person) or voices[None]


def with_estimate(job: Job, model: LipSyncModel, generation: Generation) -> Plan:
    """The job's plan with its expected seconds and memory: one window is drawn with one step and
    with two, which tells the share of the steps; decoding and encoding are not in the seconds."""
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

    seconds(1)  # the first run of a network is slower
    one, two = seconds(1), seconds(2)
    step = max(two - one, 0.0)
    sampler = generation.sampler
    passes = sum(2 if sampler.is_guided(place) else 1 for place in range(sampler.num_steps))
    per_window = (one - step) + passes * step
    frame_mib = job.source.width * job.source.height * 3 / 2**20
    expected = {
        "windows": float(len(job.chunks)),
        "network_seconds": round(len(job.chunks) * per_window, 1),
        "memory_mib": round(peak_memory_mib() + FRAMES_IN_HAND * frame_mib),
    }
    return replace(job.plan, expected=expected)
