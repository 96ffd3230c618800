"""The official code's face arrays, test images, and real clips if available."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from latentsync.faces import MeshDetector
from latentsync.faces.detectors.model_files import SHA256, default_cache
from latentsync.media.video import read_frames

OFFICIAL_DIR = Path(__file__).parents[1] / "official" / "data"
CLIPS_DIR = Path(__file__).parents[3] / "shared" / "clips"


@pytest.fixture(scope="session")
def official() -> dict[str, np.ndarray]:
    with np.load(OFFICIAL_DIR / "faces.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="session")
def share_off() -> float:
    """The fraction of levels that may differ from the official arrays, by one or occasionally
    two."""
    # OpenCV 5 samples exactly, OpenCV 4 on a grid of 1/32 pixel.
    return 0.01 if int(cv2.__version__.split(".")[0]) >= 5 else 0.08


@pytest.fixture(scope="session")
def official_frame(official: dict[str, np.ndarray]) -> np.ndarray:
    """The frame of the official arrays; only the part used by the crops is stored."""
    part = cv2.imread(str(OFFICIAL_DIR / "align_frame.png"))[..., ::-1]
    width, height = official["frame_size"]
    x, y = official["frame_corner"]
    frame = np.zeros((height, width, 3), dtype=np.uint8)
    frame[y : y + part.shape[0], x : x + part.shape[1]] = part
    return frame


@pytest.fixture(scope="session")
def soft_frame() -> np.ndarray:
    """A 720x960 image without detail finer than ten pixels, so that resampling loses nothing."""
    noise = np.random.default_rng(3).integers(0, 256, (72, 96, 3), dtype=np.uint8)
    return cv2.resize(noise, (960, 720), interpolation=cv2.INTER_CUBIC)


@pytest.fixture(scope="session")
def detector() -> MeshDetector:
    if not all((default_cache() / name).is_file() for name in SHA256):
        pytest.skip("the face models are not fetched: python -m latentsync.faces.fetch")
    return MeshDetector()


@pytest.fixture(params=["demo1_video", "demo2_video"])
def real_frames(request: pytest.FixtureRequest) -> Iterator[np.ndarray]:
    path = CLIPS_DIR / f"{request.param}.mp4"
    if not path.is_file():
        pytest.skip(f"no real clip at {path}")
    return read_frames(path)
