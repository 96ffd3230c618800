"""A source or voice that changes while a run reads it: the run fails, reports it, leaves
nothing."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from latentsync.pipeline import Cache, Choice, lipsync, render
from latentsync.pipeline.checks import Inputs, Source
from latentsync.pipeline.outputs import parts_folder, written_files
from pipeline.inputs import picture, write_video, write_voice

PLAIN = Choice(min_size=0, min_seconds=0)


def still(index: int) -> np.ndarray:
    return picture(0) + np.uint8(index % 40)


@pytest.fixture
def parts(tiny_model, detector, sampler) -> dict:
    return {"model": tiny_model, "detector": detector, "sampler": sampler, "choice": PLAIN}


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 3)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\0" * 4096)


def replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(path.read_bytes()[::-1])
    other.replace(path)


def overwrite_in_place(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\0" * 512)


def remove(path: Path) -> None:
    path.unlink()


CHANGES = (truncate, empty, grow, replace, overwrite_in_place, remove)


@pytest.mark.parametrize(
    ("stage", "name", "change"),
    [
        *(("frames", "in.mp4", change) for change in CHANGES),
        *(("faces", "in.mp4", change) for change in (truncate, replace)),
        *(("frames", "voice.wav", change) for change in (truncate, empty, remove)),
        *(("faces", "voice.wav", change) for change in (grow, replace)),
        *(("frames", "other.wav", change) for change in (truncate, overwrite_in_place)),
    ],
)
def test_it_stops_and_says_which_file(
    tmp_path: Path,
    parts: dict,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
    name: str,
    change: Callable[[Path], None],
) -> None:
    monkeypatch.setattr(render, "PART_SECONDS", 1)
    video = write_video(tmp_path / "in.mp4", [still(index) for index in range(40)])
    voice = write_voice(tmp_path / "voice.wav", 1.6)
    other = write_voice(tmp_path / "other.wav", 1.5)
    out = tmp_path / "out.mp4"

    def spoil(now: str, done: int, _: int) -> None:
        if (now, done) == (stage, 10):
            change(tmp_path / name)

    expected = rf"{name} (changed|was removed) while it was read"
    with pytest.raises((ValueError, FileNotFoundError), match=expected):
        lipsync(video, voice, out, assign={0: other}, progress=spoil, **parts)
    assert not any(path.exists() for path in written_files(out))
    assert not parts_folder(out).exists()


def test_parts_that_were_whole_before_the_change_are_gone_on_with(
    tmp_path: Path, parts: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(render, "PART_SECONDS", 1)
    video = write_video(tmp_path / "in.mp4", [still(index) for index in range(80)])
    voice = write_voice(tmp_path / "voice.wav", 3.2)
    lipsync(video, voice, tmp_path / "alone.mp4", **parts)
    good = shutil.copy2(video, tmp_path / "good.mp4")

    def spoil(now: str, done: int, _: int) -> None:
        if (now, done) == ("frames", 60):
            truncate(video)

    out, cache = tmp_path / "out.mp4", Cache(tmp_path / "cache")
    with pytest.raises(ValueError, match=r"in\.mp4 changed"):
        lipsync(video, voice, out, progress=spoil, cache=cache, **parts)
    shutil.copy2(good, video)
    report = lipsync(video, voice, out, cache=cache, **parts)
    assert "50 frames are those of an earlier run that was stopped" in report.notes
    assert out.read_bytes() == (tmp_path / "alone.mp4").read_bytes()


def test_what_is_only_touched_or_copied_over_itself_is_the_same(tmp_path: Path) -> None:
    path = write_voice(tmp_path / "voice.wav", 0.1)
    inputs = Inputs(path)
    path.touch()
    inputs.check()
    copy = tmp_path / "copy.wav"
    shutil.copy(path, copy)
    copy.replace(path)
    inputs.check()
    grow(path)
    with pytest.raises(ValueError, match="changed while it was read, from 3244 to 7340 bytes"):
        inputs.check()


def test_a_video_that_changes_before_it_is_read_is_not_taken_for_what_was_opened(
    tmp_path: Path, parts: dict
) -> None:
    video = write_video(tmp_path / "in.mp4", [still(index) for index in range(10)])
    source = Source.of(video)
    write_video(video, [still(index + 9) for index in range(10)])
    with pytest.raises(ValueError, match=r"in\.mp4 changed after it was opened"):
        lipsync(source, write_voice(tmp_path / "v.wav", 0.4), tmp_path / "out.mp4", **parts)
    assert not (tmp_path / "out.mp4").exists()


def test_a_video_is_opened_once_and_serves_many_runs(
    tmp_path: Path, parts: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Source.of(write_video(tmp_path / "in.mp4", [still(index) for index in range(10)]))
    monkeypatch.setattr("latentsync.pipeline.checks.probe", pytest.fail)
    voice = write_voice(tmp_path / "v.wav", 0.4)
    report = lipsync(source, voice, tmp_path / "out.mp4", **parts)
    assert report.num_frames_with_face == report.num_frames == 10
