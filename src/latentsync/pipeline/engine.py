"""A video and a voice => the video speaking it, in two passes and constant memory.

The first pass finds shots and faces and is small and cached; a plan is made of it. In the second,
one stream cuts the faces that the network needs, the other reads the frames again, puts the drawn
mouths back and encodes, so no frame waits for the network. The model draws on its own 25 fps grid;
the output has the frames and times of the source.
"""

import hashlib
from collections.abc import Callable, Collection, Generator, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from math import floor
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from latentsync.diffusion import Sampler
from latentsync.faces import FaceDetector
from latentsync.media.deinterlace import MODES
from latentsync.media.formats import CODECS, check_source, codec_for
from latentsync.media.limits import MOST_FPS
from latentsync.media.parts import PartsWriter
from latentsync.media.picture import Picture
from latentsync.media.soundtrack import CopyAudio
from latentsync.media.timed import (
    FrameReader,
    Timeline,
    build_timeline,
)
from latentsync.media.video import VideoInfo, probe
from latentsync.models.audio_encoder import num_parity_frames
from latentsync.models.lipsync import LipSyncModel
from latentsync.models.model_config import ModelFormat
from latentsync.pipeline.ahead import ahead
from latentsync.pipeline.cache import Cache, content_hash
from latentsync.pipeline.draw import Patches, Slots, draw_windows
from latentsync.pipeline.first_pass import Sighting, Voice, listen, sight
from latentsync.pipeline.inputs import Inputs
from latentsync.pipeline.kept import KeptLatents
from latentsync.pipeline.outputs import Outputs
from latentsync.pipeline.places import Places, aligner_for
from latentsync.pipeline.plan import (
    Choice,
    Plan,
    edited_tracks,
    find_runs,
    make_plan,
    slot_entries,
)
from latentsync.pipeline.progress import Bar, Progress
from latentsync.pipeline.silence import SilenceGate, shown_in_slots
from latentsync.pipeline.speaker import SpeakerChoice, check_plan, check_speeches, who_speaks
from latentsync.pipeline.streams import FaceStore, RunsAt, cut_faces, put_back, wanted_slots
from latentsync.pipeline.windows import Run, Window, cut_windows
from latentsync.report import Stopwatch

FACES_AHEAD = 8
PART_SECONDS = 10


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
class Drawing:
    """How windows are cut and drawn: slots that neighbours share, windows per pass of the network,
    what the mouth does in silence, and what is shown beside (see `lipsync`)."""

    sampler: Sampler = field(default_factory=Sampler)
    seed: int = 1247
    overlap: int = 4
    batch: int = 1
    silence: SilenceGate = field(default_factory=SilenceGate)
    own_reference: bool = False


@dataclass(frozen=True, slots=True)
class Drawn:
    """`num_resumed`: frames that an earlier, killed run had written. `num_missed`: stored frames
    that the first pass decoded and the second could not."""

    num_resumed: int
    num_missed: int


@dataclass(frozen=True, slots=True)
class Job:
    """Everything decided, nothing drawn."""

    source: VideoInfo
    sighting: Sighting
    timeline: Timeline
    voices: dict[int | str | None, Voice]
    """By person or turn ("turn3") as `assign` names them; None: of everybody else."""
    runs: list[Run]
    windows: list[Window]
    left: list[str]
    """For every slot why it is left alone, "" where it is drawn."""
    plan: Plan
    slot_rate: Fraction
    inputs: Inputs
    deinterlace: str = "auto"

    def voice_of(self, run: Run) -> Voice:
        return voice_of(self.voices, run)

    def reader(self) -> FrameReader:
        """Reads the source's frames, as the first pass saw them."""
        return FrameReader(self.source.path, self.sighting.times, deinterlace=self.deinterlace)


