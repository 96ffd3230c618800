import math

import pytest
import torch
from torch.nn import functional

from latentsync.training.syncnet_task import balanced_bce, near_in_time


def batch_of(clips: list[int], starts: list[int]) -> dict[str, torch.Tensor]:
    return {"clip_index": torch.tensor(clips), "start": torch.tensor(starts)}


def test_near_windows_are_of_one_clip_and_less_than_the_offset_apart():
    near = near_in_time(batch_of([0, 0, 0, 1], [10, 13, 14, 10]), min_offset_frames=4)
    expected = torch.tensor(
        [[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 1]], dtype=torch.bool
    )
    assert torch.equal(near, expected)


def test_the_official_loss_never_calls_a_near_pair_off():
    # Windows 0 and 1 are one frame apart and look alike; window 2 is far. Were 0 and 1 ever a
    # negative pair, their cosine of one would cost a clamped logarithm of 100.
    vision = functional.one_hot(torch.tensor([0, 0, 1]), 8).float()
    near = near_in_time(batch_of([0, 0, 0], [10, 11, 40]), min_offset_frames=4)
    assert balanced_bce(vision, vision, near).item() == 0


def test_guessing_one_half_costs_ln_2():
    # Every picture against every sound has a cosine of 1/2: the plateau that users report.
    vision = torch.tensor([[1.0, 0.0]]).repeat(4, 1)
    audio = torch.tensor([[0.5, math.sqrt(0.75)]]).repeat(4, 1)
    near = near_in_time(batch_of([0, 1, 2, 3], [0, 0, 0, 0]), min_offset_frames=4)
    assert balanced_bce(vision, audio, near).item() == pytest.approx(math.log(2), abs=1e-6)
