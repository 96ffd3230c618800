"""Closed mouths in silence."""

import math

import torch

from latentsync.metrics.mouth import closed_share, silent_frames


def test_silence_between_two_sounds_less_a_margin():
    mel = torch.full((80, 160), -4.0)
    mel[:, :32] = 0.0  # 0.4 s of sound: frames 0..9
    mel[:, 128:] = 0.0  # and again from frame 40
    silent = silent_frames(mel, 50, margin=2)
    assert not silent[:12].any()
    assert silent[13:37].all()
    assert not silent[38:].any()


def test_closed_share_counts_silent_frames_only():
    opening = torch.tensor([0.0, 0.0, 0.9, 0.05, 0.1])
    silent = torch.tensor([False, True, True, True, True])
    assert closed_share(opening, silent) == 0.75
    assert math.isnan(closed_share(opening, torch.zeros(5, dtype=torch.bool)))
