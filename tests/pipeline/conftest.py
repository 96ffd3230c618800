"""A model of real but tiny parts, and videos made for these tests."""

from pathlib import Path

import pytest

from latentsync.diffusion.sampler import Sampler
from latentsync.models.lipsync import LipSyncModel
from pipeline.inputs import POINTS, SeesLight, build_tiny_model, picture, write_video, write_voice


@pytest.fixture(scope="session")
def tiny_model() -> LipSyncModel:
    return build_tiny_model()


@pytest.fixture
def detector() -> SeesLight:
    return SeesLight(POINTS)


@pytest.fixture
def sampler() -> Sampler:
    return Sampler(num_steps=2, guidance_scale=1.0)


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 frames, 1.6 s."""
    folder = tmp_path_factory.mktemp("video")
    return write_video(folder / "video.mp4", [picture(index) for index in range(40)])


@pytest.fixture(scope="session")
def voice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1.3 s: 32 or 33 frames, two full chunks and a remainder."""
    return write_voice(tmp_path_factory.mktemp("voice") / "voice.wav", 1.34)
