"""The one public door: `lipsync`, and what it says of its work."""

import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from latentsync.diffusion import Sampler
from latentsync.faces import FaceDetector
from latentsync.media.formats import codec_for, what_changes
from latentsync.media.soundtrack import check_copy
from latentsync.models.lipsync import LipSyncModel
from latentsync.pipeline.cache import Cache, content_hash, network_hash
from latentsync.pipeline.checks import Reference, check_choices, check_paths
from latentsync.pipeline.engine import (
    Drawing,
    Drawn,
    Encoding,
    Job,
    Timing,
    prepare_job,
    run_job,
    settings_key,
)
from latentsync.pipeline.judge import SyncJudge, load_judge
from latentsync.pipeline.kept import KeptLatents, bytes_per_face
from latentsync.pipeline.outputs import Outputs, page_path, report_path, sheet_path
from latentsync.pipeline.page import write_page
from latentsync.pipeline.plan import Choice, Plan, slot_entries
from latentsync.pipeline.progress import Progress
from latentsync.pipeline.silence import SilenceGate
from latentsync.pipeline.speaker import SpeakerChoice, doubts_of
from latentsync.pipeline.told import (
    clipped_in,
    curves_of,
    damage_of,
    missed_again,
    reasons_of,
    report_of,
    shots_of,
)
from latentsync.pipeline.witness import Witness
from latentsync.report import Report, Stopwatch

logger = logging.getLogger(__name__)


def lipsync(  # noqa: PLR0913 - the one public door: every choice is named where it is called
    video: Path,
    audio: Path,
    out: Path,
    *,
    model: LipSyncModel,
    detector: FaceDetector,
    sampler: Sampler,
    seed: int = 1247,
    crf: float | None = None,
    reference: Reference = "auto",
    overwrite: bool = False,
    progress: Progress = False,
    choice: Choice | None = None,
    timing: Timing | None = None,
    encoding: Encoding | None = None,
    silence: SilenceGate | None = None,
    overlap: int = 4,
    batch: int = 1,
    assign: Mapping[int | str, Path] | None = None,
    plan: Plan | None = None,
    speakers: SpeakerChoice | None = None,
    cache: Cache | None = None,
    measure: bool = False,
    preset: str | None = None,
) -> Report:
    """Write `out`, its report and its contact sheet; or none of them and raise ValueError.

    Frames without a usable face pass through. A killed run goes on after its last finished part
    when it is called again. `reference`: the faces shown unmasked beside a window: "previous" are
    those a window before, "self" its own, as in the official pipeline; "auto" is what the sampler
    goes with. `assign`: voices of single persons or turns ("turn3"); all others speak `audio`,
    which is also what is heard. `speakers`: how it is told who speaks. `crf`, if given, goes before
    that of `encoding`. `cache` keeps what depends on the inputs alone. `measure`: look at the
    finished mouths for the report's curve and, if the model came with a SyncNet, let it judge
    source and result (else the mouth's opening is compared with the loudness). `preset` is only
    told there. With `sampler.parity` all else follows the official pipeline.
    """
    check_paths(video, audio, out, overwrite=overwrite)
    encoding = encoding or Encoding()
    if crf is not None:
        encoding = replace(encoding, crf=crf)
    check_choices(crf=encoding.crf, reference=reference)
    if encoding.copy_audio is True:
        check_copy(audio, out)
    started, watch = time.perf_counter(), Stopwatch()
    drawing = Drawing(
        sampler=sampler,
        seed=seed,
        overlap=overlap,
        batch=batch,
        silence=silence or SilenceGate(),
        own_reference=reference == "self" or (reference == "auto" and sampler.parity),
    )
    choice, timing, assigned = choice or Choice(), timing or Timing(), dict(assign or {})
    judged = measure and model.syncnet_dir is not None
    syncnet = load_judge(model.syncnet_dir, model.device) if judged else None
    with Outputs(out, overwrite=overwrite) as outputs:
        job = prepare_job(
            video,
            audio,
            model=model,
            detector=detector,
            drawing=drawing,
            choice=choice,
            timing=timing,
            assign=assigned,
            plan=plan,
            speakers=speakers,
            cache=cache,
            progress=progress,
            watch=watch,
            with_mel=syncnet is not None,
        )
        codec = codec_for(encoding.codec, job.source, out.suffix)
        changes = changes_of(job, codec=codec, crf=encoding.crf)
        _warn(video, [*damage_of(job), *clipped_in(job), *changes])
        judge = None if syncnet is None else SyncJudge(job, model.format, syncnet)
        witness = Witness(job, detector=detector if measure else None, judge=judge)
        kept = latents_kept(job, model, detector, cache) if cache and not sampler.parity else None
        name = fingerprint(model)
        voices = [audio, *assigned.values()]
        drawn = run_job(
            job,
            outputs,
            audio=audio,
            model=model,
            drawing=drawing,
            encoding=encoding,
            key=settings_key(
                job, voices, name, drawing, choice, timing, sorted(map(str, assigned))
            ),
            progress=progress,
            watch=watch,
            kept=kept,
            see=witness.see,
        )
        if drawn is None:
            outputs.clear()
            return Report.load(report_path(out))
        _warn(video, missed_again(drawn.num_missed))
        with watch.stage("report"), job.inputs.watched():
            witness.catch_up(outputs.path(out))
            curves = curves_of(job, None if witness.mouths is None else witness.mouths.openings)
        reasons = reasons_of(job, model.format)
        invalid = None if judge is None else judge.why_invalid()
        believed = judge if invalid is None else None
        report = report_of(
            job,
            audio,
            out,
            model=model,
            name=name,
            drawing=drawing,
            encoding=encoding,
            sync_measure="loudness" if believed is None else "syncnet",
            shots=shots_of(job, curves, reasons, believed),
            reasons=reasons,
            stage_seconds=watch.seconds,
            total_seconds=time.perf_counter() - started,
            preset=preset,
            num_missed=drawn.num_missed,
            notes=[*changes, *notes_of(job, drawn, kept), *([invalid] if invalid else [])],
        )
        report.save(outputs.path(report_path(out)))
        witness.sheet.save(outputs.path(sheet_path(out)))
        page = outputs.path(page_path(out))
        write_page(page, report, sheet=witness.sheet, curves=curves)
        outputs.publish()
        outputs.clear()
    return report


