"""Detect silences in a voice, and control the mouth during them."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.ndimage import distance_transform_edt
from torch import Tensor
from torch.nn import functional as F

MODES = ("closed", "source", "off")

BLOCK_SECONDS = 0.01
LEVEL_SECONDS = 0.04
BLOCKS_AT_ONCE = 1 << 14
SAMPLES_AT_ONCE = 1 << 20
LOUD_SHARE = 0.95  # quantile of the blocks' levels that counts as loud
FLOOR_SHARE = 0.10
ALWAYS_SILENT_DB = -60.0  # dB of full scale


@dataclass(frozen=True, slots=True)
class SilenceGate:
    """`closed`: silence is replaced by digital silence, so that the model closes the mouth.
    `source`: the mouth fades to the source's. `off`: the sound is used as it is, with its noise.

    Silence is at least `min_seconds` of sound more than `quiet_db` below the loud parts, or near
    the recording's noise floor if that is well below them.
    """

    mode: str = "closed"
    quiet_db: float = 40.0
    above_floor_db: float = 6.0
    max_db: float = 20.0
    min_seconds: float = 0.25
    keep_seconds: float = 0.05

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"silence={self.mode} must be one of {', '.join(MODES)}")

    def silent(self, waveform: Float[Tensor, " t"], sample_rate: int) -> Bool[np.ndarray, " n"]:
        """For every block of 10 ms, whether it is part of a silence."""
        return self.silent_at(levels_db(waveform, sample_rate))

    def silent_at(self, level: Float[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
        """The same from the blocks' `levels_db`."""
        if not len(level):
            return np.zeros(0, dtype=bool)
        loud, floor = np.quantile(level, LOUD_SHARE), np.quantile(level, FLOOR_SHARE)
        near_floor = min(floor + self.above_floor_db, loud - self.max_db)
        quiet = level < max(loud - self.quiet_db, near_floor, ALWAYS_SILENT_DB)
        return long_stretches(quiet, round(self.min_seconds / BLOCK_SECONDS))

    def gated(
        self,
        waveform: Float[Tensor, " t"],
        sample_rate: int,
        silent: Bool[np.ndarray, " n"] | None = None,
    ) -> Float[Tensor, " t"]:
        """The sound with digital silence in its silences, fading near speech.

        `silent`: the result of `silent`, if already known.
        """
        if self.mode != "closed":
            return waveform
        if silent is None:
            silent = self.silent(waveform, sample_rate)
        if not silent.any():
            return waveform
        keep = round(self.keep_seconds / BLOCK_SECONDS)
        heard = torch.from_numpy(~silent).float()[None, None]
        heard = F.max_pool1d(heard, 2 * keep + 1, stride=1, padding=keep)
        return faded(waveform, heard[0, 0].numpy())


def faded(waveform: Float[Tensor, " t"], gains: Float[np.ndarray, " n"]) -> Float[Tensor, " t"]:
    """The sound times gains spaced evenly over it, linearly interpolated between their centres."""
    gated = torch.empty_like(waveform)
    per_sample = len(gains) / len(waveform)
    # In pieces: for hours of sound, a gain per sample would take gigabytes.
    for first in range(0, len(waveform), SAMPLES_AT_ONCE):
        piece = waveform[first : first + SAMPLES_AT_ONCE]
        positions = (np.arange(first, first + len(piece)) + 0.5) * per_sample - 0.5
        gain = torch.from_numpy(np.interp(positions, np.arange(len(gains)), gains))
        gated[first : first + len(piece)] = piece * gain.to(piece)
    return gated


def levels_db(waveform: Float[Tensor, " t"], sample_rate: int) -> Float[np.ndarray, " n"]:
    """Level (RMS over 40 ms, in dB of full scale) of every block of 10 ms."""
    block = round(BLOCK_SECONDS * sample_rate)
    if not len(waveform):
        return np.zeros(0, np.float32)
    # In pieces, to avoid copying an hour of sound.
    pieces = waveform.split(block * BLOCKS_AT_ONCE)
    padded = (F.pad(piece.square(), (0, -len(piece) % block)) for piece in pieces)
    power = torch.cat([piece.view(-1, block).mean(dim=1) for piece in padded])[None, None]
    width = round(LEVEL_SECONDS / BLOCK_SECONDS) | 1
    smooth = F.avg_pool1d(power, width, stride=1, padding=width // 2, count_include_pad=False)
    return (10 * smooth[0, 0].clamp(min=1e-12).log10()).numpy()


def long_stretches(marks: Bool[np.ndarray, " n"], least: int) -> Bool[np.ndarray, " n"]:
    """Keep only stretches of at least `least` consecutive marks."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], marks.astype(np.int8), [0]])))
    long_enough = np.zeros(len(marks), dtype=bool)
    for first, end in edges.reshape(-1, 2):
        long_enough[first:end] = end - first >= least
    return long_enough


def shown_in_slots(
    silent: Bool[np.ndarray, " n"], *, fps: float, num_slots: int, fade_slots: int
) -> Float[np.ndarray, " k"]:
    """Opacity of the generated mouth in every slot if silences show the source: 0 in silence,
    fading in next to it."""
    blocks = ((np.arange(num_slots) + 0.5) / fps / BLOCK_SECONDS).astype(int)
    inside = np.zeros(num_slots, dtype=bool)
    there = blocks < len(silent)
    inside[there] = silent[blocks[there]]
    if not inside.any():
        return np.ones(num_slots)
    nearest = distance_transform_edt(~inside)
    return np.minimum(nearest / (fade_slots + 1), 1.0)
