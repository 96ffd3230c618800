"""Files with any name are read and written, by a path that does not begin with a slash."""

from pathlib import Path

import pytest
import torch

from latentsync.media.audio import read_waveform, write_wav
from latentsync.media.video import VideoWriter, probe, read_frames
from media.sources import SIZE, index_of, shades
from names import EVERY


@pytest.mark.parametrize("name", EVERY)
def test_a_video_is_written_and_read_under_any_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = Path(f"{name}.mp4")
    with VideoWriter(path, fps=25, width=SIZE, height=SIZE, preset="ultrafast") as writer:
        for frame in shades(3):
            writer.write(frame)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    assert [index_of(frame) for frame in read_frames(path)] == [0, 1, 2]
    assert probe(path).num_frames == 3


@pytest.mark.parametrize("name", EVERY)
def test_a_sound_is_written_and_read_under_any_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = Path(f"{name}.wav")
    write_wav(path, torch.zeros(1600), 16000)
    assert len(read_waveform(path, 16000)) == 1600
