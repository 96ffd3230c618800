"""What the VAE's losses penalise and what they do not."""

import pytest
import torch

from latentsync.training.tasks.autoencoder import TONE_PATCH, chroma_r2, edge_error, tone_error

SIDE = 4 * TONE_PATCH
EVENLY = torch.ones(1, 1, SIDE, SIDE)


def test_a_wrong_tone_has_no_edges_and_grain_has_no_tone() -> None:
    tone = torch.full((1, 3, SIDE, SIDE), 0.25)
    rows, columns = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    grain = (1.0 - 2.0 * ((rows + columns) % 2)).expand(1, 3, -1, -1)
    assert tone_error(tone, EVENLY).item() == pytest.approx(0.25)
    assert edge_error(tone, EVENLY).item() == 0
    assert tone_error(grain, EVENLY).item() == 0
    assert edge_error(grain, EVENLY).item() == pytest.approx(2 + 2)


def test_a_tone_counts_as_much_as_its_place_weighs() -> None:
    left = torch.zeros(1, 1, SIDE, SIDE)
    left[..., : SIDE // 2] = 1
    weight = 1 + 2 * left
    tone = torch.full((1, 3, SIDE, SIDE), 0.5)
    assert tone_error(tone * left, weight).item() == pytest.approx(3 * 0.5 / 2)
    assert tone_error(tone * (1 - left), weight).item() == pytest.approx(0.5 / 2)


def test_chroma_is_all_there_in_the_truth_and_absent_in_grey() -> None:
    truth = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert chroma_r2(truth, truth).item() == 1
    # An equal shift of all three channels is brightness, not colour.
    assert chroma_r2(truth + 0.1, truth).item() == pytest.approx(1)
    grey = truth.mean(dim=1, keepdim=True).expand_as(truth)
    assert chroma_r2(grey, truth).item() == pytest.approx(0, abs=0.01)
