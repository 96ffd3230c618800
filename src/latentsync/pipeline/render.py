"""The second pass: crop faces, paste generated mouths, and write the result in parts."""

import hashlib
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from latentsync.faces.align import SMOOTHING_RULE
from latentsync.media.formats import codec_for
from latentsync.media.frame import Picture
from latentsync.media.frame_reader import (
    FrameReader,
)
from latentsync.media.segmented_writer import PartsWriter
from latentsync.media.writer import VideoWriter
from latentsync.models.lipsync import LipSyncModel
from latentsync.models.model_config import ModelFormat
from latentsync.pipeline.analysis import (
    Placements,
    aligner_for,
)
from latentsync.pipeline.cache import content_hash
from latentsync.pipeline.chunks import MAX_REFERENCE_CHUNKS, Chunk, slot_entries
from latentsync.pipeline.compositing import (
    FaceStore,
    Pasting,
    RunsAt,
    cut_faces,
    put_back,
    wanted_slots,
)
from latentsync.pipeline.generation import GeneratedFaces, Slots, generate_chunks
from latentsync.pipeline.job import Job
from latentsync.pipeline.latent_cache import LatentCache
from latentsync.pipeline.outputs import Outputs
from latentsync.pipeline.request import (
    PROFILES,
    Encoding,
    Generation,
    Profile,
    Request,
    Session,
)
from latentsync.runtime import Bar, Stopwatch, prefetch

NUM_PREFETCHED_FACES = 8
PART_SECONDS = 10


@dataclass(frozen=True, slots=True)
class RenderResult:
    """`num_resumed`: frames written by an earlier, killed run. `num_missed`: stored frames that the
    first pass could decode and the second could not."""

    num_resumed: int
    num_missed: int


def run_job(
    job: Job,
    outputs: Outputs,
    request: Request,
    session: Session,
    *,
    latent_cache: LatentCache | None = None,
    see: Callable[[int, Picture], None] | None = None,
) -> RenderResult | None:
    """Generate, paste and encode into the file that will be `outputs.out`; None if an earlier,
    killed run with the same settings had already published it.

    `see` is called with every frame of this run on its way to the encoder.
    """
    timeline, encoding, stopwatch = job.timeline, request.encoding, session.stopwatch
    reader = job.reader()
    key = settings_key(job, request, session)
    with parts_writer(job, outputs, encoding, key) as writer:
        if outputs.settle(is_same=writer.is_resumed):
            return None
        done = writer.next_entry
        entries = range(done, len(timeline))
        finished = finished_frames(
            job,
            reader,
            entries,
            session.model,
            request.generation,
            stopwatch,
            latent_cache,
            request.profile,
        )
        bar = Bar("frames", len(timeline), session.progress, done=done)
        with stopwatch.stage("write"), bar, job.inputs.watched(), closing(finished):
            for entry, frame in enumerate(finished, start=done):
                job.inputs.check()  # before the frame is written, so that finished parts are valid
                writer.write(frame, timeline.start(entry))
                if see is not None:
                    with stopwatch.stage("report"):
                        see(entry, frame)
                bar.update()
            job.inputs.check()
            writer.finish_at(timeline.start(len(timeline)))
            writer.join(
                audio=request.audio,
                audio_seconds=timeline.seconds(len(timeline)),
                copy_audio=encoding.copy_audio,
                into=outputs.path(outputs.out),
            )
    return RenderResult(num_resumed=done, num_missed=len(reader.missed))


def parts_writer(job: Job, outputs: Outputs, encoding: Encoding, key: str) -> PartsWriter:
    """A writer for the job's frames."""
    timeline, source = job.timeline, job.source.info
    fps = len(timeline) / timeline.start(len(timeline))
    new_writer = partial(
        VideoWriter,
        fps=fps,
        time_base=timeline.time_base,
        width=source.width,
        height=source.height,
        crf=encoding.crf,
        preset=encoding.preset,
        codec=codec_for(encoding.codec, source, outputs.out.suffix),
        colour=source.colour,
        sample_aspect_ratio=source.sample_aspect_ratio,
    )
    entries_per_part = max(25, round(PART_SECONDS * float(fps)))
    return PartsWriter(
        outputs.out, outputs.folder, new_writer, key=key, entries_per_part=entries_per_part
    )


