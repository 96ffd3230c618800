"""A drawn head that turns away, wobbles about the limit, and turns back."""

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from jaxtyping import Float

from latentsync.data.synthetic.render import Portrait
from latentsync.data.synthetic.speaker import Speaker
from latentsync.diffusion import Sampler
from latentsync.faces import MeshDetector
from latentsync.models.lipsync import LipSyncModel
from latentsync.pipeline.job import Job
from latentsync.pipeline.plan import Choice
from latentsync.pipeline.render import finished_frames
from latentsync.pipeline.request import Generation
from latentsync.runtime import Stopwatch
from pipeline.inputs import job_of, write_video, write_voice

SIDE = 128
MAX_YAW = 8.0  # degrees that the mesh reads; drawn heads turn by shifting, 0.35 of it is 8 degrees
ONE_STEP = Generation(Sampler(num_steps=1))
FADE = 4


def turning_film(path: Path) -> Path:
    """Two seconds; the head is turned from about the 27th to the 48th frame, and trembles."""
    portrait = Portrait(Speaker.random(np.random.default_rng(900_011)), SIDE)
    time = np.arange(60)
    away = np.interp(time, [0, 14, 30, 40, 54, 60], [0, 0, 0.45, 0.45, 0, 0])
    away += 0.05 * np.sin(time * 1.3)
    still = dict.fromkeys(("x", "y", "roll", "pitch", "blink", "gaze_x", "gaze_y"), 0.0)
    mouth = {"open": 0.3, **dict.fromkeys(("width", "round", "teeth", "tongue"), 0.0)}
    frames = [portrait.frame(mouth, {**still, "scale": 1.0, "yaw": float(yaw)}) for yaw in away]
    return write_video(path, frames)


def pasted(job: Job, model: LipSyncModel) -> list[Float[np.ndarray, "h w 3"]]:
    """What every output frame adds to the source's."""
    numbers = job.timeline.numbers.tolist()
    frames = finished_frames(job, job.reader(), range(60), model, ONE_STEP, Stopwatch())
    with closing(frames) as finished:
        return [
            after.rgb().astype(np.float64) - before.rgb()
            for before, after in zip(job.reader().pictures(numbers), finished, strict=True)
        ]


def test_the_mouth_of_a_head_that_turns_away_and_back_goes_and_comes_in_small_steps(
    tiny_model: LipSyncModel, tmp_path: Path
) -> None:
    video = turning_film(tmp_path / "turning.mp4")
    voice = write_voice(tmp_path / "voice.wav", 2.4)
    added = {}
    for slots in (0, FADE):
        choice = Choice(
            min_size=0, min_seconds=0, max_yaw=MAX_YAW, fade_slots=slots, occlusion="off"
        )
        job = job_of(
            video,
            voice,
            model=tiny_model,
            detector=MeshDetector(),
            generation=ONE_STEP,
            choice=choice,
        )
        added[slots] = pasted(job, tiny_model)
    sharp = np.array([(whole**2).sum() for whole in added[0]])
    shown = np.array(
        [
            (part * whole).sum() / max(float((whole**2).sum()), 1)
            for part, whole in zip(added[FADE], added[0], strict=True)
        ]
    )
    # Away once, back once: trembling about the limit switches nothing.
    assert np.count_nonzero(np.diff(sharp > 0)) == 2
    assert not shown[28:45].any()
    assert shown[[0, -1]] == pytest.approx(1)
    assert np.abs(np.diff(shown)).max() < 1 / (FADE + 1) + 0.02
