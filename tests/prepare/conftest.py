"""Raw folders as users have them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from coded import LOUD, RESOLUTION, SIZE, coded_sound, make_detector, write_coded_video
from latentsync.media.audio import write_wav
from latentsync.media.video import VideoWriter
from latentsync.prepare import AlignedSegment, Recipe
from latentsync.prepare.stage import Source


@pytest.fixture
def recipe() -> Recipe:
    return Recipe(make_detector=make_detector, resolution=RESOLUTION, occlusion=None)


@pytest.fixture(scope="session")
def raw_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two speakers with files of the same names."""
    raw_dir = tmp_path_factory.mktemp("raw")
    for speaker in ("anna", "ben"):
        write_coded_video(raw_dir / speaker / "00001.mp4", 55, loud=LOUD)
        write_coded_video(raw_dir / speaker / "00002.mp4", 60)
    return raw_dir


@pytest.fixture(scope="session")
def spoiled_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One good file, and one of every kind that cannot become a clip."""
    folder = tmp_path_factory.mktemp("spoiled")
    whole = write_coded_video(folder / "good.mp4", 60)
    write_coded_video(folder / "short.mp4", 20)
    write_coded_video(folder / "soundless.mp4", 60, sound=False)
    (folder / "text.mp4").write_text("this is no video\n" * 100)
    (folder / "empty.mp4").touch()
    (folder / "cut_off.mp4").write_bytes(whole.read_bytes()[:-2000])
    (folder / ".hidden.mp4").write_bytes(whole.read_bytes())
    write_video(folder / "black.mp4", [np.zeros((SIZE, SIZE, 3), np.uint8)] * 60)
    return folder


def write_video(path: Path, frames: list[np.ndarray]) -> None:
    sound_path = path.with_suffix(".wav")
    write_wav(sound_path, coded_sound(len(frames), LOUD))
    with VideoWriter(path, fps=25, width=SIZE, height=SIZE, audio=sound_path) as writer:
        for frame in frames:
            writer.write(frame)


@pytest.fixture
def numbered(tmp_path) -> AlignedSegment:
    """Frame i is a picture of level i with sound of level i; it begins at frame 100."""
    faces = [np.full((64, 64, 3), index, np.uint8) for index in range(60)]
    sound = torch.arange(60).repeat_interleave(640).float()
    source = Source(tmp_path / "a.mp4", "a.mp4", "a", tmp_path)
    return AlignedSegment(source, 0, 100, faces, np.arange(60, dtype=float), sound)
