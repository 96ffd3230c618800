"""The pipeline with a real, tiny model: length, order, memory, unchanged frames, resuming."""

import json
import weakref
from collections.abc import Iterator
from copy import copy
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch

from latentsync.diffusion import DDPM
from latentsync.diffusion.sampler import Sampler
from latentsync.faces import FixedDetector, paint_weights
from latentsync.media.frame import Picture
from latentsync.media.frame_reader import FrameReader, read_times
from latentsync.media.video import VideoWriter, probe, read_frames
from latentsync.models.lipsync import LipSyncModel
from latentsync.pipeline import (
    PROFILES,
    Choice,
    Encoding,
    Generation,
    OfficialProfile,
    Plan,
    Timing,
    analysis,
    generate_clip,
    lipsync,
    render,
)
from latentsync.pipeline.analysis import aligner_for
from latentsync.pipeline.chunks import Run, cut_chunks
from latentsync.pipeline.generation import tokens_of
from latentsync.pipeline.outputs import parts_folder
from pipeline.inputs import POINTS, RESOLUTION, SeesLight, job_of, picture, write_video, write_voice

BLACK = np.zeros_like(picture(0))
PLAIN = Choice(min_size=0)


def still(index: int) -> np.ndarray:
    """Like `picture`, but slow enough not to be detected as cuts."""
    return picture(0) + np.uint8(index % 40)


@pytest.fixture
def parts(tiny_model: LipSyncModel, detector: SeesLight, sampler: Sampler) -> dict:
    return {
        "model": tiny_model,
        "detector": detector,
        "sampler": sampler,
        "choice": PLAIN,
        "timing": Timing(tail="cut"),
    }


@pytest.mark.parametrize("seconds", [0.1, 0.5, 1.34, 4.1], ids=["tiny", "short", "even", "looped"])
def test_output_lasts_as_long_as_the_audio(
    tmp_path: Path, video: Path, parts: dict, seconds: float
):
    voice = write_voice(tmp_path / "voice.wav", seconds)
    out = tmp_path / "out.mp4"
    report = lipsync(video, voice, out, **parts)
    num_frames = sum(1 for _ in read_frames(out))
    # A half may be rounded either way.
    assert num_frames == report.num_frames == report.num_frames_with_face
    assert abs(num_frames - seconds * 25) <= 0.5 + 1e-6
    assert probe(out).fps == 25
    with av.open(str(out)) as container:
        sound = container.streams.audio[0]
        assert abs(float(sound.duration * sound.time_base) - seconds) <= 1 / 25
    assert not parts_folder(out).exists()


@pytest.mark.parametrize("fps", [24, Fraction(30000, 1001), 50, 60])
def test_the_frames_and_times_of_the_source_are_kept(
    tmp_path: Path, parts: dict, voice: Path, fps: Fraction | int
):
    frames = [still(index) for index in range(100)]
    video = write_video(tmp_path / "in.mp4", frames, fps=fps)
    out = tmp_path / "out.mp4"
    report = lipsync(video, voice, out, **{**parts, "timing": Timing()})
    source, result = read_times(video), read_times(out)
    ends = min(len(source), len(result))
    np.testing.assert_allclose(
        source.starts[:ends] * float(source.time_base),
        result.starts[:ends] * float(result.time_base),
        atol=1e-6,
    )
    # The video is longer than the voice: its rest passes through.
    assert len(source) == len(result) == report.num_frames
    assert report.skipped[-1].reason == "after the end of the sound"
    assert report.skipped[-1].end_seconds == pytest.approx(100 / float(fps), abs=0.01)


def test_another_frame_rate_may_be_asked_for(tmp_path: Path, parts: dict, voice: Path):
    video = write_video(tmp_path / "in.mp4", [still(index) for index in range(60)], fps=30)
    out = tmp_path / "out.mp4"
    report = lipsync(video, voice, out, **{**parts, "timing": Timing(fps="model", tail="cut")})
    assert probe(out).fps == report.fps == 25
    assert report.num_frames == len(read_times(out)) == 34


