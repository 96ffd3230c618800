"""The regression baseline of the drawn benchmark."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from latentsync.evaluation.landmarks import lips_of
from latentsync.faces import MeshDetector, track
from latentsync.media.video import read_frames
from latentsync.metrics.correlation import pearson
from latentsync.metrics.lips import shape_of

FILE = Path(__file__).parents[2] / "experiments" / "drawn_benchmark" / "baselines.py"


@pytest.fixture(scope="module")
def baselines() -> ModuleType:
    spec = importlib.util.spec_from_file_location("baselines", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_ridge_is_that_of_the_normal_equations(baselines: ModuleType) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs, others = (
        torch.randn(count, 5, generator=generator, dtype=torch.float64) for count in (12, 3)
    )
    targets = torch.randn(12, generator=generator, dtype=torch.float64)
    center = inputs.mean(dim=0)
    centred = inputs - center
    weight = baselines.RIDGE * centred.square().sum(dim=1).mean()
    normal = centred.T @ centred + weight * torch.eye(5, dtype=torch.float64)
    slopes = torch.linalg.solve(normal, centred.T @ (targets - targets.mean()))
    expected = (others - center) @ slopes + targets.mean()
    torch.testing.assert_close(baselines.ridge(inputs, targets, others), expected)


def test_with_its_own_voice_the_mouth_opens_as_filmed_and_the_rest_stays(
    baselines: ModuleType, talking_clip: Path, tmp_path: Path
) -> None:
    result = tmp_path / "result.mp4"
    baselines.regression(talking_clip, talking_clip.with_suffix(".wav"), result)
    filmed, made = (np.stack(list(read_frames(path))) for path in (talking_clip, result))
    assert made.shape == filmed.shape
    wanted, opened = (
        shape_of(lips_of(track(frames, MeshDetector())))[:, 0] for frames in (filmed, made)
    )
    assert pearson(opened, wanted) > 0.6
    forehead = slice(0, filmed.shape[1] // 3)
    apart = np.abs(made[:, forehead].astype(int) - filmed[:, forehead]).mean()
    assert apart < 2  # levels: it was encoded again
    assert np.abs(made.astype(int) - filmed).max() > 50
