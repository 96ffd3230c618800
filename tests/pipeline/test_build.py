"""Reports state what was done: frame by frame, why, and with which settings."""

import json
import os
from fractions import Fraction
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir

from latentsync.cli.choices import preset_of
from latentsync.cli.command import conf_dir, register_resolvers
from latentsync.faces.tracking.survey import Shot, Survey, Track
from latentsync.media.frame_reader import FrameTimes
from latentsync.media.video import VideoWriter, read_frames
from latentsync.models.speaker_scorers import FilmSlots
from latentsync.pipeline import Choice, SilenceGate, lipsync
from latentsync.pipeline.outputs import written_files
from latentsync.pipeline.reporting.report import Report
from latentsync.pipeline.speakers import find_turns
from pipeline.inputs import HEIGHT, WIDTH, picture, write_video, write_voice

PLAIN = Choice(min_size=0, min_seconds=0, fade_slots=0)


@pytest.fixture
def parts(tiny_model, detector, sampler) -> dict:
    return {"model": tiny_model, "detector": detector, "sampler": sampler, "choice": PLAIN}


def changed_frames(video: Path, out: Path, numbers: list[int]) -> int:
    """Frames of the output that differ from the source."""
    source = list(read_frames(video))
    return sum(
        bool((np.abs(source[number].astype(int) - frame.astype(int)) > 24).any())
        for number, frame in zip(numbers, read_frames(out), strict=True)
    )


@pytest.mark.parametrize("fps", [24, 25, 30, 50])
def test_a_frame_counts_as_drawn_if_it_was(tmp_path: Path, parts: dict, fps: int) -> None:
    """Frames 10, 11, 17 and 23 are black, without a face; the grid has 25 slots per second."""
    dark = {10, 11, 17, 23}
    frames = [picture(0) * np.uint8(index not in dark) for index in range(2 * fps)]
    video = write_video(tmp_path / "in.mp4", frames, fps=fps)
    out = tmp_path / "out.mp4"
    report = lipsync(video, write_voice(tmp_path / "v.wav", 2.0), out, crf=0, **parts)
    numbers = list(range(len(frames)))
    assert report.num_frames_with_face == changed_frames(video, out, numbers)
    assert report.num_frames_with_face <= len(frames) - len(dark)
    assert sum(shot.num_frames_drawn for shot in report.shots) == report.num_frames_with_face
    assert sum(report.frames_left.values()) == len(frames) - report.num_frames_with_face
    for index in dark:
        assert any(
            span.start_seconds <= (index + 0.5) / fps <= span.end_seconds for span in report.skipped
        ), "what is not drawn is said to be left"


@pytest.mark.parametrize(
    ("choice", "reason"),
    [
        (Choice(min_size=100), "face smaller than faces.min_size=100 pixels"),
        (Choice(min_size=0, min_seconds=9, fade_slots=0), None),
        (Choice(select=(70.0, 60.0), min_size=300), "face smaller than faces.min_size=300 pixels"),
    ],
)
def test_a_refused_face_is_not_said_to_be_missing(
    tmp_path: Path, parts: dict, choice: Choice, reason: str | None
) -> None:
    video = write_video(tmp_path / "in.mp4", [picture(0)] * 20)
    parts["choice"] = choice
    report = lipsync(video, write_voice(tmp_path / "v.wav", 0.8), tmp_path / "out.mp4", **parts)
    assert report.frames_left == ({} if reason is None else {reason: 20})
    assert report.num_frames_with_face == (20 if reason is None else 0)


def test_a_silence_of_the_source_is_told_as_such(tmp_path: Path, parts: dict) -> None:
    video = write_video(tmp_path / "in.mp4", [picture(0)] * 50)
    voice = write_voice(tmp_path / "v.wav", 1.0)
    from latentsync.media.audio import read_waveform, write_wav

    write_wav(voice, torch.cat([read_waveform(voice), torch.zeros(16000)]))
    out = tmp_path / "out.mp4"
    report = lipsync(video, voice, out, silence=SilenceGate("source"), crf=0, **parts)
    silent = report.frames_left["the voice is silent there (silence=source)"]
    assert 20 <= silent <= 27
    assert report.num_frames_with_face == 50 - silent