def test_quality_is_that_of_the_encoding_unless_it_is_given_itself(
    tmp_path: Path, parts: dict, voice: Path, rng: np.random.Generator
):
    frames = [still(0) for _ in range(10)]
    for frame in frames:
        frame[:20] = rng.integers(0, 255, frame[:20].shape)
    video = write_video(tmp_path / "in.mp4", frames)
    quality = {name: value for name, value in parts.items() if name != "crf"}
    told = {
        name: lipsync(video, voice, tmp_path / f"{name}.mp4", **{**quality, **crf}).crf
        for name, crf in {
            "coarse": {"encoding": Encoding(crf=40.5)},
            "fine": {"encoding": Encoding(crf=40.5), "crf": 10},
        }.items()
    }
    assert told == {"coarse": 40.5, "fine": 10}
    sizes = {name: (tmp_path / f"{name}.mp4").stat().st_size for name in told}
    assert sizes["fine"] > 2 * sizes["coarse"]


def test_a_variable_frame_rate_is_kept(tmp_path: Path, parts: dict, voice: Path):
    starts = np.cumsum([0, *([1, 2, 1, 3] * 12)])  # of 1/50 s
    video = tmp_path / "in.mp4"
    with VideoWriter(
        video, fps=30, width=128, height=112, crf=0, time_base=Fraction(1, 50)
    ) as writer:
        for index, start in enumerate(starts.tolist()):
            writer.write(still(index), Fraction(start, 50))
    out = tmp_path / "out.mp4"
    lipsync(video, voice, out, **{**parts, "timing": Timing()})
    times = read_times(out)
    np.testing.assert_allclose(times.starts * float(times.time_base), starts / 50, atol=1e-6)


def test_memory_does_not_grow_with_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: dict
):
    alive, most = 0, 0

    def gone() -> None:
        nonlocal alive
        alive -= 1

    def counted(frames: Iterator[Picture]) -> Iterator[Picture]:
        nonlocal alive, most
        for frame in frames:
            weakref.finalize(frame, gone)
            alive += 1
            most = max(most, alive)
            yield frame
            del frame

    read, unread = FrameReader.pictures, analysis.unread_frames

    def counted_unread(*args: object, **names: object) -> Iterator[tuple]:
        nonlocal alive, most
        for start, duration, frame in unread(*args, **names):
            weakref.finalize(frame, gone)
            alive += 1
            most = max(most, alive)
            yield start, duration, frame
            del frame

    monkeypatch.setattr(FrameReader, "pictures", lambda *args: counted(read(*args)))
    monkeypatch.setattr(analysis, "unread_frames", counted_unread)
    peaks = []
    for seconds in (3, 9):
        frames = [still(index) for index in range(seconds * 25)]
        video = write_video(tmp_path / f"{seconds}.in.mp4", frames)
        voice = write_voice(tmp_path / f"{seconds}.wav", seconds)
        most = 0
        lipsync(video, voice, tmp_path / f"{seconds}.mp4", **parts)
        peaks.append(most)
    # Of both streams, one frame held by the reader and one by the next stage; the survey's three.
    assert max(peaks) <= 6


def test_frames_without_a_face_and_pixels_outside_the_mask_stay_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: dict
):
    frames = [still(index) for index in range(50)]
    frames[20:29] = [BLACK] * 9
    video = write_video(tmp_path / "in.mp4", frames)
    written = []
    write = VideoWriter.write

    def spy(self: VideoWriter, frame: Picture, *start: Fraction) -> None:
        written.append(frame.rgb())
        write(self, frame, *start)

    monkeypatch.setattr(VideoWriter, "write", spy)
    report = lipsync(video, write_voice(tmp_path / "voice.wav", 2.0), tmp_path / "out.mp4", **parts)
    assert report.num_frames_with_face == 41
    assert [(s.start_seconds, s.end_seconds, s.reason) for s in report.skipped] == [
        (0.8, 1.16, "no face found")
    ]
    placement = next(aligner_for("smooth", RESOLUTION, fps=25).placements([np.array(POINTS)]))
    weights = cv2.warpAffine(
        paint_weights("mask", RESOLUTION),
        placement.square_matrix(RESOLUTION),
        (BLACK.shape[1], BLACK.shape[0]),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
    )
    outside = weights == 0
    assert 0.2 < outside.mean() < 0.9
    for index, (before, after) in enumerate(zip(read_frames(video), written, strict=True)):
        np.testing.assert_array_equal(after[outside], before[outside])
        assert np.array_equal(after, before) == (20 <= index < 29)


