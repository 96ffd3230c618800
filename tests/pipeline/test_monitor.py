"""What the report shows is measured on the way to the encoder, and equals the file's content."""

import copy
import json
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

from latentsync import demo_model_dir
from latentsync.data.synthetic import render_clip
from latentsync.evaluation.sync_embeddings import sync_cosines
from latentsync.faces import Face, FixedDetector, MeshDetector, align, mouth_shape
from latentsync.media.audio import read_waveform, write_wav
from latentsync.media.frame import Picture
from latentsync.media.frame_reader import FrameReader, read_times
from latentsync.media.mel import mel_spectrogram
from latentsync.media.video import VideoWriter, read_frames
from latentsync.metrics.sync import score_of
from latentsync.models.lipsync import LipSyncModel
from latentsync.models.serialization import save_network
from latentsync.models.syncnet import StableSyncNet
from latentsync.pipeline import Choice, Generation, Timing, lipsync, render, to_pixels
from latentsync.pipeline.analysis import Placements, aligner_for
from latentsync.pipeline.reporting import monitor as witness
from latentsync.pipeline.reporting.monitor import Mouths, OutputMonitor, times_in
from latentsync.pipeline.reporting.report import ContactSheet, close_up
from latentsync.pipeline.reporting.sync_scorer import SyncScorer, load_sync_scorer
from pipeline.inputs import (
    POINTS,
    RESOLUTION,
    build_tiny_model,
    job_of,
    picture,
    write_video,
    write_voice,
)


def still(index: int) -> np.ndarray:
    return picture(0) + np.uint8(index % 40)


@pytest.fixture
def parts(tiny_model: LipSyncModel, detector, sampler) -> dict:
    return {
        "model": tiny_model,
        "detector": detector,
        "sampler": sampler,
        "choice": Choice(min_size=0),
        "timing": Timing(tail="cut"),
        "crf": 0,
    }


class Keeps(OutputMonitor):
    """The last instance can be inspected."""

    last: OutputMonitor

    def __init__(self, *args: object, **names: object) -> None:
        super().__init__(*args, **names)
        Keeps.last = self


def sheet_of_files(video: Path, out: Path, num_frames: int) -> np.ndarray:
    """The sheet made from the finished file."""
    sheet = ContactSheet(num_frames)
    box = np.array([40.0, 30.0, 90.0, 100.0])
    for index, pair in enumerate(zip(read_frames(video), read_frames(out), strict=False)):
        x0, y0, x1, y1 = close_up(pair[0].shape[:2], box)
        sheet.add(index, *(frame[y0:y1, x0:x1] for frame in pair))
    return np.stack(sheet.cells)


def test_the_sheet_is_that_of_the_file_which_nobody_reads(
    tmp_path: Path, monkeypatch, video: Path, voice: Path, parts: dict
):
    monkeypatch.setattr(render, "PART_SECONDS", 1)
    monkeypatch.setattr(import_module("latentsync.pipeline.lipsync"), "OutputMonitor", Keeps)
    monkeypatch.setattr(witness, "box_in", lambda *_: np.array([40.0, 30.0, 90.0, 100.0]))
    out = tmp_path / "out.mp4"
    with monkeypatch.context() as patched:
        patched.setattr(witness, "FrameReader", pytest.fail)
        report = lipsync(video, voice, out, **parts)
    seen = np.stack(Keeps.last.sheet.cells).astype(int)
    assert seen.shape[0] == 8
    assert np.abs(seen - sheet_of_files(video, out, report.num_frames)).max() <= 3
    assert Keeps.last.sheet.seconds[-1] == pytest.approx((report.num_frames - 1) / 25)

    # After a kill, what the first run wrote is read from the file.
    class Killed(BaseException):
        pass

    def die(stage: str, done: int, _: int) -> None:
        if stage == "frames" and done == 30:
            raise Killed

    again = tmp_path / "again.mp4"
    with pytest.raises(Killed):
        lipsync(video, voice, again, progress=die, **parts)
    lipsync(video, voice, again, **parts)
    assert Keeps.last.begun == 25
    resumed = np.stack(Keeps.last.sheet.cells).astype(int)
    assert np.abs(resumed - seen).max() <= 3


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv"])
def test_the_times_of_a_file_are_known_without_reading_it(
    tmp_path: Path, voice: Path, parts: dict, name: str, tiny_model, detector
):
    # Matroska has ticks of milliseconds, on which 30000/1001 fps does not fall.
    source = write_video(tmp_path / "in.mp4", [still(i) for i in range(45)], fps=30000 / 1001)
    out = tmp_path / name
    lipsync(source, voice, out, **parts)
    job = job_of(
        source,
        voice,
        generation=Generation(parts["sampler"]),
        **{key: parts[key] for key in ("model", "detector", "choice", "timing")},
    )
    known, read = times_in(out, job.timeline), read_times(out)
    assert known.time_base == read.time_base
    np.testing.assert_array_equal(known.starts, read.starts)
    frames = list(read_frames(out))
    for number in (0, 17, len(frames) - 1):
        (found,) = FrameReader(out, known).read([number])
        np.testing.assert_array_equal(found, frames[number])