def _warn(video: Path, lines: list[str]) -> None:
    for line in lines:
        logger.warning("%s: %s", video, line)


def latents_kept(
    job: Job, model: LipSyncModel, detector: FaceDetector, cache: Cache
) -> KeptLatents | None:
    """Where the latents of the job's faces are kept; None if nobody knows what faces the detector
    will find again."""
    detected_by = detector.cache_key
    if detected_by is None:
        return None
    form, vae = model.format, model.codec.vae.net
    entries = slot_entries(job.timeline, fps=job.slot_rate, num_slots=len(job.left))
    numbers = job.timeline.numbers[entries]
    key = (
        f"{content_hash(job.source.path)} {job.deinterlace}",
        detected_by,
        f"{form.aligner} {form.resolution} {form.mask}",
        f"{network_hash(vae)} {vae.dtype} {model.unet.dtype} {model.device.type}",
    )
    kept = KeptLatents(
        cache,
        key,
        lambda run, slot: (job.runs[run].track, int(numbers[slot])),
        verify=job.inputs.check,
    )
    kept.expect(sum(len(run) for run in job.runs), bytes_per_face(model))
    return kept


def changes_of(job: Job, *, codec: str, crf: float) -> list[str]:
    """What the output will not have as the source has it, beside the mouths."""
    changes = doubts_of(job.plan)
    if job.sighting.num_deinterlaced:
        changes.append(
            f"{job.sighting.num_deinterlaced} of {len(job.sighting.times)} frames were interlaced "
            "and are progressive now; timing.deinterlace=off leaves their lines as they are"
        )
    return changes + what_changes(job.source, codec=codec, crf=crf)


def notes_of(job: Job, drawn: Drawn, kept: KeptLatents | None = None) -> list[str]:
    """What else a user should know."""
    notes = clipped_in(job)
    drawn_tracks = [job.sighting.survey.tracks[index] for index in {run.track for run in job.runs}]
    if drawn_tracks and not any(np.isfinite(track.yaws).any() for track in drawn_tracks):
        notes.append(
            "how far heads are turned is unknown, since this detector's points do not tell: "
            "faces.max_yaw left none out"
        )
    if kept is not None and kept.is_full:
        notes.append("too many faces to keep their latents: a retake will encode them again")
    if drawn.num_resumed:
        notes.append(f"{drawn.num_resumed} frames are those of an earlier run that was stopped")
    silent = float(job.voices[None].silent.mean()) if len(job.voices[None].silent) else 0.0
    if silent > 0:
        notes.append(f"the voice is silent for {silent:.0%} of its time")
    return notes


def fingerprint(model: LipSyncModel) -> str:
    """Twelve letters that tell models apart: a hash of all weights of the UNet and the VAE."""
    return (network_hash(model.unet)[:6] + network_hash(model.codec.vae.net)[:6]).lower()
