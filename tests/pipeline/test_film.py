"""A film with cuts, two people, black frames, a head from behind and uneven times."""

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from latentsync.diffusion import Sampler
from latentsync.faces import MeshDetector
from latentsync.media.audio import read_waveform
from latentsync.media.frame_reader import read_times, stored_frames
from latentsync.models.lipsync import LipSyncModel
from latentsync.pipeline import Choice, Generation, Timing, lipsync
from latentsync.pipeline.job import Job
from latentsync.pipeline.render import finished_frames
from latentsync.pipeline.reporting.report import Report
from latentsync.runtime import Stopwatch
from pipeline.inputs import job_of
from pipeline.scenes import Scene, draw_scene

QUICK = Generation(Sampler(num_steps=1, guidance_scale=1.0))


@pytest.fixture(scope="module")
def detector() -> MeshDetector:
    return MeshDetector()


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return draw_scene(tmp_path_factory.mktemp("film"))


@pytest.fixture(scope="module")
def run(scene: Scene, detector: MeshDetector, tiny_model: LipSyncModel) -> tuple[Report, Path]:
    """All faces of the film redrawn to its own sound, with one step of a tiny network."""
    out = scene.video.with_name("out.mp4")
    report = lipsync(
        scene.video,
        scene.video,
        out,
        model=tiny_model,
        detector=detector,
        sampler=Sampler(num_steps=1, guidance_scale=1.0),
        choice=Choice(select="all"),
    )
    return report, out


def test_every_frame_comes_out_at_its_time(scene: Scene, run: tuple[Report, Path]):
    report, out = run
    times = read_times(out)
    # AAC rounds the sound up to blocks of 64 ms, a frame or two longer than the film.
    assert 0 <= len(times) - scene.num_frames <= 2
    assert len(times) == report.num_frames
    seconds = times.starts[: scene.num_frames] * float(times.time_base)
    np.testing.assert_allclose(seconds, scene.starts / 1000, atol=0.0011)
    assert times.seconds == pytest.approx(scene.end / 1000, abs=0.07)
    assert len(read_waveform(out)) / 16000 == pytest.approx(times.seconds, abs=0.04)


def test_shots_and_people_are_those_of_the_film(scene: Scene, run: tuple[Report, Path]):
    report, _ = run
    seconds = scene.starts / 1000
    cuts = [0.0, *(seconds[cut] for cut in scene.cuts)]
    starts = [shot.start_seconds for shot in report.shots]
    # Black frames split a shot in two or three; every cut of the film is detected.
    for cut in cuts:
        assert min(abs(start - cut) for start in starts) < 0.05, (cut, starts)
    people = {
        cut: next(shot.persons for shot in report.shots if abs(shot.start_seconds - cut) < 0.05)
        for cut in cuts
    }
    first, both, second, again = people.values()
    assert len(first) == len(second) == 1
    assert first == again != second
    assert sorted(both) == sorted(first + second)


def test_black_and_the_back_of_a_head_are_left_alone_and_said(
    scene: Scene, run: tuple[Report, Path]
):
    report, out = run
    unseen = ~scene.faces.any(axis=1)
    assert 0.05 < unseen.mean() < 0.2
    said = np.zeros(scene.num_frames, dtype=bool)
    for span in report.skipped:
        said |= (scene.starts / 1000 >= span.start_seconds - 1e-3) & (
            scene.starts / 1000 < span.end_seconds - 1e-3
        )
    # A frame or two next to each gap may go either way.
    assert (said != unseen).sum() <= 12
    assert abs(report.num_frames_with_face - (~said).sum()) <= 2
    changed = np.zeros(scene.num_frames, dtype=bool)
    pairs = zip(stored_frames(scene.video), stored_frames(out), strict=False)
    for index, ((_, _, before), (_, _, after)) in enumerate(pairs):
        off = np.abs(before.astype(int) - after)
        changed[index] = (off > 40).sum() > 20
    assert not changed[unseen & said].any()
    assert changed[~unseen & ~said].mean() > 0.9


@pytest.fixture(scope="module")
def spoken(scene: Scene, detector: MeshDetector, tiny_model: LipSyncModel) -> Job:
    """Redraw whoever speaks to the film's own sound."""
    return job_of(
        scene.video,
        scene.video,
        model=tiny_model,
        detector=detector,
        generation=QUICK,
        choice=Choice(select="speaker"),
        timing=Timing(),
    )


def test_turns_are_those_of_who_is_heard(scene: Scene, spoken: Job):
    seconds = scene.starts / 1000 + 0.02
    seen = np.array([scene.faces[i, scene.heard[i]] for i in range(scene.num_frames)])
    # Persons are numbered by their first frame, as in the ground truth.
    said = np.full(scene.num_frames, -1)
    for turn in spoken.plan.turns or []:
        said[(turn.start <= seconds) & (seconds < turn.end)] = turn.person
    assert (said == scene.heard)[seen].mean() > 0.9
    assert ((said != scene.heard) & (said >= 0))[seen].mean() < 0.02


def test_who_listens_stays_as_it_was_to_the_bit(
    scene: Scene, spoken: Job, tiny_model: LipSyncModel
):
    both = scene.faces.all(axis=1)
    entries = range(scene.num_frames)
    painted = []
    with closing(
        finished_frames(spoken, spoken.reader(), entries, tiny_model, QUICK, Stopwatch())
    ) as finished:
        sources = spoken.reader().pictures(list(entries))
        for number, before, after in zip(entries, sources, finished, strict=True):
            if not both[number]:
                continue
            # The one who listens is on the right.
            assert all(part.box[2] <= 192 for part in after.parts)
            np.testing.assert_array_equal(before.rgb()[:, 192:], after.rgb()[:, 192:])
            painted.append((before.rgb() != after.rgb()).any())
    assert len(painted) > 100
    assert np.mean(painted) > 0.8


@pytest.mark.parametrize("person", [0, 1])
def test_only_the_person_asked_for_is_redrawn(
    scene: Scene, detector: MeshDetector, tiny_model: LipSyncModel, person: int
):
    job: Job = job_of(
        scene.video,
        scene.video,
        model=tiny_model,
        detector=detector,
        generation=Generation(Sampler(num_steps=1)),
        choice=Choice(select=person),
        timing=Timing(),
    )
    assert {run.person for run in job.runs} == {person}
    edited = [face.person for shot in job.plan.shots for face in shot.faces if face.edit]
    assert set(edited) == {person}
