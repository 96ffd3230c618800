"""Distances of sets against torchmetrics and closed forms."""

import math
from pathlib import Path

import pytest
import torch
from torchmetrics.image.fid import _compute_fid
from torchmetrics.image.kid import poly_mmd

from latentsync.evaluation.aggregate import why_not_measured
from latentsync.metrics.sets import (
    Extractor,
    SetDistance,
    cmmd,
    frechet_distance,
    kernel_distance,
    load_script,
)
from metrics.networks import files_in


@pytest.fixture
def sets(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    ours = torch.randn(60, 12, generator=generator, dtype=torch.float64)
    theirs = 0.5 + 1.5 * torch.randn(60, 12, generator=generator, dtype=torch.float64)
    return ours, theirs


def test_fid_and_kid_are_those_of_the_library(sets) -> None:
    ours, theirs = sets
    moments = [moment for each in sets for moment in (each.mean(0), torch.cov(each.T))]
    assert frechet_distance(*sets) == pytest.approx(_compute_fid(*moments).item(), rel=1e-9)
    assert kernel_distance(*sets) == pytest.approx(poly_mmd(ours, theirs).item(), rel=1e-9)


def test_equal_sets_are_at_no_distance_and_a_shift_is_its_square(sets) -> None:
    ours, theirs = sets
    assert frechet_distance(ours, ours) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(ours + 2, ours) == pytest.approx(4 * 12)
    for distance in (frechet_distance, cmmd):
        assert distance(ours, theirs) == pytest.approx(distance(theirs, ours))
        assert distance(ours, theirs) > distance(ours, (ours + theirs) / 2) > 0
    assert cmmd(ours, ours) == pytest.approx(0, abs=1e-9)


def test_cmmd_of_two_points_is_its_closed_form() -> None:
    one, other = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 7.0]])
    # Vectors of length 1 at right angles are sqrt(2) apart.
    assert cmmd(one, other) == pytest.approx(1000 * 2 * (1 - math.exp(-2 / 200)), rel=1e-9)


@pytest.mark.parametrize(
    ("levels", "mean"), [("[-1,1]", 0.5), ("[0,1]", 0.75), ("[0,255]", 191.25)]
)
def test_an_extractor_gets_its_size_and_levels(tmp_path: Path, levels: str, mean: float) -> None:
    path = files_in(tmp_path)["extractor"]
    pixels = torch.full((5, 3, 40, 40), 0.5)
    found = Extractor(path, 16, levels)(pixels)
    expected = load_script(Path(path))(torch.full((5, 3, 16, 16), mean)).double()
    torch.testing.assert_close(found, expected)
    # Clips of two frames: the fifth belongs to none.
    assert Extractor(path, 16, levels, num_frames=2)(pixels).shape == (2, 8)


def test_noise_raises_the_distance_and_the_number_of_samples_is_there(
    tmp_path: Path, generator: torch.Generator
) -> None:
    extractor = Extractor(files_in(tmp_path)["extractor"], 16, "[-1,1]")
    faces = torch.rand(2, 20, 3, 24, 24, generator=generator) - 0.5
    values = []
    for lift in (0.0, 0.2, 0.4):
        metric = SetDistance(["fid", "kid"], extractor=extractor, stride=2)
        metric.update(faces + lift, faces)
        values.append(metric.compute())
    assert [each["fid_samples"] for each in values] == [20] * 3
    for key in ("fid", "kid"):
        assert [each[key] for each in values] == sorted(each[key] for each in values)
    assert values[0]["fid"] == pytest.approx(0, abs=1e-8)


def test_without_a_file_it_says_what_to_give(tmp_path: Path) -> None:
    metric = SetDistance(["fvd"], extractor=Extractor(None, 224, "[-1,1]", num_frames=16))
    reason = why_not_measured({"fvd": metric}, {})["fvd"]
    assert "TorchScript file that takes 224 px in [-1,1]" in reason
    (tmp_path / "text.pt").write_text("no network")
    with pytest.raises(ValueError, match="is no TorchScript file"):
        load_script(tmp_path / "text.pt")
    with pytest.raises(ValueError, match="levels='bytes' must be one of"):
        Extractor(None, 8, "bytes")
    with pytest.raises(ValueError, match="distances="):
        SetDistance(["best"], extractor=Extractor(None, 8, "[0,1]"))