def without_mouth(model: LipSyncModel) -> LipSyncModel:
    """The same model, which does not see the mouth of the reference."""
    other = copy(model)
    other.format = replace(model.format, reference_mouth=False)
    return other


@pytest.mark.parametrize("reference_mouth", [True, False])
def test_a_clip_of_one_window_equals_the_network_called_by_hand(
    tiny_model: LipSyncModel, reference_mouth: bool
):
    tiny_model = tiny_model if reference_mouth else without_mouth(tiny_model)
    rng = np.random.default_rng(0)
    faces = rng.integers(0, 256, (16, RESOLUTION, RESOLUTION, 3), dtype=np.uint8)
    # Half the clip away, unless the mouth is hidden.
    others = np.roll(faces, -8, axis=0) if reference_mouth else faces
    states = tiny_model.audio_encoder(torch.sin(torch.arange(32000) / 20))
    sampler = Sampler(num_steps=2, guidance_scale=1.5)
    # State 2k belongs to frame k; two states of two mel rows before it, two from it on.
    rows = [[2 * frame + offset for offset in (-2, -1, 0, 1)] for frame in range(16)]
    rows = np.clip(rows, 0, None)
    audio = torch.stack([states[torch.from_numpy(row)].reshape(8, 80) for row in rows])[None]
    pixels, reference = (
        torch.from_numpy(each).permute(0, 3, 1, 2)[None] / 127.5 - 1 for each in (faces, others)
    )
    masked, own = tiny_model.encode_faces(pixels)
    noise = tiny_model.sample_noise(torch.Generator().manual_seed(5))
    latents = tiny_model.generate_latents(
        masked, tiny_model.encode_faces(reference)[1], audio, sampler=sampler, noise=noise
    )
    if not reference_mouth:  # latents are two pixels wide
        latents = torch.where(tiny_model.mask[::2, ::2] > 0.5, own, latents)
    by_hand = tiny_model.finish(latents, pixels, sampler=sampler)
    whole = tiny_model.generate(pixels, audio, sampler=sampler, reference=reference, noise=noise)
    torch.testing.assert_close(whole, by_hand)
    wanted = ((by_hand[0].permute(0, 2, 3, 1) + 1) * 127.5).clamp(0, 255).numpy()
    got = generate_clip(faces, states, model=tiny_model, sampler=sampler, seed=5)
    assert np.abs(got - wanted).max() <= 0.51
    torch.testing.assert_close(tokens_of(states, np.arange(16), tiny_model), audio[0])


def test_windows_that_overlap_are_mixed_by_their_shares(tiny_model: LipSyncModel):
    rng = np.random.default_rng(0)
    faces = rng.integers(0, 256, (28, RESOLUTION, RESOLUTION, 3), dtype=np.uint8)
    states = tiny_model.audio_encoder(torch.sin(torch.arange(32000) / 20))
    parts = {"model": tiny_model, "sampler": Sampler(num_steps=2, guidance_scale=1.0), "seed": 5}
    mixed = generate_clip(faces, states, **parts, overlap=4)
    run = Run(0, 0, 0, 28, np.ones(28, dtype=np.float32))
    first, second = cut_chunks([run], length=16, overlap=4)
    alone = {}
    for window in (first, second):
        pixels = [
            torch.from_numpy(faces[slots]).permute(0, 3, 1, 2)[None] / 127.5 - 1
            for slots in (window.slots, window.reference)
        ]
        drawn = tiny_model.generate(
            pixels[0],
            tokens_of(states, window.slots, tiny_model)[None],
            reference=pixels[1],
            sampler=parts["sampler"],
            generator=torch.Generator().manual_seed(5),
        )
        levels = ((drawn[0].permute(0, 2, 3, 1) + 1) * 127.5).numpy()
        alone.update(
            {(window.first, slot): face for slot, face in zip(window.slots, levels, strict=True)}
        )
    for place, share in enumerate((0.2, 0.4, 0.6, 0.8)):
        slot = 12 + place
        wanted = (1 - share) * alone[0, slot] + share * alone[12, slot]
        assert np.abs(mixed[slot] - wanted.clip(0, 255)).max() <= 0.51


