"""The public entry point `lipsync`, and the notes and warnings of a run."""

import logging
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Required, TypedDict, Unpack

import numpy as np

from latentsync.diffusion import Sampler
from latentsync.faces import FaceDetector
from latentsync.faces.align import SMOOTHING_RULE
from latentsync.faces.occlusion import OcclusionMasker
from latentsync.faces.tracking.shots import SHOT_RULE
from latentsync.media.formats import codec_for, what_changes
from latentsync.media.silence import SilenceGate
from latentsync.media.soundtrack import check_copy
from latentsync.models.lipsync import LipSyncModel
from latentsync.models.model_config import ModelFormat
from latentsync.pipeline.cache import Cache, network_hash
from latentsync.pipeline.checks import Source, check_choices, check_paths
from latentsync.pipeline.chunks import Reference, slot_entries
from latentsync.pipeline.generation import reference_for
from latentsync.pipeline.job import Job, prepare_job
from latentsync.pipeline.latent_cache import LatentCache, bytes_per_face
from latentsync.pipeline.outputs import Outputs, page_path, report_path, sheet_path
from latentsync.pipeline.plan import Choice, Plan, doubts_of
from latentsync.pipeline.render import RenderResult, run_job
from latentsync.pipeline.reporting.build import (
    Measured,
    clipped_in,
    curves_of,
    damage_of,
    missed_again,
    occlusion_notes,
    reasons_of,
    report_of,
    shots_of,
)
from latentsync.pipeline.reporting.curves import Curves
from latentsync.pipeline.reporting.html import write_page
from latentsync.pipeline.reporting.monitor import OutputMonitor
from latentsync.pipeline.reporting.report import Report
from latentsync.pipeline.reporting.sync_scorer import SyncScorer, load_sync_scorer
from latentsync.pipeline.request import (
    Encoding,
    Generation,
    Profile,
    Request,
    Session,
    Timing,
)
from latentsync.pipeline.speakers import SpeakerChoice
from latentsync.runtime import Progress

logger = logging.getLogger(__name__)


class Options(TypedDict, total=False):
    """Options of `lipsync`; None means the default."""

    sampler: Required[Sampler]
    seed: int
    overlap: int
    batch: int
    silence: SilenceGate | None
    # Reference faces of a chunk: "previous", those one chunk earlier; "self", its own, as in the
    # official pipeline; "auto", as the profile says, but "self" for a model that does not see
    # their mouth.
    reference: Reference
    choice: Choice | None
    timing: Timing | None
    encoding: Encoding | None
    crf: float | None  # overrides that of `encoding`
    # Voices of individual persons or turns ("turn3"); all others speak `audio`, which is also the
    # sound.
    assign: Mapping[int | str, Path] | None
    plan: Plan | None
    speakers: SpeakerChoice | None  # how speakers are determined
    masker: OcclusionMasker | None  # segments what hides mouths, for `choice.occlusion`
    profile: Profile | None  # default for everything else
    # Measure the finished mouths for the report's curve and, if the model came with a SyncNet,
    # score source and result with it (otherwise the mouth's opening is correlated with the
    # loudness).
    measure: bool
    preset: str | None  # only recorded in the report


def lipsync(
    video: Path | Source,
    audio: Path,
    out: Path,
    *,
    model: LipSyncModel,
    detector: FaceDetector,
    cache: Cache | None = None,
    overwrite: bool = False,
    progress: Progress = False,
    **options: Unpack[Options],
) -> Report:
    """Write `out`, its report and its contact sheet; on failure write none of them and raise
    ValueError.

    Frames without a usable face pass through. Called again after being killed, it resumes after the
    last finished part. `cache` stores results that depend on the inputs only.
    """
    source = check_paths(video, audio, out, overwrite=overwrite)
    request = request_of(source, audio, model, options)
    if request.encoding.copy_audio is True:
        check_copy(audio, out)
    session = Session(model, detector, cache, progress, masker=options.get("masker"))
    with Outputs(out, overwrite=overwrite) as outputs:
        return carry_out(
            request,
            session,
            outputs,
            measure=options.get("measure", False),
            preset=options.get("preset"),
        )


def request_of(source: Source, audio: Path, model: LipSyncModel, options: Options) -> Request:
    """The request for these options; ValueError or TypeError if they are invalid."""
    unknown = sorted(options.keys() - Options.__annotations__)
    if unknown:
        raise TypeError(
            f"lipsync() has no option {unknown[0]}: there are {', '.join(Options.__annotations__)}"
        )
    encoding, crf = options.get("encoding") or Encoding(), options.get("crf")
    encoding = encoding if crf is None else replace(encoding, crf=crf)
    check_choices(crf=encoding.crf, reference=options.get("reference", "auto"))
    given = {name: value for name, value in options.items() if value is not None}
    if given.get("reference", "auto") == "auto" and reference_for(model.format) == "self":
        given["reference"] = "self"

    def of(kind: type) -> dict[str, Any]:
        return {field.name: given[field.name] for field in fields(kind) if field.name in given}

    sampler = options["sampler"].suited_to(model.process)
    generation = Generation(**{**of(Generation), "sampler": sampler})
    chosen = {**of(Request), "generation": generation, "encoding": encoding}
    return Request(source, audio, **chosen)


