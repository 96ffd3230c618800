"""The stream through a real, tiny model: length, order, memory, what is left alone, repetition."""

import json
import weakref
from collections.abc import Iterator
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch

from latentsync import pipeline
from latentsync.diffusion import Sampler
from latentsync.faces import FixedDetector, paint_weights
from latentsync.media import loop
from latentsync.media.loop import read_looped
from latentsync.media.video import probe, read_frames
from latentsync.models.lipsync import LipSyncModel
from latentsync.pipeline import Chunk, Sight, add_references, beside, lipsync, split
from latentsync.report import Stopwatch
from pipeline.inputs import POINTS, RESOLUTION, SeesLight, picture, write_video, write_voice

BLACK = np.zeros_like(picture(0))


def sight(level: int, *, face: bool = True) -> Sight:
    frame = np.full((8, 8, 3), level, np.uint8)
    return (
        Sight(frame, np.zeros(4), None, frame[:4, :4]) if face else Sight(frame, None, None, None)
    )


@pytest.mark.parametrize("seconds", [0.5, 1.34, 4.1], ids=["shorter", "about", "looped"])
def test_output_lasts_as_long_as_the_audio(
    tmp_path: Path,
    video: Path,
    tiny_model: LipSyncModel,
    detector: SeesLight,
    sampler: Sampler,
    seconds: float,
):
    voice = write_voice(tmp_path / "voice.wav", seconds)
    out = tmp_path / "out.mp4"
    report = lipsync(video, voice, out, model=tiny_model, detector=detector, sampler=sampler)
    num_frames = sum(1 for _ in read_frames(out))
    assert num_frames == report.num_frames == report.num_frames_with_face == round(seconds * 25)
    assert probe(out).fps == 25
    with av.open(str(out)) as container:
        sound = container.streams.audio[0]
        assert abs(float(sound.duration * sound.time_base) - seconds) <= 1 / 25


@pytest.mark.parametrize("fps", [25, 30])
def test_a_short_video_is_played_to_and_fro(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fps: float
):
    # Segments of five frames: several to each way back, the last one shorter.
    monkeypatch.setattr(loop, "REVERSED_SEGMENT_BYTES", 5 * BLACK.size)
    path = write_video(tmp_path / "in.mp4", [picture(index) for index in range(23)], fps=fps)
    forth = list(read_frames(path, fps=25))
    expected = [*forth, *forth[::-1], *forth, *forth[::-1]][: 3 * len(forth) + 7]
    looped = list(read_looped(path, fps=25, num_frames=len(expected)))
    assert len(looped) == len(expected)
    for (number, got), wanted in zip(looped, expected, strict=True):
        np.testing.assert_array_equal(got, wanted)
        np.testing.assert_array_equal(got, forth[number])


def test_memory_does_not_grow_with_length(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tiny_model: LipSyncModel,
    detector: SeesLight,
    sampler: Sampler,
):
    num_alive, most = 0, 0

    def gone() -> None:
        nonlocal num_alive
        num_alive -= 1

    def endless(*_: object, num_frames: int, **__: object) -> Iterator[tuple[int, np.ndarray]]:
        nonlocal num_alive, most
        for index in range(num_frames):
            frame = picture(index)
            weakref.finalize(frame, gone)
            num_alive += 1
            most = max(most, num_alive)
            yield index, frame

    video = write_video(tmp_path / "in.mp4", [picture(0)] * 50)
    monkeypatch.setattr(pipeline, "read_looped", endless)
    peaks = []
    for seconds in (3, 6):
        voice = write_voice(tmp_path / f"{seconds}.wav", seconds)
        most = 0
        out = tmp_path / f"{seconds}.mp4"
        lipsync(video, voice, out, model=tiny_model, detector=detector, sampler=sampler)
        peaks.append(most)
    # Three chunks of 16, four frames of smoothing, and the one in each hand on the way.
    assert peaks[0] == peaks[1] <= 3 * 16 + 4 + 4


def test_frames_without_a_face_and_pixels_outside_the_mask_stay_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_model: LipSyncModel, sampler: Sampler
):
    frames = [picture(index) for index in range(50)]
    frames[20:29] = [BLACK] * 9
    video = write_video(tmp_path / "in.mp4", frames)
    written = []
    write = pipeline.VideoWriter.write

    def spy(self: pipeline.VideoWriter, frame: np.ndarray) -> None:
        written.append(frame)
        write(self, frame)

    monkeypatch.setattr(pipeline.VideoWriter, "write", spy)
    detector = SeesLight(POINTS)
    report = lipsync(
        video,
        write_voice(tmp_path / "voice.wav", 2.0),
        tmp_path / "out.mp4",
        model=tiny_model,
        detector=detector,
        sampler=sampler,
    )
    assert report.num_frames_with_face == 41
    assert [(span.start_seconds, span.end_seconds) for span in report.skipped] == [(0.8, 1.16)]
    placement = next(
        pipeline.ALIGNERS["smooth"](RESOLUTION).placements([np.array(detector.points)])
    )
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