def placements_of(job: Job, form: ModelFormat) -> Placements:
    """Placements of the job's faces for the model's format."""
    times = job.analysis.times
    rate = len(times) / max(times.seconds, 1e-3)
    make_aligner = partial(aligner_for, form.aligner, form.resolution, fps=rate)
    return Placements(job.analysis.survey, make_aligner)


def finished_frames(
    job: Job,
    reader: FrameReader,
    entries: range,
    model: LipSyncModel,
    generation: Generation,
    stopwatch: Stopwatch,
    latent_cache: LatentCache | None = None,
    profile: Profile = PROFILES["own"],
) -> Generator[Picture]:
    """The output's frames with these indices; generates only the chunks that they show, and crops
    only faces that `latent_cache` lacks."""
    form, timeline = model.format, job.timeline
    chunks = _chunks_shown(job, entries, generation)
    slots, numbers = _faces_to_cut(job, chunks, latent_cache)
    placements = placements_of(job, form)
    cuts = cut_faces(
        stopwatch.over("read", reader.pictures(numbers.tolist())),
        slots,
        numbers,
        job.runs,
        placements,
        form.resolution,
    )

    def sound_of(run: int, wanted: Slots) -> Tensor:
        voice = job.voice_of(job.runs[run])
        return voice.tokens.tokens(torch.from_numpy(wanted))

    with closing(prefetch(cuts, NUM_PREFETCHED_FACES)) as faces:
        generated = generate_chunks(
            chunks,
            FaceStore(faces, keep_slots=(MAX_REFERENCE_CHUNKS + 1) * form.num_frames),
            sound_of,
            model=model,
            sampler=generation.sampler,
            seed=generation.seed,
            batch=generation.batch,
            latent_cache=latent_cache,
        )
        with closing(prefetch(stopwatch.over("generate", generated), 1)) as prefetched:
            frames = reader.pictures(timeline.numbers[entries.start : entries.stop].tolist())
            yield from stopwatch.over(
                "restore",
                put_back(
                    stopwatch.over("read", frames),
                    entries,
                    timeline,
                    fps=form.fps,
                    runs=job.runs,
                    generated=GeneratedFaces(
                        stopwatch.over("wait", prefetched), rounded=profile.round_faces
                    ),
                    placements=placements,
                    pasting=Pasting(profile.region, form.mask, job.mask_rows, job.occlusions),
                ),
            )


def _chunks_shown(job: Job, entries: range, generation: Generation) -> list[Chunk]:
    if generation.sampler.sample_latents:  # chunks share one generator, so none can be skipped
        return job.chunks
    first_slot = int(job.timeline.seconds(entries.start) * float(job.slot_rate)) if entries else 0
    # The last mouth of a run may be held for part of the next slot.
    return [chunk for chunk in job.chunks if chunk.end >= first_slot]


def _faces_to_cut(
    job: Job, chunks: list[Chunk], latent_cache: LatentCache | None
) -> tuple[Slots, Int[np.ndarray, " k"]]:
    """The slots whose faces are needed and not cached, and the stored frames they show."""
    slots = wanted_slots(chunks, job.runs)
    if latent_cache is not None:
        runs_at = RunsAt(job.runs)
        slots = slots[
            latent_cache.missing(slots, lambda slot: [index for index, _ in runs_at(slot)])
        ]
    shown = slot_entries(job.timeline, fps=job.slot_rate, num_slots=_last(slots))
    return slots, job.timeline.numbers[shown[slots]]


def _last(slots: Slots) -> int:
    return int(slots[-1]) + 1 if len(slots) else 0


def settings_key(job: Job, request: Request, session: Session) -> str:
    """A hash of everything the output's frames depend on, so that parts of different runs are never
    mixed."""
    fields = [
        job.source.content_hash,
        *(content_hash(path) for path in request.voices),
        job.plan.to_json(),
        # Dataclasses of plain values, fully described by their repr.
        *map(
            repr,
            (
                session.model_name,
                request.generation,
                request.choice,
                request.timing,
                request.profile,
                sorted(map(str, request.assign)),
                None if session.masker is None else session.masker.cache_key,
                SMOOTHING_RULE,
            ),
        ),
    ]
    return hashlib.blake2b("\0".join(fields).encode(), digest_size=16).hexdigest()
