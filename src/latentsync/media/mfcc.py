"""MFCCs, 100 rows of 13 per second, as used by speech networks such as LR-ASD.

The recipe is that of `python_speech_features.mfcc` with its defaults and 13 coefficients, on int16
samples: rectangular windows of 25 ms, 26 mel filters up to 8 kHz, an orthonormal DCT, a lifter of
22, and the log energy in place of the first coefficient.
"""

from functools import cache

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from latentsync.media.audio import SAMPLE_RATE

ROWS_PER_SECOND = 100
NUM_COEFFICIENTS = 13
WINDOW, HOP, FFT_SIZE = 400, 160, 512
NUM_TRIANGLES = 26
EMPHASIS, LIFTER = 0.97, 22
INT16_SCALE = 32768.0
EPSILON = float(np.finfo(np.float64).eps)
BLOCK = 4096


def mfcc(waveform: Float[Tensor, " t"]) -> Float64[Tensor, "n 13"]:
    """MFCCs of a 16 kHz waveform in [-1, 1].

    Row r covers samples 160 r to 160 r + 400; the last may exceed the waveform and is zero-padded.
    """
    if len(waveform) == 0:
        raise ValueError("the waveform is empty (0 samples): cepstral coefficients need sound")
    num_rows = 1 + max(0, -(-(len(waveform) - WINDOW) // HOP))
    # In blocks, as the spectrum of an hour of audio would take gigabytes.
    blocks = [
        _rows(waveform, first, min(first + BLOCK, num_rows)) for first in range(0, num_rows, BLOCK)
    ]
    return torch.cat(blocks)


def _rows(waveform: Float[Tensor, " t"], first: int, end: int) -> Float64[Tensor, "n 13"]:
    low, high = first * HOP, (end - 1) * HOP + WINDOW
    before = max(low - 1, 0)
    samples = waveform[before:high].detach().cpu().double() * INT16_SCALE
    risen = samples[1:] - EMPHASIS * samples[:-1]
    sound = risen if low > 0 else torch.cat([samples[:1], risen])
    sound = torch.nn.functional.pad(sound, (0, high - low - len(sound)))
    power = torch.fft.rfft(sound.unfold(0, WINDOW, HOP), FFT_SIZE).abs().square() / FFT_SIZE
    energy = _never_zero(power.sum(dim=1))
    rows = _never_zero(power @ _triangles()).log() @ _cosines()
    rows[:, 0] = energy.log()
    return rows


def _never_zero(values: Float64[Tensor, "*n"]) -> Float64[Tensor, "*n"]:
    return torch.where(values == 0, EPSILON, values)


@cache
def _triangles() -> Float64[Tensor, "257 26"]:
    """Triangular mel filters: the weight of every FFT bin in every band."""
    most = 2595 * np.log10(1 + SAMPLE_RATE / 2 / 700)
    hertz = 700 * (10 ** (np.linspace(0, most, NUM_TRIANGLES + 2) / 2595) - 1)
    edges = np.floor((FFT_SIZE + 1) * hertz / SAMPLE_RATE)
    bins = np.arange(FFT_SIZE // 2 + 1)[:, None]
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    rising = (bins >= low) & (bins < middle)
    falling = (bins >= middle) & (bins < high)
    weights = rising * (bins - low) / (middle - low) + falling * (high - bins) / (high - middle)
    return torch.from_numpy(weights)


@cache
def _cosines() -> Float64[Tensor, "26 13"]:
    """The orthonormal DCT over the bands, with the lifter."""
    order = np.arange(NUM_COEFFICIENTS)
    places = (np.arange(NUM_TRIANGLES)[:, None] + 0.5) / NUM_TRIANGLES
    scale = np.where(order == 0, np.sqrt(1 / NUM_TRIANGLES), np.sqrt(2 / NUM_TRIANGLES))
    lift = 1 + LIFTER / 2 * np.sin(np.pi * order / LIFTER)
    return torch.from_numpy(np.cos(np.pi * order * places) * scale * lift)