def small_syncnet() -> StableSyncNet:
    torch.manual_seed(1)
    levels = {"attn_blocks": [0] * 5, "dropout": 0.0}
    return StableSyncNet(
        audio_encoder={
            "in_channels": 1,
            "block_out_channels": [8, 8, 16, 16, 48],
            "downsample_factors": [[5, 2], 2, 2, 2, [2, 3]],
            **levels,
        },
        visual_encoder={
            "in_channels": 48,
            "block_out_channels": [8, 8, 16, 16, 48],
            "downsample_factors": [[1, 2], 2, 2, 2, 2],
            **levels,
        },
        resolution=RESOLUTION,
    ).eval()


def test_the_judge_says_what_evaluation_says_of_the_whole_clip(
    tmp_path: Path, parts: dict, tiny_model: LipSyncModel
):
    num_frames = 64
    rng = np.random.default_rng(0)
    shifts = rng.integers(0, 8, (2, num_frames), dtype=np.uint8)
    before, after = ([picture(0) + shift for shift in row] for row in shifts)
    video = write_video(tmp_path / "in.mp4", before)
    voice = write_voice(tmp_path / "voice.wav", num_frames / 25)
    detector = FixedDetector([np.array(POINTS) + 0.2 * index for index in range(num_frames)])
    job = job_of(
        video,
        voice,
        model=tiny_model,
        detector=detector,
        generation=Generation(parts["sampler"]),
        choice=parts["choice"],
        timing=parts["timing"],
        with_mel=True,
    )
    assert [(run.first, run.end) for run in job.runs] == [(0, num_frames)]
    net = small_syncnet()
    scorer = SyncScorer(job, tiny_model.format, net, stride=8)
    for entry, pair in enumerate(zip(before, after, strict=True)):
        scorer.look(entry, entry, *(Picture.of(frame) for frame in pair))
    scores = scorer.score(0, num_frames)
    places = Placements(job.analysis.survey, partial(aligner_for, "smooth", RESOLUTION, fps=25))
    mel = mel_spectrogram(read_waveform(voice))
    for frames, score in zip((before, after), scores, strict=True):
        faces = [align(frame, places.at(0, i), RESOLUTION) for i, frame in enumerate(frames)]
        cosines = sync_cosines(net, to_pixels(np.stack(faces)), mel, fps=25, stride=8)
        wanted = score_of(cosines)
        assert score.score == pytest.approx(wanted.score, abs=1e-5)
        assert score.confidence == pytest.approx(wanted.confidence, abs=1e-5)
        assert (score.offset, score.in_over_off) == (wanted.offset, wanted.in_over_off)
    assert scores[0].score != scores[1].score
    assert scorer.score(1, 8) is None
    # Windows and sound that are no longer needed are dropped.
    assert len(scorer.heard) <= 31 + 8
    assert max(len(trail) for trail in scorer.trails.values()) < 16


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic speaker, and another one's voice."""
    folder = tmp_path_factory.mktemp("drawn")
    render_clip(folder / "face", seed=900_011, seconds=2.4, size=160)
    render_clip(folder / "other", seed=900_012, seconds=2.4, size=64)
    return folder


