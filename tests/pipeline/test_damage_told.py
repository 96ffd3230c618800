"""Parts of the inputs that could not be used are stated in the report and on the terminal."""

import re
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from latentsync.media.video import VideoWriter
from latentsync.pipeline import Choice, lipsync
from media.sources import blank_group, tone, write_media
from pipeline.inputs import HEIGHT, WIDTH, picture, write_voice

PLAIN = Choice(min_size=0, min_seconds=0, occlusion="off")


def film(path: Path, rng: np.random.Generator, *, num_frames: int = 40) -> Path:
    with VideoWriter(path, fps=25, width=WIDTH, height=HEIGHT, keyframe_interval=10) as writer:
        for index in range(num_frames):
            frame = picture(0) + np.uint8(index % 40)
            frame[:24] = rng.integers(0, 255, (24, WIDTH, 3))
            writer.write(frame)
    return path


def whole(folder: Path, rng: np.random.Generator) -> tuple[Path, Path]:
    return film(folder / "in.mp4", rng), write_voice(folder / "v.wav", 1.6)


def cut_video(folder: Path, rng: np.random.Generator) -> tuple[Path, Path]:
    """The last twelfth is missing from a file whose index comes first."""
    video, voice = whole(folder, rng)
    video.write_bytes(video.read_bytes()[: video.stat().st_size * 11 // 12])
    return video, voice


def blank_in_video(folder: Path, rng: np.random.Generator) -> tuple[Path, Path]:
    video, voice = whole(folder, rng)
    blank_group(video, 2)
    return video, voice


def cut_mkv(folder: Path, rng: np.random.Generator) -> tuple[Path, Path]:
    video = film(folder / "in.mkv", rng)
    video.write_bytes(video.read_bytes()[: video.stat().st_size * 11 // 12])
    return video, write_voice(folder / "v.wav", 1.6)


def blank_in_voice(folder: Path, rng: np.random.Generator) -> tuple[Path, Path]:
    video, _ = whole(folder, rng)
    voice = write_media(folder / "v.m4a", sound=tone(1.6, 48_000))
    with av.open(str(voice)) as container:
        entries = container.streams.audio[0].index_entries
        start, end = entries[30].pos, entries[40].pos
    data = bytearray(voice.read_bytes())
    data[start:end] = b"\xff" * (end - start)
    voice.write_bytes(data)
    return video, voice


def floats(path: Path, samples: np.ndarray) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_f32le", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(
            samples[None].astype(np.float32), format="flt", layout="mono"
        )
        frame.rate = 16000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    return path


def no_numbers_in_voice(folder: Path, rng: np.random.Generator) -> tuple[Path, Path]:
    video, _ = whole(folder, rng)
    samples = tone(1.6, 16_000)[0]
    samples[4000:8000] = np.nan
    return video, floats(folder / "v.wav", samples)


def loud_voice(folder: Path, rng: np.random.Generator) -> tuple[Path, Path]:
    video, _ = whole(folder, rng)
    return video, floats(folder / "v.wav", 1.4e6 * tone(1.6, 16_000)[0])


# How the inputs are made, where in the report it is stated, and how.
DAMAGED: dict[Callable, tuple[str, str]] = {
    cut_video: ("damage", "the video: nothing to read from 1."),
    cut_mkv: ("damage", "the video: nothing to read from 1."),
    blank_in_video: ("damage", "the video: nothing to read from 0.80 s to 1.20 s"),
    blank_in_voice: ("damage", "a voice: nothing to read from 0."),
    no_numbers_in_voice: ("damage", "a voice: nothing to read from 0.19 s to 0.51 s"),
    loud_voice: ("notes", "a voice: clipped from 0.00 s to 1.60 s (samples up to 7e+05 times"),
}


@pytest.mark.parametrize("make", DAMAGED, ids=lambda make: make.__name__)
def test_damage_is_told_in_one_line_each(
    make: Callable,
    tmp_path: Path,
    rng: np.random.Generator,
    caplog: pytest.LogCaptureFixture,
    tiny_model,
    detector,
    sampler,
) -> None:
    video, voice = make(tmp_path, rng)
    out = tmp_path / "out.mp4"
    report = lipsync(
        video, voice, out, model=tiny_model, detector=detector, sampler=sampler, choice=PLAIN
    )
    place, expected = DAMAGED[make]
    said = [
        line
        for line in report.damage + report.notes
        if not re.search("silent for|heads are turned is unknown", line)
    ]
    assert len(said) == 1, said
    assert getattr(report, place)[0].startswith(expected)
    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warned == [f"{video}: {said[0]}"]
    assert report.num_frames > 30


def test_of_whole_inputs_nothing_is_said(
    tmp_path: Path,
    rng: np.random.Generator,
    caplog: pytest.LogCaptureFixture,
    tiny_model,
    detector,
    sampler,
) -> None:
    parts = {"model": tiny_model, "detector": detector, "sampler": sampler, "choice": PLAIN}
    report = lipsync(*whole(tmp_path, rng), tmp_path / "out.mp4", **parts)
    assert not report.damage
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
