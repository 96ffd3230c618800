"""A small prepared data set of coded videos."""

from pathlib import Path

import pytest

from coded import LOUD, RESOLUTION, make_detector, write_coded_video
from latentsync.data import Clip, read_manifest
from latentsync.prepare import Recipe, prepare_clips


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clips of 60, 75 and 90 frames; frames 40 to 47 are loud."""
    raw_dir = tmp_path_factory.mktemp("raw")
    for num_frames in (60, 75, 90):
        write_coded_video(raw_dir / f"{num_frames}.mp4", num_frames, loud=LOUD)
    output_dir = tmp_path_factory.mktemp("sets") / "coded"
    recipe = Recipe(make_detector=make_detector, resolution=RESOLUTION, occlusion=None)
    prepare_clips(raw_dir, output_dir, stages=recipe.stages())
    return output_dir


@pytest.fixture
def clips(data_dir: Path) -> list[Clip]:
    return read_manifest(data_dir)
