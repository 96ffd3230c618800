"""LMD, mouth aspect ratio, and open mouths in silence, on lips with known shapes."""

import math

import pytest
import torch
from torch import Tensor

from latentsync.metrics.lips import (
    CORNERS,
    GAPS,
    LIPS,
    LandmarkDistance,
    LipLeak,
    mouth_aspect_ratio,
    point_distances,
    shape_of,
    soft_dtw,
    warped_distance,
)


def mouths(openings: Tensor, width: float = 0.6) -> Tensor:
    """Lips with given gaps between the inner edges; all other points in one place."""
    lips = torch.zeros(len(openings), 40, 2)
    for lower, upper in GAPS:
        lips[:, LIPS.index(lower), 1] = openings / 2
        lips[:, LIPS.index(upper), 1] = -openings / 2
    for corner, other, sign in zip(CORNERS, (61, 291), (-1, 1), strict=True):
        lips[:, LIPS.index(corner), 0] = lips[:, LIPS.index(other), 0] = sign * width / 2
    return lips


def talk(num_frames: int = 50) -> Tensor:
    time = torch.arange(num_frames) / 25
    return 0.15 * (1 + torch.sin(9 * time) * torch.sin(4 * time))


def test_shape_and_ratio_are_the_gaps_they_are_made_of() -> None:
    openings = torch.tensor([0.0, 0.15, 0.3])
    lips = mouths(openings, width=0.6)
    torch.testing.assert_close(mouth_aspect_ratio(lips), openings / 0.6)
    torch.testing.assert_close(shape_of(lips), torch.stack([openings, torch.full((3,), 0.6)], 1))


def test_distance_ignores_where_the_mouth_is_and_is_the_mean_step() -> None:
    lips = torch.randn(7, 40, 2, generator=torch.Generator().manual_seed(0))
    moved = lips + torch.tensor([3.0, -1.0])
    torch.testing.assert_close(point_distances(moved, lips), torch.zeros(7), atol=1e-5, rtol=0)
    # Twenty points to the left and twenty to the right by 0.1: the centroid stays.
    step = torch.tensor([0.1, 0.0]) * torch.tensor([1.0, -1.0]).repeat(20)[:, None]
    distances = point_distances(lips + step, lips)
    torch.testing.assert_close(distances, torch.full((7,), 0.1))
    torch.testing.assert_close(distances, point_distances(lips, lips + step))


@pytest.mark.parametrize("gamma", [1e-4, 1.0])
def test_soft_dtw_is_the_soft_minimum_over_all_paths(gamma: float) -> None:
    costs = torch.rand(3, 4, generator=torch.Generator().manual_seed(0)).double()

    def paths(row: int, column: int) -> list[float]:
        if (row, column) == (0, 0):
            return [costs[0, 0].item()]
        before = [(row - 1, column - 1), (row - 1, column), (row, column - 1)]
        return [
            costs[row, column].item() + cost
            for place in before
            if min(place) >= 0
            for cost in paths(*place)
        ]

    every = torch.tensor(paths(2, 3), dtype=torch.float64)
    expected = -gamma * torch.logsumexp(-every / gamma, dim=0).item()
    assert soft_dtw(costs, gamma) == pytest.approx(expected, abs=1e-9)


def test_warping_forgives_timing_but_not_shape() -> None:
    truth = mouths(talk())
    late, flat = mouths(talk(54)[:50].roll(3)), mouths(torch.full((50,), 0.15))
    assert warped_distance(truth, truth) == pytest.approx(0, abs=1e-9)
    frame_wise = point_distances(late, truth).mean().item()
    assert warped_distance(late, truth) < frame_wise / 2
    assert warped_distance(flat, truth) > 2 * warped_distance(late, truth)
    blind = torch.full((50, 40, 2), math.nan)
    assert math.isnan(warped_distance(blind, truth))


def test_a_larger_error_is_a_larger_distance() -> None:
    truth = talk()
    figures = []
    for gain in (1.0, 1.2, 1.5, 2.0):
        metric = LandmarkDistance()
        lips = mouths(gain * truth)
        lips[::7] = math.nan  # frames without a face do not count
        metric.update(lips, mouths(truth))
        figures.append(metric.compute())
    for key in ("lmd", "lmd_warped", "mar_error"):
        values = [each[key] for each in figures]
        assert values == sorted(values)
        assert values[0] == pytest.approx(0, abs=1e-3)
        assert values[-1] > values[1] > 0
    ratio = truth[torch.arange(50) % 7 > 0].mean().item() / 0.6
    assert figures[-1]["mar_error"] == pytest.approx(ratio, rel=1e-4)


def test_open_mouths_count_in_silent_frames_only() -> None:
    ratios = torch.tensor([0.0, 0.05, 0.2, 0.3, 0.9, 0.9, math.nan])
    silent = torch.tensor([True, True, True, True, False, False, True])
    metric = LipLeak()
    metric.update(mouths(0.6 * ratios), silent)
    assert metric.compute() == pytest.approx({"lip_leak": 0.25, "lips_closed": 0.5})
    nothing = LipLeak()
    nothing.update(mouths(ratios), torch.zeros(7, dtype=torch.bool))
    assert all(map(math.isnan, nothing.compute().values()))