def carry_out(
    request: Request, session: Session, outputs: Outputs, *, measure: bool, preset: str | None
) -> Report:
    """Analyze, plan, render, report."""
    model, encoding, source = session.model, request.encoding, request.source
    judged = measure and model.syncnet_dir is not None
    syncnet = load_sync_scorer(model.syncnet_dir, model.device) if judged else None
    job = prepare_job(request, session, with_mel=syncnet is not None)
    codec = codec_for(encoding.codec, source.info, outputs.out.suffix)
    changes = changes_of(job, codec=codec, crf=encoding.crf)
    warn_of(source.path, [*damage_of(job), *clipped_in(job), *changes])
    scorer = None if syncnet is None else SyncScorer(job, model.format, syncnet)
    monitor = OutputMonitor(job, detector=session.detector if measure else None, scorer=scorer)
    latent_cache = latent_cache_for(job, request, session)
    result = run_job(job, outputs, request, session, latent_cache=latent_cache, see=monitor.see)
    if result is None:
        outputs.clear()
        return Report.load(report_path(outputs.out))
    warn_of(source.path, missed_again(result.num_missed))
    with session.stopwatch.stage("report"), job.inputs.watched():
        monitor.catch_up(outputs.path(outputs.out))
        curves = curves_of(job, None if monitor.mouths is None else monitor.mouths.openings)
    invalid = None if scorer is None else scorer.why_invalid()
    measured = measured_in(job, curves, model.format, scorer if invalid is None else None)
    report = report_of(
        job,
        request,
        session,
        outputs.out,
        measured=measured,
        num_missed=result.num_missed,
        preset=preset,
        notes=[
            *session.detector.notes,
            *changes,
            *occlusion_notes(job, measured.reasons, request=request, session=session),
            *notes_of(job, result, latent_cache),
            *([invalid] if invalid else []),
        ],
    )
    publish_report(report, outputs, monitor, curves)
    return report


def measured_in(job: Job, curves: Curves, form: ModelFormat, scorer: SyncScorer | None) -> Measured:
    """Sync of every shot, by the scorer if it is valid for these faces, otherwise by loudness."""
    reasons = reasons_of(job, form)
    shots = shots_of(job, curves, reasons, scorer)
    return Measured(shots, reasons, "loudness" if scorer is None else "syncnet")


def publish_report(
    report: Report, outputs: Outputs, monitor: OutputMonitor, curves: Curves
) -> None:
    """Write the report's files, then publish all files of the run."""
    out = outputs.out
    report.save(outputs.path(report_path(out)))
    monitor.sheet.save(outputs.path(sheet_path(out)))
    write_page(outputs.path(page_path(out)), report, sheet=monitor.sheet, curves=curves)
    outputs.publish()
    outputs.clear()


def warn_of(video: Path, lines: list[str]) -> None:
    for line in lines:
        logger.warning("%s: %s", video, line)


def latent_cache_for(job: Job, request: Request, session: Session) -> LatentCache | None:
    """Cache for the latents of the job's faces; None without a `Cache`, if latents are sampled, or
    if the detector's results are not reproducible (it has no cache key)."""
    model, cache, detected_by = session.model, session.cache, session.detector.cache_key
    if cache is None or detected_by is None or request.generation.sampler.sample_latents:
        return None
    form, vae = model.format, model.codec.vae.net
    entries = slot_entries(job.timeline, fps=job.slot_rate, num_slots=len(job.skip_reasons))
    numbers = job.timeline.numbers[entries]
    key = (
        f"{job.source.content_hash} {job.deinterlace}",
        f"{detected_by} {SHOT_RULE}",
        f"{form.aligner} {SMOOTHING_RULE} {form.resolution} {form.mask}",
        f"{network_hash(vae)} {vae.dtype} {model.unet.dtype} {model.device.type}",
    )
    latent_cache = LatentCache(
        cache,
        key,
        lambda run, slot: (job.runs[run].track, int(numbers[slot])),
        verify=job.inputs.check,
    )
    latent_cache.expect(sum(len(run) for run in job.runs), bytes_per_face(model))
    return latent_cache


def changes_of(job: Job, *, codec: str, crf: float) -> list[str]:
    """What differs from the source besides the mouths."""
    changes = doubts_of(job.plan)
    if job.analysis.num_deinterlaced:
        changes.append(
            f"{job.analysis.num_deinterlaced} of {len(job.analysis.times)} frames were interlaced "
            "and are progressive now; timing.deinterlace=off leaves their lines as they are"
        )
    return changes + what_changes(job.source.info, codec=codec, crf=crf)


def notes_of(job: Job, result: RenderResult, latent_cache: LatentCache | None = None) -> list[str]:
    """Other remarks for the user."""
    notes = clipped_in(job)
    generated_tracks = [
        job.analysis.survey.tracks[index] for index in {run.track for run in job.runs}
    ]
    if generated_tracks and not any(np.isfinite(track.yaws).any() for track in generated_tracks):
        notes.append(
            "how far heads are turned is unknown, since this detector's points do not tell: "
            "faces.max_yaw left none out"
        )
    if latent_cache is not None and latent_cache.is_full:
        notes.append("too many faces to keep their latents: a retake will encode them again")
    if result.num_resumed:
        notes.append(f"{result.num_resumed} frames are those of an earlier run that was stopped")
    silent = float(job.voices[None].silent.mean()) if len(job.voices[None].silent) else 0.0
    if silent > 0:
        notes.append(f"the voice is silent for {silent:.0%} of its time")
    return notes
