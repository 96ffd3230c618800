"""The mel spectrogram for SyncNet (Wav2Lip's recipe, as the official code computes it)."""

from functools import cache
from math import ceil

import torch
from jaxtyping import Float, Float64
from torch import Tensor
from transformers.audio_utils import mel_filter_bank

from latentsync.media.audio import SAMPLE_RATE

FFT_SIZE = 800
NUM_MELS = 80
MELS_PER_SECOND = 80
BLOCK = 4096


@cache
def _filters() -> Float[Tensor, "bins mels"]:
    filters = mel_filter_bank(
        num_frequency_bins=FFT_SIZE // 2 + 1,
        num_mel_filters=NUM_MELS,
        min_frequency=55.0,
        max_frequency=7600.0,
        sampling_rate=SAMPLE_RATE,
        norm="slaney",
        mel_scale="slaney",
    )
    return torch.from_numpy(filters).double()


def mel_spectrogram(
    waveform: Float[Tensor, " t"], *, hop_length: int = 200
) -> Float[Tensor, "80 n"]:
    """Log-mel in [-4, 4] of a 16 kHz waveform, one column per `hop_length` samples."""
    if len(waveform) == 0:
        raise ValueError("the waveform is empty (0 samples): a mel spectrogram needs sound")
    samples = waveform.detach().cpu()
    window = torch.hann_window(FFT_SIZE, dtype=torch.float64)
    num_columns = len(samples) // hop_length + 1
    mel = torch.empty(NUM_MELS, num_columns)
    # In blocks, as the spectrum of an hour of audio would take gigabytes.
    for first in range(0, num_columns, BLOCK):
        end = min(first + BLOCK, num_columns)
        sound = _emphasised(samples, first * hop_length, (end - 1) * hop_length + FFT_SIZE)
        columns = torch.fft.rfft(sound.unfold(0, FFT_SIZE, hop_length) * window).abs()
        decibels = 20 * (columns @ _filters()).clamp(min=1e-5).log10() - 20
        mel[:, first:end] = (8 * (decibels + 100) / 100 - 4).clamp(-4, 4).T
    return mel


def _emphasised(samples: Float[Tensor, " t"], first: int, end: int) -> Float64[Tensor, " n"]:
    """Samples `first` to `end` of the audio padded by half a window, with 0.97 pre-emphasis."""
    first, end = first - FFT_SIZE // 2, end - FFT_SIZE // 2
    low, high = max(first, 0), min(end, len(samples))
    sound = samples[max(low - 1, 0) : high].double()
    risen = sound[1:] - 0.97 * sound[:-1]
    sound = risen if low > 0 else torch.cat([sound[:1], risen])
    return torch.nn.functional.pad(sound, (low - first, end - high))


def mel_window(
    mel: Float[Tensor, "80 n"], start_frame: int, *, num_frames: int = 16, fps: float = 25
) -> Float[Tensor, "80 w"]:
    """The mel columns of `num_frames` video frames, padded at the end with the last column.

    `mel` has 80 columns per second (`hop_length=200`).
    """
    start = int(MELS_PER_SECOND * start_frame / fps)
    length = ceil(MELS_PER_SECOND * num_frames / fps)
    assert 0 <= start < mel.shape[1], f"frame {start_frame} is outside {mel.shape[1]} mel columns"
    window = mel[:, start : start + length]
    missing = length - window.shape[1]
    return torch.cat([window, window[:, -1:].expand(-1, missing)], dim=1)