def test_a_model_that_does_not_see_a_references_mouth_is_given_the_face_itself(
    tmp_path: Path, video: Path, voice: Path, parts: dict
):
    results = {}
    for mouth in (True, False):
        model = parts["model"] if mouth else without_mouth(parts["model"])
        for reference in ("auto", "self", "previous"):
            out = tmp_path / f"{reference}_{mouth}.mp4"
            lipsync(video, voice, out, **{**parts, "model": model}, reference=reference)
            results[reference, mouth] = out.read_bytes()
    assert results["auto", True] == results["previous", True] != results["self", True]
    assert results["auto", False] == results["self", False] != results["previous", False]


def test_a_seed_means_a_result(tmp_path: Path, video: Path, voice: Path, parts: dict):
    files = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        out = tmp_path / f"{name}.mp4"
        lipsync(video, voice, out, seed=seed, **parts)
        files.append(np.stack(list(read_frames(out))))
    np.testing.assert_array_equal(files[0], files[1])
    assert not np.array_equal(files[0], files[2])


@pytest.mark.parametrize("profile", PROFILES)
def test_a_killed_run_goes_on_and_gives_the_same_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: dict, profile: str
):
    # In the official one all chunks share one generator, so none may be skipped.
    parts["sampler"] = Sampler(num_steps=1, guidance_scale=1.0)
    parts["profile"] = PROFILES[profile]
    monkeypatch.setattr(render, "PART_SECONDS", 1)
    video = write_video(tmp_path / "in.mp4", [still(index) for index in range(100)])
    voice = write_voice(tmp_path / "voice.wav", 4.0)
    whole, resumed = tmp_path / "whole.mp4", tmp_path / "resumed.mp4"
    lipsync(video, voice, whole, **parts)

    class Killed(BaseException):
        pass

    def die(stage: str, done: int, _: int) -> None:
        if stage == "frames" and done == 60:
            raise Killed

    with pytest.raises(Killed):
        lipsync(video, voice, resumed, progress=die, **parts)
    assert not resumed.exists()
    assert parts_folder(resumed).is_dir()
    seen = []
    report = lipsync(
        video, voice, resumed, progress=lambda stage, done, _: seen.append((stage, done)), **parts
    )
    assert min(done for stage, done in seen if stage == "frames") == 51
    assert any("50 frames" in note for note in report.notes)
    for a, b in zip(read_frames(whole), read_frames(resumed), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(read_times(whole).starts, read_times(resumed).starts)
    assert not parts_folder(resumed).exists()


@pytest.mark.parametrize("change", ["seed", "process"])
def test_other_settings_do_not_go_on_from_the_same_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: dict, change: str
):
    monkeypatch.setattr(render, "PART_SECONDS", 1)
    video = write_video(tmp_path / "in.mp4", [still(index) for index in range(75)])
    voice = write_voice(tmp_path / "voice.wav", 3.0)
    out = tmp_path / "out.mp4"

    def die(stage: str, done: int, _: int) -> None:
        if stage == "frames" and done == 60:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lipsync(video, voice, out, progress=die, **parts)
    other = {"seed": 2} if change == "seed" else {"model": of_another_process(parts["model"])}
    again = lipsync(video, voice, out, **{**parts, **other})
    assert not [note for note in again.notes if "earlier run" in note]


def of_another_process(model: LipSyncModel) -> LipSyncModel:
    """A model of the same weights, whose UNet is assumed to predict velocities."""
    other = copy(model)
    other.process = DDPM.from_config(
        {**model.process.to_config(), "prediction_type": "v_prediction"}
    )
    return other


