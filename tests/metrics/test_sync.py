"""Sync score on embeddings with a known shift."""

import pytest
import torch

from latentsync.metrics.sync import MAX_SHIFT, in_over_off, shift_cosines, sync_score


def walk(length: int, dimension: int = 64) -> torch.Tensor:
    """Unit vectors that change from frame to frame."""
    generator = torch.Generator().manual_seed(0)
    return torch.nn.functional.normalize(
        torch.randn(length, dimension, generator=generator), dim=-1
    )


@pytest.mark.parametrize("lead", [-7, 0, 1, 12])
def test_a_sound_that_leads_by_n_frames_has_offset_n(lead):
    embeddings = walk(80)
    starts = torch.arange(20, 60, 2)
    # The sound of window s is at s - lead: it comes before the picture.
    audio = embeddings.roll(-lead, dims=0)
    result = sync_score(embeddings[starts], audio, starts)
    assert result.offset == lead
    assert result.confidence == pytest.approx(1, abs=0.15)
    assert (result.score > 0.99) == (lead == 0)


def test_in_sync_always_beats_off_sync_or_half_the_time_by_chance():
    embeddings = walk(400)
    starts = torch.arange(20, 380)
    assert sync_score(embeddings[starts], embeddings, starts).in_over_off == 1
    chance = sync_score(embeddings[starts], embeddings.flip(0), starts).in_over_off
    assert chance == pytest.approx(0.5, abs=0.1)


def test_shifts_outside_the_clip_are_not_counted():
    embeddings = walk(20)
    starts = torch.tensor([0, 19])
    cosines = shift_cosines(embeddings[starts], embeddings, starts)
    assert cosines[0, :MAX_SHIFT].isnan().all()
    assert cosines[0, MAX_SHIFT] == pytest.approx(1)
    assert cosines[1, MAX_SHIFT + 1 :].isnan().all()
    assert not torch.isnan(torch.tensor(in_over_off(cosines)))