def test_a_face_fits_its_own_voice_and_no_other(drawn: Path, parts: dict):
    model = build_tiny_model()
    model.format = replace(model.format, resolution=128)
    demo = LipSyncModel.from_pretrained(demo_model_dir())
    assert demo.syncnet_dir == demo_model_dir() / "syncnet"
    net = load_sync_scorer(demo.syncnet_dir, torch.device("cpu"))
    frames = list(read_frames(drawn / "face.mp4"))
    scores = {}
    for name in ("face", "other"):
        job = job_of(
            drawn / "face.mp4",
            drawn / f"{name}.wav",
            model=model,
            detector=MeshDetector(),
            generation=Generation(parts["sampler"]),
            choice=parts["choice"],
            timing=parts["timing"],
            with_mel=True,
        )
        scorer = SyncScorer(job, model.format, net)
        # A result whose mouth is a quarter of a second late.
        for entry, frame in enumerate(frames):
            late = frames[max(entry - 6, 0)]
            scorer.look(entry, entry, Picture.of(frame), Picture.of(late))
        scores[name] = scorer.score(0, len(frames))
        # The scorer is validated with the video's own sound, whatever voice it is given.
        assert scorer.why_invalid() is None
    before, after = scores["face"]
    assert before.score > 0.85 > 0.65 > scores["other"][0].score
    assert (before.offset, after.offset) == (0, 6)
    assert after.score < before.score - 0.2


@pytest.mark.parametrize(
    ("sound", "trained_on", "said"),
    [
        ("own", "drawn", None),
        ("foreign", "drawn", "not valid here: SyncNet, which learnt from drawn faces,"),
        ("none", "drawn", "no sound of its own by which it could be tested"),
        ("silent", "drawn", "no sound of its own by which it could be tested"),
        ("foreign", None, "not valid here: SyncNet cannot tell the own sound of the video"),
        ("none", None, None),
        ("foreign", "recorded", None),
    ],
)
def test_a_judge_that_does_not_know_the_faces_is_no_judge(
    drawn: Path, parts: dict, tmp_path: Path, sound: str, trained_on: str | None, said: str | None
):
    write_wav(tmp_path / "silence.wav", torch.zeros(2 * 16_000))
    sounds = {"own": "face.wav", "foreign": "other.wav"}
    path = tmp_path / "silence.wav" if sound == "silent" else None
    if sound in sounds:
        path = drawn / sounds[sound]
    frames = list(read_frames(drawn / "face.mp4"))
    with VideoWriter(tmp_path / "in.mp4", fps=25, width=160, height=160, audio=path) as writer:
        for frame in frames:
            writer.write(frame)
    net = load_sync_scorer(demo_model_dir() / "syncnet", torch.device("cpu"))
    assert net.config.trained_on == "drawn"
    net = copy.deepcopy(net)
    net.register_to_config(trained_on=trained_on)
    model = build_tiny_model()
    model.format = replace(model.format, resolution=128)
    job = job_of(
        tmp_path / "in.mp4", drawn / "other.wav", model=model, detector=MeshDetector(),
        generation=Generation(parts["sampler"]), choice=parts["choice"],
        timing=parts["timing"], with_mel=True,
    )  # fmt: skip
    scorer = SyncScorer(job, model.format, net)
    for entry, frame in enumerate(frames):
        scorer.look(entry, entry, Picture.of(frame), Picture.of(frame))
    why = scorer.why_invalid()
    assert (why is None) if said is None else (said in why)


