"""Silence detection on sounds with known silences."""

import numpy as np
import pytest
import torch

from latentsync.media.silence import BLOCK_SECONDS, SilenceGate, levels_db, shown_in_slots

RATE = 16000


def voice(*, noise_db: float) -> torch.Tensor:
    """1 s of tone, 1 s of pause, 1 s of tone, with noise throughout."""
    time = torch.arange(3 * RATE) / RATE
    tone = 0.5 * torch.sin(2 * torch.pi * 220 * time)
    tone[RATE : 2 * RATE] = 0
    noise = torch.randn(3 * RATE, generator=torch.Generator().manual_seed(0))
    return tone + noise * 10 ** (noise_db / 20)


def seconds(silent: np.ndarray) -> tuple[float, float, float]:
    places = np.flatnonzero(silent)
    return places[0] * BLOCK_SECONDS, (places[-1] + 1) * BLOCK_SECONDS, silent.mean() * 3


@pytest.mark.parametrize("noise_db", [-90, -60, -40])
def test_a_pause_is_found_in_a_quiet_and_in_a_noisy_room(noise_db: float):
    first, end, total = seconds(SilenceGate().silent(voice(noise_db=noise_db), RATE))
    assert first == pytest.approx(1.0, abs=0.05)
    assert end == pytest.approx(2.0, abs=0.05)
    assert total == pytest.approx(end - first, abs=1e-6)


def test_speech_without_a_pause_has_no_silence():
    time = torch.arange(3 * RATE) / RATE
    syllables = torch.sin(2 * torch.pi * 220 * time) * (0.55 + 0.45 * torch.sin(25 * time))
    assert not SilenceGate().silent(syllables, RATE).any()
    assert torch.equal(SilenceGate().gated(syllables, RATE), syllables)


def test_a_short_stop_between_sounds_is_no_silence():
    sound = voice(noise_db=-90)
    sound[RATE : 2 * RATE] = sound[:RATE]
    sound[RATE : RATE + RATE // 10] = 0
    assert not SilenceGate().silent(sound, RATE).any()


def test_in_a_silence_nothing_is_heard_and_beside_it_all():
    sound = voice(noise_db=-45)
    heard = SilenceGate().gated(sound, RATE)
    assert heard[int(1.2 * RATE) : int(1.8 * RATE)].abs().max() == 0
    for part in (slice(0, int(0.95 * RATE)), slice(int(2.05 * RATE), None)):
        torch.testing.assert_close(heard[part], sound[part])
    assert torch.equal(SilenceGate("off").gated(sound, RATE), sound)


def test_the_level_of_a_sine_is_three_decibels_below_its_peak():
    tone = torch.sin(2 * torch.pi * 200 * torch.arange(RATE) / RATE)
    np.testing.assert_allclose(levels_db(tone, RATE), -3.01, atol=0.05)


def test_the_drawn_mouth_goes_and_comes_beside_a_silence():
    silent = np.zeros(400, dtype=bool)
    silent[100:200] = True  # 1 s to 2 s
    shown = shown_in_slots(silent, fps=25, num_slots=120, fade_slots=4)
    assert (shown[25:50] == 0).all()
    np.testing.assert_allclose(shown[50:55], [0.2, 0.4, 0.6, 0.8, 1.0])
    np.testing.assert_allclose(shown[20:25], [1.0, 0.8, 0.6, 0.4, 0.2])
    assert (shown[:20] == 1).all()
    assert (shown[55:] == 1).all()


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="silence=mute"):
        SilenceGate("mute")


def test_a_long_sound_is_as_loud_as_its_parts():
    """Computed in pieces of 164 s, which do not affect the result."""
    sound = torch.randn(170 * RATE + 7, generator=torch.Generator().manual_seed(0))
    sound *= torch.linspace(0.01, 1, len(sound))
    whole = levels_db(sound, RATE)
    assert len(whole) == 17_001
    part = levels_db(sound[160 * RATE : 168 * RATE], RATE)
    np.testing.assert_allclose(whole[16_010:16_790], part[10:-10], atol=1e-4)
    assert len(levels_db(torch.zeros(0), RATE)) == 0