def test_by_the_official_rules_the_output_is_two_frames_longer_and_the_last_chunk_stays_short(
    tmp_path: Path, video: Path, parts: dict
):
    voice = write_voice(tmp_path / "voice.wav", 0.7)  # 35 states: seen by frames 0 to 17
    out = tmp_path / "out.mp4"
    parts["sampler"] = Sampler(num_steps=1, guidance_scale=1.0)
    report = lipsync(video, voice, out, profile=OfficialProfile(), **parts)
    assert report.num_frames == sum(1 for _ in read_frames(out)) == 35 // 2 + 2
    assert report.reference == "self"


def test_a_plan_by_the_official_rules_leaves_no_face_alone(video: Path, voice: Path, parts: dict):
    job = {
        name: job_of(
            video,
            voice,
            model=parts["model"],
            detector=parts["detector"],
            generation=Generation(Sampler(num_steps=1)),
            choice=Choice(min_size=1000),  # larger than the picture
            timing=Timing(),
            profile=profile,
        )
        for name, profile in PROFILES.items()
    }
    edits = {p: [f.edit for s in job[p].plan.shots for f in s.faces] for p in job}
    assert edits == {"own": [False], "official": [True]}


def test_the_face_of_a_frame_is_where_it_was_when_the_frame_is_played_again(
    tmp_path: Path, parts: dict
):
    video = write_video(tmp_path / "in.mp4", [still(index) for index in range(12)])
    voice = write_voice(tmp_path / "voice.wav", 1.5)
    # One call per stored frame: a thirteenth would raise.
    detector = FixedDetector([np.array(POINTS) + 0.2 * index for index in range(12)])
    report = lipsync(video, voice, tmp_path / "out.mp4", **{**parts, "detector": detector})
    assert report.num_frames_with_face == report.num_frames in (37, 38)


def test_a_plan_that_is_edited_by_hand_is_followed(
    tmp_path: Path, video: Path, voice: Path, parts: dict
):
    path = tmp_path / "plan.json"
    names = ("model", "detector", "choice", "timing")
    job = job_of(
        video, voice, generation=Generation(parts["sampler"]), **{n: parts[n] for n in names}
    )
    job.plan.save(path)
    assert Plan.load(path) == job.plan
    told = json.loads(path.read_text())
    assert [face["edit"] for face in told["shots"][0]["faces"]] == [True]
    told["shots"][0]["faces"][0]["edit"] = False
    path.write_text(json.dumps(told))
    report = lipsync(video, voice, tmp_path / "out.mp4", plan=Plan.load(path), **parts)
    first_shot = job.plan.shots[0]
    assert all(
        not shot.num_frames_drawn for shot in report.shots if shot.number == first_shot.number
    )
    path.write_text('{"format_version": 1}')
    with pytest.raises(ValueError, match=r"plan\.json is not a plan"):
        Plan.load(path)


def test_the_report_the_page_and_the_picture_say_what_was_done(
    tmp_path: Path, video: Path, voice: Path, parts: dict
):
    out = tmp_path / "out.mp4"
    sampler = Sampler(scheduler="dpmpp", num_steps=2, guidance_scale=1.5)
    report = lipsync(video, voice, out, seed=3, preset="fast", **{**parts, "sampler": sampler})
    assert report.sampler["parity"] is False
    saved = json.loads((tmp_path / "out.report.json").read_text())
    assert (saved["sampler"]["scheduler"], saved["sampler"]["num_steps"]) == ("dpmpp", 2)
    assert (saved["seed"], saved["source_fps"], saved["fps"]) == (3, 25.0, 25.0)
    assert (saved["preset"], saved["num_frames"]) == ("fast", report.num_frames)
    assert {"audio", "faces", "read", "generate", "restore", "write"} <= set(saved["stage_seconds"])
    sheet = cv2.imread(str(tmp_path / "out.report.png"))
    assert sheet.shape[1] == 8 * 192
    assert "out.mp4" in (tmp_path / "out.report.html").read_text()
