"""The sound of a recording is on the disk while it is prepared: the same samples, no file left."""

import errno
from pathlib import Path

import numpy as np
import pytest
import torch

import latentsync.prepare.stored_sound as storing
from coded import LOUD, RESOLUTION, make_detector, write_coded_video
from latentsync.media.audio import read_pieces, read_waveform
from latentsync.prepare import Recipe, prepare_clips
from latentsync.prepare.stored_sound import StoredSound, part_of_sound


@pytest.fixture
def video(tmp_path: Path) -> Path:
    write_coded_video(tmp_path / "raw" / "a.mp4", 100, loud=LOUD)
    return tmp_path / "raw" / "a.mp4"


def test_a_slice_is_that_of_the_waveform(video: Path, tmp_path: Path) -> None:
    before = list(tmp_path.iterdir())
    sound, waveform = StoredSound.of(read_pieces(video), tmp_path), read_waveform(video)
    assert list(tmp_path.iterdir()) == before
    assert len(sound) == len(waveform)
    for first, end in ((0, len(sound)), (640, 1920), (60000, 10**6), (5, 5), (10**6, 10**7)):
        assert torch.equal(sound[first:end], waveform[first:end])
        stored, held = (part_of_sound(each, first, end) for each in (sound, waveform))
        assert len(stored) == len(held)
        assert torch.equal(stored[10:900], held[10:900])
    assert torch.equal(sound[640:], waveform[640:])


def test_what_is_held_does_not_grow_with_the_sound(tmp_path: Path) -> None:
    pieces = (np.full(16000, number, np.int16) for number in range(100))
    sound = StoredSound.of(pieces, tmp_path)
    assert len(sound) == 100 * 16000
    assert torch.unique(sound[37 * 16000 : 38 * 16000]).tolist() == [37 / 32768]


def test_a_disk_without_room_ends_the_run(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no fault of the recording, which would else be listed as dropped."""

    def full(file):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(storing, "NamelessFile", full)
    stages = Recipe(make_detector=make_detector, resolution=RESOLUTION).stages()
    with pytest.raises(OSError, match="No space left"):
        prepare_clips(video.parent, tmp_path / "set", stages=stages)
    assert not (tmp_path / "set" / "dropped.jsonl").exists()
