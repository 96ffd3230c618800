"""Whether two sounds are the same one."""

from pathlib import Path

import numpy as np
import torch

from latentsync.data.synthetic import render_clip
from latentsync.evaluation.setting import CROSS, RECONSTRUCTION, setting_of
from latentsync.media.audio import read_waveform
from latentsync.media.mel import mel_spectrogram


def test_an_encoded_sound_is_the_same_and_another_speech_is_not(tmp_path: Path) -> None:
    for seed in (1, 2):
        render_clip(tmp_path / f"{seed}", seed=seed, seconds=2.0, size=64)
    mels = {
        name: mel_spectrogram(read_waveform(tmp_path / name))
        for name in ("1.wav", "1.mp4", "2.wav")
    }
    noisy = read_waveform(tmp_path / "1.wav")
    noise = torch.from_numpy(np.random.default_rng(0).normal(size=len(noisy))).float()
    mels["hiss"] = mel_spectrogram(noisy + 0.002 * noise)
    mels["silence"] = mel_spectrogram(torch.zeros(32_000))

    def setting(*names: str) -> str:
        return setting_of({name: mels[name] for name in names})

    assert setting("1.wav", "1.mp4") == RECONSTRUCTION
    assert setting("1.mp4", "1.wav") == RECONSTRUCTION
    assert setting("1.wav") == RECONSTRUCTION
    assert setting("1.mp4", "2.wav") == CROSS
    assert setting("1.mp4", "silence") == CROSS
    late = {"late": mels["1.wav"][:, 3:], "wav": mels["1.wav"]}
    assert setting_of(late) == RECONSTRUCTION
