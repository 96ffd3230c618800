"""Pearson's r of lines, noise and constants."""

import math

import pytest
import torch

from latentsync.metrics.correlation import correlate, pearson


def test_a_line_follows_perfectly_whatever_its_slope():
    track = torch.rand(3, 50)
    torch.testing.assert_close(pearson(2 * track - 1, track), torch.ones(3))
    torch.testing.assert_close(pearson(-0.5 * track, track), -torch.ones(3))


def test_sine_against_cosine_is_zero_and_a_phase_is_its_cosine():
    phase = torch.linspace(0, 2 * math.pi, 201)[:-1]
    assert pearson(phase.sin(), phase.cos()).item() == pytest.approx(0, abs=1e-6)
    assert pearson(phase.sin(), (phase + 0.5).sin()).item() == pytest.approx(
        math.cos(0.5), abs=1e-5
    )


def test_equal_parts_of_signal_and_noise_give_one_over_root_two():
    generator = torch.Generator().manual_seed(0)
    signal, noise = torch.randn(2, 200_000, generator=generator)
    assert pearson(signal + noise, signal).item() == pytest.approx(2**-0.5, abs=5e-3)


def test_a_still_track_has_no_correlation_and_leaves_the_mean_alone():
    line = torch.linspace(0, 1, 20)
    summary = correlate([line, torch.full((20,), 0.3)], [line, line])
    assert summary.mean == pytest.approx(1)
    assert summary.num_clips == 1
    assert summary.pooled < 1


def test_pooled_differs_from_the_mean_when_clips_have_other_levels():
    low, high = torch.linspace(0, 0.2, 20), torch.linspace(0.8, 1.0, 20)
    summary = correlate([low, high], [low.flip(0), high.flip(0)])
    assert summary.mean == pytest.approx(-1)
    assert summary.pooled > 0.8


def test_no_clips_is_an_error():
    with pytest.raises(ValueError, match="empty"):
        correlate([], [])