@pytest.mark.parametrize(
    "name", [b"caf\xe9", b"\xff\xfe", b"b\xe9ta (1)"], ids=["word", "bytes", "words"]
)
def test_a_name_that_is_no_utf8_is_read_written_and_told(
    tmp_path: Path, parts: dict, name: bytes
) -> None:
    stem = os.fsdecode(name)
    video = write_video(tmp_path / f"{stem}.mp4", [picture(0)] * 10)
    voice = write_voice(tmp_path / f"{stem}.wav", 0.4)
    out = tmp_path / f"{stem} out.mp4"
    lipsync(video, voice, out, **parts)
    assert all(path.is_file() for path in written_files(out))
    json_path, _, page, _ = written_files(out)
    told = json.loads(json_path.read_text(encoding="utf-8"))
    shown = name.decode("utf-8", "backslashreplace")
    assert told["out"].endswith(f"{shown} out.mp4")
    assert f"{shown} out.mp4" in page.read_text(encoding="utf-8")
    assert Report.load(json_path).num_frames == 10


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "balanced"),
        (["preset=fast"], "fast"),
        (["sampler=dpmpp_8", "overlap=4"], "balanced"),
        (["sampler.num_steps=3"], "custom (balanced) with sampler.num_steps=3"),
        (["preset=draft", "measure=true"], "custom (draft) with measure=True"),
        (["encoding.codec=hevc"], "custom (balanced) with encoding.codec=hevc"),
        (["crf=30", "overlap=0"], "custom (balanced) with overlap=0, crf=30"),
        (["preset=fast", "sampler=dpmpp_4"], None),
    ],
)
def test_a_preset_that_was_changed_by_hand_is_custom(words: list[str], told: str | None) -> None:
    register_resolvers()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        said = preset_of(compose("infer", overrides=words))
    if told is None:
        assert said.startswith("custom (fast) with ")
        assert "sampler." in said
    else:
        assert said == told


def survey_with(openings: list[np.ndarray]) -> tuple[Survey, FrameTimes]:
    n = len(openings[0])
    tracks = [
        Track(
            person,
            0,
            np.zeros((n, 3, 2), np.float32),
            np.zeros((n, 4), np.float32),
            each.astype(np.float32),
            np.zeros(n, np.float32),
        )
        for person, each in enumerate(openings)
    ]
    return Survey(n, [Shot(0, n)], tracks), FrameTimes(Fraction(1, 25), np.arange(n), n)


def film_with(openings: list[np.ndarray], sound: torch.Tensor) -> FilmSlots:
    survey, times = survey_with(openings)

    def read(numbers: object) -> NoReturn:
        raise AssertionError("mouths were seen already")

    return FilmSlots.of(survey, times, sound, read)


RATE = 16000
LOUD = torch.sin(torch.arange(4 * RATE) / 20) * torch.sin(torch.arange(4 * RATE) / RATE * 5)
MOUTH = np.abs(np.sin(np.arange(100) / 25 * 5))
NEVER = np.full(100, np.nan)


@pytest.mark.parametrize(
    ("openings", "sound", "said"),
    [
        ([NEVER, NEVER], LOUD, "take faces=mesh"),
        ([NEVER], LOUD, "take faces=mesh"),
        ([MOUTH, MOUTH[::-1]], torch.zeros(4 * RATE), "sound does not change"),
        ([np.where(np.arange(100) < 5, MOUTH, np.nan), NEVER], LOUD, "no mouth is seen in 12"),
    ],
)
def test_who_speaks_is_not_guessed(
    openings: list[np.ndarray], sound: torch.Tensor, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        find_turns(film_with(openings, sound))


def test_who_speaks_is_found_by_the_mouth() -> None:
    turns = find_turns(film_with([np.zeros(100), MOUTH], LOUD))
    assert [turn.person for turn in turns] == [1]
    assert turns[0].end - turns[0].start > 3.5
    assert turns[0].confidence > 0.8


def test_speaker_with_a_detector_without_mouths_is_refused(
    tmp_path: Path, parts: dict, sampler
) -> None:
    voice = write_voice(tmp_path / "v.wav", 0.8)
    video = tmp_path / "in.mp4"
    with VideoWriter(video, fps=25, width=WIDTH, height=HEIGHT, audio=voice) as writer:
        for _ in range(20):
            writer.write(picture(0))
    parts["choice"] = Choice(select="speaker", min_size=0)
    with pytest.raises(ValueError, match="faces=mesh"):
        lipsync(video, voice, tmp_path / "out.mp4", **parts)
    assert {path.name for path in tmp_path.iterdir()} == {"in.mp4", "v.wav"}