def test_the_syncnet_of_a_model_judges_its_results(tmp_path, video, voice, parts):
    folder = tmp_path / "model"
    parts["model"].save_pretrained(folder)
    assert LipSyncModel.from_pretrained(folder).syncnet_dir is None
    save_network(small_syncnet(), folder / "syncnet")
    parts |= {"model": LipSyncModel.from_pretrained(folder), "measure": True}
    out = tmp_path / "out.mp4"
    report = lipsync(video, voice, out, **parts)
    saved = json.loads(out.with_suffix(".report.json").read_text())
    assert saved["sync_measure"] == report.sync_measure == "syncnet"
    assert "the model&#39;s own SyncNet" in out.with_suffix(".report.html").read_text()
    shot = report.shots[0]
    assert 0 < shot.sync_before < 1 and 0 < shot.sync_after < 1
    assert shot.sync_before != shot.sync_after
    assert saved["shots"][0]["sync_after"] == shot.sync_after
    net = small_syncnet()
    net.register_to_config(trained_on="drawn")
    save_network(net, folder / "syncnet")
    load_sync_scorer.cache_clear()
    untested = lipsync(video, voice, out, overwrite=True, **parts)
    assert untested.sync_measure == "loudness"
    assert any(note.startswith("not valid here: SyncNet learnt") for note in untested.notes)
    unmeasured = lipsync(video, voice, out, overwrite=True, **{**parts, "measure": False})
    assert unmeasured.sync_measure == "loudness"


def test_without_a_syncnet_the_loudness_is_the_measure(tmp_path, drawn, parts):
    assert parts["model"].syncnet_dir is None
    parts |= {"detector": MeshDetector(), "measure": True, "timing": Timing(tail="keep")}
    voice = tmp_path / "voice.wav"
    voice.write_bytes((drawn / "face.wav").read_bytes())
    out = tmp_path / "out.mp4"
    report = lipsync(drawn / "face.mp4", voice, out, **parts)
    (shot,) = report.shots
    assert report.sync_measure == "loudness"
    assert "Pearson" in out.with_suffix(".report.html").read_text()
    assert shot.sync_before > 0.5


class Counts(MeshDetector):
    num_calls = 0

    def __call__(self, frame: np.ndarray) -> list[Face]:
        self.num_calls += 1
        return super().__call__(frame)


def test_mouths_are_measured_in_what_surrounds_them(drawn: Path, tiny_model, parts):
    detector = Counts()
    job = job_of(
        drawn / "face.mp4",
        drawn / "face.wav",
        model=tiny_model,
        detector=detector,
        generation=Generation(parts["sampler"]),
        choice=parts["choice"],
        timing=parts["timing"],
    )
    detector.num_calls = 0
    mouths, face, wanted = Mouths(job, detector), None, []
    for entry, frame in enumerate(read_frames(drawn / "face.mp4")):
        mouths.look(entry, entry, Picture.of(frame))
        face = detector.refine(frame, face) if face is not None else detector(frame)[0]
        wanted.append(mouth_shape(face).opening)
    # Detected once by each, then tracked.
    assert detector.num_calls == 2
    assert np.std(wanted) > 0.02
    np.testing.assert_allclose(mouths.openings, wanted, atol=0.02)


def test_after_a_kill_all_mouths_are_measured(tmp_path, monkeypatch, drawn, parts):
    monkeypatch.setattr(render, "PART_SECONDS", 1)
    monkeypatch.setattr(import_module("latentsync.pipeline.lipsync"), "OutputMonitor", Keeps)
    parts |= {"detector": MeshDetector(), "measure": True}

    def die(stage: str, done: int, _: int) -> None:
        if stage == "frames" and done == 40:
            raise KeyboardInterrupt

    openings = {}
    for name, stop in (("whole", False), ("resumed", die)):
        out = tmp_path / f"{name}.mp4"
        if stop:
            with pytest.raises(KeyboardInterrupt):
                lipsync(drawn / "face.mp4", drawn / "face.wav", out, progress=stop, **parts)
        lipsync(drawn / "face.mp4", drawn / "face.wav", out, **parts)
        openings[name] = Keeps.last.mouths.openings
    assert Keeps.last.begun == 25
    np.testing.assert_allclose(openings["resumed"], openings["whole"], atol=0.02)
