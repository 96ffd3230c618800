"""The detector example in docs/extending.md works as documented."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from hydra.utils import instantiate

from latentsync.faces import FaceDetector, three_points
from latentsync.faces.tracking.survey import survey, usable

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
BROWS_AND_NOSE = np.array([[40, 30], [80, 32], [61, 60]])


def block(language: str) -> str:
    chapter = PAGE.read_text(encoding="utf-8").split("## A face detector of your own")[1]
    found = re.search(rf"```{language}\n(.*?)```", chapter, flags=re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture
def detector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FaceDetector:
    (tmp_path / "my_faces.py").write_text(block("python"))
    monkeypatch.syspath_prepend(str(tmp_path))
    return instantiate(yaml.safe_load(block("yaml")), _convert_="all")


def marked(shift: int) -> np.ndarray:
    frame = np.full((120, 160, 3), 90, np.uint8)
    for x, y in BROWS_AND_NOSE + np.array([shift, 0]):
        cv2.circle(frame, (int(x), int(y)), 3, (30, 220, 40), -1)
    return frame


def test_the_shown_detector_is_followed_and_its_unknowns_stay_unknown(
    detector: FaceDetector,
) -> None:
    assert isinstance(detector, FaceDetector)
    found = survey([marked(shift) for shift in range(8)], detector, three_points)
    (track,) = found.tracks
    for shift, points in enumerate(track.points):
        np.testing.assert_allclose(points, BROWS_AND_NOSE + np.array([shift, 0]), atol=0.1)
    assert np.isnan(track.yaws).all()
    assert np.isnan(track.openings).all()
    assert usable(track, min_size=10, max_yaw=1)[0].all()
