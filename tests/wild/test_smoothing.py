"""Placement of faces in real clips: fast heads are followed, still ones do not jitter."""

from pathlib import Path

import numpy as np
import pytest
from wild_scores import jitter, lags

from latentsync.faces import MeshDetector, SmoothAligner, three_points, track
from latentsync.faces.detectors.model_files import SHA256, default_cache
from latentsync.faces.warp import invert, mean_scale, transform
from latentsync.media.frame_reader import stored_frames

CORNERS = np.array([[64.0, 64.0], [192.0, 64.0], [128.0, 192.0]])
FAST, STILL = ["lp_d12.mp4", "gh_nggyup.mp4"], ["it_ref.mp4", "vr_1.mp4"]


def placed(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Distance of points from their target, and jitter of the square; pixels of 256."""
    if not all((default_cache() / name).is_file() for name in SHA256):
        pytest.skip("the face models are not fetched: python -m latentsync.faces.fetch")
    frames = (frame for _, _, frame in stored_frames(path, quick=True))
    points = [
        None if face is None else three_points(face) for face in track(frames, MeshDetector())
    ]
    smooth = SmoothAligner(256)
    found = [
        (triple, placement.matrix, smooth.place(triple).matrix)
        for triple, placement in zip(points, smooth.placements(iter(points)), strict=True)
        if triple is not None and placement is not None
    ]
    assert len(found) > 0.95 * len(points)
    lag = lags(
        np.stack([transform(matrix, triple) for triple, matrix, _ in found]),
        np.stack([transform(exact, triple) for triple, _, exact in found]),
    )
    squares = np.stack([transform(invert(matrix), CORNERS) for _, matrix, _ in found])
    scale = np.array([mean_scale(matrix) for _, matrix, _ in found])
    return lag, jitter(squares) * scale[1:-1]


@pytest.mark.slow
@pytest.mark.parametrize("name", FAST)
def test_fast_heads_are_followed(name: str, clips: dict[str, Path]) -> None:
    lag, _ = placed(clips[name])
    assert np.percentile(lag, 95) <= 6


@pytest.mark.parametrize("name", STILL)
def test_still_heads_do_not_tremble(name: str, clips: dict[str, Path]) -> None:
    lag, trembling = placed(clips[name])
    assert np.median(trembling) <= 0.3
    assert np.percentile(trembling, 95) <= 0.7
    assert np.median(lag) <= 0.7