def test_a_chunk_of_the_stream_equals_the_network_called_by_hand(tiny_model: LipSyncModel):
    rng = np.random.default_rng(0)
    faces = rng.integers(0, 256, (16, RESOLUTION, RESOLUTION, 3), dtype=np.uint8)
    others = faces[::-1].copy()
    states = tiny_model.audio_encoder(torch.sin(torch.arange(32000) / 20))
    sampler = Sampler(num_steps=2, guidance_scale=1.5)
    start = 9
    chunk = Chunk(start, [Sight(face, np.zeros(4), None, face) for face in faces])
    # 0.36 s into the sound is state 18; two states of two mel rows before it, two from it on.
    rows = [[18 + 2 * frame + offset for offset in (-2, -1, 0, 1)] for frame in range(16)]
    audio = torch.stack([states[row].reshape(8, 80) for row in rows])[None]
    by_hand = tiny_model.generate(
        torch.from_numpy(faces).permute(0, 3, 1, 2)[None] / 127.5 - 1,
        audio,
        reference=torch.from_numpy(others).permute(0, 3, 1, 2)[None] / 127.5 - 1,
        sampler=sampler,
        generator=torch.Generator().manual_seed(5),
    )
    wanted = ((by_hand[0].permute(0, 2, 3, 1) + 1) * 127.5).clamp(0, 255).numpy()
    spoken = pipeline.speak([(chunk, others)], states, model=tiny_model, sampler=sampler, seed=5)
    got = np.stack([face for _, face in spoken])
    assert np.abs(got - wanted).max() <= 0.51


def test_the_rest_of_the_frames_is_drawn_as_part_of_a_full_chunk(tiny_model: LipSyncModel):
    rng = np.random.default_rng(0)
    faces = rng.integers(0, 256, (3, RESOLUTION, RESOLUTION, 3), dtype=np.uint8)
    states = tiny_model.audio_encoder(torch.sin(torch.arange(32000) / 20))
    sizes = []
    generate = tiny_model.generate

    class Measured(LipSyncModel):
        def __init__(self) -> None:
            self.__dict__.update(tiny_model.__dict__)

        def generate(self, pixels: torch.Tensor, audio: torch.Tensor, **rest) -> torch.Tensor:
            sizes.append((pixels.shape[1], audio.shape[1], rest["reference"].shape[1]))
            return generate(pixels, audio, **rest)

    chunk = Chunk(0, [Sight(face, np.zeros(4), None, face) for face in faces])
    sampler = Sampler(num_steps=1, guidance_scale=1.0)
    spoken = pipeline.speak([(chunk, faces[:1])], states, model=Measured(), sampler=sampler, seed=5)
    assert len(list(spoken)) == 3
    assert sizes == [(16, 16, 16)]


def test_a_seed_means_a_result(
    tmp_path: Path, video: Path, voice: Path, tiny_model: LipSyncModel, sampler: Sampler
):
    files = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        out = tmp_path / f"{name}.mp4"
        detector = SeesLight(POINTS)
        parts = {"model": tiny_model, "detector": detector, "sampler": sampler}
        lipsync(video, voice, out, seed=seed, **parts)
        files.append(np.stack(list(read_frames(out))))
    np.testing.assert_array_equal(files[0], files[1])
    assert not np.array_equal(files[0], files[2])


def test_chunks_end_at_16_frames_and_where_the_face_comes_or_goes():
    with_face = [True] * 20 + [False] * 3 + [True] + [False] * 18 + [True] * 2
    chunks = list(split((sight(0, face=face) for face in with_face), 16))
    assert [len(chunk.sights) for chunk in chunks] == [16, 4, 3, 1, 16, 2, 2]
    assert [chunk.start for chunk in chunks] == [0, 16, 20, 23, 24, 40, 42]
    assert [chunk.faces() is not None for chunk in chunks] == [1, 1, 0, 1, 0, 0, 1]


def test_in_parity_the_output_is_two_frames_longer_and_the_last_chunk_stays_short(
    tmp_path: Path, video: Path, tiny_model: LipSyncModel, detector: SeesLight
):
    voice = write_voice(tmp_path / "voice.wav", 0.7)  # 35 states: frames 0 to 17 see some of them
    out = tmp_path / "out.mp4"
    sampler = Sampler(num_steps=1, guidance_scale=1.0, match_colours=False, parity=True)
    report = lipsync(video, voice, out, model=tiny_model, detector=detector, sampler=sampler)
    assert report.num_frames == sum(1 for _ in read_frames(out)) == 35 // 2 + 2
    assert report.reference == "self"


