"""What hides a mouth is kept from the source, or its frames are."""

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from latentsync.diffusion import Sampler
from latentsync.faces import FaceDetector
from latentsync.faces.occlusion import OcclusionMasker
from latentsync.models.lipsync import LipSyncModel
from latentsync.pipeline import lipsync
from latentsync.pipeline.chunks import BEHIND
from latentsync.pipeline.job import Job
from latentsync.pipeline.plan import Choice
from latentsync.pipeline.render import finished_frames
from latentsync.pipeline.reporting.build import NOT_LOOKED_FOR, occlusion_of, reasons_of
from latentsync.pipeline.request import Generation
from latentsync.runtime import Stopwatch
from pipeline.inputs import RightHalf, job_of

MIDDLE = 64  # frame column of the face's centre
EDGE = 3  # positions of pixels are rounded, and two share a colour
ONE_STEP = Generation(Sampler(num_steps=1))
FIRST, END = RightHalf.FIRST, RightHalf.END


def hidden_job(
    video: Path, voice: Path, model: LipSyncModel, detector: FaceDetector, occlusion: str
) -> Job:
    choice = Choice(min_size=0, min_seconds=0, fade_slots=0, occlusion=occlusion)
    return job_of(
        video,
        voice,
        model=model,
        detector=detector,
        masker=RightHalf(),
        generation=ONE_STEP,
        choice=choice,
    )


def changed_pixels(job: Job, model: LipSyncModel) -> list[np.ndarray]:
    """For every frame, which pixels differ from the source's."""
    entries = range(30)
    frames = finished_frames(job, job.reader(), entries, model, ONE_STEP, Stopwatch())
    with closing(frames) as finished:
        sources = job.reader().pictures(job.timeline.numbers[:30].tolist())
        return [
            (before.rgb() != after.rgb()).any(axis=2)
            for before, after in zip(sources, finished, strict=False)
        ]


def test_what_lies_before_a_mouth_keeps_its_bits_and_the_rest_is_redrawn(
    video: Path, voice: Path, tiny_model: LipSyncModel, detector: FaceDetector
) -> None:
    job = hidden_job(video, voice, tiny_model, detector, "auto")
    changed = changed_pixels(job, tiny_model)
    free = changed[5]
    assert free[:, : MIDDLE - EDGE].any()
    assert free[:, MIDDLE + EDGE :].any()
    for number in range(FIRST, END):
        assert not changed[number][:, MIDDLE + EDGE :].any()
        assert changed[number][:, : MIDDLE - EDGE].any()
    reasons = reasons_of(job, tiny_model.format)
    told = occlusion_of(job, reasons)
    assert told["frames"] == END - FIRST
    assert told["share_of_mouth"] == pytest.approx(0.5, abs=0.05)


def test_frames_that_are_skipped_are_the_sources_own(
    video: Path, voice: Path, tiny_model: LipSyncModel, detector: FaceDetector
) -> None:
    job = hidden_job(video, voice, tiny_model, detector, "skip")
    changed = changed_pixels(job, tiny_model)
    assert [n for n in range(30) if not changed[n].any()] == [*range(FIRST, END)]
    assert [slot for slot, why in enumerate(job.skip_reasons) if why == BEHIND] == [
        *range(FIRST, END)
    ]


def test_nothing_is_looked_for_where_it_is_off(
    video: Path, voice: Path, tiny_model: LipSyncModel, detector: FaceDetector
) -> None:
    job = hidden_job(video, voice, tiny_model, detector, "off")
    assert all(changed.any() for changed in changed_pixels(job, tiny_model))
    assert occlusion_of(job, reasons_of(job, tiny_model.format)) == {}


def test_the_report_says_once_that_nothing_could_be_looked_for(
    video: Path, voice: Path, tiny_model: LipSyncModel, detector: FaceDetector, tmp_path: Path
) -> None:
    def notes(
        name: str, masker: OcclusionMasker | None, occlusion: str, face: int = 0
    ) -> list[str]:
        report = lipsync(
            video,
            voice,
            tmp_path / f"{name}.mp4",
            model=tiny_model,
            detector=detector,
            sampler=ONE_STEP.sampler,
            masker=masker,
            choice=Choice(min_size=face, min_seconds=0, occlusion=occlusion),
        )
        return report.notes

    assert notes("without", None, "auto").count(NOT_LOOKED_FOR) == 1
    assert notes("skip", None, "skip").count(NOT_LOOKED_FOR) == 1
    assert NOT_LOOKED_FOR not in notes("off", None, "off")
    assert NOT_LOOKED_FOR not in notes("with", RightHalf(), "auto")
    assert NOT_LOOKED_FOR not in notes("nothing redrawn", None, "auto", face=300)


def test_a_word_that_is_no_choice_is_refused() -> None:
    with pytest.raises(ValueError, match="occlusion=on must be one of auto, off, skip"):
        Choice(occlusion="on")