def prepare_job(  # noqa: PLR0913 - the first half of the one public door
    video: Path,
    audio: Path,
    *,
    model: LipSyncModel,
    detector: FaceDetector,
    drawing: Drawing,
    choice: Choice,
    timing: Timing,
    assign: Mapping[int | str, Path] | None = None,
    plan: Plan | None = None,
    speakers: SpeakerChoice | None = None,
    cache: Cache | None = None,
    progress: Progress = False,
    watch: Stopwatch | None = None,
    with_mel: bool = False,
) -> Job:
    """Look at the video, listen to the voices (`with_mel`: for a SyncNet too), decide what is
    drawn where."""
    watch = watch or Stopwatch()
    form, parity = model.format, drawing.sampler.parity
    if parity:
        drawing, choice = _as_official(drawing, choice)
    fps = Fraction(form.fps).limit_denominator(1001)
    inputs = Inputs(video, audio, *(assign or {}).values())
    source = probe(video)
    check_source(source)
    with watch.stage("audio"), inputs.watched():
        hear = partial(
            listen,
            model=model,
            gate=drawing.silence,
            parity=parity,
            cache=cache,
            with_mel=with_mel,
        )
        voices: dict[int | str | None, Voice] = {
            None: hear(audio),
            **{name: hear(path) for name, path in (assign or {}).items()},
        }
    with watch.stage("faces"):
        found = sight(
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
        seconds = num_parity_frames(len(voices[None].tokens.states), fps=form.fps) / form.fps
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
            with watch.stage("speakers"), inputs.watched():
                turns = who_speaks(
                    source,
                    found.survey,
                    found.times,
                    speakers or SpeakerChoice(),
                    deinterlace=timing.deinterlace,
                )
        plan = make_plan(video, found.survey, found.times, choice, turns=turns)
    check_plan(plan, found.survey, found.times)
    voiced = check_speeches(list(assign or {}), plan.turns, found.survey)
    runs, left = _find_runs(
        found, plan, timeline, choice, fps=fps, seconds_spoken=seconds, voiced_turns=voiced
    )
    runs = [_silenced(run, voice_of(voices, run), drawing, form.fps) for run in runs]
    windows = cut_windows(
        runs,
        length=form.num_frames,
        overlap=0 if parity else min(drawing.overlap, form.num_frames // 2),
        own_reference=drawing.own_reference,
        short_last=parity,
    )
    return Job(
        source,
        found,
        timeline,
        voices,
        runs,
        windows,
        left,
        plan,
        fps,
        inputs,
        timing.deinterlace,
    )


def _as_official(drawing: Drawing, choice: Choice) -> tuple[Drawing, Choice]:
    """The official pipeline knows no silences, and no face that is better left alone."""
    return (
        replace(drawing, silence=SilenceGate("off")),
        replace(choice, min_size=0, max_yaw=360, min_seconds=0, fade_slots=0),
    )


def _find_runs(
    found: Sighting,
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
    if isinstance(fps, str) or not 0 < fps <= MOST_FPS:
        raise ValueError(
            f"timing.fps={fps} must be source, model or a number above 0, {MOST_FPS} at most"
        )
    return Fraction(fps).limit_denominator(1001)


def _silenced(run: Run, voice: Voice, drawing: Drawing, fps: float) -> Run:
    """The run with the source's own mouth in the voice's silences, if the gate says so."""
    if drawing.silence.mode != "source":
        return run
    shown = shown_in_slots(voice.silent, fps=fps, num_slots=run.end, fade_slots=4)
    strength = (run.strength * shown[run.first :]).astype(np.float32)
    return replace(run, strength=strength)


def voice_of(voices: Mapping[int | str | None, Voice], run: Run) -> Voice:
    """A turn's own voice, else its person's, else the one of all."""
    return voices.get(run.speech) or voices.get(run.person) or voices[None]


def run_job(  # noqa: PLR0913 - the second half of the one public door
    job: Job,
    outputs: Outputs,
    *,
    audio: Path,
    model: LipSyncModel,
    drawing: Drawing,
    encoding: Encoding,
    key: str,
    progress: Progress,
    watch: Stopwatch,
    kept: KeptLatents | None = None,
    see: Callable[[int, Picture], None] | None = None,
) -> Drawn | None:
    """Draw, put back, encode into the file that will be `outputs.out`; None if an earlier, killed
    run of the same had published it already.

    `see` is shown every picture of this run on its way to the encoder.
    """
    timeline = job.timeline
    reader = job.reader()
    with parts_writer(job, outputs, encoding, key) as writer:
        if outputs.settle(is_same=writer.is_resumed):
            return None
        done = writer.next_entry
        entries = range(done, len(timeline))
        finished = finished_frames(job, reader, entries, model, drawing, watch, kept)
        bar = Bar("frames", len(timeline), progress, done=done)
        with watch.stage("write"), bar, job.inputs.watched(), closing(finished):
            for entry, frame in enumerate(finished, start=done):
                job.inputs.check()  # before the frame: a part that is whole is right
                writer.write(frame, timeline.start(entry))
                if see is not None:
                    with watch.stage("report"):
                        see(entry, frame)
                bar.update()
            job.inputs.check()
            writer.finish_at(timeline.start(len(timeline)))
            writer.join(
                audio=audio,
                audio_seconds=timeline.seconds(len(timeline)),
                copy_audio=encoding.copy_audio,
                into=outputs.path(outputs.out),
            )
    return Drawn(num_resumed=done, num_missed=len(reader.missed))


def parts_writer(job: Job, outputs: Outputs, encoding: Encoding, key: str) -> PartsWriter:
    """Writes the pictures of a job."""
    timeline, source = job.timeline, job.source
    fps = len(timeline) / timeline.start(len(timeline))
    return PartsWriter(
        outputs.out,
        outputs.folder,
        key=key,
        fps=fps,
        time_base=timeline.time_base,
        width=source.width,
        height=source.height,
        crf=encoding.crf,
        preset=encoding.preset,
        codec=codec_for(encoding.codec, source, outputs.out.suffix),
        colour=source.colour,
        sample_aspect_ratio=source.sample_aspect_ratio,
        entries_per_part=max(25, round(PART_SECONDS * float(fps))),
    )


def places_of(job: Job, form: ModelFormat) -> Places:
    """Where the faces of a job are, for a model's faces."""
    times = job.sighting.times
    rate = len(times) / max(times.seconds, 1e-3)
    make_aligner = partial(aligner_for, form.aligner, form.resolution, fps=rate)
    return Places(job.sighting.survey, make_aligner)


def finished_frames(
    job: Job,
    reader: FrameReader,
    entries: range,
    model: LipSyncModel,
    drawing: Drawing,
    watch: Stopwatch,
    kept: KeptLatents | None = None,
) -> Generator[Picture]:
    """The output's pictures of these entries; only the windows that they show are drawn, and only
    the faces cut that `kept` does not hold."""
    form, timeline = model.format, job.timeline
    windows = _windows_shown(job, entries, drawing)
    slots, numbers = _faces_to_cut(job, windows, kept)
    places = places_of(job, form)
    cuts = cut_faces(
        watch.over("read", reader.pictures(numbers.tolist())),
        slots,
        numbers,
        job.runs,
        places,
        form.resolution,
    )

    def sound_of(run: int, wanted: Slots) -> Tensor:
        voice = job.voice_of(job.runs[run])
        return voice.tokens.tokens(torch.from_numpy(wanted))

    with closing(ahead(cuts, FACES_AHEAD)) as faces:
        drawn = draw_windows(
            windows,
            FaceStore(faces, keep_slots=3 * form.num_frames),
            sound_of,
            model=model,
            sampler=drawing.sampler,
            seed=drawing.seed,
            batch=drawing.batch,
            kept=kept,
        )
        with closing(ahead(watch.over("generate", drawn), 1)) as drawn_ahead:
            frames = reader.pictures(timeline.numbers[entries.start : entries.stop].tolist())
            yield from watch.over(
                "restore",
                put_back(
                    watch.over("read", frames),
                    entries,
                    timeline,
                    fps=form.fps,
                    runs=job.runs,
                    patches=Patches(
                        watch.over("wait", drawn_ahead), rounded=not drawing.sampler.parity
                    ),
                    places=places,
                    mask=form.mask,
                    region="crop" if drawing.sampler.parity else "mask",
                ),
            )


def _windows_shown(job: Job, entries: range, drawing: Drawing) -> list[Window]:
    if drawing.sampler.parity:  # which draws from one generator, window after window
        return job.windows
    first_slot = int(job.timeline.seconds(entries.start) * float(job.slot_rate)) if entries else 0
    return [window for window in job.windows if window.end > first_slot]


def _faces_to_cut(
    job: Job, windows: list[Window], kept: KeptLatents | None
) -> tuple[Slots, Int[np.ndarray, " k"]]:
    """The slots whose faces are asked for and not kept, and the stored frames they show."""
    slots = wanted_slots(windows, job.runs)
    if kept is not None:
        runs_at = RunsAt(job.runs)
        slots = slots[kept.missing(slots, lambda slot: [index for index, _ in runs_at(slot)])]
    shown = slot_entries(job.timeline, fps=job.slot_rate, num_slots=_last(slots))
    return slots, job.timeline.numbers[shown[slots]]


def _last(slots: Slots) -> int:
    return int(slots[-1]) + 1 if len(slots) else 0


def settings_key(job: Job, voices: Iterable[Path], *parts: object) -> str:
    """A hash of all that the frames of an output depend on, so that parts of two never mix."""
    told = [
        content_hash(job.source.path),
        *(content_hash(path) for path in voices),
        job.plan.to_json(),
        # Dataclasses of plain values: their repr says all of them.
        *(repr(part) for part in parts),
    ]
    return hashlib.blake2b("\0".join(told).encode(), digest_size=16).hexdigest()