def test_a_frame_that_is_played_again_keeps_its_place(tiny_model: LipSyncModel):
    frames = [picture(index) for index in range(6)]
    numbers = [0, 1, 2, 3, 4, 5, 5, 4, 3, 2, 1, 0, 0, 1]
    moving = [np.array(POINTS) + 1.5 * index for index in range(6)]  # a seventh call would raise
    detector = FixedDetector(moving)
    looped = ((number, frames[number]) for number in numbers)
    sights = list(pipeline.look(looped, detector=detector, model=tiny_model, watch=Stopwatch()))
    assert len(sights) == len(numbers)
    for number, sight in zip(numbers, sights, strict=True):
        assert sight.placement == sights[number].placement
        np.testing.assert_array_equal(sight.frame, frames[number])
        np.testing.assert_array_equal(sight.face, sights[number].face)


def test_the_reference_is_the_chunk_before_or_after_never_the_same_frames():
    levels = [10, 20, None, 30]
    chunks = [
        Chunk(index, [sight(level or 0, face=level is not None)] * 2)
        for index, level in enumerate(levels)
    ]
    references = [faces for _, faces in add_references(chunks, "previous")]
    assert [None if faces is None else int(faces[0, 0, 0, 0]) for faces in references] == [
        20,
        10,
        None,
        20,
    ]
    own = [faces for _, faces in add_references(chunks, "self")]
    assert [None if faces is None else int(faces[0, 0, 0, 0]) for faces in own] == levels


def test_a_lone_chunk_refers_to_itself_half_its_length_apart():
    chunk = Chunk(0, [sight(level) for level in range(6)])
    ((_, faces),) = add_references([chunk], "previous")
    assert faces[:, 0, 0, 0].tolist() == [3, 4, 5, 0, 1, 2]


def test_beside_holds_only_what_is_looked_ahead():
    taken = []

    def items() -> Iterator[int]:
        for item in range(10):
            taken.append(item)
            yield item

    def two_ahead(numbers: Iterator[int]) -> Iterator[int]:
        held = []
        for number in numbers:
            held.append(number)
            if len(held) == 3:
                yield -held.pop(0)
        yield from (-number for number in held)

    pairs = beside(items(), two_ahead)
    assert next(pairs) == (0, 0)
    assert taken == [0, 1, 2]
    assert list(pairs) == [(number, -number) for number in range(1, 10)]


def test_the_report_and_the_picture_say_what_was_done(
    tmp_path: Path, video: Path, voice: Path, tiny_model: LipSyncModel, detector: SeesLight
):
    out = tmp_path / "out.mp4"
    sampler = Sampler(scheduler="dpmpp", num_steps=2, guidance_scale=1.5)
    parts = {"model": tiny_model, "detector": detector, "sampler": sampler}
    report = lipsync(video, voice, out, seed=3, **parts)
    saved = json.loads((tmp_path / "out.report.json").read_text())
    assert saved["sampler"] == {
        "scheduler": "dpmpp",
        "num_steps": 2,
        "guidance_scale": 1.5,
        "match_colours": True,
        "deepcache_interval": 1,
        "parity": False,
    }
    assert (saved["seed"], saved["source_fps"], saved["fps"]) == (3, 25.0, 25.0)
    assert saved["num_frames"] == report.num_frames in (33, 34)
    stages = {"audio", "read", "track", "align", "generate", "restore", "write"}
    assert set(saved["stage_seconds"]) == stages
    assert sum(saved["stage_seconds"].values()) <= saved["total_seconds"]
    sheet = cv2.imread(str(tmp_path / "out.report.png"))
    assert sheet.shape == (2 * 192, 8 * 192, 3)


def test_every_moment_is_charged_to_the_innermost_stage(monkeypatch: pytest.MonkeyPatch):
    now = 0.0
    monkeypatch.setattr("latentsync.report.time.perf_counter", lambda: now)
    watch = Stopwatch()

    def slow(items: Iterator[int], seconds: float) -> Iterator[int]:
        nonlocal now
        for item in items:
            now += seconds
            yield item

    inner = watch.over("inner", slow(iter(range(3)), 2.0))
    outer = watch.over("outer", slow(inner, 5.0))
    with watch.stage("whole"):
        for _ in outer:
            now += 1.0
    assert watch.seconds == {"inner": 6.0, "outer": 15.0, "whole": 3.0}
